"""Discrimination, calibration and fusion over four sites against scikit-learn and statsmodels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from driven import assert_close, assert_same, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.api import GLM, Logit, add_constant, families
from statsmodels.stats.proportion import proportion_confint

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import AucSpec, CalibrationSpec, Covariate, FusionSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.resampling import deal_groups
from fedcac.vocabulary import RefusalCode, RowStatus

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

SITES = ("s0", "s1", "s2", "s3")
CUT_OFFS = (1.0, 10.0, 100.0, 400.0)
PROBABILITY = "index_probability_100"
Z95 = stats.norm.ppf(0.975)


def four_sites(seed: int = 1, **columns: Any) -> dict[str, Exams]:
    """Return four sites of different sizes, each with a secret of its own."""
    sizes = (90, 120, 150, 105)
    return {
        name: draw_exams(seed + number, n, f"{name}-", **columns).with_secret(name.encode())
        for number, (name, n) in enumerate(zip(SITES, sizes, strict=True))
    }


def stacked(parts: Mapping[str, Exams], column: str) -> Vector:
    return np.concatenate([exams.column(column) for exams in parts.values()])


def truth_of(parts: Mapping[str, Exams], cut: float) -> Flags:
    score = stacked(parts, "reference_score")
    return score >= 1 if cut == 1 else score > cut


def delong_variance(values: Vector, truth: Flags) -> float:
    """Return the variance of an AUC from all pairs of a positive and a negative."""
    a, b = values[truth][:, None], values[~truth][None, :]
    kernel = (a > b) + 0.5 * (a == b)
    of_positives, of_negatives = kernel.mean(axis=1), kernel.mean(axis=0)
    return float(
        of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    )


# --- AUC ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [20, 400])
@pytest.mark.parametrize("value", ["score", "probability"])
def test_auc_is_within_its_error_bound_of_scikit_learns(value: Any, bins: int) -> None:
    parts = four_sites()
    # The plan has a probability for one cut-off alone.
    cut_offs = CUT_OFFS if value == "score" else (100.0,)
    spec = AucSpec(id="x", kind="auc", value=value, cut_offs=cut_offs, bins=bins)
    rows = pool(spec, parts)
    column = "index_score" if value == "score" else PROBABILITY
    for cut in cut_offs:
        truth, values, term = truth_of(parts, cut), stacked(parts, column), f"{cut:g}"
        row = rows["pooled", "auc", "", term]
        bound = rows["pooled", "auc_error_bound", "", term].estimate
        assert abs(row.estimate - roc_auc_score(truth, values)) <= bound + 1e-12
        assert bound < (0.01 if bins == 400 else 0.1)
        assert row.se == pytest.approx(delong_variance(values, truth) ** 0.5, rel=0.1)
        assert_close(row.ci_low, row.estimate - Z95 * row.se)
        assert (row.n, row.n_events) == (len(truth), truth.sum())
        for site in SITES:
            own = {site: parts[site]}
            truth, values = truth_of(own, cut), stacked(own, column)
            row = rows[site, "auc", "", term]
            se = delong_variance(values, truth) ** 0.5
            assert_close(row.estimate, roc_auc_score(truth, values))
            assert (row.n, row.n_events) == (len(truth), truth.sum())
            if se == 0:
                # Perfect separation of few patients is no certainty.
                assert (row.estimate, row.se, row.ci_low, row.ci_method) == (1, None, None, "")
                continue
            assert_close(row.se, se)
            assert_close(row.ci_low, row.estimate - Z95 * se)
            assert_close(row.ci_high, min(row.estimate + Z95 * se, 1.0))


def test_auc_is_exact_where_bins_hold_one_value_each() -> None:
    parts = {}
    for name, exams in four_sites().items():
        # The middle of a bin of 1/20, so that no value stands on an edge.
        coarse = (np.floor(exams.column(PROBABILITY) * 20).clip(0, 19) + 0.5) / 20
        parts[name] = exams.with_column(PROBABILITY, coarse)
    spec = AucSpec(id="x", kind="auc", value="probability", cut_offs=(100.0,), bins=20)
    row = pool(spec, parts)["pooled", "auc", "", "100"]
    truth, values = truth_of(parts, 100), stacked(parts, PROBABILITY)
    assert_close(row.estimate, roc_auc_score(truth, values))
    assert_close(row.se, delong_variance(values, truth) ** 0.5)


def test_a_site_with_one_class_has_no_auc_but_counts_in_the_pooled_one() -> None:
    parts = four_sites()
    parts["s1"] = parts["s1"].where(parts["s1"].column("reference_score") <= 100)
    rows = pool(SPECS["auc"], parts)
    row = rows["s1", "auc", "", "100"]
    assert row.status is RowStatus.NOT_ESTIMABLE
    assert numbers(row) == (None,) * 5
    pooled = rows["pooled", "auc", "", "100"]
    truth, values = truth_of(parts, 100), stacked(parts, PROBABILITY)
    assert pooled.n == len(truth)
    bound = rows["pooled", "auc_error_bound", "", "100"].estimate
    assert abs(pooled.estimate - roc_auc_score(truth, values)) <= bound + 1e-12
    assert rows["meta", "auc", "", "100"].n == len(truth) - parts["s1"].n


# --- calibration ----------------------------------------------------------------------------


def logit(p: Vector) -> Vector:
    # Probabilities of 0 and 1 are cut so that their logit is finite.
    cut = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(cut / (1 - cut))


def calibration_sites() -> dict[str, Exams]:
    """Return four sites with probabilities for two cut-offs, some of them 0 or 1."""
    parts = {}
    for number, (name, exams) in enumerate(four_sites().items()):
        rng = np.random.default_rng(number)
        score = np.log1p(exams.column("reference_score"))
        other = (1 / (1 + np.exp(-(score - 2 + rng.normal(0, 1.5, exams.n))))).round(2)
        parts[name] = exams.with_column("index_probability_10", other)
    return parts


CALIBRATION = CalibrationSpec(id="x", kind="calibration", cut_offs=(10.0, 100.0))


@pytest.mark.parametrize("cut", [10.0, 100.0])
def test_intercept_and_slope_equal_those_of_statsmodels(cut: float) -> None:
    parts = calibration_sites()
    rows = pool(CALIBRATION, parts)
    truth = truth_of(parts, cut).astype(float)
    x = logit(stacked(parts, f"index_probability_{cut:g}"))
    large = GLM(truth, np.ones((len(x), 1)), families.Binomial(), offset=x)
    intercept = large.fit(tol=1e-14, maxiter=200)
    slope = Logit(truth, add_constant(x)).fit(disp=0, method="newton", tol=1e-14)
    for measure, expected, place in (
        ("calibration_intercept", intercept, 0),
        ("calibration_slope", slope, 1),
    ):
        row = rows["pooled", measure, "", f"{cut:g}"]
        assert_close(row.estimate, expected.params[place])
        assert_close(row.se, expected.bse[place])
        assert_close(row.ci_low, expected.conf_int()[place, 0])
        assert_close(row.ci_high, expected.conf_int()[place, 1])
        assert row.n == len(x)


def test_observed_and_expected_risks_by_bin_of_predicted_risk() -> None:
    parts = calibration_sites()
    rows = pool(CALIBRATION, parts)
    for cut in (10.0, 100.0):
        truth, p = truth_of(parts, cut), stacked(parts, f"index_probability_{cut:g}")
        edges = (0.0, 0.1, 0.25, 0.5, 0.75, np.inf)
        chosen = {
            f"{low:g}-{1 if high == np.inf else high:g}": (p >= low) & (p < high)
            for low, high in pairwise(edges)
        }
        for group, own in {**chosen, "": np.ones(len(p), dtype=bool)}.items():
            observed = rows["pooled", "observed_risk", group, f"{cut:g}"]
            expected = rows["pooled", "expected_risk", group, f"{cut:g}"]
            low, high = proportion_confint(truth[own].sum(), own.sum(), method="wilson")
            assert_close(observed.estimate, truth[own].mean())
            assert_close(observed.ci_low, low)
            assert_close(observed.ci_high, high)
            assert_close(expected.estimate, p[own].mean())
            assert observed.n == expected.n == own.sum()
        ratio = rows["pooled", "oe_ratio", "", f"{cut:g}"]
        assert_close(ratio.estimate, truth.sum() / p.sum())
        # The observed number as a Poisson count.
        assert_close(ratio.se, truth.sum() ** 0.5 / p.sum())


def test_a_bin_that_one_site_withholds_hides_the_ratio_of_all() -> None:
    parts = calibration_sites()

    def withhold(site: str, query: Query, answer: Any) -> Any:
        if site != "s0" or query.step != "bins":
            return answer
        return answer.model_copy(update={"values": ((), *answer.values[1:])})

    rows = pool(CALIBRATION, parts, change=withhold)
    others = {site: exams for site, exams in parts.items() if site != "s0"}
    low = stacked(others, "index_probability_10") < 0.1
    assert_close(
        rows["pooled", "observed_risk", "0-0.1", "10"].estimate, truth_of(others, 10)[low].mean()
    )
    for measure in ("observed_risk", "expected_risk", "oe_ratio"):
        row = rows["pooled", measure, "", "10"]
        assert row.status is RowStatus.SUPPRESSED
        assert numbers(row) == (None,) * 5
        assert row.n is None
        assert rows["pooled", measure, "", "100"].status is RowStatus.OK


def test_separated_predictions_have_no_slope() -> None:
    parts = {}
    for name, exams in four_sites().items():
        truth = exams.column("reference_score") > 100
        parts[name] = exams.with_column(PROBABILITY, np.where(truth, 0.9, 0.1))
    rows = pool(SPECS["calibration"], parts)
    row = rows["pooled", "calibration_slope", "", "100"]
    assert row.status is RowStatus.NOT_ESTIMABLE
    assert numbers(row) == (None,) * 5


# --- fusion ---------------------------------------------------------------------------------

FOLDS = 5
FUSION = FusionSpec(
    id="x",
    kind="fusion",
    covariates=("age", "sex", "vendor"),
    cut_off=100,
    folds=FOLDS,
    bins=1000,
)
TERMS = ("(intercept)", f"logit({PROBABILITY})", "age", "sex", "vendor=b", "vendor=c")


def fusion_design(parts: Mapping[str, Exams]) -> Vector:
    vendor = stacked(parts, "vendor")
    return np.column_stack(
        [
            np.ones(len(vendor)),
            logit(stacked(parts, PROBABILITY)),
            # The plan's age counts in tens of years.
            stacked(parts, "age") / 10,
            stacked(parts, "sex"),
            vendor == 1,
            vendor == 2,
        ]
    ).astype(float)


def test_fusion_coefficients_equal_those_of_statsmodels() -> None:
    parts = four_sites()
    rows = pool(FUSION, parts)
    truth = truth_of(parts, 100)
    fit = Logit(truth.astype(float), fusion_design(parts)).fit(disp=0, method="newton", tol=1e-14)
    for place, term in enumerate(TERMS):
        row = rows["pooled", "log_odds_ratio", "", term]
        assert_close(row.estimate, fit.params[place])
        assert_close(row.se, fit.bse[place])
        assert_close(row.ci_low, fit.conf_int()[place, 0])
        assert_close(row.p_value, fit.pvalues[place])
        assert (row.n, row.n_events) == (len(truth), truth.sum())


def out_of_fold(parts: Mapping[str, Exams]) -> Vector:
    """Return every patient's probability by a model fitted without the patient's fold."""
    protocol = plan((FUSION,))
    folds = np.concatenate(
        [deal_groups(exams, f"{protocol.id}|x", FOLDS) for exams in parts.values()]
    )
    x, truth = fusion_design(parts), truth_of(parts, 100).astype(float)
    found = np.empty(len(truth))
    for fold in range(FOLDS):
        own = folds == fold
        fit = Logit(truth[~own], x[~own]).fit(disp=0, method="newton", tol=1e-12)
        found[own] = fit.predict(x[own])
    return found


def test_cross_validated_auc_is_that_of_models_refitted_without_each_fold() -> None:
    parts = four_sites()
    rows = pool(FUSION, parts)
    truth = truth_of(parts, 100)
    predictions = {"fusion": out_of_fold(parts), "image": stacked(parts, PROBABILITY)}
    aucs = {}
    for group, values in predictions.items():
        row = rows["pooled", "auc", group, "100"]
        bound = rows["pooled", "auc_error_bound", group, "100"].estimate
        assert 0 < bound < 0.01
        assert abs(row.estimate - roc_auc_score(truth, values)) <= bound + 1e-3
        assert row.se == pytest.approx(delong_variance(values, truth) ** 0.5, rel=0.05)
        assert (row.n, row.n_events) == (len(truth), truth.sum())
        aucs[group] = row.estimate
    row = rows["pooled", "auc_difference", "", "100"]
    assert_close(row.estimate, aucs["fusion"] - aucs["image"])
    assert_close(row.p_value, 2 * stats.norm.sf(abs(row.estimate) / row.se))


def test_an_informative_covariate_raises_the_cross_validated_auc() -> None:
    parts = {}
    for number, (name, exams) in enumerate(four_sites().items()):
        noise = np.random.default_rng(number).normal(0, 3, exams.n)
        age = 60 + 4 * np.log1p(exams.column("reference_score")) - 18 + noise
        parts[name] = exams.with_column("age", age)
    rows = pool(FUSION, parts)
    row = rows["pooled", "auc_difference", "", "100"]
    assert row.ci_low > 0
    predictions = out_of_fold(parts), stacked(parts, PROBABILITY)
    fused, image = (roc_auc_score(truth_of(parts, 100), values) for values in predictions)
    bound = sum(
        rows["pooled", "auc_error_bound", group, "100"].estimate for group in ("fusion", "image")
    )
    assert abs(row.estimate - (fused - image)) <= bound + 1e-3


def test_a_covariate_that_separates_the_classes_ends_without_estimates() -> None:
    parts = {
        name: exams.with_column("sex", (exams.column("reference_score") > 100).astype(float))
        for name, exams in four_sites().items()
    }
    rows = pool(FUSION, parts)
    assert len(rows) == len(TERMS) + 3
    for row in rows.values():
        assert row.status is RowStatus.NOT_ESTIMABLE
        assert numbers(row) == (None,) * 5


def test_a_covariate_that_separates_without_one_fold_leaves_only_the_coefficients() -> None:
    parts = four_sites()
    for name, exams in parts.items():
        truth = exams.column("reference_score") > 100
        chosen = truth & (np.cumsum(truth) <= 8)
        if name == "s0":
            # All patients with the factor have the condition, but for three of one fold.
            fold = deal_groups(exams, f"{plan((FUSION,)).id}|x", FOLDS) == 0
            chosen |= fold & ~truth & (np.cumsum(fold & ~truth) <= 3)
        parts[name] = exams.with_column("sex", chosen.astype(float))
    rows = pool(FUSION, parts)
    truth = truth_of(parts, 100).astype(float)
    fit = Logit(truth, fusion_design(parts)).fit(disp=0, method="newton", tol=1e-12)
    for place, term in enumerate(TERMS):
        assert_close(rows["pooled", "log_odds_ratio", "", term].estimate, fit.params[place])
    for measure, group in (("auc", "fusion"), ("auc", "image"), ("auc_difference", "")):
        row = rows["pooled", measure, group, "100"]
        assert row.status is not RowStatus.OK
        assert numbers(row) == (None,) * 5


def test_a_collinear_covariate_is_not_estimable_and_the_rest_is_as_without_it() -> None:
    parts = {
        name: exams.with_column("years", 7 + 2 * exams.column("age"))
        for name, exams in four_sites().items()
    }
    demo = plan((SPECS["fusion"],))
    years = Covariate(name="years", type="continuous", description="Age, again")
    spec = FUSION.model_copy(update={"covariates": ("age", "sex", "vendor", "years")})
    rows = pool(spec, parts, covariates=(*demo.covariates, years))
    row = rows["pooled", "log_odds_ratio", "", "years"]
    assert row.status is RowStatus.NOT_ESTIMABLE
    assert numbers(row) == (None,) * 5
    expected = pool(FUSION, parts)
    for term in TERMS:
        key = ("pooled", "log_odds_ratio", "", term)
        assert_same(rows[key], expected[key])
    for measure, group in (("auc", "fusion"), ("auc", "image"), ("auc_difference", "")):
        found, other = (found["pooled", measure, group, "100"] for found in (rows, expected))
        assert found.status is RowStatus.OK
        assert found.estimate == pytest.approx(other.estimate, abs=1e-3)


def test_folds_need_the_sites_secret() -> None:
    parts = four_sites()
    estimator = estimator_for("x", plan((FUSION,)))
    exams = parts["s0"].with_secret(b"")
    size = len(TERMS)
    estimator.summarise(exams, Query(step="newton", values={"beta": (0.0,) * size}))
    query = Query(step="refit", values={"beta": (0.0,) * (FOLDS * size)})
    estimator.summarise(parts["s0"], query)
    with pytest.raises(ValueError, match="secret"):
        estimator.summarise(exams, query)


@pytest.mark.parametrize(
    "query",
    [
        Query(step="newton", values={"beta": (0.0,)}),
        Query(step="refit", values={"beta": (0.0,) * len(TERMS)}),
        Query(step="placements", values={"beta": (0.0,) * (FOLDS * len(TERMS)), "other": (1.0,)}),
        Query(step="other", values={"beta": (0.0,) * (FOLDS * len(TERMS))}),
        Query(step="counts"),
    ],
    ids=lambda query: f"{query.step}-{len(query.values)}",
)
def test_queries_that_fusion_does_not_ask_are_refused(query: Query) -> None:
    estimator = estimator_for("x", plan((FUSION,)))
    exams = four_sites()["s0"]
    if query.step == "placements":
        # Without pooled classes there is nothing to place patients in.
        released = estimator.summarise(exams, query)
        assert set(released.values) == {(0.0,) * 6}
        return
    with pytest.raises(QueryError):
        estimator.summarise(exams, query)


def test_without_a_fold_from_every_site_there_is_no_cross_validation() -> None:
    def silence(site: str, query: Query, answer: Any) -> Any:
        is_silent = site == "s2" and query.step == "refit"
        return RefusalCode.BUDGET_SPENT if is_silent else answer

    parts = four_sites()
    rows = pool(FUSION, parts, change=silence)
    expected = pool(FUSION, parts)
    for term in TERMS:
        key = ("pooled", "log_odds_ratio", "", term)
        assert_same(rows[key], expected[key])
    for measure, group in (("auc", "fusion"), ("auc", "image"), ("auc_difference", "")):
        row = rows["pooled", measure, group, "100"]
        assert row.status is RowStatus.SUPPRESSED
        assert numbers(row) == (None,) * 5


# --- what holds for all of them -------------------------------------------------------------

KINDS = ("auc", "calibration", "fusion")


@pytest.mark.parametrize("kind", KINDS)
def test_a_subgroup_is_the_analysis_of_its_rows(kind: str) -> None:
    parts = four_sites()
    old = {site: exams.where(exams.column("age") >= 65) for site, exams in parts.items()}
    rows = pool(SPECS[kind].model_copy(update={"subgroup": "old"}), parts)
    expected = pool(SPECS[kind], old)
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        # Folds are dealt over the subgroup, by keys that both have.
        assert_same(row, expected[key])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_PATIENTS, RowStatus.SUPPRESSED),
        (RefusalCode.NOT_COMPUTABLE, RowStatus.NOT_APPLICABLE),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_where_all_sites_refuse_no_row_has_a_number(
    kind: str, code: RefusalCode, status: RowStatus
) -> None:
    rows = pool(SPECS[kind], dict.fromkeys(SITES, code))
    assert rows
    for (scope, *_), row in rows.items():
        assert numbers(row) == (None,) * 5
        if scope == "meta":
            assert row.status is not RowStatus.OK
        else:
            assert row.status is status
            assert not row.n


@pytest.mark.parametrize("kind", KINDS)
def test_where_one_site_refuses_the_others_are_pooled(kind: str) -> None:
    parts: dict[str, Exams | RefusalCode] = dict(four_sites())
    others = {site: exams for site, exams in parts.items() if site != "s2"}
    expected = pool(SPECS[kind], others)
    rows = pool(SPECS[kind], {**parts, "s2": RefusalCode.TOO_FEW_PATIENTS})
    assert rows.keys() >= expected.keys()
    for key, row in expected.items():
        assert_same(rows[key], row)
    refused = [rows[key] for key in rows.keys() - expected.keys()]
    assert refused
    for row in refused:
        assert (row.scope, row.status) == ("s2", RowStatus.SUPPRESSED)
        assert numbers(row) == (None,) * 5
