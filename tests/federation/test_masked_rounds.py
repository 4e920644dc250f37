"""Rounds whose answers are sums over sites: the same pooled rows, and no site's own numbers."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import BASE, SPECS, plan

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.launching import Launcher
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.store import CoordinatorStore, Direction, EnrolledSite, RoundState
from fedcac.cli.in_memory import pooled_by
from fedcac.disclosure import MemoryLedger, load_policy
from fedcac.errors import RoundError, UsageError
from fedcac.exchange import Mailbox, MailboxCourier, Spool, parcel_name
from fedcac.masking import Block
from fedcac.masking.fixed_point import LARGEST_VALUE
from fedcac.protocol import Amendment, Pooling, Protocol
from fedcac.protocol.catalogue import load_shipped, shipped_protocols
from fedcac.signing import SigningKey
from fedcac.statistics import POOLED, Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
AGREEMENT = SPECS["agreement"].model_copy(update={"id": "agreement"})
ACCURACY = SPECS["accuracy"].model_copy(update={"id": "accuracy"})
MODEL = BASE.model_copy(update={"id": "model", "covariates": ("age",)})
MASKED = Pooling(mode="masked", least_sites=3)
PROTOCOL = plan((AGREEMENT, MODEL), pooling=MASKED)


def write_table(path: Path, seed: int, n: int) -> Path:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.4, 0.0, np.exp(rng.normal(4, 1.7, n)))
    index = np.maximum(0.0, reference * np.exp(rng.normal(0, 0.4, n)) - 2)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["patient_id", "index_score", "reference_score", "age", "follow_up_days", "event"]
        )
        for i in range(n):
            writer.writerow(
                [
                    f"p{i}",
                    f"{index[i]:.3f}",
                    f"{reference[i]:.3f}",
                    f"{rng.normal(60, 9):.1f}",
                    int(rng.integers(30, 1500)),
                    int(rng.random() < 0.4),
                ]
            )
    return path


class Consortium:
    """Sites over tables, and a coordinator that a test may restart between any two steps."""

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, int],
        policy: str = "research",
        peers: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _, keys: keys,
        url: str = "",
    ) -> None:
        self.now = START
        self.folder = folder
        self.url = url or f"sqlite:///{folder / 'coordinator.sqlite'}"
        self.lead = SigningKey.generate()
        self.spools = {SiteName(name): Spool.at(folder / name / "spool") for name in sizes}
        self.keys = {name: SigningKey.generate() for name in sizes}
        self.public = {name: key.public for name, key in self.keys.items()}
        self.peers = peers
        self.policies = dict.fromkeys(sizes, load_policy(policy))
        self.ledgers = {name: MemoryLedger() for name in sizes}
        self.tables = {
            name: write_table(folder / f"{name}.csv", seed, n)
            for seed, (name, n) in enumerate(sizes.items(), start=1)
        }
        store = CoordinatorStore(self.url)
        for name, key in self.public.items():
            store.enrol(EnrolledSite(name, key, ""))
        store.close()

    def agent(self, name: str) -> tuple[SiteAgent, SiteStore]:
        """Return the site as it is after a restart."""
        store = SiteStore(self.folder / name / "state.sqlite")
        known = self.peers(name, dict(self.public))
        agent = SiteAgent(
            identity=SiteIdentity(name, self.keys[name], self.lead.public, known),
            spool=self.spools[SiteName(name)],
            store=store,
            source=TableSource(self.tables[name]),
            answerer=Answerer(self.policies[name], self.ledgers[name], name.encode()),
            is_auto_approving=True,
            clock=lambda: self.now,
        )
        return agent, store

    def engine(self) -> tuple[RoundEngine, CoordinatorStore]:
        store = CoordinatorStore(self.url)
        courier = MailboxCourier(self.spools)
        return RoundEngine(
            store=store, courier=courier, key=self.lead, clock=lambda: self.now
        ), store

    def launch(
        self, protocol: Protocol = PROTOCOL, least: int = 3, quorum: int | None = None
    ) -> str:
        engine, store = self.engine()
        deadline = self.now + timedelta(days=10)
        least = min(least, len(self.keys))
        plan = LaunchPlan(tuple(self.keys), least, deadline, None, {}, quorum)
        try:
            return engine.launch(protocol, plan)
        finally:
            store.close()

    def turn(self, round_id: str, names: Any = None) -> RoundView:
        """Restart everybody, let the coordinator and then the sites act once."""
        engine, store = self.engine()
        try:
            engine.step(round_id)
            for name in self.keys if names is None else names:
                agent, own = self.agent(name)
                agent.step()
                problem = agent.problems.get(round_id)
                own.close()
                if problem is not None:
                    raise problem
            return engine.step(round_id)
        finally:
            store.close()

    def run(self, round_id: str, turns: int = 80) -> RoundView:
        for _ in range(turns):
            view = self.turn(round_id)
            if view.is_finished:
                return view
        raise AssertionError("the round does not end")

    def sent(self, name: str) -> dict[str, bytes]:
        outbox = self.spools[SiteName(name)].outbox
        return {parcel: outbox.get(parcel) or b"" for parcel in outbox.names()}


def amended(protocol: Protocol, **changes: Any) -> Protocol:
    """Return the protocol's next version."""
    reason = Amendment(version=protocol.version, reason="Changed for a test.")
    update = {"version": protocol.version + 1, "amends": (*protocol.amends, reason), **changes}
    return protocol.model_copy(update=update)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path, {"north": 40, "east": 35, "south": 50, "west": 45})


def by_key(rows: tuple[Estimate, ...]) -> dict[tuple[str, ...], Estimate]:
    return {(r.analysis, r.measure.value, r.group, r.term): r for r in rows if r.scope == POOLED}


def pooled_in_the_open(consortium: Consortium, protocol: Protocol) -> dict[Any, Estimate]:
    """Return the pooled rows of the same patients without gate and masks."""
    parts = {
        SiteName(name): TableSource(path).collect(protocol, None).exams
        for name, path in consortium.tables.items()
    }
    session = PoolingSession(protocol.model_copy(update={"pooling": Pooling()}), list(parts))
    while not session.is_finished:
        session.answer(
            {
                site: {
                    name: estimator_for(name, protocol).summarise(exams, query)
                    for name, query in session.queries.items()
                }
                for site, exams in parts.items()
            }
        )
    return by_key(session.estimates())


def assert_equals(found: dict[Any, Estimate], expected: dict[Any, Estimate]) -> None:
    assert found
    for key, row in found.items():
        other = expected[key]
        assert (row.status, row.n) == (other.status, other.n), key
        if row.estimate is not None:
            assert row.estimate == pytest.approx(other.estimate, rel=1e-7, abs=1e-9), key


def test_small_sites_pool_what_none_of_them_may_show(consortium: Consortium) -> None:
    view = consortium.run(consortium.launch())
    assert view.record.state is RoundState.POOLED
    assert {row.scope for row in view.estimates} == {POOLED}
    rows = by_key(view.estimates)
    assert rows["agreement", "kappa_linear", "", ""].status is RowStatus.OK
    assert rows["agreement", "kappa_linear", "", ""].n == 170
    assert_equals(rows, pooled_in_the_open(consortium, PROTOCOL))


def test_sums_on_either_database(tmp_path: Path, database_url: str) -> None:
    sizes = {"north": 40, "east": 35, "south": 50}
    consortium = Consortium(tmp_path, sizes, url=database_url)
    view = consortium.run(consortium.launch())
    assert view.record.state is RoundState.POOLED
    pooled = by_key(view.estimates)["agreement", "kappa_linear", "", ""]
    assert pooled.n == sum(sizes.values())


def test_one_by_one_the_same_sites_would_show_nothing(tmp_path: Path) -> None:
    open_pooling = PROTOCOL.model_copy(update={"pooling": Pooling()})
    consortium = Consortium(tmp_path, {"north": 40, "east": 35, "south": 50, "west": 45})
    view = consortium.run(consortium.launch(open_pooling))
    rows = {(r.scope, r.measure.value): r for r in view.estimates if r.analysis == "agreement"}
    assert rows[POOLED, "kappa_linear"].status is RowStatus.SUPPRESSED


def numbers_in(payload: bytes) -> str:
    """Return everything that a parcel holds, opened to the last layer."""
    envelope = json.loads(payload)
    return base64.b64decode(envelope["payload"]).decode()


def test_no_parcel_of_a_site_holds_its_aggregate(consortium: Consortium) -> None:
    round_id = consortium.launch()
    consortium.run(round_id)
    for name, ledger in consortium.ledgers.items():
        added = [entry for entry in ledger.entries if entry.least_sites]
        assert {entry.analysis for entry in added} == {"agreement", "model"}
        texts = [numbers_in(payload) for payload in consortium.sent(name).values()]
        replies = [json.loads(text) for text in texts if '"answers"' in text]
        assert replies
        for reply in replies:
            assert all(answer["release"] is None for answer in reply["answers"].values())
        for entry in added:
            # Long enough not to occur by chance.
            for key in ("gradient", "matrix"):
                if key in (entry.payload or {}):
                    told = json.dumps(entry.payload[key], separators=(",", ":"))
                    assert not any(told in text for text in texts)


def masked_of(consortium: Consortium, name: str, round_id: str) -> np.ndarray[Any, Any]:
    text = numbers_in(consortium.sent(name)[parcel_name(round_id, "masked", 1)])
    raw = base64.b64decode(json.loads(text)["document"]["values"]["agreement"])
    return np.frombuffer(raw, dtype=np.uint8)


def test_a_masked_vector_looks_like_noise(consortium: Consortium) -> None:
    round_id = consortium.launch()
    consortium.run(round_id)
    for name in consortium.keys:
        bits = np.unpackbits(masked_of(consortium, name, round_id))
        # A vector of small counts has hardly a bit set; noise has half of them.
        assert abs(float(bits.mean()) - 0.5) < 0.05


STAYING = ("north", "south", "west")


def until_plans_are_sent(consortium: Consortium, round_id: str) -> None:
    inboxes = [spool.inbox for spool in consortium.spools.values()]
    for _ in range(10):
        if all(inbox.get(parcel_name(round_id, "plan", 1)) for inbox in inboxes):
            return
        consortium.turn(round_id)
    raise AssertionError("no plan was sent")


@pytest.mark.parametrize("is_back", [False, True])
def test_a_site_that_drops_out_is_recovered_from(consortium: Consortium, is_back: bool) -> None:
    round_id = consortium.launch()
    # East has promised a vector and does not send it.
    until_plans_are_sent(consortium, round_id)
    assert not consortium.turn(round_id, STAYING).is_finished
    consortium.now += timedelta(days=11)
    for number in range(1, 80):
        view = consortium.turn(round_id, tuple(consortium.keys) if is_back else STAYING)
        if view.is_finished:
            break
        # Time passes only where nobody but east is waited for.
        consortium.now += timedelta(days=11 if number % 5 == 0 and not is_back else 0)
    assert view.record.state is RoundState.POOLED
    del consortium.tables["east"]
    assert_equals(by_key(view.estimates), pooled_in_the_open(consortium, PROTOCOL))


def test_too_few_that_stay_open_nothing(consortium: Consortium) -> None:
    round_id = consortium.launch()
    until_plans_are_sent(consortium, round_id)
    consortium.turn(round_id, ("north", "west"))
    consortium.now += timedelta(days=11)
    view = consortium.turn(round_id, ("north", "west"))
    rows = by_key(view.estimates)
    assert rows["agreement", "kappa_linear", "", ""].estimate is None
    for name in consortium.keys:
        assert parcel_name(round_id, "shares", 1) not in consortium.sent(name)


def test_a_lead_with_made_up_sites_gets_no_vector(tmp_path: Path) -> None:
    def only_itself(name: str, keys: dict[str, Any]) -> dict[str, Any]:
        return {name: keys[name]}

    consortium = Consortium(tmp_path, {"north": 40, "east": 35, "south": 50}, peers=only_itself)
    round_id = consortium.launch()
    with pytest.raises(Exception, match="not confirmed here") as caught:
        consortium.turn(round_id, ("north",))
    assert caught.value.code == "round.unknown_peer"
    assert consortium.sent("north") == {}
    # Once its people have confirmed the keys, the same round goes on.
    consortium.peers = lambda _, keys: keys
    assert consortium.run(round_id).record.state is RoundState.POOLED


def test_two_sites_are_too_few(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, {"north": 40, "east": 35})
    with pytest.raises(UsageError, match="at least 3 sites"):
        consortium.launch()


def test_a_second_round_over_other_sites_is_not_answered(consortium: Consortium) -> None:
    first = consortium.run(consortium.launch())
    again = consortium.run(consortium.launch())
    assert by_key(again.estimates) == by_key(first.estimates)
    # West has left: the difference of the two sums would be west's own table.
    del consortium.keys["west"]
    round_id = consortium.launch()
    with pytest.raises(Exception, match="other sites") as caught:
        consortium.run(round_id)
    assert caught.value.code == "round.sites_changed"
    for name in consortium.keys:
        assert parcel_name(round_id, "masked", 1) not in consortium.sent(name)


def test_what_was_added_is_not_told_by_itself_afterwards(consortium: Consortium) -> None:
    consortium.run(consortium.launch())
    view = consortium.run(consortium.launch(amended(PROTOCOL, pooling=Pooling())))
    codes = {
        answer.refusal
        for site in view.sites
        for reply in site.replies
        for answer in reply.answers.values()
    }
    assert codes == {RefusalCode.UNPROTECTABLE}


def test_analyses_named_per_site_are_answered_by_each_site(tmp_path: Path) -> None:
    pooling = Pooling(mode="masked", least_sites=3, per_site=("accuracy",))
    protocol = plan((AGREEMENT, ACCURACY), pooling=pooling)
    consortium = Consortium(tmp_path, {"north": 400, "east": 400, "south": 400}, "open")
    view = consortium.run(consortium.launch(protocol))
    scopes = {row.scope for row in view.estimates if row.analysis == "accuracy"}
    assert {"north", "east", "south", POOLED} <= scopes
    assert {row.scope for row in view.estimates if row.analysis == "agreement"} == {POOLED}


def test_the_sum_is_that_of_the_sites_vectors(consortium: Consortium) -> None:
    view = consortium.run(consortium.launch())
    counts = [r for r in view.estimates if r.measure.value == "count" and r.group and r.term]
    entries = [
        next(e for e in ledger.entries if e.analysis == "agreement")
        for ledger in consortium.ledgers.values()
    ]
    total = np.sum([np.array(e.payload["matrix"]) for e in entries if e.payload], axis=0)
    assert sum(row.estimate or 0 for row in counts) == pytest.approx(float(total.sum()))


def test_a_sum_over_two_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="least_sites"):
        Pooling(mode="masked", least_sites=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per_site": ("nothing",)}, "names no analysis"),
        ({"mode": "open", "per_site": ("agreement",)}, "belongs to the mode"),
    ],
)
def test_pooling_that_contradicts_the_protocol(change: dict[str, Any], words: str) -> None:
    pooling = Pooling.model_validate(MASKED.model_dump() | change)
    with pytest.raises(ValueError, match=words):
        plan((AGREEMENT, MODEL), pooling=pooling)


def test_each_sites_own_model_cannot_be_masked() -> None:
    with pytest.raises(ValueError, match="per_site"):
        plan((MODEL.model_copy(update={"by_site": True}),), pooling=MASKED)


class KilledAtFirst(Mailbox):
    """An outbox before whose every first writing the process dies."""

    def __init__(self, inner: Mailbox, tried: set[str]) -> None:
        self._inner = inner
        self._tried = tried

    def put(self, name: str, payload: bytes) -> None:
        if name not in self._tried:
            self._tried.add(name)
            raise KeyboardInterrupt(name)
        self._inner.put(name, payload)

    def get(self, name: str) -> bytes | None:
        return self._inner.get(name)

    def names(self) -> tuple[str, ...]:
        return self._inner.names()


def test_a_site_killed_before_every_parcel_goes_on_as_if_it_was_not(
    consortium: Consortium,
) -> None:
    tried: dict[str, set[str]] = {name: set() for name in consortium.keys}
    for name, spool in consortium.spools.items():
        outbox = KilledAtFirst(spool.outbox, tried[name])
        consortium.spools[name] = Spool(spool.inbox, outbox)
    round_id, view = consortium.launch(), None
    for _ in range(200):
        try:
            view = consortium.turn(round_id)
        except KeyboardInterrupt:
            continue
        if view.is_finished:
            break
    assert view is not None
    assert view.record.state is RoundState.POOLED
    assert all(f"{round_id}.shares-0001" in names for names in tried.values())
    assert_equals(by_key(view.estimates), pooled_in_the_open(consortium, PROTOCOL))


def test_a_parcel_of_another_sites_hand_is_left_out(consortium: Consortium) -> None:
    round_id = consortium.launch()
    until_plans_are_sent(consortium, round_id)
    name = parcel_name(round_id, "masked", 1)
    # West's courier delivers what north signed, in west's name and in its own.
    consortium.turn(round_id, ("north",))
    forged = consortium.sent("north")[name]
    consortium.spools[SiteName("west")].outbox.put(name, forged)
    consortium.turn(round_id, ("east", "south"))
    engine, store = consortium.engine()
    assert store.parcel(round_id, Direction.RECEIVED, name, "west") is None
    assert store.parcel(round_id, Direction.RECEIVED, name, "east") is not None
    consortium.now += timedelta(days=11)
    engine.step(round_id)
    store.close()
    survivors = consortium.spools[SiteName("east")].inbox.get(parcel_name(round_id, "survivors", 1))
    assert survivors is not None
    assert json.loads(numbers_in(survivors))["document"]["survivors"] == ["east", "north", "south"]


def test_held_replies_promise_nothing_until_a_person_lets_them_go(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, {"north": 40, "east": 35, "south": 50})
    held = load_policy("research").model_copy(update={"review": "hold", "profile": "custom"})
    consortium.policies["east"] = held
    round_id = consortium.launch()
    for _ in range(4):
        consortium.turn(round_id)
    assert f"{round_id}.reply-0001" not in consortium.sent("east")
    agent, store = consortium.agent("east")
    agent.reject(round_id, 1)
    store.close()
    view = consortium.run(round_id)
    assert not any(".masked-" in name for name in consortium.sent("east"))
    # Two are too few for a sum.
    row = by_key(view.estimates)["agreement", "kappa_linear", "", ""]
    assert row.estimate is None


def with_one_event(table: Path) -> None:
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit(",", 1)[0] for line in lines[1:]]
    events = [",1", *[",0"] * (len(rows) - 1)]
    text = [lines[0], *(row + event for row, event in zip(rows, events, strict=True))]
    table.write_text("\n".join(text) + "\n", encoding="utf-8")


def test_who_cannot_add_to_one_sum_adds_to_none(consortium: Consortium) -> None:
    # Its single event would be the events of one sum less those of another.
    with_one_event(consortium.tables["west"])
    view = consortium.run(consortium.launch())
    (first, *_) = view.sums
    assert {told.sites for told in first.values()} == {("east", "north", "south")}
    del consortium.tables["west"]
    assert_equals(by_key(view.estimates), pooled_in_the_open(consortium, PROTOCOL))


def test_a_lead_that_sums_two_analyses_over_different_sites_gets_neither(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven(self: Any, offer: Any, terms: Any, exchange: int, *_: Any) -> Any:
        lengths = {"agreement": 42, "model": 5}
        for analysis, n in lengths.items():
            members = tuple(sorted(consortium.keys))[: 4 if analysis == "agreement" else 3]
            yield (
                analysis,
                Block(analysis=analysis, n_numbers=n, bound=LARGEST_VALUE, members=members),
            )

    monkeypatch.setattr("coordinator.rounds.masked_sums.MaskedSums._blocks", uneven)
    round_id = consortium.launch()
    with pytest.raises(RoundError) as caught:
        consortium.run(round_id)
    assert caught.value.code == "round.sites_changed"
    for name in consortium.keys:
        assert parcel_name(round_id, "masked", 1) not in consortium.sent(name)


TABLE_ALONE = plan((AGREEMENT,), pooling=MASKED)


def test_one_more_column_does_not_make_other_patients(consortium: Consortium) -> None:
    consortium.run(consortium.launch(TABLE_ALONE))
    # The same patients with their endpoint: the sum less that of the table would count west's.
    model = amended(plan((MODEL,), pooling=MASKED))
    del consortium.keys["west"]
    with pytest.raises(RoundError) as caught:
        consortium.run(consortium.launch(model))
    assert caught.value.code == "round.sites_changed"


def test_a_bound_that_would_measure_a_site_is_not_answered(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of four sites only two have no number above 42: who answers would tell.
    monkeypatch.setattr("coordinator.rounds.masked_sums.LARGEST_VALUE", 42.0)
    round_id = consortium.launch(TABLE_ALONE)
    with pytest.raises(RoundError) as caught:
        consortium.run(round_id)
    assert caught.value.code == "round.bad_bound"
    for name in consortium.keys:
        assert parcel_name(round_id, "masked", 1) not in consortium.sent(name)


def test_nothing_is_added_up_with_a_site_that_is_trusted_no_longer(consortium: Consortium) -> None:
    round_id = consortium.launch()
    until_plans_are_sent(consortium, round_id)
    consortium.peers = lambda _, keys: {name: key for name, key in keys.items() if name != "west"}
    with pytest.raises(RoundError) as caught:
        consortium.turn(round_id, ("north",))
    assert caught.value.code == "round.unknown_peer"
    assert parcel_name(round_id, "masked", 1) not in consortium.sent("north")


def test_two_rounds_at_once_over_different_sites_have_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {name: 40 + i for i, name in enumerate("abcdef")}
    consortium = Consortium(tmp_path, sizes)
    real = Launcher._masking_terms

    def low(*arguments: Any) -> Any:
        terms = real(*arguments)
        return terms and terms.model_copy(update={"threshold": 3})

    # Three sign one list and the other three the other: nobody signs both.
    monkeypatch.setattr(Launcher, "_masking_terms", low)
    rounds = []
    for left_out in "fe":
        key = consortium.keys.pop(left_out)
        rounds.append(consortium.launch(TABLE_ALONE))
        consortium.keys[left_out] = key
    engine, store = consortium.engine()
    for _ in range(4):
        for round_id in rounds:
            engine.step(round_id)
        for name in sizes:
            agent, own = consortium.agent(name)
            agent.step()
            own.close()
    store.close()
    for name in "abcd":
        masked = [n for n in consortium.sent(name) if ".masked-" in n]
        assert len(masked) == 1


def test_after_a_sum_that_failed_fewer_of_its_sites_may_add_up(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE_ALONE)
    until_plans_are_sent(consortium, round_id)
    consortium.turn(round_id, ("north", "west"))
    consortium.now += timedelta(days=11)
    assert consortium.turn(round_id, ("north", "west")).is_finished
    # East is gone for good; three of four sites sign one list only.
    del consortium.keys["east"]
    view = consortium.run(consortium.launch(TABLE_ALONE))
    assert view.sums[0]["agreement"].sites == STAYING


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_every_shipped_protocol_can_be_pooled_in_sums(name: str) -> None:
    protocol = pooled_by(load_shipped(name), "masked")
    masked = [spec.id for spec in protocol.analyses if protocol.is_masked(spec.id)]
    assert len(masked) >= len(protocol.analyses) - 1
    assert pooled_by(protocol, "open").pooling == Pooling()
