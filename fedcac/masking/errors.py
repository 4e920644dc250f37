"""The coded error of masked sums."""

from __future__ import annotations

from fedcac.errors import RoundError

__all__ = ["MaskingError"]


class MaskingError(RoundError):
    """A step of a masked sum was refused; what is secret at that point stays secret.

    A round error, because the cure is the same: the message does not fit the state of the round.
    """
