"""The study of what a policy costs: its script on one small case, its csv, its page."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics import Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
CODES = {code.value for code in RefusalCode}
STATUSES = {status.value for status in RowStatus} - {"ok", "suppressed"}
REASONS = CODES | STATUSES | {"coarser", "withheld_cells"}
SHARES = ("available", "available_least", "available_greatest", "patients", "se_kept")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("policy_cost", STUDIES / "policy_cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["policy_cost"] = module
    spec.loader.exec_module(module)
    return module


study = load()
RESULTS: list[dict[str, str]] = study.read_csv(STUDIES / "policy_cost.csv")
PAGE = (STUDIES / "policy_cost.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def eng() -> list[dict[str, str]]:
    found: list[dict[str, str]] = study.study(study.DESIGNS[:1], [1])
    return found


def one(
    analysis: str, policy: str, rows: list[dict[str, str]], pooling: str = "own"
) -> dict[str, str]:
    name = (analysis, policy, pooling)
    (found,) = [r for r in rows if (r["analysis"], r["policy"], r["pooling"]) == name]
    return found


def of_design(name: str) -> list[dict[str, str]]:
    return [row for row in RESULTS if row["design"] == name]


def test_sites_have_the_sizes_of_the_titles() -> None:
    sizes = {d.name: [len(rows) for rows in d.tables(1).values()] for d in study.DESIGNS[:2]}
    assert sizes == {"eng": [22, 75, 71, 135], "miller": [908, 682, 454, 227]}
    for design in study.DESIGNS[:2]:
        assert ", ".join(map(str, sizes[design.name])) in design.title


def test_small_sites_keep_bland_altman_and_lose_their_tables(eng: list[dict[str, str]]) -> None:
    for policy in study.POLICIES:
        kept = one("bland_altman", policy, eng)
        assert (kept["available"], kept["efficiency"]) == ("1.000", "1.000")
        assert (kept["bias_max"], kept["bias_row"], kept["missing_because"]) == ("0.000", "", "")
        lost = one("agreement", policy, eng)
        assert (lost["available"], lost["information"]) == ("0.000", "0.000")
        assert lost["missing_because"] == "withheld_cells=1.00"
    accuracy = [float(one("accuracy", policy, eng)["available"]) for policy in study.POLICIES]
    assert 0 < accuracy[1] < accuracy[0] < 1


def test_masked_sums_give_small_sites_every_row_of_open(eng: list[dict[str, str]]) -> None:
    for policy in study.POLICIES:
        for analysis in ("agreement", "accuracy", "bland_altman"):
            row = one(analysis, policy, eng, "masked")
            assert (row["available"], row["efficiency"]) == ("1.000", "1.000")
            # The vectors are rounded to 2^-64: no estimate moves.
            assert (row["bias_max"], row["refusals"], row["merged_rows"]) == ("0.000", "", "0.0")


def test_masked_protocols_answer_for_each_site_only_what_is_wanted_of_each() -> None:
    for design in study.DESIGNS:
        protocol = study.masked(design.plan())
        assert (protocol.pooling.mode, protocol.pooling.least_sites) == ("masked", 3)
        apart = {s.id for s in protocol.analyses if s.id == "cox_by_site"}
        assert set(protocol.pooling.per_site) == apart


def test_one_seed_agrees_with_the_shipped_results(eng: list[dict[str, str]]) -> None:
    # The Eng tables are published counts: whether a row is there does not depend on the seed.
    for row in eng:
        assert tuple(row) == study.COLUMNS
        shipped = [r for r in RESULTS if all(r[c] == row[c] for c in study.COLUMNS[:4])]
        assert [r["available"] for r in shipped] == [row["available"]]


def estimate(value: float | None, se: float | None = None, **changes: Any) -> Estimate:
    row: dict[str, Any] = {"analysis": "a", "scope": "pooled", "measure": Measure.BIAS, "n": 100}
    row["status"] = RowStatus.SUPPRESSED if value is None else RowStatus.OK
    return Estimate(**row | changes, estimate=value, se=se)


def round_of(*rows: Estimate, **refusals: str) -> Any:
    return study.Round(study.pooled(rows), {"a": refusals} if refusals else {}, ("s1", "s2"))


def test_tally_of_rows_by_hand() -> None:
    whole = round_of(
        estimate(1.0, 0.5),
        estimate(2.0, 1.0, measure=Measure.LOA_LOW),
        estimate(3.0, measure=Measure.COUNT),
        estimate(None, measure=Measure.LOA_HIGH),
    )
    found = round_of(
        estimate(2.0, 1.0, n=60),
        estimate(None, measure=Measure.LOA_LOW),
        estimate(9.0, term="merged"),
        s2="nested_cohort",
    )
    tally = study.Tally()
    tally.add("a", whole, found)
    columns = tally.columns()
    assert columns["rows"] == "3.0"  # what open does not estimate is not asked of a policy
    assert columns["available"] == "0.333"
    assert columns["patients"] == "0.600"
    assert (columns["se_rows"], columns["se_kept"]) == ("2.0", "0.500")
    assert (columns["efficiency"], columns["information"]) == ("0.250", "0.125")
    assert (columns["bias_mean"], columns["bias_max"]) == ("2.000", "2.000")
    assert columns["bias_row"] == "bias"
    assert columns["merged_rows"] == "1.0"
    assert columns["missing_because"] == "coarser=0.50 withheld_cells=0.50"
    assert columns["refusals"] == "s2:nested_cohort=1"


def test_rows_are_missing_for_refusals_only_if_every_site_refused() -> None:
    tally = study.Tally()
    whole = round_of(estimate(1.0, 0.5))
    tally.add("a", whole, round_of(estimate(None), s1="budget_spent", s2="nested_cohort"))
    assert tally.columns()["missing_because"] == "budget_spent=0.50 nested_cohort=0.50"
    assert tally.columns()["efficiency"] == ""
    tally.add("a", whole, round_of(estimate(1.0, 0.5)))
    columns = tally.columns()
    assert (columns["available"], columns["available_least"]) == ("0.500", "0.000")


def test_a_sum_that_was_not_made_is_the_reason_where_some_site_answered() -> None:
    whole, refusals = round_of(estimate(1.0, 0.5)), {"a": {"s1": "budget_spent"}}
    for given, reason in (
        ([estimate(None)], "too_few_sites=1.00"),
        ([], "too_few_sites=1.00"),
        ([estimate(None, status=RowStatus.ERROR)], "error=1.00"),
    ):
        tally = study.Tally()
        found = study.Round(study.pooled(given), refusals, ("s1", "s2"), {"a": "too_few_sites"})
        tally.add("a", whole, found)
        assert tally.columns()["missing_because"] == reason
        assert tally.columns()["refusals"] == "s1:budget_spent=1"
    # Where all sites refused, their codes say more.
    tally = study.Tally()
    both = {"a": {"s1": "budget_spent", "s2": "budget_spent"}}
    tally.add("a", whole, study.Round({}, both, ("s1", "s2"), {"a": "too_few_sites"}))
    assert tally.columns()["missing_because"] == "budget_spent=1.00"


def test_leave_one_out_rows_error_bounds_and_site_rows_are_not_counted() -> None:
    rows = study.pooled(
        [
            estimate(1.0),
            estimate(1.0, group="without s1"),
            estimate(0.5, measure=Measure.AUC_ERROR_BOUND),
            estimate(1.0, scope="s1"),
        ]
    )
    assert list(rows) == [("a", "bias", "", "")]


def test_changed_protocols_keep_the_primary_model() -> None:
    shipped = load_shipped(study.MILLER)
    plans = {d.name: d.plan().analyses for d in study.DESIGNS}
    assert plans["miller"] == shipped.analyses
    first = [spec.id for spec in plans["primary_first"]]
    assert first[0] == study.PRIMARY
    assert first[1:] == [s.id for s in shipped.analyses if s.id != study.PRIMARY]
    assert [spec.id for spec in plans["primary_alone"]] == [study.PRIMARY]
    assert [spec.covariates for spec in plans["primary_small"]] == [study.FEW]


def test_csv_holds_every_design_policy_pooling_and_analysis() -> None:
    expected = {
        (design.name, policy, pooling, spec.id)
        for design in study.DESIGNS
        for policy in study.POLICIES
        for pooling in study.POOLINGS
        for spec in design.plan().analyses
    }
    names = [tuple(row[name] for name in study.COLUMNS[:4]) for row in RESULTS]
    assert len(names) == len(set(names))
    assert set(names) == expected
    assert tuple(RESULTS[0]) == study.COLUMNS
    seeds = {design.name: str(design.seeds) for design in study.DESIGNS}
    assert all(row["seeds"] == seeds[row["design"]] for row in RESULTS)


@pytest.mark.parametrize("row", RESULTS, ids=lambda r: "-".join(r[c] for c in study.COLUMNS[:4]))
def test_csv_row_agrees_with_itself(row: dict[str, str]) -> None:
    assert all(0 <= float(row[name]) <= 1 for name in SHARES if row[name])
    least, mean, most = (
        float(row[name]) for name in ("available_least", "available", "available_greatest")
    )
    assert least <= mean <= most
    reasons = dict(part.split("=") for part in row["missing_because"].split())
    assert set(reasons) <= REASONS
    assert bool(reasons) == (mean < 1)
    if reasons:
        assert sum(map(float, reasons.values())) == pytest.approx(1, abs=0.03)
    if row["bias_max"]:
        assert float(row["bias_mean"]) <= float(row["bias_max"])
    if row["information"] and row["efficiency"]:
        product = float(row["efficiency"]) * float(row["se_kept"])
        assert float(row["information"]) == pytest.approx(product, abs=0.002)
    for part in row["refusals"].split():
        assert part.split(":")[1].split("=")[0] in CODES


def test_page_tables_are_those_of_the_csv() -> None:
    marked = re.findall(r"<!-- table (\w+)(@masked)?(?::\w+)? -->", PAGE)
    names = {design.name for design in study.DESIGNS}
    assert {name for name, _ in marked} == names
    assert {name for name, pooling in marked if pooling} >= {"eng", "miller", "miller_large"}
    assert PAGE.count("<!-- summary -->") == 1
    assert study.filled(PAGE, RESULTS) == PAGE


def test_page_cells_by_parsing() -> None:
    # Not through the script's own writer: rows there, efficiency and bias of a few cells.
    checked = 0
    analyses = ("bland_altman", "accuracy", "cox_unadjusted_model", "cox_unadjusted_expert")
    for mark, pooling, analysis in itertools.product(("", "@masked"), study.POOLINGS, analyses):
        if bool(mark) != (pooling == "masked"):
            continue
        cells = cells_of(f"table miller{mark}")
        for policy, first in (("research", 1), ("cms", 5)):
            row = one(analysis, policy, of_design("miller"), pooling)
            share, gain, off, _ = cells[analysis][first : first + 4]
            assert float(share.split(" ")[0]) == pytest.approx(
                100 * float(row["available"]), abs=0.51
            )
            assert float(gain.split(" / ")[0]) == pytest.approx(
                float(row["efficiency"]), abs=0.0051
            )
            assert float(off.split(" / ")[1]) == pytest.approx(float(row["bias_max"]), abs=0.0051)
            checked += 1
    assert checked == 16


def cells_of(mark: str) -> dict[str, list[str]]:
    block = PAGE.split(f"<!-- {mark} -->")[1].split("<!-- end -->")[0]
    lines = [line.split("|")[1:-1] for line in block.strip().splitlines()[2:]]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_summary_of_the_page_by_hand() -> None:
    block = PAGE.split("<!-- summary -->")[1].split("<!-- end -->")[0]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in block.strip().splitlines()[2:]]
    order = [*itertools.product(study.DESIGNS, study.POLICIES, study.POOLINGS)]
    assert len(lines) == len(order)
    for (design, policy, pooling), line in zip(order, lines, strict=True):
        own = [
            r for r in of_design(design.name) if (r["policy"], r["pooling"]) == (policy, pooling)
        ]
        there = sum(float(r["available"]) * float(r["rows"]) for r in own)
        share = 100 * there / sum(float(r["rows"]) for r in own)
        assert line[1] == policy
        assert ("masked" in line[2]) == (pooling == "masked")
        assert float(line[3]) == pytest.approx(share, abs=0.51)
        assert sum(map(int, line[6].split(" / "))) == len(own)


def test_figure_is_there_and_named_by_the_page() -> None:
    svg = (STUDIES / "policy_cost.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "(policy_cost.svg)" in PAGE
    for design in study.DESIGNS[:3]:
        assert design.title in svg
