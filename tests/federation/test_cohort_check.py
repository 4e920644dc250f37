"""`fedcac-site cohort check`: what is wrong with which exam, said at the site alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest

from site_agent.__main__ import main


def check(site: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["--home", str(site), "cohort", "check", "demo-nongated"])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_every_fault_is_named_with_its_exam(
    consortium: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    exams = consortium.root / "exams" / "site-1"
    assert check(consortium.site, capsys)[0] == 0

    lines = (exams / "manifest.csv").read_text(encoding="utf-8").splitlines()
    index = [exams / line.split(",")[0] for line in lines if line.endswith(",index")]
    for path in index[0].iterdir():
        if pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber == 10:
            path.unlink()
    shutil.rmtree(index[1])
    cut = next(index[2].iterdir())
    cut.write_bytes(cut.read_bytes()[:3000])
    code, text = check(consortium.site, capsys)
    assert code == 0
    # The patient of a folder that does not exist is unknown, so its reference exam stands alone.
    assert "3 of 7 patients can be scored" in text
    for folder, reason in (
        (index[0], "missing_slice"),
        (index[1], "no_such_path"),
        (index[2], "truncated_dicom"),
    ):
        assert any(folder.name in line and reason in line for line in text.splitlines()), reason


def test_no_eligible_pair_ends_with_the_documented_code(
    consortium: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    exams = consortium.root / "exams" / "site-1"
    manifest = exams / "manifest.csv"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.endswith(",reference")]
    manifest.write_text("\n".join(kept), encoding="utf-8")
    code, text = check(consortium.site, capsys)
    assert code == 6
    assert "cohort.empty" in text
    assert "no_reference_exam" in text
    manifest.write_text("path,role\n", encoding="utf-8")
    code, text = check(consortium.site, capsys)
    assert code == 7
    assert "empty_manifest" in text


def test_too_many_losses_stop_the_round_until_a_person_confirms(launched: Any) -> None:
    made, round_id = launched
    exams = made.root / "exams" / "site-1"
    lines = (exams / "manifest.csv").read_text(encoding="utf-8").splitlines()
    index = [exams / line.split(",")[0] for line in lines if line.endswith(",index")]
    for folder in index[:3]:
        shutil.rmtree(folder)
    made.run("site", "approve", round_id)
    data = made.run("site", "run", "--once", expect=6)
    assert data["rounds"][round_id]["problem"] == "cohort.too_many_excluded"
    settings = made.site / "site.yaml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(
        text.replace("maximum_excluded_share: 0.2", "maximum_excluded_share: 0.7"),
        encoding="utf-8",
    )
    assert made.run("site", "run", "--once")["rounds"][round_id]["state"] == "answering"
