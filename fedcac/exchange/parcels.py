"""Names of the parcels of a round: what lies where in every spool."""

from __future__ import annotations

from collections.abc import Iterable

from fedcac.exchange.mailbox import Mailbox

__all__ = ["package_files", "package_parcels", "parcel_name", "rounds_in"]

_OFFER = "offer"
_PACKAGE = "package"


def parcel_name(round_id: str, what: str, exchange: int | None = None) -> str:
    """Return the name of a parcel, such as `eng-1a2b.request-0003`.

    `what` is one of offer, protocol, acceptance, request, reply, or a step of a masked sum;
    request, reply and the steps need `exchange`.
    """
    return f"{round_id}.{what}" if exchange is None else f"{round_id}.{what}-{exchange:04d}"


def package_parcels(round_id: str, names: Iterable[str]) -> dict[str, str]:
    """Return the parcel name of each file of a model package."""
    return {name: f"{round_id}.{_PACKAGE}.{name}" for name in names}


def package_files(inbox: Mailbox, round_id: str) -> dict[str, bytes]:
    """Return the files of the round's model package that have arrived, by their own names."""
    prefix = f"{round_id}.{_PACKAGE}."
    found: dict[str, bytes] = {}
    for name in inbox.names():
        payload = inbox.get(name) if name.startswith(prefix) else None
        if payload is not None:
            found[name.removeprefix(prefix)] = payload
    return found


def rounds_in(inbox: Mailbox) -> tuple[str, ...]:
    """Return the ids of the rounds that were offered to this inbox, sorted."""
    suffix = f".{_OFFER}"
    return tuple(name.removesuffix(suffix) for name in inbox.names() if name.endswith(suffix))
