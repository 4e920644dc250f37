"""Each site's own Cox model beside the pooled one: rows, what is withheld, what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driven import assert_same, numbers, pool
from plans import draw_exams, plan
from scipy import stats

from fedcac.exchange import Query
from fedcac.protocol import CoxSpec
from fedcac.statistics import Estimate, estimator_for
from fedcac.statistics.cox import CoxTotals
from fedcac.statistics.cox_by_site import by_site_rows
from fedcac.statistics.heterogeneity import random_effects
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

Z95 = float(stats.norm.ppf(0.975))


def cox(*covariates: str, **changes: Any) -> CoxSpec:
    return CoxSpec(id="x", kind="cox", endpoint="mace", covariates=covariates, **changes)


BY_SITE = cox("age", "sex", by_site=True)
SITES = {f"s{n}": draw_exams(20 + n, 40 + 10 * n, f"{n}-") for n in range(4)}


def test_every_sites_ratio_is_that_of_its_own_analysis() -> None:
    pair = {site: SITES[site] for site in ("s0", "s1")}
    rows = pool(BY_SITE, pair)
    for site, exams in pair.items():
        alone = pool(cox("age", "sex"), {site: exams})
        for term in ("age", "sex"):
            row = rows[site, "hazard_ratio", "", term]
            wanted = replace(alone["pooled", "hazard_ratio", "", term], n_events=None)
            assert_same(row, wanted)
            assert (row.ci_method, row.p_value is None, row.n) == ("wald", False, exams.n)


Own = Mapping[str, tuple[tuple[float, float], ...] | RefusalCode]
"""A site's log hazard ratio and variance per term; or why there is none."""

TERMS = ("u", "v")
FOUR = {
    "a": ((0.5, 0.04), (0.1, 0.09)),
    "b": ((0.9, 0.01), (-0.3, 0.16)),
    "c": ((-0.2, 0.09), (0.2, 0.25)),
    "d": ((0.3, 0.02), (0.4, 0.04)),
}
SIZES = {"a": 40, "b": 50, "c": 60, "d": 70}


def rows_of(own: Own) -> Mapping[tuple[str, str, str], Estimate]:
    """Return the rows of hazard ratios by scope, group and term."""
    given = {
        SiteName(site): CoxTotals(n_patients=SIZES[site], n_events=9, values=values)
        for site, values in own.items()
        if not isinstance(values, RefusalCode)
    }
    refused = {SiteName(s): code for s, code in own.items() if isinstance(code, RefusalCode)}
    sites = [SiteName(site) for site in own]
    rows = by_site_rows(cox("age", "sex", by_site=True), TERMS, given, refused, sites)
    return {
        (row.scope, row.group, row.term): row for row in rows if row.measure is Measure.HAZARD_RATIO
    }


def test_ratios_of_sites_and_their_means_by_hand() -> None:
    rows = rows_of(FOUR)
    assert len(rows) == 2 * (4 + 1 + 4)
    for j, term in enumerate(TERMS):
        for site, values in FOUR.items():
            beta, se = values[j][0], values[j][1] ** 0.5
            low, high = np.exp([beta - Z95 * se, beta + Z95 * se])
            row = rows[site, "", term]
            p = 2 * stats.norm.sf(abs(beta) / se)
            assert numbers(row) == pytest.approx((np.exp(beta), None, low, high, p))
            assert (row.n, row.ci_method, row.status) == (SIZES[site], "wald", RowStatus.OK)
        for left_out in ("", *FOUR):
            rest = [values[j] for site, values in FOUR.items() if site != left_out]
            mean = random_effects([beta for beta, _ in rest], [v for _, v in rest])
            assert mean is not None
            assert mean.ci is not None
            row = rows["meta", f"without {left_out}" if left_out else "", term]
            limits = np.exp(mean.ci)
            assert numbers(row) == pytest.approx((np.exp(mean.estimate), None, *limits, None))
            assert (row.n, row.ci_method) == (220 - SIZES.get(left_out, 0), "hartung_knapp")


def test_a_site_that_refuses_its_own_model_or_withholds_a_term() -> None:
    refusing = {
        "b": RefusalCode.TOO_FEW_EVENTS,
        "c": ((), (0.2, 0.25)),
        "d": ((0.3, 0.0), FOUR["d"][1]),
    }
    rows, whole = rows_of({**FOUR, **refusing}), rows_of(FOUR)
    for term in TERMS:
        row = rows["b", "", term]
        assert (row.status, row.n, row.estimate) == (RowStatus.SUPPRESSED, None, None)
        assert rows["a", "", term] == whole["a", "", term]
    # Withheld, or not identified at the site.
    for site, n in (("c", 60), ("d", 70)):
        row = rows[site, "", "u"]
        assert (row.status, row.n, row.estimate) == (RowStatus.NOT_ESTIMABLE, n, None)
        assert rows[site, "", "v"] == whole[site, "", "v"]
    # Of u one site is left, of v three: enough to compare, too few to leave one out.
    assert (rows["meta", "", "u"].status, rows["meta", "", "u"].n) == (RowStatus.NOT_ESTIMABLE, 40)
    assert (rows["meta", "", "v"].status, rows["meta", "", "v"].n) == (RowStatus.OK, 170)
    assert not [key for key in rows if key[1].startswith("without")]


def test_sites_that_do_not_differ_have_a_mean_without_an_interval() -> None:
    rows = rows_of(dict.fromkeys(SIZES, ((0.5, 0.04), (-0.2, 0.04))))
    for group in ("", "without a", "without d"):
        row = rows["meta", group, "v"]
        assert numbers(row) == (pytest.approx(np.exp(-0.2)), None, None, None, None)
        assert (row.status, row.ci_method) == (RowStatus.OK, "")


def test_a_site_that_is_not_in_the_fit_is_not_beside_it() -> None:
    def gate(site: str, query: Any, answer: Any) -> Any:
        return RefusalCode.TOO_FEW_EVENTS if (site, query.step) == ("s1", "newton") else answer

    rows = pool(cox("age", by_site=True), SITES, change=gate)
    row = rows["s1", "hazard_ratio", "", "age"]
    assert (row.status, row.n, row.estimate) == (RowStatus.SUPPRESSED, None, None)
    assert rows["meta", "hazard_ratio", "", "age"].n == 40 + 60 + 70


def test_a_site_whose_own_likelihood_has_no_maximum_answers_with_zeros() -> None:
    exams = draw_exams(5, 60).with_column("sex", draw_exams(5, 60).column("event"))
    estimator = estimator_for("x", plan((BY_SITE,)))
    assert estimator.summarise(exams, Query(step="by_site")).values == ((0.0, 0.0),) * 2
