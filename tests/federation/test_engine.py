"""The coordinator's state machine: deadlines, silent sites, forgeries, restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.store import CoordinatorStore, EnrolledSite, RoundState
from fedcac.disclosure import MemoryLedger, load_policy
from fedcac.errors import ProtocolError, UsageError
from fedcac.exchange import MailboxCourier, Offer, Query, Request, Spool, parcel_name
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import seal_protocol
from fedcac.signing import SigningKey, trusted
from fedcac.vocabulary import RefusalCode, SiteName
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

Matrix = list[list[int]]
START = datetime(2026, 1, 1, tzinfo=UTC)
PROTOCOL = load_shipped("eng2021-nongated")


class Network:
    """Sites over scored tables, a coordinator on disk, and a clock that tests turn."""

    def __init__(self, url: str, tables: dict[str, Path]) -> None:
        self.now = START
        self.url = url
        self.lead = SigningKey.generate()
        self.spools = {SiteName(name): Spool.in_memory() for name in tables}
        self.keys = {name: SigningKey.generate() for name in tables}
        self.store = CoordinatorStore(self.url)
        self.stores = {name: SiteStore(":memory:") for name in tables}
        self.agents = {
            name: SiteAgent(
                identity=SiteIdentity(name, self.keys[name], self.lead.public),
                spool=self.spools[SiteName(name)],
                store=self.stores[name],
                source=TableSource(path),
                answerer=Answerer(load_policy("open"), MemoryLedger(), name.encode()),
                is_auto_approving=True,
                clock=lambda: self.now,
            )
            for name, path in tables.items()
        }
        for name, key in self.keys.items():
            self.store.enrol(EnrolledSite(name, key.public, ""))

    def engine(self) -> RoundEngine:
        return RoundEngine(
            store=self.store,
            courier=MailboxCourier(self.spools),
            key=self.lead,
            clock=lambda: self.now,
        )

    def launch(
        self, minimum_sites: int, protocol: Protocol = PROTOCOL, quorum: int | None = None
    ) -> str:
        deadline = self.now + timedelta(days=10)
        plan = LaunchPlan(tuple(self.agents), minimum_sites, deadline, None, {}, quorum)
        round_id = self.engine().launch(protocol, plan)
        self.engine().step(round_id)
        return round_id

    def close(self) -> None:
        self.store.close()
        for store in self.stores.values():
            store.close()


@pytest.fixture
def network(
    tmp_path: Path,
    database_url: str,
    eng_matrices: dict[str, Matrix],
    write_matrix_table: Callable[[Path, Matrix], Path],
) -> Iterator[Network]:
    tables = {
        name: write_matrix_table(tmp_path / f"{name}.csv", matrix)
        for name, matrix in eng_matrices.items()
    }
    made = Network(database_url, tables)
    yield made
    made.close()


def pooled_n(view: RoundView) -> int | None:
    rows = [e for e in view.estimates if e.measure == "kappa_linear" and e.scope == "pooled"]
    return rows[0].n


def test_a_round_waits_for_every_site_and_then_pools(network: Network) -> None:
    round_id = network.launch(4)
    for name in ("site1", "site2", "site3"):
        network.agents[name].step()
    assert network.engine().step(round_id).record.state is RoundState.OFFERED
    network.agents["site4"].step()
    assert network.engine().step(round_id).record.state is RoundState.ANSWERING
    for agent in network.agents.values():
        agent.step()
    view = network.engine().step(round_id)
    assert view.record.state is RoundState.POOLED
    assert pooled_n(view) == 303
    assert network.engine().step(round_id).estimates == view.estimates


def test_a_restarted_coordinator_goes_on_from_its_store(network: Network) -> None:
    round_id = network.launch(4)
    for agent in network.agents.values():
        agent.step()
    network.engine().step(round_id)
    network.store.close()
    network.store = CoordinatorStore(network.url)
    for agent in network.agents.values():
        agent.step()
    assert network.engine().step(round_id).record.state is RoundState.POOLED


def test_an_offer_that_was_lost_on_its_way_is_sent_again_by_a_restarted_engine(
    network: Network,
) -> None:
    round_id = network.launch(4)
    network.engine().step(round_id)
    offer = parcel_name(round_id, "offer")
    lost, altered, *answered = network.spools
    for name in answered:
        network.agents[name].step()
    # One site's spool, or the journal on the way to it, was lost; in another's lies a forgery.
    network.spools[lost] = Spool.in_memory()
    forged = Spool.in_memory()
    forged.inbox.put(offer, b"forged")
    network.spools[altered] = forged
    engine = network.engine()
    assert engine.step(round_id).record.state is RoundState.OFFERED
    assert set(network.spools[lost].inbox.names()) == {offer, parcel_name(round_id, "protocol")}
    assert forged.inbox.get(offer) == b"forged"


def test_after_the_deadline_enough_sites_go_on_without_the_silent_one(network: Network) -> None:
    round_id = network.launch(3)
    talking = [network.agents[name] for name in ("site1", "site2", "site4")]
    for agent in talking:
        agent.step()
    assert not network.engine().step(round_id).is_finished
    network.now = START + timedelta(days=11)
    network.engine().step(round_id)
    for agent in talking:
        agent.step()
    view = network.engine().step(round_id)
    assert view.record.state is RoundState.POOLED
    assert pooled_n(view) == 303 - 71
    assert {s.name: s.is_accepting for s in view.sites}["site3"] is None
    # What arrives after the exchange was closed does not change what was pooled.
    network.now = START
    network.agents["site3"].step()
    assert network.engine().step(round_id).estimates == view.estimates


def test_too_few_sites_at_the_deadline_fail_the_round(network: Network) -> None:
    round_id = network.launch(3)
    network.agents["site1"].step()
    network.now = START + timedelta(days=11)
    assert network.engine().step(round_id).record.state is RoundState.FAILED


def test_a_site_that_accepts_and_then_falls_silent_is_left_out(network: Network) -> None:
    round_id = network.launch(2)
    for agent in network.agents.values():
        agent.step()
    network.engine().step(round_id)
    for name in ("site1", "site2", "site3"):
        network.agents[name].step()
    assert not network.engine().step(round_id).is_finished
    network.now = START + timedelta(days=11)
    view = network.engine().step(round_id)
    assert view.record.state is RoundState.POOLED
    assert pooled_n(view) == 303 - 135


def test_one_site_cannot_answer_for_another(network: Network) -> None:
    round_id = network.launch(4)
    for agent in network.agents.values():
        agent.step()
    network.engine().step(round_id)
    for name in ("site1", "site2", "site3"):
        network.agents[name].step()
    # Site 3 puts its own reply, soundly signed by itself, into site 4's outbox.
    name = parcel_name(round_id, "reply", 1)
    forged = network.spools[SiteName("site3")].outbox.get(name)
    assert forged is not None
    genuine = network.spools[SiteName("site4")]
    network.spools[SiteName("site4")] = Spool(genuine.inbox, Spool.in_memory().outbox)
    network.spools[SiteName("site4")].outbox.put(name, forged)
    view = network.engine().step(round_id)
    assert not view.is_finished
    assert {s.name: len(s.replies) for s in view.sites}["site4"] == 0
    # The forgery was not kept: the genuine reply still counts.
    network.spools[SiteName("site4")] = genuine
    network.agents["site4"].step()
    view = network.engine().step(round_id)
    assert pooled_n(view) == 303


def test_an_expired_offer_and_an_altered_protocol_are_refused(network: Network) -> None:
    round_id = network.launch(1)
    network.now = START + timedelta(days=11)
    assert network.agents["site1"].step() is False
    network.now = START
    inbox = network.spools[SiteName("site2")].inbox
    parcels = inbox._parcels  # type: ignore[attr-defined]
    name = parcel_name(round_id, "protocol")
    parcels[name] = parcels[name].replace(b'"sig":"', b'"sig":"A', 1)
    network.agents["site2"].step()
    view = network.engine().step(round_id)
    refusals = {site.name: site.refusal for site in view.sites}
    assert refusals["site2"] is RefusalCode.PROTOCOL_INVALID


def test_an_offer_replaced_after_approval_is_not_answered(network: Network) -> None:
    """The lead's stolen key signs another protocol under an approved round's id."""
    round_id = network.launch(4)
    agent = network.agents["site4"]
    agent.step()
    inbox = network.spools[SiteName("site4")].inbox
    parcels = inbox._parcels  # type: ignore[attr-defined]
    other = PROTOCOL.model_copy(update={"version": 9, "analyses": PROTOCOL.analyses[:1]})
    offer, _ = Offer.open(parcels[parcel_name(round_id, "offer")], trusted([network.lead.public]))
    swapped = offer.model_copy(
        update={"protocol_digest": other.digest(), "protocol_version": other.version}
    )
    parcels[parcel_name(round_id, "offer")] = swapped.seal(network.lead)
    parcels[parcel_name(round_id, "protocol")] = seal_protocol(other, network.lead)
    parcels[parcel_name(round_id, "request", 1)] = Request(
        round_id=round_id,
        issued_at=START,
        exchange=1,
        protocol_digest=PROTOCOL.digest(),
        expires_at=START + timedelta(days=1),
        queries={"agreement": Query(step="counts")},
    ).seal(network.lead)
    agent.step()
    assert agent.problems[round_id].code == "round.offer_changed"
    outbox = network.spools[SiteName("site4")].outbox
    assert outbox.get(parcel_name(round_id, "reply", 1)) is None


def test_a_site_without_eligible_patients_says_so_and_the_round_goes_on(
    tmp_path: Path, database_url: str, write_matrix_table: Callable[[Path, Matrix], Path]
) -> None:
    matrix = [[9, 0, 0, 0, 0], *([0] * 5 for _ in range(4))]
    matrix[3][3] = 8
    sound = write_matrix_table(tmp_path / "sound.csv", matrix)
    network = Network(database_url, {"sound": sound, "broken": tmp_path / "absent.csv"})
    round_id = network.launch(2)
    for _ in range(2):
        for agent in network.agents.values():
            agent.step()
        view = network.engine().step(round_id)
    # A table that cannot be read is the site's own trouble, kept at the site.
    assert network.agents["broken"].problems[round_id].code == "table.no_such_file"
    assert not view.is_finished
    network.agents["broken"].withdraw(round_id)
    network.agents["broken"].step()
    view = network.engine().step(round_id)
    assert view.record.state is RoundState.POOLED
    assert pooled_n(view) == 17
    answers = view.sites[1].replies[0].answers
    assert {answer.refusal for answer in answers.values()} == {RefusalCode.EMPTY_COHORT}
    network.close()


def test_launches_that_cannot_be(network: Network) -> None:
    later = START + timedelta(days=1)
    for plan, code in (
        (LaunchPlan(("nobody",), 1, later, None, {}), "unknown_site"),
        (LaunchPlan(("site1",), 2, later, None, {}), "bad_minimum_sites"),
        (LaunchPlan(("site1",), 1, START, None, {}), "bad_deadline"),
    ):
        with pytest.raises(UsageError, match=code):
            network.engine().launch(PROTOCOL, plan)
    plan = LaunchPlan(("site1",), 1, later, None, {})
    newer = PROTOCOL.model_copy(update={"version": PROTOCOL.version + 1})
    network.engine().launch(newer, plan)
    with pytest.raises(ProtocolError, match="rolled_back"):
        network.engine().launch(PROTOCOL, plan)
    with pytest.raises(ProtocolError, match="version_reused"):
        network.engine().launch(newer.model_copy(update={"title": "Another title"}), plan)
