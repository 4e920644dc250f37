"""A round without a package at an installed site: answered from its table of scores, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.__main__ import main as coordinator
from fedcac.exchange import Spool
from site_agent.__main__ import main as site

Matrix = list[list[int]]


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    lead, duke = tmp_path / "lead", tmp_path / "duke"
    assert coordinator(["--home", str(lead), "init"]) == 0
    key = str(lead / "keys" / "lead.pub")
    policy = ["--policy", "open", "--approval", "auto"]
    assert site(["--home", str(duke), "init", "duke", "--lead-key", key, *policy]) == 0
    enrolled = ["enrol", "duke", "--key", str(duke / "keys" / "site.pub")]
    assert coordinator(["--home", str(lead), *enrolled, "--spool", str(duke / "spool")]) == 0
    return lead, duke


def _launched(lead: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    launch = ["round", "launch", "eng2021-nongated", "--format", "json"]
    assert coordinator(["--home", str(lead), *launch]) == 0
    round_id: str = json.loads(capsys.readouterr().out)["data"]["round_id"]
    return round_id


def _set(duke: Path, **settings: Any) -> None:
    path = duke / "site.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8")) | settings
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


def test_a_scored_table_answers_a_round_without_a_package(
    homes: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    eng_matrices: dict[str, Matrix],
    write_matrix_table: Callable[[Path, Matrix], Path],
) -> None:
    lead, duke = homes
    write_matrix_table(duke / "scores.csv", eng_matrices["site4"])
    _set(duke, scored_table="scores.csv")
    round_id = _launched(lead, capsys)
    for _ in range(2):
        assert site(["--home", str(duke), "run", "--once"]) == 0
        assert coordinator(["--home", str(lead), "round", "status", round_id]) == 0
        coordinator(["--home", str(lead), "round", "wait", round_id, "--timeout", "1"])
    out = tmp_path / "out"
    assert coordinator(["--home", str(lead), "report", round_id, "--out", str(out)]) == 0
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["estimates"]
    kappa = next(
        row for row in rows if row["measure"] == "kappa_linear" and row["scope"] == "pooled"
    )
    # Of the matrix that fits Eng et al. 2021, Table 3, site 4.
    assert kappa["estimate"] == pytest.approx(0.7430, abs=1e-4)


def test_without_a_table_the_round_is_refused(
    homes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lead, duke = homes
    round_id = _launched(lead, capsys)
    assert site(["--home", str(duke), "run", "--once"]) == 0
    assert f"{round_id}.acceptance" in " ".join(Spool.at(duke / "spool").outbox.names())
    coordinator(["--home", str(lead), "round", "wait", round_id, "--timeout", "1"])
    assert "package_invalid" in capsys.readouterr().out
