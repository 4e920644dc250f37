"""Stopping on a signal: at once in the middle of scoring, between two writes otherwise.

The first SIGTERM or SIGINT asks for an end. While exams are scored it interrupts: nothing has left
then, and the exams under way are begun anew later. Anywhere else the step under way is finished,
which takes moments. The second signal ends the process at once, like kill -9, which every write is
made for.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from site_agent.exams.cohort import ExamSource, FrozenCohort

if TYPE_CHECKING:
    from fedcac.models import ModelPackage
    from fedcac.protocol import Protocol

__all__ = ["InterruptibleSource", "StopRequested", "Stopper"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """The service is to end; not an Exception, so that no handler of faults takes it for one."""


class Stopper:
    """Notes the wish to stop. Use `installed` around the service's life, in the main thread."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._is_interruptible = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take over SIGTERM and SIGINT, and give them back at the end."""
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._reader)
            os.close(self._writer)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.is_stopping:
            os._exit(128 + number)
        self.is_stopping = True
        os.write(self._writer, b".")
        if self._is_interruptible:
            raise StopRequested

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until a signal."""
        if not self.is_stopping:
            select.select([self._reader], [], [], seconds)

    def check(self) -> None:
        """Raise StopRequested if work that may be interrupted is to end.

        A signal's exception can get lost in code that is called back by a library; whoever is
        called after every exam asks again.
        """
        if self.is_stopping and self._is_interruptible:
            raise StopRequested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal interrupt what runs inside: nothing in there may let anything leave."""
        self._is_interruptible = True
        try:
            self.check()
            yield
        finally:
            self._is_interruptible = False


class InterruptibleSource(ExamSource):
    """A source of exams whose collecting a signal may interrupt."""

    def __init__(self, source: ExamSource, stopper: Stopper) -> None:
        self._source = source
        self._stopper = stopper
        self.needs_package = source.needs_package

    def scores(self, package_digest: str | None) -> bool:
        """Say what the source beneath says."""
        return self._source.scores(package_digest)

    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Collect; StopRequested if a signal came."""
        with self._stopper.interruptible():
            return self._source.collect(protocol, package, reference)
