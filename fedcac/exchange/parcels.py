"""Names of the parcels of a round: what lies where in every spool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fedcac.exchange.mailbox import Mailbox

__all__ = [
    "PackageRole",
    "numbered_parcels",
    "package_files",
    "package_parcels",
    "parcel_name",
    "rounds_in",
]

_OFFER = "offer"

PackageRole = Literal["package", "reference_package"]
"""The package of the index test, or that which reads the reference exams."""


def parcel_name(round_id: str, what: str, exchange: int | None = None) -> str:
    """Return the name of a parcel, such as `eng-1a2b.request-0003`.

    `what` is one of offer, protocol, acceptance, request, reply, closing, or a step of a masked
    sum; request, reply and the steps need `exchange`. An offer with a number is that of a later
    edition.
    """
    return f"{round_id}.{what}" if exchange is None else f"{round_id}.{what}-{exchange:04d}"


def package_parcels(
    round_id: str, names: Iterable[str], role: PackageRole = "package"
) -> dict[str, str]:
    """Return the parcel name of each file of a model package."""
    return {name: f"{round_id}.{role}.{name}" for name in names}


def package_files(inbox: Mailbox, round_id: str, role: PackageRole = "package") -> dict[str, bytes]:
    """Return the files of one of the round's model packages that have arrived, by their names."""
    prefix = f"{round_id}.{role}."
    found: dict[str, bytes] = {}
    for name in inbox.names():
        payload = inbox.get(name) if name.startswith(prefix) else None
        if payload is not None:
            found[name.removeprefix(prefix)] = payload
    return found


def numbered_parcels(inbox: Mailbox, round_id: str, what: str) -> tuple[int, ...]:
    """Return the numbers of a round's parcels of one kind that have arrived, sorted."""
    prefix = f"{round_id}.{what}-"
    tails = [name.removeprefix(prefix) for name in inbox.names() if name.startswith(prefix)]
    # A number has one spelling: 1 in any other would be asked twice.
    return tuple(
        sorted(
            int(tail)
            for tail in tails
            if tail.isascii() and tail.isdecimal() and f"{int(tail):04d}" == tail
        )
    )


def rounds_in(inbox: Mailbox) -> tuple[str, ...]:
    """Return the ids of the rounds that were offered to this inbox, sorted."""
    suffix = f".{_OFFER}"
    return tuple(name.removesuffix(suffix) for name in inbox.names() if name.endswith(suffix))
