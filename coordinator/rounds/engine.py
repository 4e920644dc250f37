"""The coordinator's state machine: offer, exchange after exchange, pool.

draft -> offered -> answering -> pooled, or failed; then closed, or again by a later edition
(docs/explanation/round-states.md). All it knows lies in the store, and pooling is deterministic:
after a crash the stored replies are replayed and the round goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from coordinator.rounds.editions import Editions, Retry
from coordinator.rounds.ending import Ending
from coordinator.rounds.exchanges import ENGINE, Exchanges
from coordinator.rounds.intake import Intake
from coordinator.rounds.launching import Launcher
from coordinator.rounds.masked_sums import MaskedSums
from coordinator.rounds.round_reading import RoundReader
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.leases import Lease
from coordinator.state.records import EditionRecord, Event, EventKind, RoundRecord, RoundState
from coordinator.state.store import CoordinatorStore, Direction
from fedcac.errors import RoundError
from fedcac.exchange import Courier, Offer, package_parcels, parcel_name
from fedcac.exchange.parcels import PackageRole
from fedcac.models.manifest import MANIFEST_FILE, PAYLOAD_TYPE, PackageManifest
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey, open_envelope, trusted
from fedcac.vocabulary import SiteName

__all__ = ["RoundEngine"]

_BUSY_S = 30.0


class RoundEngine:
    """Launches rounds and moves them on. `step` may be called at any time, by any process."""

    def __init__(
        self,
        *,
        store: CoordinatorStore,
        courier: Courier,
        key: SigningKey,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._courier = courier
        self._lead_keys = trusted([key.public])
        self._clock = clock
        self._sent: set[str] = set()
        intake = Intake(store, courier, clock)
        sums = MaskedSums(store, courier, intake, key, clock)
        self._reader = RoundReader(store, intake, sums, self._lead_keys)
        self._launcher = Launcher(store, key, clock)
        self._exchanges = Exchanges(store, courier, intake, sums, self._reader, key, clock)
        self._editions = Editions(store, courier, intake, self._reader, self._exchanges, key, clock)
        self._ending = Ending(store, courier, self._reader, key, clock)

    def launch(self, protocol: Protocol, plan: LaunchPlan) -> str:
        """Sign and store a round; the next `step` offers it. Return its id.

        Raises
        ------
        UsageError
            If a site is not enrolled, or the numbers of sites contradict each other.
        ProtocolError
            If a newer version of the protocol, or another one of this version, was launched, or
            this version follows one and does not say why (`amendment_unexplained`).
        """
        return self._launcher.launch(protocol, plan)

    def check_launch(self, protocol: Protocol, plan: LaunchPlan) -> None:
        """Raise what `launch` would raise, and store nothing."""
        self._launcher.check(protocol, plan)

    def step(self, round_id: str) -> RoundView:
        """Send what is due, collect what has come, and return the round as it stands.

        A round that another process is moving on is returned as it stands and left alone.
        """
        with self._store.leases.hold(_lease_name(round_id)) as lease:
            if lease is not None:
                self._move_on(round_id, lease)
        return self.view(round_id)

    def view(self, round_id: str, edition: int | None = None) -> RoundView:
        """Return the round from the store alone, without sending or collecting anything."""
        return self._reader.view(round_id, edition)

    def retry(self, round_id: str, retry: Retry) -> EditionRecord:
        """Begin the next edition, which adds late sites; `step` carries it on.

        Raises
        ------
        RoundError, UsageError
            As `Editions.begin`; `round_busy` if another process moves it.
        """
        with self._alone(round_id):
            return self._editions.begin(round_id, retry)

    def close(self, round_id: str, actor: str = "lead") -> RoundView:
        """Freeze a round that was pooled or failed: nothing more is taken in; tell its sites.

        Raises
        ------
        RoundError
            If the round runs (`round_running`) or is over already (`round_over`).
        """
        with self._alone(round_id):
            self._ending.close(round_id, actor)
        return self.step(round_id)

    def cancel(self, round_id: str, actor: str = "lead", reason: str = "") -> RoundView:
        """End a round that was not pooled, for good, and tell its sites.

        Raises
        ------
        RoundError
            If the round was pooled (`round_pooled`) or is over already (`round_over`).
        """
        with self._alone(round_id):
            self._ending.cancel(round_id, actor, reason)
        return self.step(round_id)

    def package_manifest(
        self, round_id: str, role: PackageRole = "package"
    ) -> PackageManifest | None:
        """Return the manifest of one of the round's packages, or None where it has none."""
        name = package_parcels(round_id, [MANIFEST_FILE], role)[MANIFEST_FILE]
        envelope = self._store.parcel(round_id, Direction.SENT, name)
        if envelope is None:
            return None
        payload, _ = open_envelope(envelope, PAYLOAD_TYPE, self._lead_keys)
        return PackageManifest.model_validate_json(payload)

    @contextmanager
    def _alone(self, round_id: str) -> Iterator[None]:
        with self._store.leases.hold(_lease_name(round_id), _BUSY_S) as lease:
            if lease is None:
                raise RoundError(
                    f"Another process is moving round {round_id} on.",
                    code="round_busy",
                    cure="Try again in a minute; `fedcac-coordinator round status` shows it.",
                )
            yield

    def _move_on(self, round_id: str, lease: Lease) -> None:
        record = self._store.round(round_id)
        if record.state in (RoundState.CLOSED, RoundState.CANCELLED):
            self._ending.tell(record)
            return
        offer, protocol = self._reader.plan(round_id)
        if record.state is RoundState.DRAFT:
            self._send_offer(record, offer)
            record = self._store.round(round_id)
        if record.state is RoundState.OFFERED:
            lease.check()
            self._begin_answering(record, offer)
            record = self._store.round(round_id)
        if record.state is RoundState.ANSWERING:
            driver = self._exchanges if record.edition == 1 else self._editions
            driver.run(record, offer, protocol, lease)

    def _send_offer(self, record: RoundRecord, offer: Offer) -> None:
        self._send_parcels(record, offer.sites)
        self._sent.add(record.round_id)
        event = Event(self._clock(), ENGINE, EventKind.OFFERED, record.round_id)
        self._store.move(record, RoundState.OFFERED, event)

    def _send_parcels(self, record: RoundRecord, sites: Iterable[str]) -> None:
        parcels = self._store.sent_to_all(record.round_id)
        offer_name = parcel_name(record.round_id, "offer")
        for site in sites:
            # The offer goes last: a site that sees it finds everything else already there.
            for name in sorted(parcels, key=lambda name: name == offer_name):
                self._courier.send(SiteName(site), name, parcels[name])

    def _send_again(self, record: RoundRecord, offer: Offer) -> None:
        """Send what a site may have lost, once in this process: spool or journal may be new."""
        if record.round_id in self._sent:
            return
        for site in offer.sites:
            if self._reader.acceptance(offer, site, collect=True) is None:
                try:
                    self._send_parcels(record, [site])
                except RoundError as error:
                    # Where another parcel lies in its place, the site refuses that by itself.
                    if error.code != "round.parcel_changed":
                        raise
        self._sent.add(record.round_id)

    def _begin_answering(self, record: RoundRecord, offer: Offer) -> None:
        """Go on once the sites asked have said whether they take part, or their time is over."""
        awaited = offer.sites
        if record.edition == 1:
            self._send_again(record, offer)
        else:
            self._editions.send_offer(record, offer)
            awaited = self._reader.edition(record).added
        words = [self._reader.acceptance(offer, site, collect=True) for site in awaited]
        n_accepting = len(self._reader.asked_sites(record, offer))
        is_late = self._clock() > record.deadline
        is_quorate = record.quorum is not None and n_accepting >= record.quorum
        is_waiting = any(word is None for word in words)
        if is_waiting and not is_late and not (is_quorate and record.edition == 1):
            return
        needed = offer.masking.threshold if offer.masking else 1
        if n_accepting >= max(record.minimum_sites, needed):
            self._store.move(record, RoundState.ANSWERING)
        else:
            self._exchanges.failed(record, n_accepting)


def _lease_name(round_id: str) -> str:
    return f"round:{round_id}"
