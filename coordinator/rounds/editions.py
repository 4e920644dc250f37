"""Later editions of a round: sites that came late are added, and the round is pooled again.

Cohort, package and protocol stay those of the first edition. Every answer that a site has given
stays its answer to that question, in whichever exchange it was asked; asked of a site is only what
it has not answered yet. An analysis of one question therefore costs the other sites nothing. A fit
asks them again where the added site moves the search, and their gates give a question that they
know the answer they gave before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from coordinator.rounds.ending import check_moved
from coordinator.rounds.exchanges import ENGINE, Exchanges
from coordinator.rounds.intake import TO_NOBODY, TO_PARTICIPANTS, Intake
from coordinator.rounds.round_reading import RoundReader, step_name
from coordinator.state.leases import Lease
from coordinator.state.records import (
    OPEN,
    Direction,
    EditionRecord,
    Event,
    EventKind,
    RoundRecord,
    RoundState,
)
from coordinator.state.store import CoordinatorStore
from fedcac.canonical import canonical_bytes
from fedcac.errors import RoundError, UsageError
from fedcac.exchange import Courier, Offer, Query, parcel_name
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName

__all__ = ["Editions", "Retry"]


@dataclass(frozen=True)
class Retry:
    """What a lead decides about a late site: which, why, and how long to wait.

    Without `sites`, every site that takes part or has not said whether, and was left out.
    """

    sites: tuple[str, ...] = ()
    reason: str = ""
    patience: timedelta = timedelta(days=30)
    actor: str = "lead"


class Editions:
    """Begins later editions and drives them."""

    def __init__(
        self,
        store: CoordinatorStore,
        courier: Courier,
        intake: Intake,
        reader: RoundReader,
        exchanges: Exchanges,
        key: SigningKey,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._courier = courier
        self._intake = intake
        self._reader = reader
        self._exchanges = exchanges
        self._key = key
        self._clock = clock

    def begin(self, round_id: str, retry: Retry) -> EditionRecord:
        """Begin the next edition; the engine's steps carry it on. Return its record.

        Raises
        ------
        RoundError
            If the round runs (`round_running`), was closed or cancelled (`round_over`), or its sums
            are masked (`masked_edition`); if a site was not invited (`not_invited`), refused
            (`site_refused`) or is in the pool already (`site_pooled`), or no site is left to add
            (`nobody_late`); if another process moved the round meanwhile (`round_busy`).
        UsageError
            If the time to wait is none (`bad_deadline`).
        """
        record = self._store.round(round_id)
        offer, protocol = self._reader.plan(round_id)
        _check_may_begin(record, protocol)
        if retry.patience <= timedelta(0):
            raise UsageError(
                "There must be time to answer.",
                code="bad_deadline",
                cure="Give a number of days above 0.",
            )
        pooled = self._pooled_sites(record, offer, protocol)
        added = self._late_sites(offer, pooled, retry.sites)
        now = self._clock()
        edition = EditionRecord(
            round_id=round_id,
            edition=record.edition + 1,
            started_at=now,
            deadline=now + retry.patience,
            finished_at=None,
            outcome=None,
            added=added,
            sites=tuple(site for site in offer.sites if site in {*pooled, *added}),
            reason=retry.reason,
        )
        # Stored before the edition is: a step that finds the edition finds what it sends.
        self._add_offer(offer, edition)
        event = Event(
            now,
            retry.actor,
            EventKind.RETRIED,
            round_id,
            detail={
                "edition": edition.edition,
                "added": list(added),
                "reason": retry.reason,
                "deadline": edition.deadline.isoformat(),
            },
        )
        is_moved = self._store.add_edition(record, edition, RoundState.OFFERED, event)
        check_moved(round_id, is_moved=is_moved)
        return edition

    def send_offer(self, record: RoundRecord, offer: Offer) -> None:
        """Send the edition's offer to the sites that it adds, with whatever came before it."""
        envelope = self._reader.later_offer(record.round_id, record.edition)
        if envelope is None:
            return
        parcels = self._store.sent_to_all(record.round_id)
        first = parcel_name(record.round_id, "offer")
        for site in self._reader.edition(record).added:
            name = parcel_name(record.round_id, "offer", record.edition)
            self._courier.send(SiteName(site), name, envelope)
            for name in sorted(parcels, key=lambda name: name == first):
                self._courier.send(SiteName(site), name, parcels[name])

    def run(self, record: RoundRecord, offer: Offer, protocol: Protocol, lease: Lease) -> None:
        """Move the newest edition on as far as the sites' answers reach."""
        session, steps = self._reader.replay(offer, protocol, record.edition)
        sites = self._reader.asked_sites(record, offer)
        while not session.is_finished:
            lease.check()
            queries = session.queries
            used = self._found(offer, queries, sites)
            missing = {
                site: [analysis for analysis in queries if site not in used[analysis]]
                for site in sites
            }
            missing = {site: analyses for site, analyses in missing.items() if analyses}
            if missing and not self._is_given_up(record, offer, queries, missing, used):
                return
            self._close(record, len(steps) + 1, used, sorted(missing))
            session, steps = self._reader.replay(offer, protocol, record.edition)
        self._exchanges.pooled(record)

    # beginning

    def _pooled_sites(
        self, record: RoundRecord, offer: Offer, protocol: Protocol
    ) -> tuple[str, ...]:
        """Return the sites whose answers every step of the newest edition used."""
        _, steps = self._reader.replay(offer, protocol, record.edition)
        if not steps:
            return ()
        counted = [set.intersection(*(set(sites) for sites in used.values())) for used in steps]
        return tuple(site for site in offer.sites if site in set.intersection(*counted))

    def _late_sites(
        self, offer: Offer, pooled: Sequence[str], wanted: Sequence[str]
    ) -> tuple[str, ...]:
        refused = {
            site
            for site in offer.sites
            if (word := self._reader.acceptance(offer, site, collect=True)) is not None
            and word.refusal is not None
        }
        for site in wanted:
            self._check_site(offer, site, pooled, refused)
        late = wanted or [site for site in offer.sites if site not in {*pooled, *refused}]
        if not late:
            raise RoundError(
                "No site is left to add: every site was pooled or has refused.",
                code="nobody_late",
                cure="A site that refused can only be asked again by a new round.",
            )
        return tuple(site for site in offer.sites if site in late)

    def _check_site(
        self, offer: Offer, site: str, pooled: Sequence[str], refused: set[str]
    ) -> None:
        for is_wrong, code, message, cure in (
            (
                site not in offer.sites,
                "not_invited",
                f"{site} was not invited to this round.",
                "Launch a new round with it; the other sites give the answers they gave before.",
            ),
            (
                site in refused,
                "site_refused",
                f"{site} has refused this round.",
                "A site's refusal holds for its round; launch a new one if it has changed its "
                "mind.",
            ),
            (site in pooled, "site_pooled", f"{site} is in the pool already.", "Leave it out."),
        ):
            if is_wrong:
                raise RoundError(message, code=code, cure=cure)

    def _add_offer(self, offer: Offer, edition: EditionRecord) -> None:
        requests = self._reader.requests(offer.round_id)
        envelope = offer.model_copy(
            update={
                "issued_at": edition.started_at,
                "expires_at": edition.deadline,
                "edition": edition.edition,
                # What comes after the first question follows from the answers, and these change.
                "withdrawn": tuple(number for number in requests if number > 1),
            }
        ).seal(self._key)
        name = parcel_name(offer.round_id, "offer", edition.edition)
        if self._reader.later_offer(offer.round_id, edition.edition) is None:
            self._store.add_parcel(
                offer.round_id,
                Direction.SENT,
                name,
                envelope,
                TO_PARTICIPANTS,
                at=edition.started_at,
            )

    # steps

    def _found(
        self, offer: Offer, queries: dict[str, Query], sites: Sequence[str]
    ) -> dict[str, dict[str, int]]:
        """Return, per analysis and site, the first exchange in which it answered the question."""
        requests = self._reader.requests(offer.round_id)
        found: dict[str, dict[str, int]] = {analysis: {} for analysis in queries}
        for number, request in requests.items():
            alike = [name for name in queries if request.queries.get(name) == queries[name]]
            for site in sites:
                wanted = [name for name in alike if site not in found[name]]
                reply = self._intake.reply(offer, number, site, collect=True) if wanted else None
                for name in wanted if reply is not None else ():
                    found[name][site] = number
        return found

    def _is_given_up(
        self,
        record: RoundRecord,
        offer: Offer,
        queries: dict[str, Query],
        missing: dict[str, list[str]],
        used: dict[str, dict[str, int]],
    ) -> bool:
        """Ask what is missing; say whether the time is over and enough sites have answered."""
        waiting = self._ask(record, offer, queries, missing)
        if self._clock() <= self._reader.deadline(record, waiting):
            return False
        n_answered = len({site for sites in used.values() for site in sites})
        if n_answered < record.minimum_sites:
            self._exchanges.failed(record, n_answered)
            return False
        return True

    def _ask(
        self,
        record: RoundRecord,
        offer: Offer,
        queries: dict[str, Query],
        missing: dict[str, list[str]],
    ) -> int:
        """Ask the sites for what is missing; return the last exchange that waits for an answer.

        A request that is out and asks the same is sent once more rather than a new one made.
        """
        requests = self._reader.requests(offer.round_id)
        open_requests: dict[str, list[int]] = {}
        anew: dict[str, list[str]] = {}
        for site, analyses in missing.items():
            for analysis in analyses:
                number = self._asking(record, site, analysis, queries[analysis])
                if number is None:
                    anew.setdefault(analysis, []).append(site)
                else:
                    open_requests.setdefault(site, []).append(number)
        for site, numbers in open_requests.items():
            for number in sorted(set(numbers)):
                self._exchanges.send(record, offer, number, {}, [site])
        waiting = max((n for numbers in open_requests.values() for n in numbers), default=0)
        if anew:
            waiting = len(requests) + 1
            sites = [site for site in offer.sites if any(site in named for named in anew.values())]
            wanted = {analysis: queries[analysis] for analysis in queries if analysis in anew}
            self._exchanges.send(record, offer, waiting, wanted, sites)
        return waiting

    def _asking(self, record: RoundRecord, site: str, analysis: str, query: Query) -> int | None:
        """Return the request that asks a site this and can still be answered, or None."""
        is_added = site in self._reader.edition(record).added
        withdrawn = self._reader.withdrawn(record) if is_added else ()
        for number, request in self._reader.requests(record.round_id).items():
            is_good = request.expires_at > self._clock() and number not in withdrawn
            if is_good and request.queries.get(analysis) == query:
                return number
        return None

    def _close(
        self,
        record: RoundRecord,
        step: int,
        used: dict[str, dict[str, int]],
        missing: Sequence[str],
    ) -> None:
        now = self._clock()
        sites = sorted({site for given in used.values() for site in given})
        detail: dict[str, JsonValue] = {
            "edition": record.edition,
            "step": step,
            "sites": list(sites),
            "left_out": list(missing),
        }
        self._store.add_parcel(
            record.round_id,
            Direction.SENT,
            parcel_name(record.round_id, step_name(record.edition), step),
            canonical_bytes(used),
            TO_NOBODY,
            at=now,
            events=[Event(now, ENGINE, EventKind.EXCHANGE_CLOSED, record.round_id, detail=detail)],
        )


def _check_may_begin(record: RoundRecord, protocol: Protocol) -> None:
    for is_wrong, code, message, cure in (
        (
            record.state in OPEN,
            "round_running",
            f"Round {record.round_id} is {record.state.value}: it still waits for its sites.",
            "Wait for it; a late site is added after it has ended.",
        ),
        (
            record.state in (RoundState.CLOSED, RoundState.CANCELLED),
            "round_over",
            f"Round {record.round_id} is {record.state.value}; its sites were told so.",
            "Launch a new round; sites give the questions they know the answers they gave.",
        ),
        (
            any(protocol.is_masked(spec.id) for spec in protocol.analyses),
            "masked_edition",
            f"The sums of round {record.round_id} are masked, and a site adds up about its "
            "patients over the same sites always: the difference of two sums would be the late "
            "site's own answer.",
            "The late site cannot be added. Report the round without it, or plan a round with new "
            "patients among all sites.",
        ),
    ):
        if is_wrong:
            raise RoundError(message, code=code, cure=cure)
