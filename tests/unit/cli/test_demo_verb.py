"""`fedcac demo` on the smallest cohorts: what it writes, and what it says about what is hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcac.cli import main


def test_sums_over_three_hospitals_end_in_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--sites", "3", "--patients", "1", "--policy", "open", "--out", str(out)]
    assert main(["demo", *words, "--device", "cpu", "--format", "json"]) == 0
    shown = capsys.readouterr()
    data = json.loads(shown.out)["data"]
    assert data["out"] == str(out)
    assert data["estimates"] > 0
    assert "3 sites verify, approve, score and answer under policy open" in shown.err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "not for clinical use" in page.lower()
    # Each site's ledger is beside the report; who was in which group is nobody else's business.
    ledgers = sorted(path.parent.name for path in (out / "sites").rglob("ledger.jsonl"))
    assert ledgers == ["site-1", "site-2", "site-3"]
    assert not list(out.rglob("*.groups"))
    assert not list(out.rglob("*.dcm"))


def test_a_hospital_that_answers_by_itself_is_told_what_is_suppressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, exams = tmp_path / "out", tmp_path / "exams"
    words = ["--sites", "1", "--patients", "1", "--pooling", "open", "--keep-exams", str(exams)]
    assert main(["demo", *words, "--device", "cpu", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"Read {out}/report.html" in text
    assert "Many cells of such small hospitals are suppressed." in text
    assert list((exams / "site-1").rglob("*.dcm"))


def test_two_hospitals_have_no_masked_sums(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sites", "2", "--patients", "1", "--out", str(tmp_path), "--format", "json"]
    assert main(["demo", *words, "--device", "cpu"]) == 2
    assert json.loads(capsys.readouterr().out)["data"]["code"] == "usage.too_few_sites"
    assert not (tmp_path / "report.html").exists()
