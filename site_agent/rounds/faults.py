"""What goes wrong in a round at more than one place."""

from __future__ import annotations

from fedcac.errors import RoundError

__all__ = ["misplaced", "nothing_held"]


def misplaced(what: str) -> RoundError:
    """Return the error of a signed parcel that lies under another parcel's name."""
    return RoundError(
        f"{what} lies under another's name.",
        code="wrong_address",
        cure="It is not answered. Find out who writes to the spool's inbox, and tell the lead.",
    )


def nothing_held() -> RoundError:
    """Return the error of a decision about a reply that is not held."""
    return RoundError(
        "No such reply is held.",
        code="nothing_held",
        cure="`fedcac-site review show` lists what is.",
    )
