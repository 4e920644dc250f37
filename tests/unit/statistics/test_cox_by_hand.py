"""Rows of a Cox analysis from a fit by hand, its sums, and what the gate is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import stats

from fedcac.exchange import Query
from fedcac.protocol import CoxSpec
from fedcac.statistics import Estimate, QueryError, estimator_for
from fedcac.statistics.concordance import Concordance, concordance
from fedcac.statistics.cox_rows import cox_rows
from fedcac.statistics.cox_sums import CoxPacking, CoxSums
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.newton import newton_query
from fedcac.statistics.risk_sets import proportionality_terms, score_residuals
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName, TieMethod

Vector = NDArray[np.float64]
Z95 = float(stats.norm.ppf(0.975))


def cox(*covariates: str, **changes: Any) -> CoxSpec:
    return CoxSpec(id="x", kind="cox", endpoint="mace", covariates=covariates, **changes)


# --- rows of a fit ----------------------------------------------------------------------------

FIT = Fit(
    status=FitStatus.OK,
    parameters=np.array([0.5, np.nan, -1.0]),
    standard_errors=np.array([0.2, np.nan, 0.4]),
    covariance=np.array([[0.04, 0, 0.01], [0, 0, 0], [0.01, 0, 0.16]]),
    identified=np.array([True, False, True]),
    log_likelihood=-95.0,
    null_log_likelihood=-100.5,
    n_patients=60,
    n_events=17,
    sites=(SiteName("a"),),
    refused={SiteName("b"): RefusalCode.TOO_FEW_EVENTS, SiteName("c"): RefusalCode.INTERNAL},
    n_exchanges=5,
)
TERMS = ("u", "v", "w")
NOTHING = CoxSums(None, None, None)


def rows_of(
    spec: CoxSpec, fit: Fit = FIT, sums: CoxSums | None = NOTHING, absent: RowStatus = RowStatus.OK
) -> Mapping[tuple[str, str, str], Estimate]:
    rows = list(cox_rows(spec, TERMS, fit, sums, absent))
    found = {(row.scope, row.measure.value, row.term): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_ratios_of_a_fit() -> None:
    rows = rows_of(cox("age"))
    for term, beta, se in (("u", 0.5, 0.2), ("w", -1.0, 0.4)):
        log_ratio = rows["pooled", "log_hazard_ratio", term]
        ratio = rows["pooled", "hazard_ratio", term]
        p = 2 * stats.norm.sf(2.5)
        low, high = beta - Z95 * se, beta + Z95 * se
        assert numbers(log_ratio) == pytest.approx((beta, se, low, high, p))
        limits = float(np.exp(low)), float(np.exp(high))
        assert numbers(ratio) == pytest.approx((float(np.exp(beta)), None, *limits, p))
        for row in (log_ratio, ratio):
            assert (row.n, row.n_events, row.ci_method) == (60, 17, "wald")
    row = rows["pooled", "hazard_ratio", "v"]
    assert (row.status, row.n, row.n_events) == (RowStatus.NOT_ESTIMABLE, 60, 17)
    whole = rows["pooled", "lr_chi2", ""]
    # Two parameters are identified: the tail is e^(-11 / 2).
    assert numbers(whole) == pytest.approx((11, None, None, None, np.exp(-5.5)))
    lost = {key: row for key, row in rows.items() if key[0] != "pooled"}
    assert set(lost) == {(s, "log_hazard_ratio", term) for s in "bc" for term in TERMS}
    assert lost["b", "log_hazard_ratio", "u"].status is RowStatus.SUPPRESSED
    assert lost["c", "log_hazard_ratio", "u"].status is RowStatus.ERROR
    asked = {"log_hazard_ratio", "hazard_ratio", "lr_chi2"}
    assert {key[1] for key in rows} == asked
    # A series of single models has no whole.
    assert ("pooled", "lr_chi2", "") not in rows_of(cox("age", univariable=True))


def test_a_maximum_below_its_start_by_rounding_has_a_chi_square_of_0() -> None:
    fit = replace(FIT, log_likelihood=-100.5 - 1e-9)
    assert numbers(rows_of(cox("age"), fit)["pooled", "lr_chi2", ""]) == (0, None, None, None, 1)


def test_robust_errors_are_a_sandwich() -> None:
    products = np.array([[30.0, 0, 2], [0, 0, 0], [2, 0, 5]])
    rows = rows_of(cox("age", robust=True), sums=CoxSums(products, None, None))
    # (0.04, 0, 0.01) and (0.01, 0, 0.16) on both sides.
    wanted = {
        "u": 30 * 0.04**2 + 2 * 2 * 0.04 * 0.01 + 5 * 0.01**2,
        "w": 30 * 0.01**2 + 2 * 2 * 0.01 * 0.16 + 5 * 0.16**2,
    }
    for term, variance in wanted.items():
        row = rows["pooled", "log_hazard_ratio", term]
        assert row.se == pytest.approx(variance**0.5)
        assert (row.ci_method, rows["pooled", "hazard_ratio", term].ci_method) == (
            "wald_robust",
        ) * 2
    # Without the sums the errors are the model's.
    plain = rows_of(cox("age", robust=True), sums=None, absent=RowStatus.SUPPRESSED)
    row = plain["pooled", "log_hazard_ratio", "u"]
    assert (row.se, row.ci_method) == (pytest.approx(0.2), "wald")


@pytest.mark.parametrize("unit", [1.0, 1e-20, 100.0])
@pytest.mark.parametrize(("share", "is_spread"), [(0.0, False), (1e-9, False), (1e-7, True)])
def test_residuals_that_are_all_zero_leave_no_interval(
    unit: float, share: float, is_spread: bool
) -> None:
    """Whatever the covariate's unit; `share`: robust error beside the model's."""
    fit = replace(
        FIT,
        parameters=np.array([0.5]) * unit,
        covariance=np.array([[0.04]]) * unit**2,
        identified=np.array([True]),
    )
    products = np.array([[share**2 / 0.04]]) / unit**2
    (row, *_) = cox_rows(
        cox("age", robust=True), ("u",), fit, CoxSums(products, None, None), RowStatus.OK
    )
    assert row.estimate == 0.5 * unit
    assert row.se == (pytest.approx(0.2 * share * unit) if is_spread else None)
    assert (row.ci_low is None, row.p_value is None) == (not is_spread,) * 2


def test_pairs_of_a_fit() -> None:
    pairs = Concordance(60.0, 20.0, 20.0, 900.0, 1100.0, 1500.0)
    row = rows_of(cox("age", concordance=True), sums=CoxSums(None, None, pairs))[
        "pooled", "c_index", ""
    ]
    se = (900 - 2 * 0.7 * 1100 + 0.49 * 1500) ** 0.5 / 100
    assert numbers(row) == pytest.approx((0.7, se, 0.7 - Z95 * se, 0.7 + Z95 * se, None))
    assert (row.n, row.n_events) == (60, 17)
    # Of ten pairs one, or all but one: limits stay where a probability can be.
    for share, low, high in ((1.0, 0.0, None), (9.0, None, 1.0)):
        few = Concordance(share, 10 - share, 0.0, 0.4, 0.0, 400.0 * (1 - share / 10))
        row = rows_of(cox("age", concordance=True), sums=CoxSums(None, None, few))[
            "pooled", "c_index", ""
        ]
        assert low in (None, row.ci_low)
        assert high in (None, row.ci_high)
        assert 0 <= (row.ci_low or 0) < share / 10 < (row.ci_high or 0) <= 1
    none = CoxSums(None, None, Concordance(0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    row = rows_of(cox("age", concordance=True), sums=none)["pooled", "c_index", ""]
    assert (row.status, *numbers(row)) == (RowStatus.NOT_ESTIMABLE, *[None] * 5)


def test_proportionality_of_what_is_identified() -> None:
    """Terms u and w; their tests are those of sums without the rows of v."""
    rng = np.random.default_rng(1)

    def positive() -> Vector:
        root = rng.normal(0, 1, (5, 3))
        return root.T @ root + np.eye(3)

    u, tu, v, tv = rng.normal(0, 1, 3), rng.normal(0, 1, 3), positive(), positive()
    ttv = tv @ np.linalg.inv(v) @ tv + positive()
    table = np.vstack([u, tu, v, tv, ttv])
    rows = rows_of(cox("age", proportionality=True), sums=CoxSums(None, table, None))
    keep = [0, 2]
    inner = np.ix_(keep, keep)
    score = tu[keep] - tv[inner] @ np.linalg.solve(v[inner], u[keep])
    left = ttv[inner] - tv[inner] @ np.linalg.solve(v[inner], tv[inner])
    for number, term in enumerate(("u", "w")):
        row = rows["pooled", "proportionality_chi2", term]
        assert row.estimate == pytest.approx(score[number] ** 2 / left[number, number])
        assert row.p_value == pytest.approx(stats.chi2.sf(row.estimate, 1))
    row = rows["pooled", "proportionality_chi2", ""]
    assert row.estimate == pytest.approx(score @ np.linalg.solve(left, score))
    assert row.p_value == pytest.approx(stats.chi2.sf(row.estimate, 2))
    row = rows["pooled", "proportionality_chi2", "v"]
    assert (row.status, row.estimate, row.n) == (RowStatus.NOT_ESTIMABLE, None, 60)


def test_sums_that_a_site_refused_say_so_in_their_rows() -> None:
    spec = cox("age", proportionality=True, concordance=True)
    rows = rows_of(spec, sums=None, absent=RowStatus.SUPPRESSED)
    lost = [row for key, row in rows.items() if key[1] in ("proportionality_chi2", "c_index")]
    assert {row.status for row in lost} == {RowStatus.SUPPRESSED}
    assert [row.term for row in lost] == ["u", "v", "w", "", ""]


def test_where_no_site_answers_no_number_of_patients_is_given() -> None:
    spec = cox("age", proportionality=True, concordance=True, robust=True)
    rows = pool(spec, {"a": RefusalCode.TOO_FEW_EVENTS})
    assert {(row.status, row.n, row.n_events) for row in rows.values()} == {
        (RowStatus.SUPPRESSED, None, None)
    }


# --- packing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("proportionality", [False, True])
@pytest.mark.parametrize("has_pairs", [False, True])
def test_sums_come_out_as_they_were_packed(
    robust: bool, proportionality: bool, has_pairs: bool
) -> None:
    packing = CoxPacking(2, robust, proportionality, has_pairs)
    row = np.arange(1.0, 1 + 3 * robust + 13 * proportionality + 6 * has_pairs)
    assert packing.length == len(row)
    sums = packing.unpack(row)
    if robust:
        assert sums.score_products.tolist() == [[1, 2], [2, 3]]
    if proportionality:
        first = 3 * robust
        table = [[1, 2], [3, 4], [5, 6], [6, 7], [8, 9], [9, 10], [11, 12], [12, 13]]
        assert sums.proportionality.tolist() == (np.array(table) + first).tolist()
    if has_pairs:
        assert sums.concordance.numbers().tolist() == row[-6:].tolist()
    assert (sums.score_products is None, sums.proportionality is None) == (
        not robust,
        not proportionality,
    )
    assert (sums.concordance is None) == (not has_pairs)


# --- what a site answers ----------------------------------------------------------------------


def test_the_likelihood_of_a_site_at_its_start() -> None:
    days = np.arange(1.0, 31.0)
    exams = draw_exams(3, 30, follow_up_days=days)
    event = exams.column("event") == 1
    for spec, n_models in ((cox("age", "sex"), 1), (cox("age", "sex", univariable=True), 2)):
        found = estimator_for("x", plan((spec,))).summarise(exams, newton_query(np.zeros(2)))
        # Each event is one of those who are left.
        assert_close(found.log_likelihood, -n_models * np.log(31 - days[event]).sum())
        assert (found.n_patients, found.n_events) == (30, event.sum())


def test_what_the_gate_is_told_of_a_model() -> None:
    exams = draw_exams(5, 90)
    spec = cox("age", "sex", "vendor", robust=True)
    estimator = estimator_for("x", plan((spec,)))
    sizes = [
        int(exams.column("sex").sum()),
        *(int(np.sum(exams.column("vendor") == v)) for v in (1, 2)),
    ]
    smallest = min(min(size, 90 - size) for size in sizes)
    assert smallest < max(min(size, 90 - size) for size in sizes)
    beta = np.array([-0.5, 0.1, 0.2, 0.3])
    for step in ("newton", "maximum"):
        query = newton_query(beta).model_copy(update={"step": step})
        found = estimator.summarise(exams, query)
        assert found.evidence.smallest_group == smallest
        assert found.evidence.n_parameters == 4
        assert_close(found.evidence.parameter_norm, 0.05 * exams.column("age").std())
        assert (found.n_patients, found.n_events) == (90, exams.column("event").sum())
    # Sums of a model without an indicator are about everybody.
    estimator = estimator_for("x", plan((cox("age", robust=True),)))
    query = newton_query(beta[:1])
    assert estimator.summarise(exams, query).evidence.smallest_group is None
    totals = estimator.summarise(exams, query.model_copy(update={"step": "maximum"}))
    assert totals.evidence.smallest_group == 90


@pytest.mark.parametrize("ties", list(TieMethod))
def test_the_sums_of_a_site_at_the_maximum(ties: TieMethod) -> None:
    rng = np.random.default_rng(3)
    x, beta = rng.normal(0, 1, (30, 2)), np.array([0.7, -0.3])
    time, event = 100.0 * rng.integers(1, 9, 30), rng.random(30) < 0.6
    residuals = score_residuals(x, time, event, beta, ties)
    products = (residuals.T @ residuals)[[0, 0, 1], [0, 1, 1]]
    terms = proportionality_terms(x, time, event, beta, ties, 365.25)
    tables = [table[[0, 0, 1], [0, 1, 1]] for table in (terms.v, terms.tv, terms.ttv)]
    pairs = concordance((x * beta).sum(axis=1), time, event).numbers()
    parts = [[products], [terms.u, terms.tu, *tables], [pairs]]
    for asked in (
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ):
        row = CoxPacking(2, *asked).at_site(x, time, event, beta, ties)
        wanted = [part for part, is_asked in zip(parts, asked, strict=True) if is_asked]
        np.testing.assert_allclose(row, np.concatenate([p for part in wanted for p in part]))


@pytest.mark.parametrize("code", [None, RefusalCode.TOO_FEW_PATIENTS])
def test_sums_at_the_maximum_change_errors_and_give_pairs(code: RefusalCode | None) -> None:
    parts = {"a": draw_exams(1, 40, "a"), "b": draw_exams(2, 50, "b")}

    def gate(site: str, query: Any, answer: Any) -> Any:
        return code if code is not None and (site, query.step) == ("b", "maximum") else answer

    rows = pool(cox("age", robust=True, concordance=True), parts, change=gate)
    ratio, pairs = rows["pooled", "log_hazard_ratio", "", "age"], rows["pooled", "c_index", "", ""]
    if code is not None:
        assert (ratio.status, ratio.ci_method) == (RowStatus.OK, "wald")
        assert (pairs.status, pairs.estimate) == (RowStatus.SUPPRESSED, None)
        return
    assert (ratio.status, ratio.ci_method, pairs.status) == (
        RowStatus.OK,
        "wald_robust",
        RowStatus.OK,
    )
    products, counts = np.zeros((1, 1)), np.zeros(6)
    information = 0.0
    for exams in parts.values():
        x, time = exams.column("age")[:, None] / 10, exams.column("follow_up_days")
        event, beta = exams.column("event") == 1, np.array([ratio.estimate])
        residuals = score_residuals(x, time, event, beta, TieMethod.EFRON)
        products += residuals.T @ residuals
        counts += concordance((x * beta)[:, 0], time, event).numbers()
        information += proportionality_terms(x, time, event, beta, TieMethod.EFRON, 1.0).v[0, 0]
    assert_close(ratio.se, products[0, 0] ** 0.5 / information)
    assert_close(pairs.estimate, (counts[0] + counts[2] / 2) / counts[:3].sum())


@pytest.mark.parametrize(("spread", "is_lost"), [(0.1, False), (3e-4, True)])
def test_a_ratio_beyond_the_largest_number_is_not_estimable(spread: float, is_lost: bool) -> None:
    """A covariate that hardly varies: e to the power of hundreds, or of thousands."""
    parts = {}
    for seed, site in enumerate("abcd"):
        risk = 0.2 + spread * np.random.default_rng(seed).uniform(-1, 1, 40)
        parts[site] = draw_exams(seed, 40, site, risk=risk)
    rows = pool(cox("risk", by_site=True), parts)
    log_ratio = rows["pooled", "log_hazard_ratio", "", "risk"]
    assert (log_ratio.status, None in numbers(log_ratio)) == (RowStatus.OK, False)
    assert rows["pooled", "hazard_ratio", "", "risk"].n_events == log_ratio.n_events
    for scope in ("pooled", *"abcd", "meta"):
        row = rows[scope, "hazard_ratio", "", "risk"]
        if is_lost:
            assert (row.status, *numbers(row)) == (RowStatus.NOT_ESTIMABLE, *[None] * 5)
        assert (row.status is RowStatus.OK) == (not is_lost)
        assert row.n == (40 if scope in "abcd" else 160)
    without = rows["meta", "hazard_ratio", "without a", "risk"]
    assert (without.n, without.estimate is None) == (120, is_lost)


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        (cox("age", robust=True), "other"),
        (cox("age", robust=True), "by_site"),
        (cox("age", by_site=True), "maximum"),
        (cox("age"), "maximum"),
    ],
)
def test_a_step_that_the_analysis_does_not_ask(spec: CoxSpec, step: str) -> None:
    query = Query(step=step, values={"beta": (0.1,)} if step != "by_site" else {})
    with pytest.raises(QueryError, match=step):
        estimator_for("x", plan((spec,))).summarise(draw_exams(1, 40), query)
