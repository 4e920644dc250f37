"""Aggregates as documents, the way the gate looks at them: numbers and declared words alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from fedcac.aggregate import Aggregate, Evidence, parse_aggregate
from fedcac.aggregate.shapes import FlowStage
from fedcac.errors import GateError
from fedcac.vocabulary import CellStatus, ExclusionReason

__all__ = ["holds_text", "is_finite", "payload_of", "verify"]

_WORDS = frozenset(CellStatus)
_KEYS = frozenset([*FlowStage, *ExclusionReason])


def payload_of(aggregate: Aggregate) -> dict[str, Any]:
    """Return the JSON document of an aggregate; GateError `malformed_aggregate` if it has none."""
    # Not the aggregate's own method, which a subclass may have replaced; and neither a warning
    # nor an error may quote a value.
    try:
        document = BaseModel.model_dump(
            aggregate, mode="json", exclude={"evidence"}, warnings="error"
        )
    except (PydanticSerializationError, AttributeError, TypeError):
        raise GateError(
            "An aggregate does not have its declared shape.", code="malformed_aggregate"
        ) from None
    return {"kind": type(aggregate).kind, **document}


def is_finite(value: Any) -> bool:
    """Say whether every number of a document is finite."""
    if isinstance(value, dict):
        return all(is_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def verify(payload: dict[str, Any], aggregate: Aggregate) -> Aggregate:
    """Return an aggregate made anew from its own document, with its evidence checked."""
    evidence = aggregate.evidence
    if evidence is not None:
        if type(evidence) is not Evidence:
            raise GateError("The evidence is of another type.", code="malformed_evidence")
        evidence = Evidence.model_validate(evidence.model_dump())
    return parse_aggregate(payload).model_copy(update={"evidence": evidence})


def holds_text(payload: Mapping[str, Any], aggregate: Aggregate) -> bool:
    """Say whether a document holds a field or a word that its type does not declare."""
    fields = set(type(aggregate).model_fields) - {"evidence"}
    if set(payload) != fields | {"kind"}:
        return True
    return any(_is_text(payload[name]) for name in fields)


def _is_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(key not in _KEYS or _is_text(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(_is_text(item) for item in value)
    if isinstance(value, str):
        return value not in _WORDS
    # None is a number that does not apply.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is not None and not is_number
