"""How long to wait between two looks at rounds: short after something moved, then longer.

A site may take days, and the sites of a fit answer within seconds, exchange after exchange. A pause
is a share of how long nothing has moved, so that it delays what comes by no more than that share.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

_SHARE = 8
_SHORTEST_S = 0.2
# Looking at many rounds takes time itself; it is not to fill the processor.
_OF_A_LOOK = 3


class Pace:
    """The pauses of one loop.

    Parameters
    ----------
    longest_s
        No pause is longer.
    """

    def __init__(self, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._moved_at = clock()

    def pause(self, look_s: float, *, is_moved: bool) -> float:
        """Return the seconds to wait after a look of `look_s` that found something, or nothing."""
        now = self._clock()
        if is_moved:
            self._moved_at = now
        wanted = max(_SHORTEST_S, (now - self._moved_at) / _SHARE, _OF_A_LOOK * look_s)
        return min(wanted, self._longest_s)
