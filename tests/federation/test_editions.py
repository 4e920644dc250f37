"""Late sites: the round is pooled again with them, and nobody is asked what it has answered."""

from __future__ import annotations

import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from federation.test_masked_rounds import Consortium, amended
from federation.test_round_states import FIT, SIZES, TABLE, events, step, turn_sites

from coordinator.folder import CoordinatorFolder
from coordinator.reports.release_reading import read_releases
from coordinator.reports.releases import releases_jsonl, seals_of
from coordinator.reports.repooling import repool
from coordinator.rounds.api import Rounds
from coordinator.rounds.editions import Retry
from coordinator.rounds.views import RoundView, Standing
from coordinator.state.records import EventKind
from coordinator.state.store import RoundState
from fedcac.cli import main
from fedcac.errors import RoundError, UsageError
from fedcac.exchange import parcel_name
from fedcac.protocol import Protocol
from fedcac.report import estimates_csv
from fedcac.vocabulary import RefusalCode, SiteName
from site_agent.exams.cohort import FrozenCohort
from site_agent.exams.exam_pipeline import ExamScore
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

EARLY = tuple(name for name in SIZES if name != "west")


@pytest.fixture
def consortium(tmp_path: Path, database_url: str) -> Consortium:
    return Consortium(tmp_path, SIZES, "open", url=database_url)


def pooled_without_west(consortium: Consortium, protocol: Protocol, *, accepts: bool = True) -> str:
    """Return a round that was pooled when west had accepted, or not even that."""
    round_id = consortium.launch(protocol, least=2)
    step(consortium, round_id)
    turn_sites(consortium, *EARLY, *(["west"] if accepts else []))
    if not accepts:
        consortium.now += timedelta(days=11)
    view = step(consortium, round_id)
    turn_sites(consortium, *EARLY)
    assert not step(consortium, round_id).is_finished or not accepts
    for _ in range(30):
        consortium.now += timedelta(days=11)
        view = step(consortium, round_id)
        if view.is_finished:
            break
        turn_sites(consortium, *EARLY)
    assert view.record.state is RoundState.POOLED
    return round_id


def retried(consortium: Consortium, round_id: str, **options: Any) -> RoundView:
    engine, store = consortium.engine()
    try:
        engine.retry(round_id, Retry(**options))
        return engine.step(round_id)
    finally:
        store.close()


def finish(consortium: Consortium, round_id: str, *names: str) -> RoundView:
    view = step(consortium, round_id)
    for _ in range(40):
        if view.is_finished:
            return view
        turn_sites(consortium, *names)
        view = step(consortium, round_id)
    raise AssertionError("the round does not end")


def whole(consortium: Consortium, protocol: Protocol) -> str:
    """Return the estimates of a round in which every site answered in time."""
    round_id = consortium.launch(protocol)
    return estimates_csv(finish(consortium, round_id, *SIZES).estimates)


@pytest.mark.parametrize("accepts", [True, False], ids=["accepted", "unheard of"])
def test_one_question_is_pooled_again_without_asking_anybody_else(
    consortium: Consortium, accepts: bool
) -> None:
    round_id = pooled_without_west(consortium, TABLE, accepts=accepts)
    before = step(consortium, round_id)
    sent = {name: dict(consortium.sent(name)) for name in EARLY}
    inboxes = {name: consortium.spools[SiteName(name)].inbox.names() for name in EARLY}
    ledgers = {name: consortium.ledgers[name].head for name in EARLY}
    retried(consortium, round_id, reason="the scanner was down")
    view = finish(consortium, round_id, *SIZES)
    assert view.record.state is RoundState.POOLED
    assert view.record.edition == 2
    assert estimates_csv(view.estimates) == whole(consortium, TABLE)
    # The others' boxes and ledgers are as they were, before the second whole round.
    for name in EARLY:
        now = consortium.spools[SiteName(name)].inbox.names()
        assert tuple(n for n in now if n.startswith(round_id)) == tuple(
            n for n in inboxes[name] if n.startswith(round_id)
        )
        assert {n: p for n, p in consortium.sent(name).items() if n.startswith(round_id)} == {
            n: p for n, p in sent[name].items() if n.startswith(round_id)
        }
        assert ledgers[name] in {e.previous for e in consortium.ledgers[name].entries} | {
            consortium.ledgers[name].head
        }
    # The first edition stays what it was.
    engine, store = consortium.engine()
    first = engine.view(round_id, 1)
    assert estimates_csv(first.estimates) == estimates_csv(before.estimates)
    assert (first.record.finished_at, first.record.state) == (
        before.record.finished_at,
        RoundState.POOLED,
    )
    assert [one.added for one in view.editions] == [(), ("west",)]
    retry = [one for one in store.events.of(round_id) if one.what is EventKind.RETRIED]
    assert [dict(one.detail)["added"] for one in retry] == [["west"]]
    with pytest.raises(RoundError, match="unknown_edition"):
        engine.view(round_id, 3)
    store.close()


def test_a_fit_asks_on_from_where_the_late_site_moves_it(consortium: Consortium) -> None:
    """The first question is everybody's answer; the rest is asked of all, and pooled anew."""
    round_id = pooled_without_west(consortium, FIT)
    n_before = step(consortium, round_id).n_exchanges
    assert n_before > 2
    retried(consortium, round_id, sites=("west",))
    view = finish(consortium, round_id, *SIZES)
    assert view.record.state is RoundState.POOLED
    assert estimates_csv(view.estimates) == whole(consortium, FIT)
    assert len(view.steps) > 2
    first = view.steps[0]
    assert {n for sites in first.values() for name, n in sites.items() if name != "west"} == {1}
    # West's first request had expired: it was asked anew, alone.
    assert {sites["west"] for sites in first.values()} == {n_before + 1}
    name = parcel_name(round_id, "request", n_before + 1)
    assert [site for site in SIZES if name in consortium.spools[SiteName(site)].inbox.names()] == [
        "west"
    ]
    later = {n for used in view.steps[1:] for sites in used.values() for n in sites.values()}
    assert min(later) > n_before + 1
    # West answered nothing that only the first edition had wanted to know.
    names = [name for name in consortium.sent("west") if name.startswith(f"{round_id}.reply")]
    answered = {int(name[-4:]) for name in names}
    assert not answered & set(range(2, n_before + 1))
    kinds = [exchange for what, _, exchange in events(consortium, round_id) if what == "replied"]
    assert max(kinds) > n_before


class Queue(TableSource):
    """Scores every exam of a table through the scoring queue, and counts what is scored."""

    def __init__(self, table: Path, store: SiteStore, scored: list[str]) -> None:
        super().__init__(table)
        self._store = store
        self._scored = scored

    def collect(self, protocol: Any, package: Any, reference: Any = None) -> FrozenCohort:
        cohort = super().collect(protocol, package, reference)

        def score(series: Path) -> ExamScore:
            self._scored.append(series.name)
            return ExamScore(total=1.0, vessels={})

        queue = ScoringQueue(self._store, "sha256:0", "agatston1990", score)
        queue.run([IndexExam(key, Path(key)) for key in cohort.exams.keys])
        return cohort


def test_no_exam_is_scored_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, SIZES, "open")
    scored: dict[str, list[str]] = {name: [] for name in SIZES}
    plain = consortium.agent

    def agent(name: str) -> Any:
        made, own = plain(name)
        made._source = Queue(consortium.tables[name], own, scored[name])
        return made, own

    monkeypatch.setattr(consortium, "agent", agent)
    round_id = pooled_without_west(consortium, FIT)
    retried(consortium, round_id)
    assert finish(consortium, round_id, *SIZES).record.edition == 2
    for name, n in SIZES.items():
        assert len(scored[name]) == len(set(scored[name])) == n
        own = SiteStore(tmp_path / name / "state.sqlite")
        records = own.exams("sha256:0", "agatston1990").values()
        assert {(one.attempts, one.completions) for one in records} == {(1, 1)}
        own.close()


def test_under_a_policy_a_question_asked_again_costs_nothing(tmp_path: Path) -> None:
    """What was released is released again byte for byte; only new questions are charged."""
    consortium = Consortium(tmp_path, dict.fromkeys(SIZES, 300), "research")
    round_id = pooled_without_west(consortium, FIT)
    retried(consortium, round_id)
    view = finish(consortium, round_id, *SIZES)
    assert view.record.state is RoundState.POOLED
    for name in EARLY:
        told = [e for e in consortium.ledgers[name].entries if e.payload is not None]
        keys = [e.key for e in told if e.repeats is None]
        assert len(keys) == len(set(keys))
        by_key: dict[str, set[str]] = {}
        for entry in told:
            by_key.setdefault(entry.key, set()).add(str(entry.release_digest))
        assert {len(digests) for digests in by_key.values()} == {1}


def test_a_failed_round_goes_on_when_its_sites_come(consortium: Consortium) -> None:
    round_id = consortium.launch(TABLE, least=4)
    step(consortium, round_id)
    turn_sites(consortium, *EARLY)
    consortium.now += timedelta(days=11)
    view = step(consortium, round_id)
    assert (view.record.state, view.is_pooled) == (RoundState.FAILED, False)
    retried(consortium, round_id, patience=timedelta(days=5))
    view = finish(consortium, round_id, *SIZES)
    assert view.is_pooled
    assert estimates_csv(view.estimates) == whole(consortium, TABLE)


def test_an_edition_without_its_late_site_ends_at_its_deadline(consortium: Consortium) -> None:
    round_id = pooled_without_west(consortium, TABLE)
    before = estimates_csv(step(consortium, round_id).estimates)
    view = retried(consortium, round_id, patience=timedelta(days=2))
    found = {site.name: site.standing for site in view.sites}
    assert found == dict.fromkeys(EARLY, Standing.ANSWERED) | {"west": Standing.SCORING}
    consortium.now += timedelta(days=3)
    view = step(consortium, round_id)
    assert view.is_pooled
    assert estimates_csv(view.estimates) == before
    # And once more, when it does come.
    retried(consortium, round_id)
    view = finish(consortium, round_id, *SIZES)
    assert view.record.edition == 3
    assert estimates_csv(view.estimates) == whole(consortium, TABLE)


def test_what_cannot_be_retried_says_why(consortium: Consortium, tmp_path: Path) -> None:
    round_id = consortium.launch(TABLE, least=2)
    with pytest.raises(RoundError, match="round_running"):
        retried(consortium, round_id)
    step(consortium, round_id)
    agent, own = consortium.agent("west")
    agent._is_auto_approving = False
    agent.step()
    agent.refuse(round_id)
    own.close()
    view = finish(consortium, round_id, *EARLY)
    assert {s.name: s.refusal for s in view.sites}["west"] is RefusalCode.REJECTED_BY_SITE
    for sites, code in (
        (("west",), "site_refused"),
        (("north",), "site_pooled"),
        (("moon",), "not_invited"),
        ((), "nobody_late"),
    ):
        with pytest.raises(RoundError, match=code):
            retried(consortium, round_id, sites=sites)
    with pytest.raises(UsageError, match="bad_deadline"):
        retried(consortium, round_id, patience=timedelta(0))
    engine, store = consortium.engine()
    engine.close(round_id)
    store.close()
    with pytest.raises(RoundError, match="round_over"):
        retried(consortium, round_id)


def test_masked_sums_take_no_late_site(tmp_path: Path, database_url: str) -> None:
    """Not even those of a round that failed: what its sites had added by then is not known."""
    from federation.test_masked_rounds import TABLE_ALONE

    consortium = Consortium(tmp_path, SIZES, url=database_url)
    round_id = consortium.launch(TABLE_ALONE, least=4)
    consortium.now += timedelta(days=11)
    assert step(consortium, round_id).record.state is RoundState.FAILED
    with pytest.raises(RoundError, match="masked_edition"):
        retried(consortium, round_id)


# --- given out ------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> tuple[Path, Consortium]:
    """Return a coordinator's folder over the consortium, for command lines."""
    consortium = Consortium(tmp_path, SIZES, "open")
    folder = CoordinatorFolder(tmp_path / "lead")
    folder.key_path.parent.mkdir(parents=True)
    consortium.lead.save(folder.key_path)
    folder.database_path.write_text(consortium.url, encoding="utf-8")
    return folder.root, consortium


def test_report_archive_and_releases_tell_of_editions_and_amendments(
    home: tuple[Path, Consortium],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, consortium = home
    monkeypatch.setattr(CoordinatorFolder, "engine", lambda *_: engine)
    engine, store = consortium.engine()
    protocol = amended(FIT)
    round_id = pooled_without_west(consortium, protocol)
    retried(consortium, round_id, reason="the scanner was down")
    finish(consortium, round_id, *SIZES)
    with Rounds.open(root, "anna") as rounds:
        assert "round close" in " ".join(rounds.status(round_id).next_steps)
        rounds.write_report(round_id, tmp_path / "out")
        rounds.write_report(round_id, tmp_path / "first", edition=1)
        rounds.export(round_id, tmp_path / "a.zip")
        rounds.export(round_id, tmp_path / "b.zip")
        with pytest.raises(UsageError, match="archive_exists"):
            rounds.export(round_id, tmp_path / "a.zip")
        whats = [one.what for one in rounds.events(round_id)]
        assert whats[-4:] == [EventKind.REPORT_WRITTEN] * 2 + [EventKind.EXPORTED] * 2
        assert rounds.events(round_id)[-1].actor == "anna"
        (summary,) = rounds.list()
        assert (summary.phase, summary.edition, summary.n_taking_part) == ("pooled", 2, 4)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Edition 2: west added (the scanner was down)." in page
    assert "Version 2 was amended: Changed for a test." in page
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert "edition 2: west added (the scanner was down)" in json.dumps(provenance)
    first = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    assert "west added" not in first
    # The same round, the same bytes.
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert archive.read("estimates.csv") == (tmp_path / "out" / "estimates.csv").read_bytes()
        lines = archive.read("events.jsonl").decode().splitlines()
        assert "exported" not in {json.loads(line)["what"] for line in lines}
    assert f"parcels/sent/all/{parcel_name(round_id, 'protocol')}" in names
    assert [name for name in names if name.startswith("parcels/received/west/")][1:]
    # A third party pools both editions again, from the archive or the folder.
    for source, out in (("a.zip", "again"), ("first", "again-first")):
        arguments = ["report", "--from", str(tmp_path / source), "--out", str(tmp_path / out)]
        assert main([*arguments, "--lead-key", str(root / "keys" / "lead.pub")]) == 0
    assert "byte for byte" in capsys.readouterr().out
    again = (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
    assert "Edition 2: west added" in again
    store.close()


def test_a_step_that_names_another_answer_is_not_believed(
    consortium: Consortium, tmp_path: Path
) -> None:
    round_id = pooled_without_west(consortium, TABLE)
    retried(consortium, round_id)
    finish(consortium, round_id, *SIZES)
    engine, store = consortium.engine()
    seals = seals_of(store, consortium.lead, round_id)
    payload = releases_jsonl(engine.view(round_id), None, seals)
    store.close()
    path = tmp_path / "releases.jsonl"
    path.write_bytes(payload)
    releases = read_releases(path, consortium.lead.public)
    assert [len(used["agreement"]) for used in releases.steps] == [len(SIZES)]
    assert estimates_csv(repool(releases).estimates) == whole(consortium, TABLE)
    for before, after in ((b'"west":1', b'"west":2'), (b',"west":1', b"")):
        assert payload.count(before)
        path.write_bytes(payload.replace(before, after))
        with pytest.raises(Exception, match="releases_altered"):
            read_releases(path, consortium.lead.public)


def test_an_archive_that_is_none_and_one_without_releases(
    tmp_path: Path, consortium: Consortium
) -> None:
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("round.json", "{}")
    with pytest.raises(UsageError, match="no_releases"):
        read_releases(empty)
