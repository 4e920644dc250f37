"""The base of everything that may leave a site: numbers and enums in declared shapes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.errors import GateError
from fedcac.vocabulary import CellStatus

__all__ = [
    "Aggregate",
    "Cell",
    "Count",
    "Evidence",
    "WholeNumber",
    "parse_aggregate",
    "register",
    "registered",
]

LARGEST_COUNT = 2**53
"""Sums over a thousand sites stay below 2^63, and every whole number up to here is a float."""

WholeNumber = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Count = WholeNumber | CellStatus
"""A number of patients, or the reason why none stands there."""

Cell = float | CellStatus
"""A real number, or the reason why none stands there."""


class Evidence(BaseModel):
    """What the gate may look at and what never leaves: a release always carries `evidence=None`.

    `smallest_group` is the smallest number of patients on either side of any indicator in the
    design, or behind any sum; `row_groups` the same row by row; `parameter_norm` the largest
    absolute linear-predictor coefficient the query asked at, in units of one standard deviation of
    its covariate.

    `row_blocks` gives the block of every row or term, -1 for none. The rows of a block of totals
    are parts of patients whose sum is known from elsewhere; the terms of different blocks of
    moments are about different patients, `block_sizes` of them. `nested` gives, per row or per
    variable of bins, numbers of patients who are parts of one another from row to row, such as
    the positives at rising cut-offs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n_parameters: WholeNumber = 0
    smallest_group: WholeNumber | None = None
    row_groups: tuple[WholeNumber, ...] = ()
    parameter_norm: float = 0.0
    row_blocks: tuple[int, ...] = ()
    block_sizes: tuple[WholeNumber, ...] = ()
    nested: tuple[tuple[WholeNumber, ...], ...] = ()


class Aggregate(BaseModel):
    """A summary computed at a site. Subclasses of a shape (fedcac.aggregate.shapes) register.

    `kind` names the type on the wire. `n_patients` counts distinct patients behind the numbers.
    `has_endpoint`: its `n_events` counts patients with the event of an endpoint.
    `is_given_once`: of one analysis and cohort only one query is ever answered with this type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    significant_digits: ClassVar[int] = 12
    has_endpoint: ClassVar[bool] = False
    is_given_once: ClassVar[bool] = False

    n_patients: WholeNumber
    evidence: Evidence | None = None

    def to_payload(self) -> dict[str, Any]:
        """Return the JSON document that travels: `kind` and the declared fields."""
        document = self.model_dump(mode="json", exclude={"evidence"})
        return {"kind": type(self).kind, **document}


A = TypeVar("A", bound=Aggregate)

_REGISTRY: dict[str, type[Aggregate]] = {}


def register(aggregate_type: type[A]) -> type[A]:
    """Class decorator: allow this type through the gate. Its `kind` must be new."""
    kind = aggregate_type.kind
    if not kind or kind in _REGISTRY:
        raise ValueError(f"aggregate kind '{kind}' is empty or taken")
    _REGISTRY[kind] = aggregate_type
    return aggregate_type


def registered() -> dict[str, type[Aggregate]]:
    """Return a copy of the registry, kind to type."""
    return dict(_REGISTRY)


def parse_aggregate(payload: Any) -> Aggregate:
    """Return the typed aggregate of a JSON document that arrived from a site.

    Raises
    ------
    GateError
        If the kind is not registered, a field is unknown or missing, a value has another type,
        or the document carries evidence, which may not travel.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("kind"), str):
        raise GateError("An aggregate must be an object with a 'kind'.", code="malformed_aggregate")
    if "evidence" in payload:
        raise GateError("An aggregate on the wire carries evidence.", code="malformed_aggregate")
    aggregate_type = _REGISTRY.get(payload["kind"])
    if aggregate_type is None:
        raise GateError("The kind of an aggregate is not registered.", code="unregistered_type")
    fields = {name: value for name, value in payload.items() if name != "kind"}
    try:
        return aggregate_type.model_validate_json(canonical_bytes(fields))
    except (ValidationError, ValueError) as error:
        raise GateError(
            f"A '{payload['kind']}' aggregate does not have its declared shape.",
            code="malformed_aggregate",
        ) from error
