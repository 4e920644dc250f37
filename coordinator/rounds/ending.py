"""The end of a round by the lead: closed or cancelled, and the sites are told so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from coordinator.rounds.intake import TO_NOBODY, TO_PARTICIPANTS
from coordinator.rounds.round_reading import RoundReader
from coordinator.state.records import Direction, Event, EventKind, RoundRecord, RoundState
from coordinator.state.store import CoordinatorStore
from fedcac.errors import RoundError
from fedcac.exchange import Closing, Courier, parcel_name
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName

__all__ = ["Ending", "check_moved"]

_OVER = (RoundState.CLOSED, RoundState.CANCELLED)


class Ending:
    """Ends rounds."""

    def __init__(
        self,
        store: CoordinatorStore,
        courier: Courier,
        reader: RoundReader,
        key: SigningKey,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._courier = courier
        self._reader = reader
        self._key = key
        self._clock = clock

    def close(self, round_id: str, actor: str) -> None:
        """Freeze a round that has ended; errors are those of `RoundEngine.close`."""
        record = self._store.round(round_id)
        _check_not_over(record)
        if record.state not in (RoundState.POOLED, RoundState.FAILED):
            raise RoundError(
                f"Round {round_id} is {record.state.value}: it still waits for its sites.",
                code="round_running",
                cure="Wait for it, or end it with `fedcac-coordinator round cancel`.",
            )
        event = Event(self._clock(), actor, EventKind.CLOSED, round_id)
        check_moved(round_id, is_moved=self._store.move(record, RoundState.CLOSED, event))

    def cancel(self, round_id: str, actor: str, reason: str) -> None:
        """End a round that was not pooled; errors are those of `RoundEngine.cancel`."""
        record = self._store.round(round_id)
        _check_not_over(record)
        if record.state is RoundState.POOLED:
            raise RoundError(
                f"Round {round_id} was pooled; its numbers are there and cannot be taken back.",
                code="round_pooled",
                cure="Freeze it with `fedcac-coordinator round close`.",
            )
        now = self._clock()
        event = Event(now, actor, EventKind.CANCELLED, round_id, detail={"reason": reason})
        moved = self._store.move(record, RoundState.CANCELLED, event, finished_at=now)
        check_moved(round_id, is_moved=moved)

    def tell(self, record: RoundRecord) -> None:
        """Tell every site that was asked; told once, nothing is sent again."""
        name = parcel_name(record.round_id, "closing")
        told = parcel_name(record.round_id, "closing-told")
        if self._store.parcel(record.round_id, Direction.SENT, told, TO_NOBODY) is not None:
            return
        envelope = self._store.parcel(record.round_id, Direction.SENT, name, TO_PARTICIPANTS)
        if envelope is None:
            outcome: Literal["closed", "cancelled"] = (
                "closed" if record.state is RoundState.CLOSED else "cancelled"
            )
            now = self._clock()
            closing = Closing(round_id=record.round_id, issued_at=now, outcome=outcome)
            envelope = closing.seal(self._key)
            self._store.add_parcel(
                record.round_id, Direction.SENT, name, envelope, TO_PARTICIPANTS, at=now
            )
        offer, _ = self._reader.plan(record.round_id)
        for site in offer.sites:
            self._courier.send(SiteName(site), name, envelope)
        self._store.add_parcel(
            record.round_id, Direction.SENT, told, b"{}", TO_NOBODY, at=self._clock()
        )


def _check_not_over(record: RoundRecord) -> None:
    if record.state in _OVER:
        raise RoundError(
            f"Round {record.round_id} is {record.state.value} already.",
            code="round_over",
            cure="There is nothing to do; launch a new round to go on.",
        )


def check_moved(round_id: str, *, is_moved: bool) -> None:
    """Raise RoundError `round_busy` unless a lead's change of a round was written."""
    if not is_moved:
        raise RoundError(
            f"Round {round_id} was moved by another process.",
            code="round_busy",
            cure="Look at it with `fedcac-coordinator round status`, then try again.",
        )
