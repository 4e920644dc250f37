"""The processes that generate exams."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

__all__ = ["worker_pool"]


def worker_pool() -> ProcessPoolExecutor:
    """Return two processes that share nothing with this one.

    Never a plain fork: this process may have the threads of torch, and their locks; and a fork
    holds its files and sockets open, also when this one has gone.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessPoolExecutor(max_workers=2, mp_context=context)
