"""How gently a PACS is asked: a pause between starts, and few at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Throttle"]


class Throttle:
    """Lets at most `concurrent` conversations run, their starts at least `pause_s` apart."""

    def __init__(
        self,
        *,
        concurrent: int,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._places = threading.BoundedSemaphore(concurrent)
        self._turn = threading.Lock()
        self._pause_s = pause_s
        self._clock = clock
        self._sleep = sleep
        self._next_start = clock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a place and for the pause; hold the place meanwhile."""
        with self._places:
            with self._turn:
                wait_s = self._next_start - self._clock()
                if wait_s > 0:
                    self._sleep(wait_s)
                self._next_start = self._clock() + self._pause_s
            yield
