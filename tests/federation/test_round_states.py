"""Every state of a round: kill -9 anywhere, quorum, closing, two rounds and two engines at once."""

from __future__ import annotations

import os
import signal
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from federation.test_masked_rounds import AGREEMENT, MODEL, START, Consortium, amended
from plans import plan

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.views import LaunchPlan, RoundView, Standing
from coordinator.state.records import EventKind
from coordinator.state.store import CoordinatorStore, RoundState
from fedcac.errors import ProtocolError, RoundError, UsageError
from fedcac.exchange import MailboxCourier, parcel_name
from fedcac.report import estimates_csv
from fedcac.vocabulary import SiteName
from site_agent.state.store import RoundState as SiteRoundState
from site_agent.state.store import SiteStore

SIZES = {"north": 60, "east": 55, "south": 50, "west": 65}
TABLE = plan((AGREEMENT,))
FIT = plan((AGREEMENT, MODEL), id="demo-fit")


@pytest.fixture
def consortium(tmp_path: Path, database_url: str) -> Consortium:
    return Consortium(tmp_path, SIZES, "open", url=database_url)


def step(consortium: Consortium, round_id: str) -> RoundView:
    engine, store = consortium.engine()
    view = engine.step(round_id)
    store.close()
    return view


def turn_sites(consortium: Consortium, *names: str) -> None:
    for name in names:
        agent, own = consortium.agent(name)
        agent.step()
        own.close()


def events(consortium: Consortium, round_id: str) -> list[Any]:
    store = CoordinatorStore(consortium.url)
    found = store.events.of(round_id)
    store.close()
    return [(one.what, one.site, one.detail.get("exchange")) for one in found]


# --- kill -9 --------------------------------------------------------------------------------------


class DyingStore(CoordinatorStore):
    """Is killed right after its first write."""

    def move(self, *arguments: Any, **options: Any) -> bool:
        return died_if(super().move(*arguments, **options))

    def add_parcel(self, *arguments: Any, **options: Any) -> bool:
        return died_if(super().add_parcel(*arguments, **options))


class DyingCourier(MailboxCourier):
    """Is killed right after it has brought its first parcel."""

    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        is_new = self._spools[site].inbox.get(name) is None
        super().send(site, name, payload)
        died_if(is_new)


def died_if(is_done: bool) -> bool:
    if is_done:
        os.kill(os.getpid(), signal.SIGKILL)
    return is_done


def step_until_killed(consortium: Consortium, round_id: str, act: str = "step") -> bool:
    """Run a coordinator that is killed after whatever it does first; say whether it was."""
    with warnings.catch_warnings():
        # Newer Pythons warn of threads, which this process has none of here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            store = DyingStore(consortium.url)
            engine = RoundEngine(
                store=store,
                courier=DyingCourier(consortium.spools),
                key=consortium.lead,
                clock=lambda: consortium.now,
            )
            getattr(engine, act)(round_id)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_a_coordinator_killed_after_everything_it_does_goes_on(consortium: Consortium) -> None:
    undisturbed = consortium.run(consortium.launch(TABLE))
    round_id = consortium.launch(TABLE)
    seen = Counter[str]()
    for _ in range(200):
        if not step_until_killed(consortium, round_id):
            turn_sites(consortium, *SIZES)
            if not step_until_killed(consortium, round_id):
                break
        store = CoordinatorStore(consortium.url)
        seen[store.round(round_id).state.value] += 1
        store.close()
    assert set(seen) == {"draft", "offered", "answering", "pooled"}
    assert seen["draft"] > 4
    view = step(consortium, round_id)
    assert view.record.state is RoundState.POOLED
    assert estimates_csv(view.estimates) == estimates_csv(undisturbed.estimates)
    # Everything happened once.
    told = Counter(events(consortium, round_id))
    assert set(told.values()) == {1}
    whats = Counter(what for what, _, _ in told)
    assert whats[EventKind.ACCEPTED] == whats[EventKind.REPLIED] == len(SIZES)
    assert whats[EventKind.OFFERED] == whats[EventKind.POOLED] == 1
    # Closing too is told to every site, however often it is interrupted.
    assert step_until_killed(consortium, round_id, "close")
    store = CoordinatorStore(consortium.url)
    assert store.round(round_id).state is RoundState.CLOSED
    store.close()
    while step_until_killed(consortium, round_id):
        pass
    turn_sites(consortium, *SIZES)
    for name in SIZES:
        assert state_at_site(consortium, name, round_id) is SiteRoundState.CLOSED


def state_at_site(consortium: Consortium, name: str, round_id: str) -> SiteRoundState | None:
    own = SiteStore(consortium.folder / name / "state.sqlite")
    record = own.round(round_id)
    own.close()
    return None if record is None else record.state


def test_an_engine_leaves_a_round_alone_that_another_moves(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE)
    other = CoordinatorStore(consortium.url)
    with other.leases.hold(f"round:{round_id}") as lease:
        assert lease is not None
        assert step(consortium, round_id).record.state is RoundState.DRAFT
        assert all(not consortium.spools[SiteName(name)].inbox.names() for name in SIZES)
    assert step(consortium, round_id).record.state is RoundState.OFFERED
    other.close()


# --- who comes when -------------------------------------------------------------------------------


def test_standings_phases_and_contacts_follow_the_parcels(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE)
    engine, store = consortium.engine()
    view = engine.view(round_id)
    assert {site.standing for site in view.sites} == {Standing.NOT_ASKED}
    assert (view.phase, view.due) == ("draft", None)
    view = engine.step(round_id)
    assert {site.standing for site in view.sites} == {Standing.INVITED}
    assert view.due == START + timedelta(days=10)
    consortium.now += timedelta(days=1)
    turn_sites(consortium, "north", "east", "south")
    view = engine.step(round_id)
    found = {site.name: (site.standing, site.last_contact) for site in view.sites}
    assert found["north"] == (Standing.APPROVED, consortium.now)
    assert found["west"] == (Standing.INVITED, None)
    turn_sites(consortium, "west")
    view = engine.step(round_id)
    assert view.phase == "scoring"
    assert {site.standing for site in view.sites} == {Standing.SCORING}
    consortium.now += timedelta(days=1)
    turn_sites(consortium, "north")
    view = engine.step(round_id)
    assert view.phase == "answering"
    assert (view.open_exchange, view.due) == (1, START + timedelta(days=11))
    assert {site.name: site.standing for site in view.sites}["north"] is Standing.ANSWERED
    turn_sites(consortium, *SIZES)
    view = engine.step(round_id)
    assert view.phase == "pooled"
    assert {site.standing for site in view.sites} == {Standing.POOLED}
    whats = [what for what, _, _ in events(consortium, round_id)]
    assert whats[:2] == [EventKind.LAUNCHED, EventKind.OFFERED]
    assert whats[-2:] == [EventKind.EXCHANGE_CLOSED, EventKind.POOLED]
    store.close()


def test_a_quorum_goes_on_without_waiting(consortium: Consortium) -> None:
    round_id = consortium.launch(FIT, least=2, quorum=3)
    step(consortium, round_id)
    turn_sites(consortium, "north", "east")
    assert step(consortium, round_id).record.state is RoundState.OFFERED
    turn_sites(consortium, "south")
    assert step(consortium, round_id).record.state is RoundState.ANSWERING
    # West accepts while the first exchange is open, and takes part in it.
    turn_sites(consortium, "west")
    step(consortium, round_id)
    turn_sites(consortium, "west", "north")
    assert step(consortium, round_id).n_exchanges == 0
    turn_sites(consortium, "south")
    view = step(consortium, round_id)
    assert view.n_exchanges == 1
    assert {name for what, name, _ in events(consortium, round_id) if what == "replied"} == {
        "north",
        "south",
        "west",
    }
    for _ in range(30):
        if view.is_finished:
            break
        turn_sites(consortium, "north", "south", "west")
        view = step(consortium, round_id)
    assert view.record.state is RoundState.POOLED
    assert {site.name: site.standing for site in view.sites}["east"] is Standing.LATE
    n = SIZES["north"] + SIZES["south"] + SIZES["west"]
    assert {row.n for row in view.estimates if row.measure == "kappa_linear"} >= {n}


@pytest.mark.parametrize("quorum", [0, 1, 5])
def test_a_quorum_below_the_minimum_or_above_all_cannot_be(
    consortium: Consortium, quorum: int
) -> None:
    with pytest.raises(UsageError, match="bad_quorum"):
        consortium.launch(TABLE, least=2, quorum=quorum)


def test_two_rounds_at_once_do_not_mix(consortium: Consortium) -> None:
    rounds = [consortium.launch(TABLE), consortium.launch(FIT)]
    alone = estimates_csv(consortium.run(consortium.launch(TABLE)).estimates)
    engine, store = consortium.engine()
    views = {}
    for _ in range(40):
        for round_id in rounds:
            views[round_id] = engine.step(round_id)
        if all(view.is_finished for view in views.values()):
            break
        turn_sites(consortium, *SIZES)
    store.close()
    assert {view.record.state for view in views.values()} == {RoundState.POOLED}
    assert estimates_csv(views[rounds[0]].estimates) == alone
    assert views[rounds[0]].n_exchanges == 1 < views[rounds[1]].n_exchanges


# --- the end --------------------------------------------------------------------------------------


def test_nothing_is_taken_in_after_a_cancelled_or_closed_round(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE)
    step(consortium, round_id)
    turn_sites(consortium, *SIZES)
    step(consortium, round_id)
    engine, store = consortium.engine()
    with pytest.raises(RoundError, match="round_running"):
        engine.close(round_id)
    turn_sites(consortium, "north")
    view = engine.cancel(round_id, "anna", "wrong protocol")
    assert view.record.state is RoundState.CANCELLED
    turn_sites(consortium, *SIZES)
    # What north had sent is not taken in, and the others send nothing any more.
    assert engine.step(round_id).record.state is RoundState.CANCELLED
    assert all(not site.replies for site in engine.view(round_id).sites)
    name = parcel_name(round_id, "reply", 1)
    assert name in consortium.sent("north")
    assert name not in consortium.sent("east")
    for act in (engine.cancel, engine.close):
        with pytest.raises(RoundError, match="round_over"):
            act(round_id)
    last = store.events.of(round_id)[-1]
    assert (last.actor, last.what, dict(last.detail)) == (
        "anna",
        EventKind.CANCELLED,
        {"reason": "wrong protocol"},
    )
    store.close()


def test_a_held_reply_of_a_closed_round_stays_at_the_site(consortium: Consortium) -> None:
    consortium.policies["west"] = consortium.policies["west"].model_copy(update={"review": "hold"})
    round_id = consortium.launch(TABLE, least=3, quorum=3)
    view = consortium.turn(round_id)
    for _ in range(3):
        view = consortium.turn(round_id)
    assert view.record.state is RoundState.POOLED
    engine, store = consortium.engine()
    with pytest.raises(RoundError, match="round_pooled"):
        engine.cancel(round_id)
    engine.close(round_id)
    store.close()
    agent, own = consortium.agent("west")
    agent.step()
    with pytest.raises(RoundError, match="round_closed"):
        agent.release(round_id, 1)
    own.close()
    assert parcel_name(round_id, "reply", 1) not in consortium.sent("west")


def test_a_closing_that_the_lead_did_not_sign_closes_nothing(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE)
    step(consortium, round_id)
    turn_sites(consortium, *SIZES)
    step(consortium, round_id)
    offer = consortium.spools[SiteName("north")].inbox.get(parcel_name(round_id, "offer"))
    assert offer is not None
    consortium.spools[SiteName("north")].inbox.put(parcel_name(round_id, "closing"), offer)
    agent, own = consortium.agent("north")
    agent.step()
    assert agent.problems[round_id].code.startswith("signature.")
    own.close()
    assert state_at_site(consortium, "north", round_id) is SiteRoundState.ANSWERING


# --- amendments -----------------------------------------------------------------------------------


def test_a_version_that_follows_another_says_why(consortium: Consortium) -> None:
    consortium.launch(TABLE)
    newer = TABLE.model_copy(update={"version": TABLE.version + 1})
    with pytest.raises(ProtocolError, match="amendment_unexplained"):
        consortium.launch(newer)
    consortium.launch(amended(TABLE))
    plan_of_two = LaunchPlan(tuple(SIZES), 2, START + timedelta(days=1), None, {})
    engine, store = consortium.engine()
    # The third version explains the second, not only the first.
    third = amended(TABLE).model_copy(update={"version": TABLE.version + 2})
    with pytest.raises(ProtocolError, match="amendment_unexplained"):
        engine.launch(third, plan_of_two)
    engine.launch(amended(amended(TABLE)), plan_of_two)
    store.close()
