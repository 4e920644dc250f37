"""Faults at a site: nothing is scored twice, nothing is released twice, and the round goes on."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from site_bench import NAME, START, Bench, killed_at

from fedcac.disclosure import policy as policy_module
from fedcac.errors import RoundError
from fedcac.exchange import parcel_name
from fedcac.signing import SigningKey
from site_agent.exams.scoring_queue import ScoringQueue
from site_agent.rounds.agent import SiteAgent
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

ROUND = "eng-0001"


def held_policy(folder: Path) -> str:
    """Write the research policy with `review: hold`."""
    text = (Path(policy_module.__file__).parent / "policies" / "research.yaml").read_text("utf-8")
    assert "review: auto" in text
    text = text.replace("review: auto", "review: hold")
    path = folder / "held.yaml"
    path.write_text(text.replace("profile: research", "profile: custom"), encoding="utf-8")
    return str(path)


def finished(bench: Bench) -> tuple[bytes, list[tuple[str, int, str]]]:
    """Let the site finish what it can, and return the reply and what the ledger says."""
    for _ in range(4):
        with bench.agent() as agent:
            agent.step()
            assert agent.problems == {}
    return bench.outbox()[parcel_name(ROUND, "reply", 1)], bench.ledger_keys()


def steps(bench: Bench) -> None:
    """Offer, approval, scoring and answer: everything a site does in a round."""
    with bench.agent() as agent:
        agent.step()
        if bench.approval == "manual" and bench.states().get(ROUND) == "offered":
            agent.approve(ROUND)
        agent.step()
        agent.step()


@pytest.mark.parametrize("review", ["auto", "hold"])
def test_kill_at_every_write_of_a_round(tmp_path: Path, review: str) -> None:
    """SIGKILL before each sync, rename and database statement from the offer to the release."""

    def prepared(folder: Path) -> Bench:
        folder.mkdir()
        policy = "open" if review == "auto" else held_policy(folder)
        bench = Bench(folder, policy=policy, n_exams=1)
        bench.offer(ROUND)
        bench.ask(ROUND)
        return bench

    def work(bench: Bench) -> None:
        steps(bench)
        if review == "hold":
            with bench.agent() as agent:
                agent.release(ROUND, 1)

    # Up to the answer both go the same way: one of them in larger strides.
    stride = 1 if review == "auto" else 3
    number, seen = 0, Counter()
    while True:
        bench = prepared(tmp_path / str(number))
        is_killed = killed_at(number, lambda bench=bench: work(bench))
        state = bench.states().get(ROUND, "unknown") if is_killed else "finished"
        seen[state] += 1
        steps(bench)
        if review == "hold":
            with bench.agent() as agent:
                for round_id, exchange in _held(bench):
                    agent.release(round_id, exchange)
        _, ledger = finished(bench)
        # Each exam has one stored score, each analysis one entry, the outbox one reply.
        assert bench.completions() == Counter({1: 1})
        assert len(set(ledger)) == len(ledger) == len(bench.protocol.analyses) + 1
        assert sorted(bench.outbox()) == [f"{ROUND}.acceptance", f"{ROUND}.reply-0001"]
        assert len(bench.reply(ROUND).answers) == len(bench.protocol.analyses)
        if not is_killed:
            break
        number += stride
    assert number > 20
    # The kills did reach every state of a round.
    reached = {"unknown", "offered", "approved", "answering", "finished"}
    assert review == "hold" or reached <= set(seen)


def _held(bench: Bench) -> tuple[tuple[str, int], ...]:
    store = SiteStore(bench.folder.database_path)
    try:
        return store.held()
    finally:
        store.close()


def test_an_exam_that_was_finished_before_the_kill_is_not_scored_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto", n_exams=3)
    bench.offer(ROUND)
    number = 0
    while killed_at(number, lambda: steps(bench)):
        number += 3
    lines = Counter(bench.journal.read_text("ascii").split())
    # An exam may have been under way when a kill came, but what was stored is never scored again.
    assert bench.completions() == Counter({1: 3})
    assert set(lines) == {"p000", "p001", "p002"}
    before = bench.journal.read_text("ascii")
    steps(bench)
    assert bench.journal.read_text("ascii") == before


def test_stops_on_purpose_do_not_use_up_an_exams_attempts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    store = SiteStore(bench.folder.database_path)
    key = ("p000", "package", "profile")
    for _ in range(5):
        store.begin_exam(*key)
        store.abandon_exams(store.exams_under_way)
    assert store.exams("package", "profile") == {}
    assert store.begin_exam(*key) == 1
    # A crash does count: nobody took that attempt back.
    store.close()
    store = SiteStore(bench.folder.database_path)
    assert store.exams_under_way == frozenset()
    assert store.begin_exam(*key) == 2
    # Nor is a stored score touched.
    store.finish_exam(*key, seconds=1.0, total=3.0)
    store.abandon_exams([key])
    assert store.exams("package", "profile")["p000"].total == 3.0
    store.close()


def test_approving_a_round_does_not_work_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's command runs beside the agent: it must not score what the agent is scoring."""
    bench = Bench(tmp_path)
    bench.offer(ROUND)
    with bench.agent() as agent:
        agent.step()
        agent.approve(ROUND)
    bench.offer("eng-0002")

    def must_not_run(*_: object) -> None:
        raise AssertionError("a command of a person scored exams")

    monkeypatch.setattr(ScoringQueue, "run", must_not_run)
    with bench.agent() as agent:
        agent.approve("eng-0002")
        assert agent.problems == {}
    assert bench.states() == {ROUND: "approved", "eng-0002": "approved"}
    bench.offer("eng-0003")
    with bench.agent() as agent:
        agent.refuse("eng-0003")
    assert list(bench.outbox()) == ["eng-0003.acceptance"]


def test_a_round_withdrawn_while_it_is_scored_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.offer(ROUND)
    bench.ask(ROUND)
    with bench.agent() as agent:
        agent.step()
        agent.approve(ROUND)
    genuine = ScoringQueue.run

    def run_and_be_withdrawn(self: ScoringQueue, exams: object) -> object:
        records = genuine(self, exams)  # type: ignore[arg-type]
        with bench.agent() as other:
            other.withdraw(ROUND)
        return records

    monkeypatch.setattr(ScoringQueue, "run", run_and_be_withdrawn)
    with bench.agent() as agent:
        agent.step()
        answers = bench.reply(ROUND).answers
        assert {answer.refusal for answer in answers.values()} == {"empty_cohort"}
        with pytest.raises(RoundError, match="not_approved"):
            agent.withdraw("eng-none")


def test_a_round_that_answers_cannot_be_withdrawn_in_silence(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.offer(ROUND)
    steps(bench)
    with bench.agent() as agent, pytest.raises(RoundError, match="not_approved"):
        agent.withdraw(ROUND)


def test_two_rounds_at_once_score_each_exam_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    for round_id in (ROUND, "eng-0002"):
        bench.offer(round_id)
        bench.ask(round_id)
    with bench.agent() as agent:
        agent.step()
        assert agent.problems == {}
    assert bench.completions() == Counter({1: 4})
    assert len(bench.journal.read_text("ascii").split()) == 4
    assert {name for name in bench.outbox() if "reply" in name} == {
        f"{ROUND}.reply-0001",
        "eng-0002.reply-0001",
    }
    # One round's trouble leaves the other alone.
    bench.ask("eng-0002", 2)
    bench.ask(ROUND, 2, protocol_digest="sha256:" + "1" * 64)
    with bench.agent() as agent:
        agent.step()
        assert {name: p.code for name, p in agent.problems.items()} == {
            ROUND: "round.wrong_protocol"
        }
    assert "eng-0002.reply-0002" in bench.outbox()


def test_a_fault_that_nobody_foresaw_stays_with_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    bench.offer("eng-0002")
    genuine = SiteAgent._step_round

    def stumble(self: SiteAgent, round_id: str) -> bool:
        if round_id == ROUND:
            raise ValueError("DOE^JANE 19510203 /data/doe")
        return genuine(self, round_id)

    monkeypatch.setattr(SiteAgent, "_step_round", stumble)
    with bench.agent() as agent:
        agent.step()
        problem = agent.problems[ROUND]
    assert problem.code == "internal.unexpected"
    assert "ValueError" in str(problem)
    assert "DOE" not in str(problem)
    assert "/data" not in str(problem)
    assert bench.states() == {"eng-0002": "answering"}


def test_requests_of_other_times(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    bench.ask(ROUND, issued_at=START - timedelta(days=3), expires_at=START - timedelta(seconds=1))
    with bench.agent() as agent:
        agent.step()
        assert agent.problems[ROUND].code == "round.expired"
    assert [name for name in bench.outbox() if "reply" in name] == []
    # A lead's clock that is fast does no harm: the signature and the expiry decide.
    bench.ask(ROUND, 2, issued_at=START + timedelta(hours=2), expires_at=START + timedelta(days=2))
    with bench.agent() as agent:
        agent.step()
    assert bench.reply(ROUND, 2).issued_at == START
    # The site's own clock has run past the offer: a new one is not taken at all.
    bench.offer("eng-0002")
    bench.now = START + timedelta(days=31)
    with bench.agent() as agent:
        agent.step()
    assert "eng-0002" not in bench.states()


def test_replayed_altered_and_reordered_requests(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    inbox = bench.folder.spool_path / "inbox"
    # The second question arrives first; the first one is answered when it comes.
    bench.ask(ROUND, 2)
    with bench.agent() as agent:
        agent.step()
    bench.ask(ROUND, 1)
    with bench.agent() as agent:
        agent.step()
        assert agent.problems == {}
    replies = {name: payload for name, payload in bench.outbox().items() if "reply" in name}
    assert len(replies) == 2
    ledger = bench.ledger_keys()
    # The same request under a third number is a replay.
    (inbox / f"{ROUND}.request-0003").write_bytes((inbox / f"{ROUND}.request-0001").read_bytes())
    with bench.agent() as agent:
        agent.step()
        assert agent.problems[ROUND].code == "round.wrong_address"
    # One that was altered after signing.
    document = json.loads(bench.request(ROUND, 3))
    payload = json.loads(base64.b64decode(document["payload"]))
    payload["queries"] = {}
    document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (inbox / f"{ROUND}.request-0003").write_text(json.dumps(document))
    with bench.agent() as agent:
        agent.step()
        assert agent.problems[ROUND].code == "signature.bad_signature"
    # An answered request that is exchanged afterwards changes nothing that was answered.
    (inbox / f"{ROUND}.request-0001").write_bytes(bench.request(ROUND, 1, queries={}))
    (inbox / f"{ROUND}.request-0003").unlink()
    with bench.agent() as agent:
        agent.step()
        assert agent.problems == {}
    assert {n: p for n, p in bench.outbox().items() if "reply" in n} == replies
    assert bench.ledger_keys() == ledger


def test_rounds_of_strangers_and_for_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer("eng-stranger", SigningKey.generate())
    bench.offer("eng-other", sites=("mayo",))
    bench.ask("eng-unknown")
    with bench.agent() as agent:
        agent.step()
    assert bench.states() == {}
    assert bench.outbox() == {}
    assert NAME == "duke"


def test_a_lead_whose_key_is_trusted_no_longer_gets_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    with bench.agent() as agent:
        agent.step()
    bench.ask(ROUND)
    # The site pins another key, because the old one was stolen.
    old, bench.lead = bench.lead, SigningKey.generate()
    settings = bench.folder.settings_path
    text = settings.read_text("utf-8")
    assert old.public.to_text() in text
    settings.write_text(
        text.replace(old.public.to_text(), bench.lead.public.to_text()), encoding="utf-8"
    )
    bench.offer("eng-0002", old)
    with bench.agent() as agent:
        agent.step()
        assert agent.problems[ROUND].code == "signature.untrusted_key"
    assert "eng-0002" not in bench.states()
    assert [name for name in bench.outbox() if "reply" in name] == []
    assert SiteFolder(tmp_path / "site").settings().lead_key == bench.lead.public.to_text()
