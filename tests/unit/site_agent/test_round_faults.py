"""What lies wrong in a spool, or is asked wrongly of a site, ends with a code and a cure."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plans import SPECS, draw_exams, plan
from site_bench import NAME, START, Bench

from fedcac.aggregate import FlowStage
from fedcac.disclosure import MemoryLedger, load_policy
from fedcac.errors import RoundError, SignatureError
from fedcac.exchange import Closing, Request, parcel_name
from fedcac.protocol import Pooling
from fedcac.signing import SigningKey
from fedcac.statistics import PoolingSession
from fedcac.vocabulary import RefusalCode, SiteName
from site_agent.__main__ import main
from site_agent.exams.cohort import FrozenCohort, flow_of
from site_agent.rounds.answering import Answerer
from site_agent.rounds.packages import RoundPackages
from site_agent.rounds.peers import LivePeers

ROUND, OTHER = "eng-0001", "eng-0002"
DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, approval="auto")


def close(bench: Bench, lies_under: str, closes: str) -> None:
    closing = Closing(round_id=closes, issued_at=bench.now, outcome="closed")
    bench.spool.inbox.put(parcel_name(lies_under, "closing"), closing.seal(bench.lead))


def test_the_closing_of_another_round_ends_none(bench: Bench) -> None:
    bench.offer(ROUND)
    close(bench, ROUND, OTHER)
    with bench.agent() as agent:
        agent.step()
    # An offer beside which something is wrong is not taken, and nobody is told that a site listens.
    assert bench.outbox() == {}
    assert bench.states() == {}


def test_a_round_under_way_waits_for_somebody_to_look_at_a_misplaced_closing(bench: Bench) -> None:
    bench.offer(ROUND)
    with bench.agent() as agent:
        agent.step()
        close(bench, ROUND, OTHER)
        bench.ask(ROUND)
        agent.step()
        problem = agent.problems[ROUND]
    assert isinstance(problem, RoundError)
    assert problem.code == "round.wrong_address"
    assert "who writes to the spool's inbox" in problem.cure
    assert parcel_name(ROUND, "reply", 1) not in bench.outbox()
    assert bench.states() == {ROUND: "answering"}
    # Its own closing ends it.
    (bench.folder.spool_path / "inbox" / parcel_name(ROUND, "closing")).unlink()
    close(bench, ROUND, ROUND)
    with bench.agent() as agent:
        agent.step()
        assert agent.problems == {}
    assert bench.states() == {ROUND: "closed"}


def test_another_package_than_the_one_offered_is_not_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    package: Any = SimpleNamespace(digest=DIGEST, manifest=SimpleNamespace(family="eng2021"))
    monkeypatch.setattr("fedcac.models.open_package", lambda *_: package)
    packages = RoundPackages(bench.spool.inbox, {}, is_accepting_onnx=False)
    assert packages.open(ROUND, DIGEST) is package
    with pytest.raises(SignatureError) as caught:
        packages.open(ROUND, "sha256:" + "2" * 64)
    assert caught.value.code == "signature.wrong_package"
    assert "Ask the lead for a new round" in caught.value.cure


@pytest.mark.parametrize("name", ["../yale", "y ale", "", "yalé", NAME])
def test_a_peer_has_a_name_of_the_consortium_and_not_this_sites(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    key = tmp_path / "site.pub"
    key.write_text(SigningKey.generate().public.to_text() + "\n", encoding="ascii")
    assert main(["--home", str(bench.folder.root), "peer", "add", name, str(key)]) == 2
    told = capsys.readouterr().err
    assert "usage.bad_site" in told
    assert "Give the name under which the" in told
    peers = LivePeers(bench.folder)
    assert (len(peers), list(peers)) == (0, [])


def test_a_peer_counts_from_the_moment_it_is_added_until_it_is_removed(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = LivePeers(bench.folder)
    public = SigningKey.generate().public
    key = tmp_path / "site.pub"
    key.write_text(public.to_text() + "\n", encoding="ascii")
    home = ["--home", str(bench.folder.root), "peer"]
    assert main([*home, "add", "yale", str(key)]) == 0
    assert public.fingerprint in capsys.readouterr().out
    assert (len(peers), peers["yale"]) == (1, public)
    assert main([*home, "remove", "yale"]) == 0
    assert len(peers) == 0
    assert main([*home, "remove", "yale"]) == 2
    assert "usage.unknown_peer" in capsys.readouterr().err


def test_a_sum_that_names_no_least_number_of_sites_is_refused_and_noted() -> None:
    protocol = plan((SPECS["agreement"],), pooling=Pooling(mode="masked", least_sites=3))
    exams = draw_exams(1, 80)
    cohort = FrozenCohort(exams, flow_of(dict.fromkeys(FlowStage, exams.n), Counter()))
    sites = [SiteName(name) for name in ("east", "north", "west")]
    request = Request(
        round_id=ROUND,
        issued_at=START,
        exchange=1,
        protocol_digest=protocol.digest(),
        expires_at=START + timedelta(days=1),
        queries=dict(PoolingSession(protocol, sites).queries),
    )

    def answered(least_sites: int) -> tuple[Any, MemoryLedger]:
        ledger = MemoryLedger()
        answerer = Answerer(load_policy("research"), ledger, b"secret")
        given = (request, DIGEST, protocol, cohort, "north", START, least_sites)
        return answerer.reply(*given), ledger

    (name,) = request.queries
    found, _ = answered(3)
    assert found.vectors[name]
    assert found.reply.answers[name].refusal is None
    found, ledger = answered(0)
    assert found.vectors == {}
    assert found.reply.answers[name].refusal is RefusalCode.UNREGISTERED_TYPE
    assert [entry.analysis for entry in ledger.entries][:1] == [name]
