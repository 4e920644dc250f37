"""The `pacs` block, worklists, the choice of series, secrets and the throttle: no server needed."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from orthanc_server import Authority
from pydantic import BaseModel, ValidationError

from fedcac.errors import FedcacError, TableError, UsageError
from fedcac.imaging import Role
from fedcac.signing import SigningKey
from site_agent.__main__ import main
from site_agent.pacs import settings as blocks
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.query import SeriesRecord, StudyQuery, StudyRecord, matches_any
from site_agent.pacs.selection import Finding, choose_series
from site_agent.pacs.settings import PacsSettings, SeriesRules, TlsSettings
from site_agent.pacs.throttle import Throttle
from site_agent.pacs.trust import client_context, read_secret, server_context
from site_agent.pacs.worklist import read_worklist
from site_agent.settings import SiteFolder

DOCS = Path(__file__).parents[2] / "docs"
CANARY = "ZZCANARY4711"
DIMSE = {
    "protocol": "dimse",
    "host": "pacs.example.org",
    "port": 11112,
    "called_ae_title": "PACS",
    "calling_ae_title": "FEDCAC",
}
WEB = {"protocol": "dicomweb", "url": "https://pacs.example.org/dicom-web"}
RULES = {"index": {"description": ["*chest*"]}}


def settings_of(connection: dict[str, Any], **changes: Any) -> PacsSettings:
    document = {"connection": connection, "rules": RULES, **changes}
    return PacsSettings.model_validate(document)


# Settings


@pytest.mark.parametrize(
    "connection",
    [
        DIMSE,
        {**DIMSE, "calling_ae_title": "WITH SPACE-16.ch"},
        {**DIMSE, "retrieve": "move", "move": {"ae_title": "FEDCAC", "port": 11113}},
        WEB,
        {**WEB, "user": "u", "password_file": "keys/p"},
        {**WEB, "url": "http://127.0.0.1:8042/dicom-web"},
    ],
)
def test_what_can_be_meant_is_taken(connection: dict[str, Any]) -> None:
    assert settings_of(connection).connection.protocol == connection["protocol"]


@pytest.mark.parametrize(
    "connection",
    [
        {**DIMSE, "called_ae_title": "SEVENTEENLETTERSX"},
        {**DIMSE, "called_ae_title": "BACK\\SLASH"},
        {**DIMSE, "called_ae_title": " "},
        {**DIMSE, "called_ae_title": ""},
        {**DIMSE, "port": 0},
        {**DIMSE, "port": "11112"},
        {**DIMSE, "retrieve": "move"},
        {**DIMSE, "move": {"ae_title": "FEDCAC", "port": 11113}},
        {**DIMSE, "tls": {"ca_file": "a", "certificate": "b"}},
        {
            **DIMSE,
            "retrieve": "move",
            "move": {"ae_title": "FEDCAC", "port": 11113},
            "tls": {"ca_file": "a"},
        },
        {**DIMSE, "url": "https://pacs.example.org"},
        {**WEB, "url": "http://pacs.example.org/dicom-web"},
        {**WEB, "url": "ftp://pacs.example.org"},
        {**WEB, "url": "https://user:word@pacs.example.org"},
        {**WEB, "url": "https://pacs.example.org/x?y=z"},
        {**WEB, "user": "u"},
        {**WEB, "password": "p"},
        {**WEB, "url": "http://127.0.0.1", "tls": {"ca_file": "a"}},
        {"protocol": "hl7"},
    ],
)
def test_what_cannot_be_meant_is_refused(connection: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(connection)


@pytest.mark.parametrize(
    "changes",
    [
        {"rules": {}},
        {"rules": {"index": {}, "other": {}}},
        {"rules": {"index": {"description": []}}},
        {"keep_days": 0},
        {"keep_days": None},
        {"concurrent": 9},
        {"pause_s": -1.0},
        {"timeout_s": 0.0},
        {"unknown": 1},
    ],
)
def test_rules_and_limits_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(DIMSE, **changes)


def test_files_are_never_kept_without_a_limit() -> None:
    assert settings_of(DIMSE).keep_days == 30
    assert settings_of(DIMSE, remove_when_scored=True).keep_days == 30


def _all_keys() -> list[str]:
    models = [getattr(blocks, name) for name in blocks.__all__]
    return sorted({key for model in models if issubclass(model, BaseModel)
                   for key in model.model_fields})  # fmt: skip


@pytest.mark.parametrize("key", _all_keys())
def test_every_key_is_documented(key: str) -> None:
    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `pacs.")]
    assert any(row.strip().strip("`").split(".")[-1] == key for row in rows)


@pytest.mark.parametrize("fault", list(PacsFault))
def test_every_fault_has_words_and_a_row(fault: PacsFault) -> None:
    error = PacsError(fault)
    assert error.code == f"cohort.{fault.value}"
    assert error.exit_code == 6
    assert error.message
    assert error.cure
    page = (DOCS / "how-to" / "pull-from-pacs.md").read_text(encoding="utf-8")
    assert f"| `{fault.value}` |" in page
    assert not (error.is_transient and error.ends_pull) or fault is PacsFault.TOO_MANY_REQUESTS


def _site(home: Path, **changes: Any) -> SiteFolder:
    document = {"name": "duke", "lead_key": SigningKey.generate().public.to_text(), **changes}
    home.mkdir()
    (home / "site.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return SiteFolder(home)


def test_the_example_of_the_how_to_page_is_valid(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "pull-from-pacs.md").read_text(encoding="utf-8")
    examples = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        folder = _site(tmp_path / str(number), **yaml.safe_load(example))
        assert folder.settings().pacs is not None


def test_verbs_without_a_pacs_or_a_wish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = _site(tmp_path / "a").root
    assert main(["--home", str(without), "pacs", "test"]) == 2
    assert "usage.no_pacs" in capsys.readouterr().err
    with_pacs = _site(tmp_path / "b", pacs={"connection": DIMSE, "rules": RULES}).root
    home = ["--home", str(with_pacs), "pacs"]
    assert main([*home, "find"]) == 2
    assert "usage.no_wishes" in capsys.readouterr().err
    assert main([*home, "find", "--worklist", "x.csv", "--from", "2020-01-01"]) == 2
    assert "usage.no_wishes" in capsys.readouterr().err
    assert main([*home, "pull", "--worklist", str(tmp_path / "none.csv")]) == 7
    assert "table.no_worklist" in capsys.readouterr().err


def test_dates_on_the_command_line() -> None:
    from site_agent.cli import build_parser

    arguments = build_parser().parse_args(["pacs", "find", "--from", "2020-01-31"])
    assert arguments.first == date(2020, 1, 31)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["pacs", "find", "--from", "31.01.2020"])
    assert isinstance(arguments, argparse.Namespace)


# Worklists


def worklist(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "worklist.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_worklist_becomes_queries(tmp_path: Path) -> None:
    path = worklist(
        tmp_path,
        "accession_number,patient_id,study_date,role\nA1,,,\n,P1,20200301,index\n\nA3,P3,,reference\n",
    )
    wishes = read_worklist(path, "CT")
    day = date(2020, 3, 1)
    assert [(wish.line, wish.query, wish.role) for wish in wishes] == [
        (2, StudyQuery("CT", accession_number="A1"), None),
        (3, StudyQuery("CT", patient_id="P1", first_day=day, last_day=day), Role.INDEX),
        (5, StudyQuery("CT", patient_id="P3", accession_number="A3"), Role.REFERENCE),
    ]
    assert "P1" not in repr(wishes)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_worklist"),
        ("patient_id\n", "empty_worklist"),
        (f"{CANARY}\n{CANARY}\n", "unknown_column"),
        ("patient_id,patient_id\nP,P\n", "repeated_column"),
        ("study_date\n20200101\n", "missing_column"),
        (f"patient_id\n{CANARY},2\n", "malformed_line"),
        ("patient_id,role\n,index\n", "missing_key"),
        (f"patient_id\n{CANARY}*\n", "bad_key"),
        (f"patient_id\n{CANARY}?\n", "bad_key"),
        (f"patient_id\n{CANARY}\\P2\n", "bad_key"),
        (f"patient_id\n{CANARY * 10}\n", "bad_key"),
        (f"patient_id,study_date\n{CANARY},2020-01-01\n", "bad_study_date"),
        (f"patient_id,role\n{CANARY},both\n", "unknown_role"),
        (f'patient_id\n"{CANARY}\n', "unreadable_worklist"),
    ],
)
def test_worklists_that_cannot_be_used(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(TableError) as caught:
        read_worklist(worklist(tmp_path, text), "CT")
    assert caught.value.code == f"table.{code}"
    assert CANARY not in str(caught.value)


# Which series

STUDY = StudyRecord("1.2", "P", "A", date(2020, 3, 1), "CT Chest", ("CT",))


def series(uid: str, description: str = "Chest 5.0", **changes: Any) -> SeriesRecord:
    values: dict[str, Any] = {"modality": "CT", "n_instances": 40, **changes}
    return SeriesRecord("1.2", uid, description=description, **values)


def findings(records: list[SeriesRecord], **rules: Any) -> dict[str, Finding]:
    document = {"index": {"description": ["chest*"], "exclude": ["*lung*"]}, **rules}
    verdicts = choose_series(STUDY, records, SeriesRules.model_validate(document))
    return {verdict.series.series_uid: verdict.finding for verdict in verdicts}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (series("x"), Finding.CHOSEN),
        (series("x", n_instances=None), Finding.CHOSEN),
        (series("x", modality="PT"), Finding.OTHER_MODALITY),
        (series("x", "Abdomen"), Finding.OTHER_DESCRIPTION),
        (series("x", "Chest lung"), Finding.OTHER_DESCRIPTION),
        (series("x", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), Finding.LOCALIZER),
        (series("x", image_type=("DERIVED", "SECONDARY")), Finding.DERIVED),
        (series("x", has_contrast=True), Finding.CONTRAST),
        (series("x", n_instances=14), Finding.TOO_FEW),
        (series("x", kernel="B70f"), Finding.CHOSEN),
    ],
)
def test_one_series(record: SeriesRecord, expected: Finding) -> None:
    assert findings([record]) == {"x": expected}


def test_contrast_and_other_studies_follow_the_rules() -> None:
    assert findings([series("x", has_contrast=True)], allow_contrast=True)["x"] is Finding.CHOSEN
    index = {"description": ["*"], "study_description": ["*heart*"]}
    assert findings([series("x")], index=index)["x"] is Finding.OTHER_STUDY


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (series("x", modality="DX", n_instances=1), Finding.CHOSEN),
        (series("x", modality="CR", n_instances=1), Finding.CHOSEN),
        (series("x", modality="DX", image_type=("DERIVED", "PRIMARY")), Finding.CHOSEN),
        (series("x", modality="DX", image_type=("DERIVED", "SECONDARY")), Finding.DERIVED),
        (series("x", "Chest LAT", modality="DX"), Finding.OTHER_DESCRIPTION),
        (series("x", modality="CT"), Finding.OTHER_MODALITY),
    ],
)
def test_a_radiograph_may_be_the_index_exam_of_a_ct(
    record: SeriesRecord, expected: Finding
) -> None:
    index = {"modalities": ["CR", "DX"], "exclude": ["*lat*"]}
    assert findings([record], index=index) == {"x": expected}
    both = SeriesRules.model_validate({"index": index, "reference": {}})
    assert both.study_modality == ""
    assert StudyQuery(both.study_modality).matches(STUDY)
    verdicts = choose_series(STUDY, [series("y")], both, Role.REFERENCE)
    assert [verdict.finding for verdict in verdicts] == [Finding.CHOSEN]
    assert SeriesRules.model_validate({"index": {}}).study_modality == "CT"


def test_the_best_of_several() -> None:
    sharp, soft = series("1", kernel="B70f"), series("2", kernel="B30f")
    assert findings([sharp, soft]) == {"1": Finding.SHARPER_KERNEL, "2": Finding.CHOSEN}
    thin, thick, unknown = (
        series("1", slice_thickness_mm=1.0, n_instances=300),
        series("2", slice_thickness_mm=2.5),
        series("3"),
    )
    preferred = {"index": {"preferred_thickness_mm": 3.0}}
    assert findings([unknown, thin, thick], **preferred)["2"] is Finding.CHOSEN
    assert findings([unknown, thin, thick])["1"] is Finding.CHOSEN


def test_two_roles_never_take_one_series() -> None:
    rules = SeriesRules.model_validate({"index": {}, "reference": {}})
    one, other = series("1"), series("2")
    verdicts = choose_series(STUDY, [one, other], rules)
    chosen = [(v.role, v.series.series_uid) for v in verdicts if v.finding is Finding.CHOSEN]
    assert chosen == [(Role.INDEX, "1"), (Role.REFERENCE, "2")]
    (verdict,) = choose_series(STUDY, [one], rules, Role.REFERENCE)
    assert (verdict.role, verdict.finding) == (Role.REFERENCE, Finding.CHOSEN)


@given(st.permutations(["1", "2", "3", "4"]), st.sampled_from(["B30f", "B70f", ""]))
def test_the_order_of_answers_does_not_matter(order: list[str], kernel: str) -> None:
    found = findings([series(uid, kernel=kernel) for uid in order])
    assert [uid for uid, finding in found.items() if finding is Finding.CHOSEN] == ["1"]


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("CaSc 3.0", "*casc*", True),
        (" CASC", "casc?", False),
        ("CaSc1", "casc?", True),
        ("a[b]c", "a[b]c", True),
        ("abc", "a[b]c", False),
        ("", "*", True),
    ],
)
def test_patterns(text: str, pattern: str, expected: bool) -> None:
    assert matches_any(text, [pattern]) is expected


# Trust


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("word\nanother line\n", encoding="utf-8")
    path.chmod(0o640)
    with pytest.raises(UsageError, match="open_secret_file"):
        read_secret(path)
    path.chmod(0o600)
    assert read_secret(path) == "word"
    with pytest.raises(UsageError, match="no_secret_file"):
        read_secret(tmp_path / "none")


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("one")
    _, other_key = authority.issue("two")
    tls = {"ca_file": "ca.pem", "certificate": certificate.name, "key": key.name}
    resolve = tmp_path.__truediv__
    assert client_context(TlsSettings(**tls), resolve).check_hostname
    assert server_context(TlsSettings(**tls), resolve).verify_mode.name == "CERT_REQUIRED"
    wrongs = ({"ca_file": "none.pem"}, {"ca_file": key.name}, {"key": other_key.name})
    for wrong in wrongs:
        with pytest.raises(UsageError, match="bad_certificate"):
            client_context(TlsSettings(**{**tls, **wrong}), resolve)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="open_secret_file"):
        client_context(TlsSettings(**tls), resolve)


# How gently


def test_starts_are_apart_by_the_pause() -> None:
    now, starts = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle = Throttle(concurrent=2, pause_s=1.5, clock=lambda: now, sleep=sleep)
    for lasts in (0.0, 0.4, 5.0, 0.0):
        with throttle.turn():
            starts.append(now)
            now += lasts
    assert starts == [0.0, 1.5, 3.0, 8.0]


def test_no_more_than_allowed_at_the_same_time() -> None:
    import threading

    throttle = Throttle(concurrent=2, pause_s=0.0)
    inside, most = 0, 0
    lock, gate = threading.Lock(), threading.Barrier(2)

    def work() -> None:
        nonlocal inside, most
        with throttle.turn():
            with lock:
                inside += 1
                most = max(most, inside)
            # Passed only when two are inside together.
            gate.wait(timeout=20)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_errors_are_of_the_one_tree() -> None:
    assert issubclass(PacsError, FedcacError)
