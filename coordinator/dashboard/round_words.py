"""A round's states, its sites' standings and what can be done next, in words for a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from coordinator.rounds.status import RoundStatus
from coordinator.rounds.status_words import STANDING_WORDS
from coordinator.rounds.views import RoundView, Standing
from coordinator.state.records import EventKind, RoundState

__all__ = [
    "EVENT_WORDS",
    "MARKED_STANDINGS",
    "PHASE_WORDS",
    "Step",
    "may_add_late_sites",
    "next_steps",
    "steps_of",
]

PHASE_WORDS: Final = {
    "draft": "stored; the engine has not sent it yet",
    "offered": "sites decide whether they take part",
    "scoring": "sites score their exams",
    "answering": "sites answer questions",
    "pooled": "every analysis is estimated",
    "failed": "too few sites took part in time",
    "cancelled": "ended by the lead before it was pooled",
    "closed": "frozen: nothing more is taken in",
}

_MARKS = {
    Standing.NOT_ASKED: "·",
    Standing.INVITED: "?",
    Standing.APPROVED: "✓",
    Standing.REFUSED: "✕",
    Standing.SCORING: "…",
    Standing.ANSWERING: "…",
    Standing.ANSWERED: "✓",
    Standing.POOLED: "✓",
    Standing.LATE: "!",
    Standing.SILENT: "!",
}

MARKED_STANDINGS: Final = {
    standing.value: (mark, STANDING_WORDS[standing.value]) for standing, mark in _MARKS.items()
}
"""Per standing a mark, which does not rely on colour, and its words."""

EVENT_WORDS: Final = {
    EventKind.LAUNCHED: "launched the round",
    EventKind.OFFERED: "sent the offer",
    EventKind.ACCEPTED: "takes part",
    EventKind.REFUSED: "refuses the round",
    EventKind.EXCHANGE_SENT: "sent questions",
    EventKind.REPLIED: "replied",
    EventKind.EXCHANGE_CLOSED: "closed an exchange",
    EventKind.POOLED: "pooled the round",
    EventKind.FAILED: "ended the round: too few sites",
    EventKind.RETRIED: "added late sites",
    EventKind.CANCELLED: "cancelled the round",
    EventKind.CLOSED: "closed the round",
    EventKind.REPORT_WRITTEN: "wrote the report",
    EventKind.EXPORTED: "exported the round",
}

_ENGINE_IS_LATE = timedelta(minutes=1)


@dataclass(frozen=True)
class Step:
    """One state in the drawing of a round: `done`, `now`, `next` or `off` (passed by)."""

    name: str
    words: str
    standing: str


def steps_of(
    status: RoundStatus, *, was_offered: bool
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the states of the way to a report, and the two ends beside it.

    A draft may have been cancelled before it was offered; only the round's events tell.
    """
    main = ["draft", "offered", "answering", "pooled", "closed"]
    outcomes = {one.outcome for one in status.editions}
    where = main.index(status.state) if status.state in main else len(main)
    reached = {
        "draft",
        *({"offered"} if was_offered else ()),
        *({"answering"} if status.exchanges or status.open_exchange else ()),
        *({"pooled"} if status.is_pooled or RoundState.POOLED in outcomes else ()),
    }
    line = []
    for name in main:
        if name == status.state:
            standing = "now"
        elif name in reached:
            standing = "done"
        else:
            is_to_come = where < main.index(name) or (status.state == "failed" and name == "closed")
            standing = "next" if is_to_come else "off"
        shown = "scoring" if name == "answering" and status.phase == "scoring" else name
        line.append(Step(shown, PHASE_WORDS[shown], standing))
    beside = tuple(
        Step(
            name,
            PHASE_WORDS[name],
            "now" if status.state == name else "done" if RoundState(name) in outcomes else "off",
        )
        for name in ("failed", "cancelled")
    )
    return tuple(line), beside


def may_add_late_sites(view: RoundView) -> bool:
    """Say whether late sites may be added: the round ended, and its sums are not masked."""
    is_ended = view.record.state in (RoundState.POOLED, RoundState.FAILED)
    return is_ended and view.offer.masking is None


def next_steps(view: RoundView, now: datetime) -> Iterator[str]:
    """Yield what can be done now, for a lead in front of a page."""
    match view.record.state:
        case RoundState.DRAFT:
            if now - view.record.started_at > _ENGINE_IS_LATE:
                yield (
                    "The engine does not seem to run: nothing was sent. Start it with "
                    "`fedcac-coordinator engine run`."
                )
            else:
                yield "Nothing: the engine sends the offer at its next look."
        case RoundState.OFFERED | RoundState.ANSWERING:
            if view.due is not None and view.due < now:
                yield "The time is over: at its next look the engine goes on, or ends the round."
            elif view.awaited:
                yield f"Wait for {', '.join(view.awaited)}, or ask their people to look."
            else:
                yield "Nothing: every site has answered, and the engine goes on."
        case RoundState.POOLED:
            yield "Read the report."
            if view.late and view.offer.masking is None:
                yield f"Add the late sites if they answer after all: {', '.join(view.late)}."
            yield "Close the round when no site is to be added any more."
        case RoundState.FAILED:
            yield "Give late sites more time, or close the round."
        case RoundState.CLOSED | RoundState.CANCELLED:
            yield "Keep the archive."
