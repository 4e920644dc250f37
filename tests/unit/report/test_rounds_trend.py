"""Three and more rounds: each site's run, and a test for drift only where it is valid."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from fedcac.cli import main
from fedcac.report.figures.run_chart import Run, RunSheet, draw_runs
from fedcac.report.rounds_trend import drift_test
from fedcac.report.trend_page import TREND_COLUMNS

SITES = ("north", "east", "south")


def write_table(path: Path, seed: int, noise: float, n: int = 150) -> Path:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.4, 0.0, np.exp(rng.normal(4, 1.7, n)))
    index = np.maximum(0.0, reference * np.exp(rng.normal(0, noise, n)) - 1)
    lines = [f"P{i},{index[i]:.2f},{reference[i]:.2f}" for i in range(n)]
    path.write_text("patient_id,index_score,reference_score\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four rounds of different patients; the model gets worse at south, and nowhere else."""
    folder = tmp_path_factory.mktemp("rounds")
    found = []
    for number in range(4):
        arguments = ["analyze", "eng2021-nongated", "--policy", "open"]
        for place, site in enumerate(SITES):
            noise = 0.3 + (0.5 * number if site == "south" else 0.0)
            table = write_table(folder / f"{number}_{site}.csv", 100 * number + place, noise)
            arguments += ["--site", f"{site}={table}"]
        found.append(folder / f"round{number}")
        assert main([*arguments, "--out", str(found[-1])]) == 0
    return found


def followed(out: Path) -> list[dict[str, str]]:
    with (out / "rounds.csv").open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == TREND_COLUMNS
        return list(reader)


def test_the_site_that_drifts_is_the_one_that_is_found(rounds: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "o"
    arguments = ["compare", *map(str, rounds), "--patients", "different", "--out", str(out)]
    assert main(arguments) == 0
    rows = [r for r in followed(out) if r["measure"] == "kappa_linear" and not r["term"]]
    drift = {row["scope"]: float(row["drift_p"]) for row in rows}
    assert drift["south"] < 1e-6
    assert drift["north"] > 0.01
    assert drift["east"] > 0.01
    south = [row for row in rows if row["scope"] == "south"]
    values = [float(row["estimate"]) for row in south]
    assert values[3] < values[0] - 0.1
    assert [row["round"] for row in south] == ["1", "2", "3", "4"]
    assert south[0]["change"] == ""
    assert float(south[3]["change"]) == pytest.approx(values[3] - values[0])
    assert float(south[3]["change_high"]) < 0
    document = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert len(document["rounds"]) == 4


def test_every_site_has_a_panel_in_every_chart(rounds: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert main(["compare", *map(str, rounds[:3]), "--out", str(out)]) == 0
    charts = sorted((out / "figures").iterdir())
    assert "runs_agreement_kappa_linear.svg" in [chart.name for chart in charts]
    page = (out / "comparison.html").read_text(encoding="utf-8")
    for chart in charts:
        svg = chart.read_text(encoding="utf-8")
        texts = {node.text for node in ElementTree.fromstring(svg).iter()}  # noqa: S314 - our own
        assert {*SITES, "Pooled"} <= texts
    assert page.count("<svg") == len(charts)
    assert "<script" not in page


def test_a_comparison_leaves_nothing_of_an_earlier_one(rounds: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert main(["compare", *map(str, rounds[:3]), "--out", str(out)]) == 0
    for kept, folders in (("comparison.csv", rounds[:2]), ("rounds.csv", rounds[:3])):
        assert main(["compare", *map(str, folders), "--out", str(out)]) == 0
        assert [table.name for table in out.glob("*.csv")] == [kept]
        assert not (out / "figures" / "comparison.svg").exists() or len(folders) == 2
        assert bool([*(out / "figures").glob("runs_*")]) == (len(folders) == 3)


def test_no_test_where_the_patients_may_be_the_same(rounds: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert main(["compare", *map(str, rounds[:3]), "--out", str(out)]) == 0
    rows = followed(out)
    assert {row["drift_p"] for row in rows} == {""}
    assert {row["reason"] for row in rows if row["round"] == "2"} <= {
        "patients_unknown",
        "no_number",
    }


def test_any_two_rounds_of_the_same_patients_are_refused(
    rounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [rounds[1].parent / f"1_{site}.csv" for site in SITES]
    arguments = ["analyze", "eng2021-nongated", "--policy", "open", "--out", str(tmp_path / "same")]
    for site, table in zip(SITES, tables, strict=True):
        arguments += ["--site", f"{site}={table}"]
    assert main(arguments) == 0
    trio = [rounds[0], rounds[1], tmp_path / "same"]
    again = ["compare", *map(str, trio), "--patients", "different", "--out", str(tmp_path / "o")]
    assert main(again) == 2
    assert "usage.same_patients" in capsys.readouterr().err
    assert main(["compare", *map(str, [*rounds[:2], rounds[0]]), "--out", str(tmp_path / "p")]) == 2
    assert "usage.round_given_twice" in capsys.readouterr().err


def test_the_drift_test_is_the_analysis_of_variance_of_known_variances() -> None:
    values, variance = [0.1, 0.5, 0.2, 0.9], 0.04
    q, df, p_value = drift_test([(value, variance) for value in values])
    assert q == pytest.approx(np.sum((np.array(values) - np.mean(values)) ** 2) / variance)
    assert df == 3
    assert p_value == pytest.approx(stats.chi2.sf(q, 3))


def test_the_drift_test_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    variances = np.array([0.2, 0.5, 1.0])
    draws = rng.normal(2.0, np.sqrt(variances), (4000, 3))
    rejected = [drift_test(list(zip(row, variances, strict=True)))[2] < 0.05 for row in draws]
    assert 0.04 < np.mean(rejected) < 0.06


def test_a_site_without_a_value_says_so() -> None:
    sheet = RunSheet(
        "x", "Kappa", "Kappa", ("1", "2", "3"),
        (Run("north", ((0.8, 0.7, 0.9), None, (0.4, 0.3, 0.5))), Run("west", (None, None, None))),
    )  # fmt: skip
    figure = draw_runs(sheet)
    texts = [node.text for node in ElementTree.fromstring(figure.svg).iter()]  # noqa: S314
    assert "no value" in texts
    assert "west: no value, no value, no value" in figure.alt
