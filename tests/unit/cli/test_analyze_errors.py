"""`fedcac analyze`: what is wrong on the command line or in a table, said with its cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedcac.cli import main
from fedcac.cli.in_memory import pooled_by
from fedcac.protocol.catalogue import load_shipped

PROTOCOL = "eng2021-nongated"


def problem(
    capsys: pytest.CaptureFixture[str], out: Path, *words: str, expect: int
) -> dict[str, Any]:
    arguments = ["analyze", PROTOCOL, *words, "--out", str(out), "--format", "json"]
    assert main(arguments) == expect
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    assert data["cure"]
    assert not (out / "report.html").exists()
    return data


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (("duke.csv",), "'duke.csv' is not NAME=TABLE.csv."),
        (("no spaces=duke.csv",), "'no spaces=duke.csv' is not NAME=TABLE.csv."),
        (("duke=",), "'duke=' is not NAME=TABLE.csv."),
        (("duke=a.csv", "duke=b.csv"), "Site 'duke' is given twice."),
    ],
)
def test_a_site_without_a_name_or_a_table(
    sites: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for site in sites for word in ("--site", site)]
    found = problem(capsys, tmp_path, *words, expect=2)
    assert (found["code"], found["message"]) == ("usage.bad_site", message)


def test_a_table_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--site", f"duke={tmp_path / 'none.csv'}")
    found = problem(capsys, tmp_path / "out", *words, expect=7)
    assert found["code"] == "table.no_such_file"
    # The table's name is enough to find it; its folder stays here.
    assert found["message"] == "The table none.csv cannot be read."


def test_masked_sums_of_one_site_would_be_that_sites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "one.csv"
    table.write_text("patient_id,index_score,reference_score\nA,1,1\n", encoding="utf-8")
    words = ("--site", f"duke={table}", "--pooling", "masked")
    found = problem(capsys, tmp_path / "out", *words, expect=2)
    assert found["code"] == "usage.too_few_sites"
    assert "at least 3 sites, and there are 1" in found["message"]


def test_pooling_is_changed_only_where_it_differs() -> None:
    protocol = load_shipped(PROTOCOL)
    assert pooled_by(protocol, None) is protocol
    assert pooled_by(protocol, protocol.pooling.mode) is protocol
    masked = pooled_by(protocol, "masked")
    apart = {spec.id for spec in protocol.analyses if getattr(spec, "by_site", False)}
    assert masked.pooling.mode == "masked"
    assert set(masked.pooling.per_site) == apart
    assert pooled_by(masked, "open").pooling.per_site == ()
