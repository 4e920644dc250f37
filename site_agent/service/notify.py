"""Telling systemd how the service stands (sd_notify(3)), with the standard library alone.

The protocol is one datagram of `KEY=value` lines to the socket that NOTIFY_SOCKET names; a leading
`@` stands for Linux's abstract namespace. Without the variable nothing is sent.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

__all__ = ["Notifier", "Pulse"]


class Notifier:
    """Sends READY, STATUS, STOPPING and WATCHDOG; silent where nobody listens."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        has_watchdog = microseconds.isdigit() and is_for_us
        # Half of it, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(microseconds) / 2e6 if has_watchdog else 0.0
        self._end = threading.Event()

    @property
    def is_heard(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Say that the service works."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """Say in one line what the service does."""
        self._send(f"STATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._end.set()
        self._send("STOPPING=1")

    def watch(self, is_alive: Callable[[], bool]) -> None:
        """Keep the watchdog quiet from a thread, for as long as `is_alive` says so.

        The thread alone proves little; `is_alive` tells whether the work itself still moves.
        """
        if not (self.watchdog_s and self.is_heard):
            return

        def ping() -> None:
            while not self._end.wait(self.watchdog_s):
                if is_alive():
                    self._send("WATCHDOG=1")

        threading.Thread(target=ping, name="fedcac-watchdog", daemon=True).start()

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto(text.encode("utf-8"), self._address)
        except OSError:
            # The service manager's trouble must not become the round's.
            return


def _line(text: str) -> str:
    return text.split("\n", 1)[0][:200]


class Pulse:
    """When the work last moved, by a clock that does not jump."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last = time.monotonic()

    def beat(self) -> None:
        """Note that the work has moved."""
        self._last = time.monotonic()

    def is_beating(self) -> bool:
        """Say whether it moved within the limit."""
        return time.monotonic() - self._last < self._limit_s
