"""The coded error of masked sums."""

from __future__ import annotations

from fedcac.errors import RoundError

__all__ = ["MaskingError"]


_CURE = (
    "Repeat the exchange under a new number. If it is refused again, compare the releases of both "
    "sides and the enrolled keys."
)


class MaskingError(RoundError):
    """A step of a masked sum was refused; what is secret at that point stays secret.

    A round error: the message does not fit the state of the round, and a new exchange begins with
    a state of its own.
    """

    def __init__(self, message: str, *, code: str, cure: str = _CURE) -> None:
        super().__init__(message, code=code, cure=cure)
