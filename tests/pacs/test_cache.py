"""From a worklist to a manifest, kill -9 in between, and removal in time: against Orthanc."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from orthanc_server import Orthanc, free_port, started, write_exam
from pacs.pulling import CANARY, DAY, N_SLICES
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context

from fedcac.errors import IntegrityError, RoundError
from fedcac.imaging import Role, load_volume, pair_manifest, read_manifest
from fedcac.protocol import ImageCriteria
from fedcac.signing import SigningKey
from fedcac.vocabulary import ExclusionReason
from site_agent.__main__ import main
from site_agent.pacs.cache import PacsCache, SeriesState
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import InstanceFolder
from site_agent.pacs.pull import Puller, plan_pull
from site_agent.pacs.query import PacsClient, SeriesRecord, StudyQuery, StudyRecord
from site_agent.pacs.scored import scored_exam_keys
from site_agent.pacs.selection import Finding, Verdict
from site_agent.pacs.settings import RoleRule, SeriesRules
from site_agent.pacs.worklist import Wish
from site_agent.settings import SiteFolder
from site_agent.state.store import RoundRecord, RoundState, SiteStore

SECRET = b"a secret of this test"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Two patients with both exams, one with a chest CT alone, and series that nobody wants."""
    root = tmp_path_factory.mktemp("exams")
    datasets: list[Dataset] = []
    for number, patient in enumerate((CANARY, f"{CANARY}-2", f"{CANARY}-3")):
        for is_gated in (False, True) if number < 2 else (False,):
            day = DAY + timedelta(days=30 * is_gated)
            datasets += write_exam(
                root / f"{number}{is_gated}",
                patient,
                day,
                is_gated=is_gated,
                seed=10 * number + is_gated,
                n_slices=N_SLICES,
                AccessionNumber=f"A{number}{int(is_gated)}",
            )
    first = datasets[0]
    for description, changes in (
        ("Chest lung 1.0", {"ConvolutionKernel": "B70f"}),
        ("Chest scout", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    ):
        datasets += write_exam(
            root / description.replace(" ", ""),
            CANARY,
            DAY,
            is_gated=False,
            seed=100 + len(description),
            n_slices=N_SLICES,
            StudyInstanceUID=first.StudyInstanceUID,
            AccessionNumber="A00",
            SeriesDescription=description,
            **changes,
        )
    folder = tmp_path_factory.mktemp("orthanc")
    modalities = {"site": {"AET": "SITE", "Host": "127.0.0.1", "Port": free_port()}}
    with started(folder, DicomModalities=modalities) as server:
        scanner = AE(ae_title="SCANNER")
        association = scanner.associate(
            "127.0.0.1",
            server.dicom_port,
            contexts=[build_context(CTImageStorage, ExplicitVRLittleEndian)],
            ae_title="PACS",
        )
        assert {association.send_c_store(one).Status for one in datasets} == {0}
        association.release()
        yield server


@dataclass(frozen=True)
class Site:
    home: Path

    def run(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(["--home", str(self.home), "pacs", *arguments, "--format", "json"])
        assert CANARY not in output.getvalue() + errors.getvalue()
        assert code == expect, output.getvalue() + errors.getvalue()
        data: dict[str, Any] = json.loads(output.getvalue())["data"]
        return data

    @property
    def cache(self) -> Path:
        return self.home / "pacs"

    def files(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.cache.glob("series/*/*.dcm")}


def settings_document(pacs: Orthanc, **changes: Any) -> dict[str, Any]:
    return {
        "name": "duke",
        "lead_key": SigningKey.generate().public.to_text(),
        "manifest": "pacs/manifest.csv",
        "pacs": {
            "connection": {
                "protocol": "dimse",
                "host": "127.0.0.1",
                "port": pacs.dicom_port,
                "called_ae_title": "PACS",
                "calling_ae_title": "SITE",
            },
            "rules": {
                "index": {"description": ["chest*"], "minimum_instances": 4},
                "reference": {"description": ["casc*"], "minimum_instances": 4},
            },
            "pause_s": 0.0,
            "timeout_s": 20.0,
            "concurrent": 2,
            **changes,
        },
    }


@pytest.fixture
def make_site(tmp_path: Path, pacs: Orthanc) -> Callable[..., Site]:
    def make(**changes: Any) -> Site:
        (tmp_path / "home").mkdir()
        text = yaml.safe_dump(settings_document(pacs, **changes))
        (tmp_path / "home" / "site.yaml").write_text(text, encoding="utf-8")
        return Site(tmp_path / "home")

    return make


def worklist(tmp_path: Path, *patients: str) -> str:
    path = tmp_path / "worklist.csv"
    path.write_text("patient_id\n" + "\n".join(patients) + "\n", encoding="utf-8")
    return str(path)


# The whole way, through the command line


def test_a_worklist_becomes_a_manifest_that_pairs(
    make_site: Callable[..., Site], pacs: Orthanc, tmp_path: Path
) -> None:
    site = make_site()
    site.run("test")
    wishes = worklist(tmp_path, CANARY, f"{CANARY}-2", f"{CANARY}-3")
    found = site.run("find", "--worklist", wishes)
    assert found == {"studies": 5, "series": 5, "misses": []}
    assert not site.cache.exists()

    pulled = site.run("pull", "--worklist", wishes)
    assert (pulled["pulled"], pulled["instances"]) == (5, 5 * N_SLICES)
    assert len(site.files()) == 5 * N_SLICES
    entries = read_manifest(site.cache / "manifest.csv")
    assert [entry.role for entry in entries].count(Role.INDEX) == 3
    assert len({entry.path for entry in entries}) == 5

    # What scoring does with it.
    outcome = pair_manifest(site.cache / "manifest.csv", window_days=365, secret=SECRET)
    assert {pair.patient_id for pair in outcome.pairs} == {CANARY, f"{CANARY}-2"}
    assert [pair.days for pair in outcome.pairs] == [30, 30]
    assert dict(outcome.exclusions) == {ExclusionReason.NO_REFERENCE_EXAM: 1}
    criteria = ImageCriteria(min_slices=N_SLICES)
    for pair in outcome.pairs:
        assert load_volume(pair.index_path, criteria).hu.shape == (N_SLICES, 64, 64)

    # Neither names nor the journal show whose exams these are.
    names = " ".join(str(path.relative_to(site.cache)) for path in site.cache.rglob("*"))
    journal = b"".join(path.read_bytes() for path in site.cache.glob("journal.sqlite*"))
    assert CANARY not in names
    assert CANARY.encode() not in journal
    assert b"2.25." not in journal
    assert site.cache.stat().st_mode & 0o077 == 0

    before = site.files()
    again = site.run("pull", "--worklist", wishes)
    assert (again["pulled"], again["present"], again["instances"]) == (0, 5, 0)
    assert site.files() == before
    # What somebody deleted here by hand is pulled again, and nothing else.
    for path in sorted(before)[:2]:
        path.unlink()
    mended = site.run("pull", "--worklist", wishes)
    assert (mended["pulled"], mended["present"], mended["instances"]) == (1, 4, 2)
    assert site.files().keys() == before.keys()


def test_a_range_of_dates_and_lines_that_yield_nothing(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(rules={"reference": {"description": ["casc*"], "minimum_instances": 4}})
    both = ("--from", "2020-01-01", "--to", "2020-12-31")
    assert site.run("find", *both)["series"] == 2
    assert site.run("find", *both, "--description", "generated*")["series"] == 2
    assert site.run("find", *both, "--description", "heart*", expect=6)["series"] == 0
    assert site.run("find", "--from", "2021-01-01", expect=6)["misses"] == [
        {"line": None, "code": "cohort.pacs_no_such_patient"}
    ]
    wishes = worklist(tmp_path, f"{CANARY}-3", "nobody", CANARY)
    pulled = site.run("pull", "--worklist", wishes, expect=6)
    assert pulled["misses"] == [
        {"line": 2, "code": "cohort.pacs_no_suitable_series"},
        {"line": 3, "code": "cohort.pacs_no_such_patient"},
    ]
    assert (pulled["pulled"], pulled["instances"]) == (1, N_SLICES)


def test_what_is_due_is_removed_and_not_pulled_again_unasked(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site()
    wishes = worklist(tmp_path, CANARY)
    site.run("pull", "--worklist", wishes)
    assert site.run("purge") == {"removed": {"keep_days": 0, "scored": 0}, "left": 2}
    _age(site.cache, timedelta(days=31))
    assert site.run("purge") == {"removed": {"keep_days": 2, "scored": 0}, "left": 0}
    assert list((site.cache / "series").iterdir()) == []
    pulled = site.run("pull", "--worklist", wishes)
    assert (pulled["pulled"], pulled["removed_before"]) == (0, 2)
    assert site.run("pull", "--worklist", wishes, "--again")["pulled"] == 2
    with PacsCache(site.cache) as cache:
        events = [event for _, event, _ in cache.events()]
    assert events.count("removed") == 2
    assert events.count("complete") == 4


def _age(root: Path, by: timedelta) -> None:
    """Let time pass for what lies in a cache."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(root / "journal.sqlite")) as connection:
        for name, since in connection.execute("SELECT name, since FROM series").fetchall():
            earlier = (datetime.fromisoformat(since) - by).isoformat()
            connection.execute("UPDATE series SET since = ? WHERE name = ?", (earlier, name))
        connection.commit()


def test_scored_patients_are_removed_when_no_round_needs_them(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(remove_when_scored=True)
    site.run("pull", "--worklist", worklist(tmp_path, CANARY, f"{CANARY}-2"))
    folder = SiteFolder(site.home)
    outcome = pair_manifest(site.cache / "manifest.csv", window_days=365, secret=folder.secret())
    scored = next(pair for pair in outcome.pairs if pair.patient_id == CANARY)
    assert site.run("purge")["left"] == 4
    store = SiteStore(folder.database_path)
    store.add_round(RoundRecord("r", RoundState.APPROVED, "o", "p", "package", None))
    store.begin_exam(scored.exam_key, "package", "agatston1990")
    assert site.run("purge")["left"] == 4
    store.finish_exam(scored.exam_key, "package", "agatston1990", seconds=1.0, total=5.0)
    # The round still reads its pairs from the files.
    assert scored_exam_keys(folder.database_path) == frozenset()
    assert site.run("purge")["left"] == 4
    store.freeze_cohort("r", "{}")
    store.set_round_state("r", RoundState.ANSWERING)
    assert scored_exam_keys(folder.database_path) == {scored.exam_key}
    store.add_round(RoundRecord("s", RoundState.OFFERED, "o", "p", "package", None))
    assert site.run("purge")["left"] == 4
    store.set_round_state("s", RoundState.REFUSED)
    store.close()
    assert site.run("purge") == {"removed": {"keep_days": 0, "scored": 2}, "left": 2}
    left = pair_manifest(site.cache / "manifest.csv", window_days=365, secret=folder.secret())
    assert [pair.patient_id for pair in left.pairs] == [f"{CANARY}-2"]


# kill -9


def test_kill_9_in_the_middle_of_a_series(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(concurrent=1)
    wishes = worklist(tmp_path, CANARY)
    # Killed in the second series, with an instance written that has not got its name yet.
    program = """
import os, signal, sys
from pathlib import Path
from site_agent.__main__ import main
n_left = int(sys.argv[1])
rename = Path.rename
def counted(self, target):
    global n_left
    n_left -= 1
    if n_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = counted
main(sys.argv[2:])
"""
    n_held = N_SLICES + 3
    arguments = ["--home", str(site.home), "pacs", "pull", "--worklist", wishes]
    ended = subprocess.run(
        [sys.executable, "-c", program, str(n_held + 1), *arguments],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    stamps = site.files()
    assert len(stamps) == n_held
    assert len(list(site.cache.rglob("*.part"))) == 1
    with PacsCache(site.cache) as cache:
        # Half a series is in no manifest.
        assert cache.write_manifest() == 1
    finished = site.run("pull", "--worklist", wishes)
    assert finished["instances"] == 2 * N_SLICES - n_held
    # What was here stays as it was: it was not pulled again.
    assert stamps.items() <= site.files().items()
    assert len(site.files()) == 2 * N_SLICES
    assert list(site.cache.rglob("*.part")) == []
    assert len(read_manifest(site.cache / "manifest.csv")) == 2


# The cache alone


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2024, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def record(uid: str) -> SeriesRecord:
    return SeriesRecord("1.2", uid, "CT", "", 2)


def fill(cache: PacsCache, uid: str, patient_key: str | None = None) -> Path:
    folder = cache.begin(record(uid), Role.INDEX)
    (folder.path / "0.dcm").write_bytes(b"x")
    cache.complete(record(uid), 1, patient_key)
    return folder.path


def test_retention_counts_from_the_first_instance(tmp_path: Path) -> None:
    clock = Clock()
    with PacsCache(tmp_path, clock) as cache:
        old = fill(cache, "1.1")
        clock.now += timedelta(days=5)
        young = fill(cache, "1.2")
        partial = cache.begin(record("1.3"), Role.INDEX).path
        clock.now += timedelta(days=5, seconds=-1)
        # Beginning again, as each further attempt does, prolongs nothing.
        cache.begin(record("1.1"), Role.INDEX)
        assert cache.purge(10) == {"keep_days": 0, "scored": 0}
        clock.now += timedelta(seconds=1)
        assert cache.purge(10) == {"keep_days": 1, "scored": 0}
        assert [path.exists() for path in (old, young, partial)] == [False, True, True]
        clock.now += timedelta(days=5)
        assert cache.purge(10) == {"keep_days": 2, "scored": 0}
        assert [path.exists() for path in (old, young, partial)] == [False, False, False]
        assert {entry.removal for entry in cache.entries()} == {"keep_days"}
        assert cache.write_manifest() == 0


def test_only_scored_patients_of_complete_series_are_removed_early(tmp_path: Path) -> None:
    with PacsCache(tmp_path, Clock()) as cache:
        scored, other, nameless = fill(cache, "1", "k1"), fill(cache, "2", "k2"), fill(cache, "3")
        assert cache.purge(10, {"k1"}.__contains__) == {"keep_days": 0, "scored": 1}
        assert [path.exists() for path in (scored, other, nameless)] == [False, True, True]
        states = {entry.removal: entry for entry in cache.entries()}
        assert states["scored"].patient_key is None
        assert cache.purge(10, {"k1"}.__contains__) == {"keep_days": 0, "scored": 0}


@pytest.mark.parametrize("dies_after", [0, 1])
def test_a_removal_that_was_interrupted_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    import shutil

    clock = Clock()

    def die(path: Path) -> None:
        # Before the first file is gone, or with some of them gone.
        for file in sorted(path.iterdir())[:dies_after]:
            file.unlink()
        raise KeyboardInterrupt

    with PacsCache(tmp_path, clock) as cache:
        folder = fill(cache, "1.1")
        (folder / "1.dcm").write_bytes(b"y")
        clock.now += timedelta(days=10)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", die)
            with pytest.raises(KeyboardInterrupt):
                cache.purge(10)
        assert folder.exists()
        # Half a series is never scored.
        assert cache.write_manifest() == 0
    with PacsCache(tmp_path, clock) as cache:
        assert not folder.exists()
        (entry,) = cache.entries()
        assert (entry.state, entry.removal) == (SeriesState.REMOVED, "keep_days")
        events = [event for _, event, _ in cache.events()]
        assert events == ["begun", "complete", "removing:keep_days", "removed"]


def test_folders_that_the_journal_does_not_know_are_removed(tmp_path: Path) -> None:
    with PacsCache(tmp_path) as cache:
        folder = fill(cache, "1.1")
    other = tmp_path / "series" / "not ours"
    other.mkdir()
    for path in tmp_path.glob("journal.sqlite*"):
        path.unlink()
    with PacsCache(tmp_path) as cache:
        assert not folder.exists()
        assert other.exists()
        assert [event for _, event, _ in cache.events()] == ["removed"]


def test_one_process_at_a_time_and_no_unknown_schema(tmp_path: Path) -> None:
    import sqlite3

    with PacsCache(tmp_path), pytest.raises(RoundError, match="pacs_busy"):
        PacsCache(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.execute("PRAGMA user_version=99")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="schema_version"):
            PacsCache(tmp_path)


# A pull whose PACS fails now and then


class Failing(PacsClient):
    """Raises the faults listed for a series, one an attempt; then there is nothing to pull."""

    def __init__(self, faults: dict[str, list[PacsFault]]) -> None:
        self.faults = faults
        self.asked: list[str] = []

    def check(self) -> None: ...

    def close(self) -> None: ...

    def find_studies(self, query: StudyQuery) -> tuple[StudyRecord, ...]:
        return ()

    def find_series(self, study_uid: str) -> tuple[SeriesRecord, ...]:
        return ()

    def find_instances(self, series: SeriesRecord) -> frozenset[str]:
        self.asked.append(series.series_uid)
        raise PacsError(self.faults[series.series_uid].pop(0))

    def _retrieve(
        self,
        series: SeriesRecord,
        missing: frozenset[str] | None,
        keep: Callable[[bytes], None],
    ) -> None: ...


def run(tmp_path: Path, client: Failing, attempts: int) -> Any:
    wanted = [Verdict(Role.INDEX, record(uid), Finding.CHOSEN) for uid in client.faults]
    with PacsCache(tmp_path) as cache:
        puller = Puller(client, cache, secret=SECRET, attempts=attempts)
        return puller.run(wanted)


def test_faults_that_may_pass_are_tried_again_and_others_not(tmp_path: Path) -> None:
    faults = {
        "1": [PacsFault.TIMEOUT, PacsFault.TRUNCATED, PacsFault.SUB_OPERATIONS],
        "2": [PacsFault.OTHER_OBJECT],
    }
    client = Failing(faults)
    report = run(tmp_path, client, attempts=3)
    assert client.asked == ["1", "1", "1", "2"]
    assert report.failures == {PacsFault.SUB_OPERATIONS: 1, PacsFault.OTHER_OBJECT: 1}
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8").split() == ["path,role"]


def test_a_question_that_fails_for_a_moment_is_asked_again() -> None:
    class Forgetful(Failing):
        def find_studies(self, query: StudyQuery) -> tuple[StudyRecord, ...]:
            self.asked.append("studies")
            if self.faults["studies"]:
                raise PacsError(self.faults["studies"].pop(0))
            return ()

    rules, wishes = SeriesRules(index=RoleRule()), (Wish(2, StudyQuery("CT")),)
    client = Forgetful({"studies": [PacsFault.TIMEOUT, PacsFault.SERVER_ERROR]})
    plan = plan_pull(client, wishes, rules, attempts=3)
    assert plan.misses == ((2, PacsFault.NO_SUCH_PATIENT),)
    assert len(client.asked) == 3
    with pytest.raises(PacsError, match="pacs_timeout"):
        plan_pull(Forgetful({"studies": [PacsFault.TIMEOUT] * 2}), wishes, rules, attempts=2)
    refused = Forgetful({"studies": [PacsFault.NOT_AUTHENTICATED]})
    with pytest.raises(PacsError, match="pacs_http_401"):
        plan_pull(refused, wishes, rules, attempts=3)
    assert len(refused.asked) == 1


def test_a_pull_ends_where_the_next_series_would_fail_too(tmp_path: Path) -> None:
    client = Failing({"1": [PacsFault.REJECTED], "2": []})
    with pytest.raises(PacsError, match="pacs_rejected"):
        run(tmp_path / "a", client, attempts=3)
    assert client.asked == ["1"]
    many = Failing({str(number): [PacsFault.SERVER_ERROR] for number in range(8)})
    with pytest.raises(PacsError, match="pacs_http_5xx"):
        run(tmp_path / "b", many, attempts=1)
    assert len(many.asked) == 5


def test_a_full_disk_is_a_coded_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = InstanceFolder(tmp_path / "s")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device", CANARY)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PacsError, match="pacs_not_written") as caught:
        folder.keep(b"x", "1", "2")
    assert CANARY not in str(caught.value)
    assert list(folder.path.iterdir()) == []
