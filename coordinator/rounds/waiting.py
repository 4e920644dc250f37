"""Waits for a round to end: a table that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from coordinator.rounds.api import Rounds
from coordinator.rounds.pacing import Pace
from coordinator.rounds.status import RoundStatus
from coordinator.rounds.status_words import site_words, time_left
from fedcac.console import say

__all__ = ["wait_for"]


def wait_for(rounds: Rounds, round_id: str, timeout_s: float, interval_s: float) -> RoundStatus:
    """Move a round on until it ends or the time is over; return it as it stands then.

    Raises
    ------
    RoundError
        If there is no such round (`unknown_round`).
    """
    end = time.monotonic() + timeout_s
    pace, before = Pace(interval_s), None
    with _shown() as show:
        while True:
            begun = time.monotonic()
            status = rounds.step(round_id)
            look_s = time.monotonic() - begun
            show(status)
            if status.is_finished or time.monotonic() >= end:
                return status
            heard = status.phase, status.open_exchange, [s.last_contact for s in status.sites]
            pause = pace.pause(look_s, is_moved=heard != before)
            before = heard
            time.sleep(max(0.0, min(pause, end - time.monotonic())))


@contextmanager
def _shown() -> Iterator[Callable[[RoundStatus], None]]:
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield lambda status: live.update(_table(status, datetime.now(UTC)))


class _Lines:
    """Says what has changed since the last look, a line each."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def show(self, status: RoundStatus) -> None:
        where = f", exchange {status.open_exchange}" if status.open_exchange else ""
        due = f", until {status.due:%Y-%m-%d %H:%M} UTC" if status.due else ""
        self._say("", f"{status.round_id}: {status.phase}{where}{due}")
        for site in status.sites:
            # How long ago is left out: it changes at every look.
            contact = site.last_contact or datetime.now(UTC)
            self._say(
                site.name, f"  {site_words(site, contact)}".replace(", last heard of 0 s ago", "")
            )

    def _say(self, key: str, line: str) -> None:
        if self._told.get(key) != line:
            self._told[key] = line
            say(line)


def _table(status: RoundStatus, now: datetime) -> Table:
    where = f", exchange {status.open_exchange}" if status.open_exchange else ""
    due = f", {time_left(status.due, now)}" if status.due else ""
    table = Table(title=f"{status.round_id}: {status.phase}{where}{due}", title_justify="left")
    for heading in ("site", "state", "patients", "replies", "last contact"):
        table.add_column(heading)
    for site in status.sites:
        table.add_row(
            site.name,
            site.standing + (f" ({site.refusal})" if site.refusal else ""),
            "" if site.patients is None else str(site.patients),
            str(site.replies),
            "" if site.last_contact is None else f"{site.last_contact:%Y-%m-%d %H:%M} UTC",
        )
    return table
