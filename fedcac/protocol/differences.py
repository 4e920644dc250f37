"""What differs between two protocols, in words that a lead and a site can read.

Parts that have a name (analyses, covariates, endpoints, subgroups) are compared by it, so that one
put in between others is one addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedcac.protocol.schema import Protocol

__all__ = ["Difference", "protocol_differences"]

_WORDS = {
    "analyses": "analysis",
    "covariates": "covariate",
    "endpoints": "endpoint",
    "subgroups": "subgroup",
    "clinical_criteria": "clinical criterion",
    "inclusion": "inclusion",
    "exclusion": "exclusion",
    "amends": "amendment",
}
_NAMES = ("id", "name", "column", "version")
_MISSING = object()


@dataclass(frozen=True)
class Difference:
    """One difference: where, and the value before and after; None where there was none."""

    where: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.where} was added: {self.after}"
        if self.after is None:
            return f"{self.where} was removed; it was {self.before}"
        return f"{self.where}: {self.before} became {self.after}"


def protocol_differences(first: Protocol, second: Protocol) -> tuple[Difference, ...]:
    """Return every difference of content, in the order of the protocol's parts.

    Order is no difference where parts have names, except for analyses: what a protocol names first
    has the first claim on a site's budget.
    """
    before, after = first.model_dump(mode="json"), second.model_dump(mode="json")
    found = list(_between("", before, after))
    orders = [[spec.id for spec in protocol.analyses] for protocol in (first, second)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        found.append(Difference("order of the analyses", *(", ".join(names) for names in orders)))
    return tuple(found)


def _between(where: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _between(
                _joined(where, key), before.get(key, _MISSING), after.get(key, _MISSING)
            )
        return
    old, new = _named(before), _named(after)
    if old is not None and new is not None:
        part = _WORDS.get(where, where)
        for name in dict.fromkeys([*old, *new]):
            values = old.get(name, _MISSING), new.get(name, _MISSING)
            yield from _between(f"{part} {name}", *values)
        return
    if _is_set_of_words(where, before, after):
        yield from _between_sentences(where, before, after)
        return
    yield Difference(where, _text(before), _text(after))


def _is_set_of_words(where: str, before: Any, after: Any) -> bool:
    return where in ("inclusion", "exclusion") and all(
        isinstance(value, list) for value in (before, after)
    )


def _between_sentences(where: str, before: list[str], after: list[str]) -> Iterator[Difference]:
    # Counted, since nothing forbids a sentence to stand there twice.
    for sentence in (Counter(before) - Counter(after)).elements():
        yield Difference(f"{where} criterion", f"'{sentence}'", None)
    for sentence in (Counter(after) - Counter(before)).elements():
        yield Difference(f"{where} criterion", None, f"'{sentence}'")
    if sorted(before) == sorted(after):
        yield Difference(f"order of the {where} criteria", "; ".join(before), "; ".join(after))


def _named(value: Any) -> dict[str, Any] | None:
    """Return parts by their names, or None if they have none or share one."""
    if value is _MISSING or not isinstance(value, Sequence) or isinstance(value, str):
        return None
    found: dict[str, Any] = {}
    for part in value:
        name = next(
            (str(part[key]) for key in _NAMES if isinstance(part, Mapping) and key in part), None
        )
        if name is None or name in found:
            return None
        found[name] = part
    return found


def _joined(where: str, key: str) -> str:
    return f"{where}, {key}" if where else key


def _text(value: Any) -> str | None:
    if value is _MISSING:
        return None
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        # Zero is a value, though it equals False.
        given = {
            key: _text(one)
            for key, one in value.items()
            if one is not False and one not in (None, [], "")
        }
        return "; ".join(f"{key} {text}" for key, text in given.items())
    if isinstance(value, list):
        return ", ".join(_text(one) or "none" for one in value)
    return f"{value:g}" if isinstance(value, float) else f"'{value}'" if value == "" else str(value)
