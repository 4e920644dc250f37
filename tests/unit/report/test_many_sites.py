"""A report of many sites: every site is told, folded, in a page of bounded size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedcac.aggregate import FlowCounts, FlowStage
from fedcac.report import RoundReport
from fedcac.report.figures import draw_figures
from fedcac.report.figures.flow import sum_words
from fedcac.report.findings import Findings
from fedcac.report.flow_tables import flow_by_site, flow_table
from fedcac.report.many_sites import MANY_SITES, range_words, sites_words
from fedcac.report.tables import disclosure_table, performance_by_site, performance_table
from fedcac.report.wording import number_words
from fedcac.report.writing import write_report
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import CellStatus, Measure

N_SITES = 40
A4_HEIGHT_PX = 1001
"""Between the margins of a printed page, at 96 dots per inch."""


@pytest.fixture(scope="module")
def many(build_many: Callable[[int], RoundReport]) -> RoundReport:
    return build_many(N_SITES)


@pytest.fixture(scope="module")
def build_many() -> Callable[[int], RoundReport]:
    from unit.report.conftest import make_report

    return make_report


@pytest.fixture(scope="module")
def page(many: RoundReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("many") / "out"
    write_report(many, out)
    return (out / "report.html").read_text(encoding="utf-8")


def test_no_table_has_a_column_per_site(page: str) -> None:
    heads = re.findall(r"<thead><tr>(.*?)</tr></thead>", page, re.DOTALL)
    assert heads
    assert max(head.count("<th") for head in heads) <= 2 + len(FlowStage) + 6


def test_every_site_is_in_the_page_with_its_numbers(page: str, many: RoundReport) -> None:
    findings = Findings(many)
    for site in findings.sites:
        assert f">{site}<" in page
    for row in many.estimates:
        is_shown = row.analysis == "accuracy" and row.measure is Measure.SENSITIVITY
        if is_shown and row.scope in findings.sites and row.estimate is not None:
            assert number_words(row) in page


def test_a_page_grows_by_a_few_kilobytes_a_site(
    build_many: Callable[[int], RoundReport], tmp_path: Path
) -> None:
    sizes = {}
    for n in (20, 40):
        write_report(build_many(n), tmp_path / str(n))
        sizes[n] = (tmp_path / str(n) / "report.html").stat().st_size
    per_site = (sizes[40] - sizes[20]) / 20
    # At this growth a page of 100 sites has less than 10 MB, with a wide margin.
    assert sizes[40] + 60 * per_site < 5e6
    # The number of figures does not follow the number of sites.
    counts = [len(list((tmp_path / str(n) / "figures").iterdir())) for n in (20, 40)]
    assert counts[0] == counts[1]


def test_every_figure_fits_a_printed_page(many: RoundReport) -> None:
    for figure in draw_figures(Findings(many)):
        box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', figure.svg)
        assert box is not None
        width, height = float(box.group(1)), float(box.group(2))
        # A printed figure is at most 560 px wide.
        assert height * min(1.0, 560 / width) < A4_HEIGHT_PX, figure.name


def test_text_of_a_crowded_forest_stays_above_five_points(many: RoundReport) -> None:
    (forest,) = (f for f in draw_figures(Findings(many)) if f.name == "forest_kappa_kappa_linear")
    sizes = [float(x) for x in re.findall(r'font-size="([0-9.]+)px"', forest.svg)]
    # 175 mm are 496 points across, which the figure's width becomes.
    assert min(sizes) * 496 / forest.width >= 5


def test_a_forest_of_many_sites_is_sorted_and_gathers_the_gaps(many: RoundReport) -> None:
    figures = {figure.name: figure for figure in draw_figures(Findings(many))}
    forest = figures["forest_accuracy_sensitivity_100"]
    texts = [x.text or "" for x in ElementTree.fromstring(forest.svg).iter() if x.text]  # noqa: S314
    values = [float(t.split()[0]) for t in texts if re.fullmatch(r"[\d.]+ \([\d.]+, [\d.]+\)", t)]
    sites = values[:N_SITES]
    assert sites == sorted(sites, reverse=True)
    gathered = figures["forest_accuracy_sensitivity_1"].svg
    assert "suppressed" in gathered


def test_the_range_is_that_of_the_sites(many: RoundReport) -> None:
    findings = Findings(many)
    table = performance_table(findings)
    assert table is not None
    assert table.columns[1:3] == ("Sites with a value", "Sites, median (range)")
    own = [findings.find("accuracy", s, Measure.SENSITIVITY, "100") for s in findings.sites]
    known = sorted(100 * row.estimate for row in own if row and row.estimate is not None)
    place = next(i for i, row in enumerate(table.rows) if row.head == "Cut-off 100")
    words = table.rows[place + 1].cells[1]
    assert words.endswith(f"({known[0]:.1f} to {known[-1]:.1f})")
    assert table.rows[place + 1].cells[0] == f"{len(known)} of {N_SITES}"
    assert {len(row.cells) for row in table.rows} == {0, len(table.columns) - 1}


def test_every_site_has_a_row_in_the_folded_tables(many: RoundReport) -> None:
    findings = Findings(many)
    for table in (*performance_by_site(findings), *flow_by_site(findings)):
        assert [row.head for row in table.rows] == [site.name for site in many.sites]
        assert {len(row.cells) for row in table.rows} == {len(table.columns) - 1}


def test_few_sites_keep_their_columns(build_many: Callable[[int], RoundReport]) -> None:
    findings = Findings(build_many(MANY_SITES))
    table = performance_table(findings)
    assert table is not None
    assert table.columns[1 : 1 + MANY_SITES] == findings.sites
    assert performance_by_site(findings) == ()
    assert flow_by_site(findings) == ()


def test_sites_of_one_policy_share_a_line(many: RoundReport) -> None:
    rows = disclosure_table(Findings(many)).rows
    assert [row.cells[0] for row in rows] == ["cms", "research"]
    assert rows[1].head == f"{N_SITES - 1} sites (Site-2, Site-3, Site-4, …)"


def test_a_sum_over_a_suppressed_count_is_a_lower_limit() -> None:
    hidden = CellStatus.SUPPRESSED
    assert sum_words([3, 4]) == "7"
    assert sum_words([1200, hidden, 34, hidden]) == "≥ 1,234 (suppressed at 2)"
    assert sum_words([hidden, hidden]) == "suppressed at 2 sites"


def test_the_flow_of_all_sites_is_the_sum(build_many: Callable[[int], RoundReport]) -> None:
    report = build_many(4)
    flows = [site.flow for site in report.sites if site.flow is not None]
    assert len(flows) == 3
    table = flow_table(Findings(report))
    assert table.columns[-1] == "All sites, without 1 that released none"
    for stage, row in zip(FlowStage, table.rows, strict=False):
        counts = [flow.stages[stage] for flow in flows]
        assert row.cells[-1] == f"{sum(c for c in counts if isinstance(c, int)):,}"
    assert isinstance(flows[0], FlowCounts)


def test_words_for_lists_and_ranges() -> None:
    assert sites_words(["a", "b"]) == "a, b"
    assert sites_words([f"s{i}" for i in range(7)]) == "7 sites (s0, s1, s2, …)"
    rows = [Estimate("x", POOLED, Measure.SENSITIVITY, estimate=e) for e in (0.9, 0.5, 0.7)]
    assert range_words([*rows, None]) == "70.0 (50.0 to 90.0)"
    assert range_words([None]) == ""
