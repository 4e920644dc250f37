"""The doctor: one thing is broken at a time, and one check says so, with a cure, naming nobody."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_bench import Bench

from site_agent.__main__ import main
from site_agent.doctor.findings import Check, Situation, run_check
from site_agent.doctor.machine import needed_packages, versions_tested
from site_agent.doctor.verbs import all_checks
from site_agent.flower_courier.settings import CourierFolder
from site_agent.redaction import redacted
from site_agent.status.standing import DoctorNote, read_note
from site_agent.status.standing_reader import doctor_path

DOCS = Path(__file__).parents[3] / "docs" / "how-to"
PATIENT = "DOE^JANE"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A site whose every check is ok, warning or skipped: it answered one round."""
    made = Bench(tmp_path, policy="research", approval="auto")
    made.offer("eng-0001")
    made.ask("eng-0001")
    with made.agent() as agent:
        agent.step()
    return made


def examined(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Run the command and return its checks by name; the exit code must fit them."""
    capsys.readouterr()
    home = ["--home", str(bench.folder.root)]
    code = main(
        [*home, "doctor", "--courier-home", str(bench.root / "courier"), *words, "--format", "json"]
    )
    document = json.loads(capsys.readouterr().out)["data"]
    checks = {check["name"]: check for check in document["checks"]}
    assert code == (1 if any(c["status"] == "failed" for c in checks.values()) else 0)
    for check in checks.values():
        assert check["found"]
        assert check["cure"] or check["status"] in ("ok", "skipped")
    return checks


def chmod(mode: int, *names: str) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        for name in names:
            (bench.folder.root / name).chmod(mode)

    return change


def write(name: str, content: bytes) -> Callable[[Bench], None]:
    return lambda bench: (bench.folder.root / name).write_bytes(content) and None


def damage_database(bench: Bench) -> None:
    # An index that misses a row is what an integrity check finds and nothing else does.
    with sqlite3.connect(bench.folder.database_path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'exchanges'")
    connection.close()


def tamper_ledger(bench: Bench) -> None:
    path = bench.folder.ledger_path
    path.write_bytes(path.read_bytes().replace(b'"exchange":1', b'"exchange":2', 1))


def enrol_another_key(bench: Bench) -> None:
    from fedcac.exchange.messages import MaskingTerms
    from fedcac.signing import SigningKey

    other = SigningKey.generate().public.to_text()
    bench.offer("eng-0002", masking=MaskingTerms(threshold=3, site_keys={"duke": other}))


def share_spool(bench: Bench) -> None:
    chmod(0o770, "spool/inbox", "spool")(bench)


BROKEN = [
    ("settings", write("site.yaml", b"name: duke\nunknown: 1\n"), "bad_settings"),
    ("identity", chmod(0o644, "keys/site.key"), "can be read by others"),
    ("identity", lambda b: b.folder.key_path.unlink(), "no_key"),
    ("enrolment", enrol_another_key, "another key"),
    ("spool", chmod(0o777, "spool/inbox"), "every account"),
    ("spool", chmod(0o770, "spool/outbox"), "outbox can be written by the group"),
    ("spool", share_spool, "without the setgid bit"),
    ("policy", lambda b: _settings(b, "policy: research", "policy: none.yaml"), "policy.missing"),
    ("ledger", tamper_ledger, "broken_link"),
    ("database", damage_database, "faults"),
    ("exams", lambda _: None, "no_manifest"),
    ("clinical", lambda _: None, "no_such_file"),
]


def _settings(bench: Bench, old: str, new: str) -> None:
    path = bench.folder.settings_path
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(("name", "break_it", "found"), BROKEN)
def test_what_is_broken_is_found(
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
    name: str,
    break_it: Callable[[Bench], None],
    found: str,
) -> None:
    bench.folder.root.chmod(0o755)
    if name not in ("exams", "clinical"):
        assert examined(bench, capsys, "--only", name)[name]["status"] in ("ok", "warning")
    break_it(bench)
    check = examined(bench, capsys, "--only", name)[name]
    assert check["status"] == "failed"
    assert found in check["found"]


def test_a_sound_site_passes_what_is_about_itself(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "settings,python,packages,memory,disk,identity,enrolment,spool,policy,ledger,database"
    checks = examined(bench, capsys, "--only", names)
    assert {check["status"] for check in checks.values()} <= {"ok", "warning"}
    assert "1 offers by the pinned lead" in checks["enrolment"]["found"]
    assert "below 5 patients" in checks["policy"]["found"]
    # A selection is not the last result that the status page shows.
    assert not doctor_path(bench.folder).exists()


def test_without_settings_the_rest_is_skipped_and_says_why(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.folder.settings_path.unlink()
    checks = examined(bench, capsys, "--only", "settings,identity,policy,python")
    assert checks["settings"]["status"] == "failed"
    assert checks["identity"]["status"] == checks["policy"]["status"] == "skipped"
    assert checks["python"]["status"] in ("ok", "warning")


def test_every_check_is_run_documented_and_kept_for_the_page(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = examined(bench, capsys)
    names = [check.name for check in all_checks()]
    assert list(checks) == names
    assert len(set(names)) == len(names)
    note = read_note(doctor_path(bench.folder), DoctorNote)
    assert note is not None
    assert [line.name for line in note.lines] == names
    page = (DOCS / "pass-the-doctor.md").read_text("utf-8")
    for name in names:
        assert f"| `{name}` |" in page


def test_an_unknown_check_is_no_check(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--home", str(bench.folder.root), "doctor", "--only", "everything"])
    assert "no check 'everything'" in capsys.readouterr().err


def test_no_patient_and_no_path_of_an_exam_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fedcac.phantom import write_cohort

    write_cohort(tmp_path / "cohort", n_sites=1, n_patients=1, seed=11, hybrid_share=0.0)
    exams = tmp_path / "cohort" / "site-1"
    shutil.copytree(exams / "dicom", tmp_path / PATIENT)
    folders = sorted((tmp_path / PATIENT).iterdir())
    manifest, table = tmp_path / "manifest.csv", tmp_path / "clinical.csv"
    with manifest.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("path", "role", "patient_id"))
        rows.writerow((folders[0], "index", f"{PATIENT} 19510203"))
        rows.writerow((folders[1], "reference", f"{PATIENT} 19510203"))
        rows.writerow((tmp_path / PATIENT / "absent", "index", "OTHER^JOHN"))
    table.write_text(f"patient_id,reference_score\n{PATIENT} 19510203,not-a-number\n")
    _settings(bench, "manifest: manifest.csv", f"manifest: {manifest}")
    _settings(bench, "clinical_table: clinical.csv", f"clinical_table: {table}")
    checks = examined(bench, capsys, "--only", "exams,clinical,disk")
    assert "1 patients can be paired" in checks["exams"]["found"]
    assert checks["clinical"]["status"] == "failed"
    text = json.dumps(checks)
    main(["--home", str(bench.folder.root), "doctor", "--only", "exams,clinical"])
    text += capsys.readouterr().out
    for secret in ("DOE", "JANE", "19510203", "OTHER", "not-a-number", str(tmp_path), "absent"):
        assert secret not in text


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("cannot read /data/pacs/DOE_JANE/1.dcm", ["DOE", "data"]),
        ("C:\\exams\\DOE\\1.dcm is bad", ["exams", "DOE"]),
        ("value 'DOE^JANE' in column 3", ["DOE", "JANE"]),
        ("patient DOE^JANE^^ has", ["DOE", "JANE"]),
        ("born 19510203 or 1951-02-03", ["1951"]),
        ("series 1.2.840.113619.2.55.3.1 lacks", ["840"]),
        ("in site-1/dicom/ab12/file there", ["dicom", "ab12"]),
    ],
)
def test_redaction(text: str, secrets: list[str]) -> None:
    clean = redacted(text)
    for secret in secrets:
        assert secret not in clean
    assert len(clean.split()) >= 3


def test_redaction_keeps_what_helps() -> None:
    text = "Run `fedcac-site cohort check PROTOCOL /x/y`, 12 of 412 (3%) [table.bad_cell]"
    assert redacted(text) == text
    digest = "sha256:" + "12345678" * 8
    assert redacted(f"head {digest}") == f"head {digest}"


def test_a_site_that_answers_from_scores_needs_neither_exams_nor_a_clinical_table(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a scored table what is missing is a fault.
    assert {
        check["status"] for check in examined(bench, capsys, "--only", "exams,clinical").values()
    } == {"failed"}
    _settings(bench, "policy: research", "policy: research\nscored_table: scores.csv")
    checks = examined(bench, capsys, "--only", "exams,clinical")
    assert {check["status"]: check["found"] for check in checks.values()} == {
        "skipped": "this site answers from its scored table"
    }
    # An old manifest that is still there is looked at all the same.
    (bench.folder.root / "manifest.csv").write_text("path\n", encoding="utf-8")
    assert examined(bench, capsys, "--only", "exams")["exams"]["status"] == "failed"


def test_a_check_that_breaks_is_a_finding(bench: Bench) -> None:
    def stumble(_: Situation) -> Any:
        raise ValueError(f"{PATIENT} 19510203")

    situation = Situation(bench.folder, CourierFolder(bench.root))
    finding = run_check(Check("x", stumble), situation)
    assert finding.status == "failed"
    assert "internal.unexpected" in finding.found
    assert "DOE" not in finding.found + finding.cure

    def forbidden(_: Situation) -> Any:
        raise PermissionError(13, "denied", f"/data/{PATIENT}")

    finding = run_check(Check("x", forbidden), situation)
    assert finding.status == "skipped"
    assert "--only x" in finding.cure


def test_versions_are_compared_with_those_tested() -> None:
    needed = needed_packages()
    assert needed["torch"].startswith("==")
    assert {"numpy", "pydantic", "pydicom", "safetensors"} <= set(needed)
    assert "fastapi" not in needed
    tested = versions_tested()
    assert set(needed) <= set(tested)
    assert all(re.fullmatch(r"[0-9][\w.]*", version) for version in tested.values())


def test_without_a_courier_the_line_is_skipped(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = examined(bench, capsys, "--only", "dns,proxy,line,clock")
    assert {check["status"] for check in checks.values()} == {"skipped"}
    assert "--courier-home" in checks["clock"]["cure"]


def test_the_dry_run_scores_and_answers_and_leaves_the_site_alone(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in bench.folder.root.rglob("*") if path.is_file()}
    home = str(bench.folder.root)
    assert main(["--home", home, "dry-run", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)["data"]
    # The demonstration model is crude; on this exam it is within a factor of two.
    assert 0.5 < document["score"] / document["reference"] < 2.0
    assert document["n_released"] >= 3
    assert document["policy"] == "research"
    after = {path: path.read_bytes() for path in bench.folder.root.rglob("*") if path.is_file()}
    assert after == before
    assert os.listdir(bench.folder.spool_path / "outbox")
