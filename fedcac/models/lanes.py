"""CPU threads that each run a network on one core.

Small convolutions gain little from a second core, and threads that wait for one another at every
layer lose much where the machine is shared; whole batches side by side wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

__all__ = ["Lanes"]

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Lanes:
    """As many threads as torch would use (OMP_NUM_THREADS, or the cores), one core each."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="fedcac-lane")
        barrier = Barrier(self.count)

        def begin(_: int) -> None:
            barrier.wait()
            # A thread's first look at the number sets it, and would undo what was said before.
            torch.get_num_threads()
            torch.set_num_threads(1)

        list(self._pool.map(begin, range(self.count)))
        # The number is each thread's own, but threads made later start from the last one said.
        torch.set_num_threads(self.count)

    def map(self, function: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
        """Return the answers in the items' order; the first exception is raised."""
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
