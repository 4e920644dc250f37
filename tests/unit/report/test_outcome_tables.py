"""The report's tables and page of a round with every analysis: ungated, with gaps, refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from plans import BASE, FULL, SPECS, draw_exams, plan

from fedcac.aggregate import Aggregate, BinnedCounts, SurvivalTable
from fedcac.exchange.messages import PolicySummary
from fedcac.protocol import Covariate, CoxSpec, DescriptivesSpec, Protocol
from fedcac.report import RoundReport, SiteSummary
from fedcac.report.between_sites import (
    bivariate_table,
    heterogeneity_table,
    leave_one_out_table,
)
from fedcac.report.characteristics import characteristics_tables
from fedcac.report.clinical_tables import (
    added_value_table,
    cox_tables,
    log_rank_table,
)
from fedcac.report.figures import draw_figures
from fedcac.report.findings import Findings
from fedcac.report.page import render_page
from fedcac.report.score_tables import (
    comparison_tables,
    discrimination_table,
    fusion_table,
    score_test_table,
)
from fedcac.report.table import Row, Table
from fedcac.report.wording import number_words, p_words
from fedcac.statistics import PoolingSession, estimator_for
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, ScoreRole, SiteName

SITES = tuple(SiteName(name) for name in ("east", "north", "south", "west"))
LEVELS = ("<1", "1 & 2", ">400")
PLAIN = {"robust": False, "proportionality": False, "concordance": False}

Answer = Aggregate | RefusalCode
Gate = Callable[[SiteName, str, Answer], Answer]


def cox(name: str, **changes: Any) -> CoxSpec:
    return SPECS["cox"].model_copy(update={"id": name, **changes})


@cache
def protocol() -> Protocol:
    """Return a plan with every kind of analysis under its own name, and some variants."""
    specs = [spec.model_copy(update={"id": kind}) for kind, spec in SPECS.items()]
    terms = {"risk_category": "index", "covariates": ("age", "vendor")}
    specs += [
        BASE,
        FULL,
        cox("series", univariable=True, **PLAIN, **terms),
        cox("adjusted", **terms),
        cox("by_site", by_site=True, covariates=("age",), **PLAIN),
        cox("women", subgroup="women", **PLAIN),
        cox("expert", risk_category="reference", log_score="reference", **PLAIN),
        cox("indicator", missing="indicator", univariable=True, **PLAIN, **terms),
        SPECS["kaplan_meier"].model_copy(update={"id": "by_category", "by": "index"}),
        SPECS["descriptives"].model_copy(
            update={
                "id": "by_index",
                "by": "index",
                "scores": (ScoreRole.INDEX,),
                "covariates": ("age",),
            }
        ),
    ]
    specs.append(
        DescriptivesSpec(id="whole", kind="descriptives", covariates=("weight",), by="all")
    )
    covariates = [
        covariate.model_copy(update={"levels": LEVELS}) if covariate.name == "vendor" else covariate
        for covariate in plan([BASE]).covariates
    ]
    # Without limits there is no histogram, and so no median.
    covariates.append(Covariate(name="weight", type="continuous", description="Weight", unit="kg"))
    return plan(specs, covariates=tuple(covariates))


def pass_all(_: SiteName, __: str, answer: Answer) -> Answer:
    return answer


def some_gaps(site: SiteName, analysis: str, answer: Answer) -> Answer:
    """Return what a gate may leave: a site without outcomes, a curve and a table withheld."""
    if site == "west" and analysis in REFUSED:
        return RefusalCode.TOO_FEW_EVENTS
    if isinstance(answer, SurvivalTable):
        return answer.model_copy(
            update={
                name: ((), *getattr(answer, name)[1:])
                for name in ("edges", "at_risk", "events", "censored")
            }
        )
    if isinstance(answer, BinnedCounts) and analysis == "descriptives":
        # The covariate sex, the second after the group sizes and age.
        hidden = tuple(() for _ in answer.counts[2])
        return answer.model_copy(
            update={
                "starts": (*answer.starts[:2], hidden, *answer.starts[3:]),
                "counts": (*answer.counts[:2], hidden, *answer.counts[3:]),
            }
        )
    return answer


REFUSED = {
    "adjusted": RefusalCode.TOO_FEW_EVENTS,
    "by_site": RefusalCode.TOO_FEW_EVENTS,
    "reclassification": RefusalCode.TOO_FEW_EVENTS,
    "kaplan_meier": RefusalCode.TOO_FEW_EVENTS,
    "by_category": RefusalCode.TOO_FEW_EVENTS,
    "auc": RefusalCode.TOO_FEW_EVENTS,
    "by_index": RefusalCode.TOO_FEW_EVENTS,
}


def refuse_all(_: SiteName, __: str, ___: Answer) -> Answer:
    return RefusalCode.TOO_FEW_PATIENTS


def estimates(gate: Gate) -> tuple[Estimate, ...]:
    exams = {}
    for number, site in enumerate(SITES):
        drawn = draw_exams(number, 160, prefix=site)
        rows = drawn.column("age").copy()
        rows[: 3 + number] = float("nan")
        exams[site] = drawn.with_column("age", rows).with_column("weight", drawn.column("risk"))
    estimators = {spec.id: estimator_for(spec.id, protocol()) for spec in protocol().analyses}
    session = PoolingSession(protocol(), SITES)
    for _ in range(80):
        if session.is_finished:
            return session.estimates()
        session.answer(
            {
                site: {
                    name: gate(site, name, estimators[name].summarise(exams[site], query))
                    for name, query in session.queries.items()
                }
                for site in SITES
            }
        )
    raise AssertionError("the pooling does not end")


def report_of(
    rows: tuple[Estimate, ...], refusals: Mapping[str, Mapping[str, RefusalCode]]
) -> RoundReport:
    policy = PolicySummary(
        profile="research", minimum_cell=5, minimum_patients=20, digest="sha256:" + "ab" * 32
    )
    sites = tuple(SiteSummary(site, None, policy, refusals.get(site, {})) for site in SITES)
    return RoundReport(
        round_id="round",
        protocol=protocol(),
        sites=sites,
        estimates=rows,
        exchanges=9,
        started=datetime(2026, 11, 2, 9, tzinfo=UTC),
        finished=datetime(2026, 11, 2, 9, tzinfo=UTC),
    )


@cache
def findings_of(name: str) -> Findings:
    every = {spec.id: RefusalCode.TOO_FEW_PATIENTS for spec in protocol().analyses}
    gate, refusals = {
        "whole": (pass_all, {}),
        "gaps": (some_gaps, {"west": REFUSED}),
        "refused": (refuse_all, dict.fromkeys(SITES, every)),
    }[name]
    return Findings(report_of(estimates(gate), refusals))


def all_tables(findings: Findings) -> list[Table]:
    found = (
        *characteristics_tables(findings),
        *cox_tables(findings),
        log_rank_table(findings),
        added_value_table(findings),
        score_test_table(findings),
        *comparison_tables(findings),
        discrimination_table(findings),
        fusion_table(findings),
        heterogeneity_table(findings),
        bivariate_table(findings),
        leave_one_out_table(findings),
    )
    return [table for table in found if table is not None]


def titled(tables: Iterable[Table], words: str) -> Table:
    found = [table for table in tables if words in table.caption]
    assert len(found) == 1, (words, [table.caption for table in found])
    return found[0]


def line(table: Table, head: str, under: str = "") -> Row:
    """Return the row of this header, the first after the row or heading `under`."""
    heads = [row.head.strip() for row in table.rows]
    start = heads.index(under) + 1 if under else 0
    return table.rows[heads.index(head, start)]


def number(findings: Findings, analysis: str, measure: Measure, **where: str) -> str:
    row = findings.find(analysis, where.pop("scope", POOLED), measure, **where)
    assert row is not None
    return number_words(row)


@pytest.fixture(params=("whole", "gaps", "refused"))
def findings(request: pytest.FixtureRequest) -> Findings:
    return findings_of(request.param)


# --- every table ------------------------------------------------------------------------------


def test_every_row_fills_its_columns_with_text(findings: Findings) -> None:
    for table in all_tables(findings):
        assert table.rows
        for row in table.rows:
            assert row.head.strip()
            assert len(row.cells) in (0, len(table.columns) - 1), (table.caption, row)
            assert all(isinstance(cell, str) and cell == cell.strip() for cell in row.cells)
            assert "None" not in (text := " ".join(row.cells))
            assert "nan" not in text


def test_a_blank_cell_stands_where_no_number_belongs(findings: Findings) -> None:
    """The levels of a characteristic share its p-value, and its own line has no counts."""
    for table in all_tables(findings):
        for row in table.rows:
            if "" not in row.cells:
                continue
            assert table.caption.startswith("Characteristics")
            *counts, p_value = row.cells
            is_heading = not any(counts) and p_value
            is_level = all(counts) and row.head.startswith("\N{EM SPACE}")
            assert is_heading or is_level


def test_without_any_answer_nothing_is_a_number() -> None:
    words = {"suppressed (<20 patients)", "suppressed (too_few_patients)", "not estimable", ""}
    words |= {"not applicable", "suppressed (<5)"}
    words |= {"0 of 3", "0 of 5", "not estimable: fewer than ten sites"}
    for table in all_tables(findings_of("refused")):
        assert {cell for row in table.rows for cell in row.cells} <= words, table.caption


def test_captions_name_the_analysis(findings: Findings) -> None:
    text = " ".join(
        " ".join((table.caption, *(row.head for row in table.rows)))
        for table in all_tables(findings)
    )
    silent = {"agreement", "accuracy", "bland_altman"}
    for spec in protocol().analyses:
        if spec.kind not in silent:
            assert re.search(rf"[( ]{spec.id}[,:)]", text), spec.id


def test_a_p_value_is_in_words(findings: Findings) -> None:
    for table in all_tables(findings):
        places = [i for i, name in enumerate(table.columns[1:]) if name == "p-value"]
        for row in table.rows:
            for place in places if row.cells else ():
                assert re.fullmatch(
                    r"|not (tested|applicable|estimable)|suppressed \(.+\)|<0\.001|[01]\.\d{3}",
                    row.cells[place],
                )


# --- characteristics --------------------------------------------------------------------------


def test_characteristics_are_the_estimates() -> None:
    findings = findings_of("whole")
    table = titled(characteristics_tables(findings), "(descriptives)")
    sizes = [
        round(findings.find("descriptives", POOLED, Measure.COUNT, "", group).estimate)  # type: ignore[union-attr, arg-type]
        for group in ("no event", "event")
    ]
    assert table.columns[1:3] == (f"no event, n = {sizes[0]}", f"event, n = {sizes[1]}")
    assert sum(sizes) == 640
    for place, group in enumerate(("no event", "event")):
        found = {
            (row.measure, row.term): row.estimate
            for row in findings.report.estimates
            if row.analysis == "descriptives" and row.group == group
        }
        age = f"{found[Measure.MEAN, 'age']:.1f} ({found[Measure.SD, 'age']:.1f})"
        assert line(table, "Age, years, mean (SD)").cells[place] == age
        quartiles = [
            f"{found[measure, 'age']:.1f}"
            for measure in (Measure.MEDIAN, Measure.QUARTILE_LOW, Measure.QUARTILE_HIGH)
        ]
        median = f"{quartiles[0]} ({quartiles[1]}, {quartiles[2]})"
        assert line(table, "median (quartiles)").cells[place] == median
        share = 100 * found[Measure.PROPORTION, "sex"]
        women = f"{found[Measure.COUNT, 'sex']:.0f} ({share:.1f}%)"
        assert line(table, "Female sex").cells[place] == women
        assert line(table, "missing").cells[place] == f"{found[Measure.COUNT, 'age=missing']:.0f}"


def test_levels_stand_below_their_covariate_with_one_p_value() -> None:
    findings = findings_of("whole")
    table = titled(characteristics_tables(findings), "(descriptives)")
    levels = [line(table, level, under="Scanner vendor") for level in LEVELS]
    assert all(row.cells[-1] == "" for row in levels)
    test = findings.find("descriptives", POOLED, Measure.DIFFERENCE_TEST, "vendor")
    assert test is not None
    assert line(table, "Scanner vendor").cells == ("", "", p_words(test.p_value))
    totals = [sum(int(row.cells[i].split()[0]) for row in levels) for i in (0, 1)]
    assert sum(totals) == 640


def test_a_missing_row_only_where_somebody_lacks_a_value() -> None:
    table = titled(characteristics_tables(findings_of("whole")), "(descriptives)")
    missing = [row.cells[:-1] for row in table.rows if row.head.strip() == "missing"]
    assert [sum(map(int, cells)) for cells in missing] == [3 + 4 + 5 + 6]


def test_a_withheld_covariate_says_so_and_its_neighbours_stay() -> None:
    table = titled(characteristics_tables(findings_of("gaps")), "(descriptives)")
    assert line(table, "Female sex").cells == ("suppressed (<5)",) * 3
    assert line(table, "missing", under="Female sex").cells[0] == "suppressed (<5)"
    assert re.match(r"\d", line(table, "<1", under="Scanner vendor").cells[0])


def test_a_median_that_is_withheld_leaves_the_mean() -> None:
    findings = findings_of("whole")
    rows = tuple(
        replace(row, estimate=None, status=RowStatus.SUPPRESSED)
        if row.measure in (Measure.MEDIAN, Measure.QUARTILE_LOW, Measure.QUARTILE_HIGH)
        else row
        for row in findings.report.estimates
    )
    table = titled(
        characteristics_tables(Findings(replace(findings.report, estimates=rows))), "(descriptives)"
    )
    assert re.match(r"6\d\.\d \(", line(table, "Age, years, mean (SD)").cells[0])
    assert line(table, "median (quartiles)").cells[0] == "suppressed (<5)"


def test_a_covariate_without_limits_has_a_mean_alone() -> None:
    table = titled(characteristics_tables(findings_of("whole")), "of all patients (whole)")
    assert [row.head for row in table.rows] == ["Weight, kg, mean (SD)"]
    assert table.columns == ("Characteristic", "all, n = 640", "p-value")
    assert table.rows[0].cells[1] == "not applicable"


def test_scores_are_described_by_number_and_by_category() -> None:
    table = titled(characteristics_tables(findings_of("whole")), "by index test (by_index)")
    assert len(table.columns) == 2 + len(protocol().categories.labels)
    assert line(table, "Index test, score, mean (SD)").cells[-1] == "<0.001"
    highest = line(table, ">400", under="Index test, category")
    assert highest.cells[0] == "0 (0.0%)"
    assert highest.cells[-2].endswith("(100.0%)")


# --- hazard ratios ----------------------------------------------------------------------------


def test_a_series_stands_beside_its_adjusted_model() -> None:
    findings = findings_of("whole")
    tables = cox_tables(findings)
    table = titled(tables, "(series, adjusted)")
    assert table.columns[1::2] == ("Unadjusted HR (95% CI)", "Adjusted HR (95% CI)")
    terms = findings.terms("series", Measure.HAZARD_RATIO)
    assert len(table.rows) == len(terms) == 7
    for row, term in zip(table.rows, terms, strict=True):
        cells = []
        for analysis in ("series", "adjusted"):
            found = findings.find(analysis, POOLED, Measure.HAZARD_RATIO, term)
            assert found is not None
            cells += [number_words(found), p_words(found.p_value)]
        assert row.cells == tuple(cells)
    assert len([t for t in tables if "adjusted" in t.caption]) == 1


def test_another_treatment_of_gaps_is_no_partner() -> None:
    """With an indicator of missing values the series has terms that the model has not."""
    table = titled(cox_tables(findings_of("whole")), "(indicator)")
    assert table.caption.startswith("One model per covariate")
    assert line(table, "Age: missing").cells[0] != "not estimable"
    assert line(table, "Scanner vendor: missing").cells[:2] == ("not estimable", "not estimable")


def test_both_sizes_are_told_where_a_site_gave_one_model_only() -> None:
    whole = titled(cox_tables(findings_of("whole")), "(series, adjusted)").note
    assert re.match(r"\d+ patients, \d+ events\.", whole)
    note = titled(cox_tables(findings_of("gaps")), "(series, adjusted)").note
    sizes = re.search(r"Unadjusted: (\d+) patients, .* Adjusted: (\d+) patients", note)
    assert sizes is not None
    assert int(sizes.group(1)) > int(sizes.group(2))
    assert "Without west, suppressed (too_few_events)." in note


def test_hazard_ratios_are_the_estimates_with_their_sizes() -> None:
    findings = findings_of("whole")
    row = findings.find("cox", POOLED, Measure.HAZARD_RATIO, "age")
    assert row is not None
    table = titled(cox_tables(findings), "(cox)")
    cells = (number_words(row), p_words(row.p_value), f"{row.n}", f"{row.n_events}")
    assert line(table, "Age, per 10 years").cells == cells
    assert "Likelihood-ratio" in table.note
    assert f"C-index {number(findings, 'cox', Measure.C_INDEX)}" in table.note
    assert "proportional hazards, global p" in table.note


def test_whose_risk_category_and_which_subgroup_is_told() -> None:
    tables = cox_tables(findings_of("whole"))
    expert = titled(tables, "(expert)")
    assert "Risk category of the reference standard." in expert.note
    assert line(expert, "ln(score + 1), Reference standard")
    assert "Risk category of the index test." in titled(tables, "(series, adjusted)").note
    women = titled(tables, "(women: Women)")
    assert line(women, "Female sex").cells[:2] == ("not estimable", "not estimable")


def test_every_sites_own_hazard_ratio_or_its_gap() -> None:
    findings = findings_of("gaps")
    table = titled(cox_tables(findings), "(by_site), and")
    assert table.columns == ("Covariate", *SITES, "Meta-analytic")
    own = [
        number(findings, "by_site", Measure.HAZARD_RATIO, scope=scope, term="age")
        for scope in ("east", "north", "south", META)
    ]
    assert line(table, "Age, per 10 years").cells == (
        *own[:3],
        "suppressed (too_few_events)",
        own[3],
    )


def test_a_refusal_takes_one_sentence_and_no_rows() -> None:
    table = titled(cox_tables(findings_of("gaps")), "Hazard ratios for event (by_site)")
    assert [row.head for row in table.rows] == ["Age, per 10 years"]
    assert table.note.endswith("Without west, suppressed (too_few_events).")


# --- survival and added value -----------------------------------------------------------------


def test_the_log_rank_table_counts_the_curves() -> None:
    for name, shown in (("whole", "3 of 3"), ("gaps", "2 of 3"), ("refused", "0 of 3")):
        findings = findings_of(name)
        table = log_rank_table(findings)
        assert table is not None
        row = line(table, "mace by scanner vendor (kaplan_meier)")
        assert row.cells[-1] == shown
    found = findings_of("whole").find("kaplan_meier", POOLED, Measure.LOGRANK_CHI2)
    table = log_rank_table(findings_of("whole"))
    assert found is not None
    assert table is not None
    expected = (f"{found.estimate:.1f}", p_words(found.p_value), f"{found.n}", f"{found.n_events}")
    assert table.rows[0].cells[:-1] == expected


def test_added_value_is_the_estimates_and_partly_survives_a_refusal() -> None:
    findings = findings_of("whole")
    table = added_value_table(findings)
    assert table is not None
    assert table.rows[0] == Row("full beyond base (reclassification)")
    for head, measure in (("Event NRI", Measure.NRI_EVENT), ("Overall NRI", Measure.NRI_OVERALL)):
        assert line(table, head).cells[0] == number(findings, "reclassification", measure)
    gaps = added_value_table(findings_of("gaps"))
    assert gaps is not None
    assert line(gaps, "Event NRI").cells == ("suppressed (<5)", "suppressed (<5)")
    assert re.match(r"\d", line(gaps, "Increase in likelihood-ratio chi-square").cells[0])


# --- scores -----------------------------------------------------------------------------------


def test_score_tests_are_the_estimates() -> None:
    findings = findings_of("whole")
    table = score_test_table(findings)
    assert table is not None
    r = findings.find("correlation", POOLED, Measure.PEARSON_R)
    assert r is not None
    assert line(table, "Pearson's r").cells == (number_words(r), p_words(r.p_value), f"{r.n}")
    heads = [row.head for row in table.rows if not row.cells]
    assert heads == [
        "Correlation (correlation)",
        "Distribution (distribution)",
        "Zero-inflated (zero_inflated)",
    ]
    assert len({row.head for row in table.rows}) == len(table.rows)


def test_a_comparison_sets_two_tests_side_by_side() -> None:
    findings = findings_of("whole")
    (table,) = comparison_tables(findings)
    assert table.columns[1:3] == ("Index test", "Visual estimate")
    row = line(table, "Sensitivity", under="Cut-off 100")
    for cell, group in zip(row.cells, ("index", "comparator"), strict=False):
        where = {"term": "100", "group": group}
        assert cell == number(findings, "comparison", Measure.SENSITIVITY, **where)
    change = findings.find("comparison", POOLED, Measure.SENSITIVITY_DIFFERENCE, "100")
    assert change is not None
    assert row.cells[2:] == (number_words(change), p_words(change.p_value))


def test_binning_that_outweighs_chance_takes_the_p_value() -> None:
    """One bin gives an AUC of one half, whatever the scores are."""
    findings = findings_of("whole")
    rows = tuple(
        replace(row, estimate=0.5) if row.measure is Measure.AUC_ERROR_BOUND else row
        for row in findings.report.estimates
    )
    coarse = Findings(replace(findings.report, estimates=rows))
    (table,) = comparison_tables(coarse)
    row = line(table, "AUC", under="Cut-off 100")
    assert row.cells[0].endswith(", bins \N{PLUS-MINUS SIGN}0.500")
    assert row.cells[2].endswith(", bins \N{PLUS-MINUS SIGN}1.000")
    assert row.cells[3] == "not tested"
    (fine,) = comparison_tables(findings)
    assert re.fullmatch(r"[01]\.\d{3}", line(fine, "AUC", under="Cut-off 100").cells[3])
    table_of_all = discrimination_table(coarse)
    assert table_of_all is not None
    assert "0.500" in line(table_of_all, "All pairs of patients").cells[0]


def test_long_descriptions_do_not_head_a_column() -> None:
    findings = findings_of("whole")
    comparator = protocol().comparator
    assert comparator is not None
    words = "A visual estimate, made on the same scan by a reader who did not know the score"
    changed = protocol().model_copy(
        update={"comparator": comparator.model_copy(update={"description": words})}
    )
    (table,) = comparison_tables(Findings(replace(findings.report, protocol=changed)))
    assert table.columns[2] == "A visual estimate"


def test_discrimination_has_every_site_and_both_summaries() -> None:
    findings = findings_of("gaps")
    table = discrimination_table(findings)
    assert table is not None
    heads = [row.head for row in table.rows]
    summaries = ("Within sites, random effects", "All pairs of patients")
    assert heads[: 3 + len(SITES)] == ["AUC at cut-off 100 (auc)", *SITES, *summaries]
    assert line(table, "west").cells == (
        "suppressed (too_few_events)",
        "suppressed (too_few_events)",
    )
    east = number(findings, "auc", Measure.AUC, scope="east", term="100")
    assert line(table, "east").cells == (east, "160")
    slope = number(findings, "calibration", Measure.CALIBRATION_SLOPE, term="100")
    assert line(table, "Calibration slope, cut-off 100").cells[0] == slope
    observed = number(findings, "survival_calibration", Measure.OE_RATIO)
    under = "Calibration (survival_calibration)"
    assert line(table, "Observed / expected", under=under).cells[0] == observed


def test_fusion_has_both_aucs_their_difference_and_the_odds() -> None:
    findings = findings_of("whole")
    table = fusion_table(findings)
    assert table is not None
    image = number(findings, "fusion", Measure.AUC, term="100", group="image")
    assert line(table, "AUC, image alone").cells[0] == image
    assert line(table, "AUC with clinical factors, 5-fold cross-validated")
    age = number(findings, "fusion", Measure.LOG_ODDS_RATIO, term="age")
    assert line(table, "Log odds ratio, Age, per 10 years").cells[0] == age
    assert not any("intercept" in row.head for row in table.rows)


# --- between sites ----------------------------------------------------------------------------


def test_heterogeneity_is_the_estimates() -> None:
    findings = findings_of("whole")
    table = heterogeneity_table(findings)
    assert table is not None
    found = {
        measure: findings.find("by_site", META, measure, "age", "hazard_ratio")
        for measure in (Measure.I2, Measure.TAU2_REML, Measure.PREDICTION_INTERVAL)
    }
    reach = found[Measure.PREDICTION_INTERVAL]
    i2 = found[Measure.I2]
    assert reach is not None
    assert i2 is not None
    assert i2.estimate is not None
    cells = line(table, "Hazard ratio, age (by_site)").cells
    assert cells[0] == f"{100 * i2.estimate:.0f}%"
    assert cells[3] == number(findings, "by_site", Measure.HAZARD_RATIO, scope=META, term="age")
    assert cells[4] == f"{reach.ci_low:.2f}, {reach.ci_high:.2f}"
    assert not any("e+" in cell for row in table.rows for cell in row.cells)


def test_a_prediction_without_limits_is_no_blank() -> None:
    findings = findings_of("whole")
    rows = tuple(
        replace(row, ci_low=None, ci_high=None)
        if row.measure is Measure.PREDICTION_INTERVAL
        else row
        for row in findings.report.estimates
    )
    table = heterogeneity_table(Findings(replace(findings.report, estimates=rows)))
    assert table is not None
    assert {row.cells[4] for row in table.rows} == {"not estimable"}


def test_the_bivariate_model_says_why_it_is_absent_and_shows_numbers_if_not() -> None:
    findings = findings_of("whole")
    table = bivariate_table(findings)
    assert table is not None
    reason = "not estimable: fewer than ten sites"
    assert line(table, "Cut-off 100").cells == (reason, "not estimable", "not estimable")
    rows = tuple(
        replace(row, estimate=0.5, ci_low=0.4, ci_high=0.6, status=RowStatus.OK, ci_method="")
        if row.group == "bivariate"
        else row
        for row in findings.report.estimates
    )
    fitted = bivariate_table(Findings(replace(findings.report, estimates=rows)))
    assert fitted is not None
    assert line(fitted, "Cut-off 100").cells[0] == "50.0 (40.0, 60.0)"


def test_leaving_one_out_names_the_extremes() -> None:
    findings = findings_of("whole")
    table = leave_one_out_table(findings)
    assert table is not None
    found = [
        row
        for row in findings.rows("by_site", (Measure.HAZARD_RATIO,))
        if row.group.startswith("without ")
    ]
    lowest = min(found, key=lambda row: row.estimate or 0.0)
    highest = max(found, key=lambda row: row.estimate or 0.0)
    assert len(found) == len(SITES)
    assert line(table, "Hazard ratio, age (by_site)").cells[1:] == tuple(
        f"{number_words(row)}, {row.group}" for row in (lowest, highest)
    )


# --- the page ---------------------------------------------------------------------------------


class _Tables(HTMLParser):
    """The widths of all rows, table by table; all ids, tags and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[list[int]] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        if tag == "table":
            self.widths.append([])
        elif tag == "tr":
            self.widths[-1].append(0)
        elif tag in ("td", "th"):
            self.widths[-1][-1] += int(attributes.get("colspan") or 1)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@cache
def page_of(name: str) -> str:
    findings = findings_of(name)
    return render_page(findings, draw_figures(findings), {"python": "3"})


@pytest.fixture(params=("whole", "gaps", "refused"))
def page(request: pytest.FixtureRequest) -> str:
    return page_of(request.param)


def test_the_page_has_every_section() -> None:
    ids = parsed(page_of("whole")).ids
    sections = (
        "characteristics performance comparison discrimination agreement differences survival "
        "added-value heterogeneity disclosure methods"
    )
    assert set(sections.split()) <= set(ids)


def parsed(page: str) -> _Tables:
    parser = _Tables()
    parser.feed(page)
    return parser


def test_rows_are_as_wide_as_their_header(page: str) -> None:
    tables = parsed(page).widths
    assert len(tables) > 15
    for widths in tables:
        assert len(widths) > 1
        assert len(set(widths)) == 1


def test_ids_are_unique_and_nothing_runs(page: str) -> None:
    found = parsed(page)
    assert len(set(found.ids)) == len(found.ids)
    assert not found.tags & {"script", "iframe", "object", "link"}


def test_labels_with_signs_are_escaped(page: str) -> None:
    # A lenient parser takes '<1' for text, too; the source must not have it.
    assert not re.search(r"<[0-9=]", page)
    assert "1 & 2" not in page
    assert set(LEVELS) <= {text.strip() for text in parsed(page).texts}


def test_no_word_of_the_machine_reaches_the_page(page: str) -> None:
    text = " ".join(parsed(page).texts)
    assert not re.search(r"\bNone\b|\bnan\b|\bRefusalCode\b|\bMeasure\.", text)


def test_the_page_is_the_same_every_time() -> None:
    findings = findings_of("gaps")
    assert render_page(findings, draw_figures(findings), {"python": "3"}) == page_of("gaps")
