"""The page of the benchmarks holds what was recorded, and every benchmark is on it."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from benchmarks.page import PAGE, SVG, page_text, shown_number, table_of_figures
from benchmarks.ratio_figure import ratio_figure
from benchmarks.registry import BENCHMARKS, Benchmark, Figure
from benchmarks.side_by_side import RESULTS, recorded_results
from fedcac.statistics import registered_estimators

ROOT = Path(__file__).parents[3]
RECORDED = recorded_results()
TEXT = PAGE.read_text(encoding="utf-8")
FIGURES = [figure for benchmark in BENCHMARKS for figure in benchmark.figures]
QUOTED = [(figure, *quote) for figure in FIGURES for quote in figure.quoted]
PARITY = list(
    csv.DictReader((RESULTS / "estimator_parity.csv").read_text(encoding="utf-8").splitlines())
)


def names(benchmark: Benchmark) -> str:
    return benchmark.name


def test_the_page_is_what_was_recorded() -> None:
    assert page_text(RECORDED) == TEXT, "run `python -m benchmarks.page`"


def test_a_number_that_changes_makes_the_page_another() -> None:
    figure = BENCHMARKS[0].figures[0]
    other = {**RECORDED, "ratios": {**RECORDED["ratios"]}}
    other["ratios"][figure.key] = {"median": 7.77, "least": 1.0, "greatest": 9.0}
    assert page_text(other) != TEXT
    assert "7.77 (1 to 9) x" in page_text(other)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=names)
def test_every_benchmark_is_on_the_page_with_its_machine(benchmark: Benchmark) -> None:
    found = importlib.util.find_spec(f"benchmarks.{benchmark.name}")
    assert found is not None
    assert found.origin is not None
    assert "def recorded(" in Path(found.origin).read_text(encoding="utf-8")
    measured = RECORDED["measured"][benchmark.name]
    assert "cores" in measured
    assert f"`{benchmark.name}`" in TEXT
    assert f"| {benchmark.compares} | {measured} |" in TEXT
    if benchmark.page:
        assert (RESULTS / benchmark.page).is_file()
    for page in benchmark.quoted:
        assert f"benchmarks/results/{benchmark.page}" in (ROOT / page).read_text(encoding="utf-8")


def test_every_recorded_figure_belongs_to_one_benchmark() -> None:
    keys = [(figure.kind, figure.key) for figure in FIGURES]
    assert len(keys) == len(set(keys))
    recorded = {(kind, key) for kind, own in RECORDED.items() if kind != "measured" for key in own}
    assert recorded == set(keys)
    assert set(RECORDED["measured"]) == {benchmark.name for benchmark in BENCHMARKS}


@pytest.mark.parametrize(
    ("figure", "page", "number", "words"),
    QUOTED,
    ids=[f"{figure.key}-{Path(page).stem}" for figure, page, _, _ in QUOTED],
)
def test_a_page_quotes_the_recorded_number(
    figure: Figure, page: str, number: str, words: str
) -> None:
    digits = len(number.partition(".")[2])
    assert f"{RECORDED[figure.kind][figure.key]['median']:.{digits}f}" == number
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert words.format(number) in text


def test_the_parity_table_has_every_estimator_and_no_difference_of_an_exact_one() -> None:
    assert {row["kind"] for row in PARITY} == set(registered_estimators())
    exact = [row for row in PARITY if row["basis"] == "exact"]
    # What is left is counted on a grid throughout.
    assert set(registered_estimators()) - {row["kind"] for row in exact} == {"auc"}
    for row in exact:
        for column in ("largest difference of an estimate", "of a standard error"):
            assert float(row[column] or 0) < 1e-5, row
    for row in PARITY:
        assert f"{row['largest difference of an estimate']} | " in TEXT


def test_the_figure_shows_every_recorded_ratio() -> None:
    drawn = SVG.read_text(encoding="utf-8")
    assert ratio_figure(RECORDED).count("<desc>") == 1
    for figure in FIGURES:
        if figure.kind == "ratios":
            spread = RECORDED["ratios"][figure.key]
            words = figure.words.replace("'", "&#39;")
            assert figure.words in drawn or words in drawn
            assert f"{spread['median']:g} ({spread['least']:g} to {spread['greatest']:g})" in drawn


def test_what_was_not_measured_says_so() -> None:
    assert shown_number({}, FIGURES[0]) == "not measured"
    assert all("not measured" in line for line in table_of_figures({})[2:5])
