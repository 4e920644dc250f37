"""Two rounds compared: what changed, with an interval only where one is valid."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcac.cli import main
from fedcac.errors import UsageError
from fedcac.report import PackageCard, RoundReport
from fedcac.report.comparison_page import COMPARISON_COLUMNS
from fedcac.report.rounds_compared import difference_interval
from fedcac.report.writing import write_report

Z = 1.959963984540054


def wilson(x: int, n: int) -> tuple[float, float, float]:
    interval = stats.binomtest(x, n).proportion_ci(method="wilson")
    return x / n, interval.low, interval.high


# --- the interval ---------------------------------------------------------------------------------


def test_proportions_have_newcombes_interval() -> None:
    # Newcombe, Stat Med 1998;17:873, Table II, method 10: 56/70 and 48/80.
    low, high = difference_interval(wilson(48, 80), wilson(56, 70))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)
    low, high = difference_interval(wilson(0, 10), wilson(10, 10))
    assert (round(low, 4), round(high, 4)) == (0.6075, 1.0)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 3), st.floats(0.01, 3))
def test_symmetric_limits_give_the_normal_interval(
    a: float, b: float, se_a: float, se_b: float
) -> None:
    low, high = difference_interval(
        (a, a - Z * se_a, a + Z * se_a), (b, b - Z * se_b, b + Z * se_b)
    )
    half = Z * np.hypot(se_a, se_b)
    assert (low, high) == pytest.approx((b - a - half, b - a + half), abs=1e-9)


def test_it_covers_the_difference_of_independent_samples() -> None:
    rng = np.random.default_rng(7)
    p, q, n, m = 0.85, 0.75, 120, 200
    covered = 0
    for x, y in zip(rng.binomial(n, p, 2000), rng.binomial(m, q, 2000), strict=True):
        low, high = difference_interval(wilson(int(x), n), wilson(int(y), m))
        covered += low <= q - p <= high
    assert 0.93 < covered / 2000 < 0.97


# --- whole rounds ---------------------------------------------------------------------------------


def write_table(path: Path, seed: int, n: int, noise: float) -> Path:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.4, 0.0, np.exp(rng.normal(4, 1.7, n)))
    index = np.maximum(0.0, reference * np.exp(rng.normal(0, noise, n)) - 1)
    lines = [f"P{i},{index[i]:.2f},{reference[i]:.2f}" for i in range(n)]
    path.write_text("patient_id,index_score,reference_score\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A round; the same patients with a noisier model; other patients."""
    folder = tmp_path_factory.mktemp("rounds")
    plans = {"first": (1, 0.3), "same": (1, 0.9), "other": (50, 0.3)}
    found = {}
    for name, (seed, noise) in plans.items():
        arguments = ["analyze", "eng2021-nongated", "--policy", "open"]
        for number, site in enumerate(("north", "east", "south")):
            table = write_table(folder / f"{name}_{site}.csv", seed + number, 150, noise)
            arguments += ["--site", f"{site}={table}"]
        found[name] = folder / name
        assert main([*arguments, "--out", str(found[name])]) == 0
    return found


def compared(out: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == COMPARISON_COLUMNS
        keys = ("analysis", "scope", "measure", "group", "term")
        return {tuple(row[key] for key in keys): row for row in reader}


def estimates(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    keys = ("analysis", "scope", "measure", "group", "term")
    with (folder / "estimates.csv").open(encoding="utf-8", newline="") as stream:
        return {tuple(row[key] for key in keys): row for row in csv.DictReader(stream)}


def test_different_patients_have_intervals(rounds: dict[str, Path], tmp_path: Path) -> None:
    arguments = [
        "compare",
        str(rounds["first"]),
        str(rounds["other"]),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*arguments, "--patients", "different"]) == 0
    rows = compared(tmp_path / "o")
    one, two = estimates(rounds["first"]), estimates(rounds["other"])
    key = ("accuracy", "pooled", "sensitivity", "", "100")
    a, b = one[key], two[key]
    counts = [(round(float(x["estimate"]) * int(x["n"])), int(x["n"])) for x in (a, b)]
    # The protocol asks for the paper's own interval; a change has Newcombe's all the same.
    assert a["ci_method"] == "eng2021"
    low, high = difference_interval(wilson(*counts[0]), wilson(*counts[1]))
    row = rows[key]
    assert float(row["change"]) == pytest.approx(float(b["estimate"]) - float(a["estimate"]))
    assert (float(row["change_low"]), float(row["change_high"])) == pytest.approx((low, high))
    assert row["reason"] == ""
    # Both rounds have 100% here: no change, and no false certainty of it.
    sure = rows["accuracy", "pooled", "specificity", "", "1"]
    assert (float(sure["first"]), float(sure["second"]), float(sure["change"])) == (1, 1, 0)
    assert float(sure["change_low"]) < -0.01
    assert float(sure["change_high"]) > 0.01
    assert rows["accuracy", "pooled", "f1", "", "100"]["reason"] == "no_interval"
    assert {scope for _, scope, *_ in rows} >= {"north", "east", "south", "meta", "pooled"}
    assert not any(measure == "count" for _, _, measure, _, _ in rows)
    page = (tmp_path / "o" / "comparison.html").read_text(encoding="utf-8")
    assert "treat them as independent samples" in page
    assert "<svg" in page
    assert "<script" not in page
    # Once more into the same folder.
    assert main(arguments) == 0


@pytest.mark.parametrize("patients", ["same", "unknown"])
def test_the_same_patients_have_none(
    rounds: dict[str, Path], tmp_path: Path, patients: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(rounds["first"]), str(rounds["same"]), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--patients", patients, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["with_interval"] == 0
    assert told["compared"] > 50
    rows = compared(tmp_path / "o")
    assert all(row["change_low"] == row["change_high"] == "" for row in rows.values())
    expected = {"same": "same_patients", "unknown": "patients_unknown"}[patients]
    key = ("agreement", "pooled", "kappa_linear", "", "")
    assert rows[key]["reason"] == expected
    assert float(rows[key]["change"]) < 0


def test_the_same_patients_said_to_be_different_are_noticed(
    rounds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(rounds["first"]), str(rounds["same"]), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--patients", "different"]) == 2
    error = capsys.readouterr().err
    assert "usage.same_patients" in error
    assert "north, east, south" in error
    assert not (tmp_path / "o").exists()


def test_a_foreign_folder_and_another_protocol(
    rounds: dict[str, Path],
    tmp_path: Path,
    build: Callable[..., RoundReport],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_report(build(), tmp_path / "fixture")
    first = str(rounds["first"])
    assert main(["compare", first, str(tmp_path / "fixture"), "--out", str(tmp_path / "o")]) == 2
    assert "usage.other_protocol" in capsys.readouterr().err
    # An output folder is not overwritten by a comparison.
    assert main(["compare", first, str(rounds["same"]), "--out", str(tmp_path / "fixture")]) == 2
    assert "usage.output_not_empty" in capsys.readouterr().err


def test_suppressed_values_and_absent_sites_are_said(
    build: Callable[..., RoundReport], tmp_path: Path
) -> None:
    card = PackageCard("other-unet", "2.0.0", "Another.", True)
    write_report(build(4), tmp_path / "a")
    write_report(build(2, package_card=card), tmp_path / "b")
    arguments: list[Any] = ["compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "o"]
    assert main([str(argument) for argument in arguments]) == 0
    rows = compared(tmp_path / "o")
    reasons = {row["reason"] for row in rows.values()}
    assert {"only_first", "no_number", "patients_unknown"} <= reasons
    ratio = next(row for row in rows.values() if row["measure"] == "hazard_ratio")
    assert ratio["contrast"] == "ratio"
    assert float(ratio["change"]) == pytest.approx(1.0)
    page = (tmp_path / "o" / "comparison.html").read_text(encoding="utf-8")
    assert "other-unet 2.0.0" in page
    assert "not in round B" in page


def test_rounds_of_two_protocols_are_refused(build: Callable[..., RoundReport]) -> None:
    from fedcac.report.rounds_compared import ComparedRound, compare_rounds

    def told(digest: str) -> ComparedRound:
        rows = build().estimates
        return ComparedRound("r", "2026-01-01", "", "p", 1, digest, rows, {"a": 1}, {"a": "open"})

    with pytest.raises(UsageError, match="different protocols"):
        compare_rounds(told("sha256:a"), told("sha256:b"), "unknown")
