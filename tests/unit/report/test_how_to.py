"""The code of the how-to pages runs as it stands, and an output folder reads as frames."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import fedcac
from fedcac.aggregate import FlowStage
from fedcac.cli import main
from fedcac.errors import FedcacError
from fedcac.output import RoundOutput, read_output
from fedcac.phantom import eng_tables, write_tables
from fedcac.report import COLUMNS, RoundReport
from fedcac.report.writing import write_report

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"


def blocks(page: str, language: str) -> str:
    text = (HOW_TO / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return "\n".join(found)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statistician")
    tables = folder / "tables"
    tables.mkdir()
    arguments = ["analyze", "eng2021-nongated", "--policy", "open"]
    for path in write_tables(eng_tables(1), tables):
        arguments += ["--site", f"{path.stem}={path}"]
    assert main([*arguments, "--out", str(folder / "results")]) == 0
    return folder


@pytest.fixture(scope="module")
def output(work: Path) -> RoundOutput:
    return read_output(work / "results")


@pytest.fixture(scope="module")
def rows(work: Path) -> list[dict[str, str]]:
    with (work / "results" / "estimates.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_python_page_runs(work: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("read-in-python.md", "python")],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "eng2021-nongated" in finished.stdout


def has_metafor() -> bool:
    if shutil.which("Rscript") is None:
        return False
    command = ["Rscript", "-e", "library(metafor)"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


CSV_OF_R = """
write.csv(data.frame(
  what = c("kappa", "low", "high", "tau2", "i2", "q", "pi_low", "pi_high", "sens", "s_lo", "s_hi"),
  value = c(fixed$beta, fixed$ci.lb, fixed$ci.ub, fit$tau2, fit_dl$I2 / 100, fit_dl$QE, higgins,
            plogis(c(fit_sens$beta, fit_sens$ci.lb, fit_sens$ci.ub)))), row.names = FALSE)
"""


def test_the_r_page_runs_and_metafor_gives_our_summaries(
    work: Path, rows: list[dict[str, str]]
) -> None:
    if not has_metafor():
        pytest.skip("R with the package metafor is not installed")
    dl = '\nfit_dl <- rma(yi = estimate, sei = se, data = sites, method = "DL")\ncat("----\\n")\n'
    program = blocks("read-in-r.md", "r") + dl + CSV_OF_R
    (work / "page.R").write_text(program, encoding="utf-8")
    finished = subprocess.run(
        ["Rscript", "page.R"], cwd=work, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert (work / "forest.pdf").exists()
    told = csv.DictReader(io.StringIO(finished.stdout.partition("----\n")[2]))
    theirs = {line["what"]: float(line["value"]) for line in told}

    def ours(measure: str, column: str, group: str = "", term: str = "") -> float:
        found = [
            row[column]
            for row in rows
            if (row["scope"], row["measure"], row["group"], row["term"])
            == ("meta", measure, group, term)
        ]
        assert len(found) == 1, (measure, found)
        return float(found[0])

    expected = {
        "kappa": ours("kappa_linear", "estimate"),
        "low": ours("kappa_linear", "ci_low"),
        "high": ours("kappa_linear", "ci_high"),
        "tau2": ours("tau2_reml", "estimate", "kappa_linear"),
        "i2": ours("i2", "estimate", "kappa_linear"),
        "q": ours("q", "estimate", "kappa_linear"),
        "pi_low": ours("prediction_interval", "ci_low", "kappa_linear"),
        "pi_high": ours("prediction_interval", "ci_high", "kappa_linear"),
        "sens": ours("sensitivity", "estimate", term="100"),
        "s_lo": ours("sensitivity", "ci_low", term="100"),
        "s_hi": ours("sensitivity", "ci_high", term="100"),
    }
    assert theirs == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_the_frames_hold_what_the_files_hold(
    output: RoundOutput, rows: list[dict[str, str]], work: Path
) -> None:
    assert list(output.estimates.columns) == list(COLUMNS)
    assert len(output.estimates) == len(rows)
    for column in COLUMNS:
        for value, text in zip(output.estimates[column], [r[column] for r in rows], strict=True):
            if not text and column not in {"group", "term", "ci_method"}:
                assert pd.isna(value)
            elif isinstance(value, str):
                assert value == text
            else:
                assert float(value) == float(text)
    results = json.loads((work / "results" / "results.json").read_text(encoding="utf-8"))
    for site in results["sites"]:
        own = output.flow[output.flow["site"] == site["name"]]
        stages = own[own["kind"] == "stage"]
        assert list(stages["name"]) == [stage.value for stage in FlowStage]
        assert dict(zip(stages["name"], stages["n"], strict=True)) == site["flow"]["stages"]
    assert output.protocol_digest == results["protocol"]["digest"]
    keys = output.provenance.set_index("key")["value"]
    assert keys["protocol.digest"] == output.protocol_digest


def test_wide_puts_sites_first_and_summaries_last(output: RoundOutput) -> None:
    kappa = output.wide("agreement", "kappa_linear", group="")
    assert list(kappa.columns) == ["site1", "site2", "site3", "site4", "meta", "pooled"]
    assert kappa.loc[("", ""), "pooled"] == pytest.approx(0.795, abs=5e-4)
    sens = output.wide("accuracy", "sensitivity", group="")
    assert [term for _, term in sens.index] == ["1", "10", "100", "400"]
    left_out = output.wide("agreement", "kappa_linear")
    assert ("without site1", "") in left_out.index


def test_the_object_is_frozen_and_lazy(output: RoundOutput) -> None:
    with pytest.raises(AttributeError):
        output.round_id = "another"  # type: ignore[misc]
    assert fedcac.read_output is read_output
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedcac.nothing  # type: ignore[attr-defined]  # noqa: B018
    program = "import sys, fedcac; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_suppressed_counts_and_absent_flows_are_not_zero(
    tmp_path: Path, report: RoundReport
) -> None:
    write_report(report, tmp_path / "out")
    flow = read_output(tmp_path / "out").flow
    withheld = flow[flow["status"] != "ok"]
    assert set(withheld["status"]) == {"suppressed", "not_released"}
    assert withheld["n"].isna().all()
    assert list(flow[flow["status"] == "not_released"]["site"]) == ["Site-3"]


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("usage.not_an_output", lambda out: (out / "provenance.json").unlink()),
        ("usage.not_an_output", lambda out: (out / "results.json").unlink()),
        ("usage.not_an_output", lambda out: (out / "provenance.json").write_text("[]")),
        ("usage.not_an_output", lambda out: (out / "provenance.json").write_text("{}")),
        ("integrity.output_altered", lambda out: (out / "estimates.csv").write_text("x")),
    ],
)
def test_a_spoilt_folder_is_a_coded_error(
    work: Path, tmp_path: Path, code: str, spoil: object
) -> None:
    out = tmp_path / "out"
    shutil.copytree(work / "results", out)
    assert callable(spoil)
    spoil(out)
    with pytest.raises(FedcacError) as caught:
        read_output(out)
    assert caught.value.code == code


def test_words_that_no_row_has(output: RoundOutput) -> None:
    with pytest.raises(FedcacError) as caught:
        output.select(measure="kappa_cubic")
    assert caught.value.code == "usage.unknown_measure"
    with pytest.raises(FedcacError, match="agreement") as caught:
        output.wide("survival", "hazard_ratio")
    assert caught.value.code == "usage.unknown_analysis"
