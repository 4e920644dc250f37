"""Correlations of few, equal, opposed and absent scores, against printed formulas and scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CorrelationSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.correlation import CoMoments, Correlation, ccc, icc, pearson
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

SPEC = CorrelationSpec(id="x", kind="correlation")
COEFFICIENTS = (
    ("pearson_r", ""),
    ("icc", "icc1"),
    ("icc", "icc2"),
    ("icc", "icc3"),
    ("ccc", ""),
)


def exams_of(difference: Any, seed: int, base: Any) -> Exams:
    """Return patients whose index score is the reference score and this difference."""
    reference = np.asarray(base, dtype=float)
    columns = {"reference_score": reference, "index_score": reference + difference}
    return draw_exams(seed, len(reference), f"{seed}-", **columns)


def withheld(site: str, name: str) -> Any:
    """Return a gate that withholds one part of a site's answer."""

    def gate(own: str, _: Any, answer: Any) -> Any:
        hidden = {name: (CellStatus.SUPPRESSED,)}
        return answer.model_copy(update=hidden) if own == site else answer

    return gate


def drawn(seed: int, n: int, noise: float = 0.5) -> tuple[Vector, Vector]:
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 1, n)
    return x, 0.9 * x + 0.7 + rng.normal(0, noise, n)


# --- printed formulas -----------------------------------------------------------------------


def moments(x: Any, y: Any) -> CoMoments:
    return CoMoments.from_values(np.asarray(x, dtype=float), np.asarray(y, dtype=float))


def mean_squares(x: Vector, y: Vector) -> tuple[float, float, float]:
    """Return the mean squares between patients, between raters and of the residual."""
    both = np.column_stack([x, y])
    n, centre = len(x), both.mean()
    between = 2 * ((both.mean(axis=1) - centre) ** 2).sum() / (n - 1)
    raters = n * ((both.mean(axis=0) - centre) ** 2).sum()
    total = ((both - centre) ** 2).sum()
    return between, raters, (total - (n - 1) * between - raters) / (n - 1)


def by_hand(kind: str, x: Vector, y: Vector) -> tuple[float, float, float, float]:
    """Return ICC(1) or ICC(3) with limits and p-value as Shrout and Fleiss print them."""
    n = len(x)
    msr, msc, mse = mean_squares(x, y)
    df = n if kind == "icc1" else n - 1
    error = (msc + (n - 1) * mse) / n if kind == "icc1" else mse
    f = msr / error
    low = f / stats.f.ppf(0.975, n - 1, df)
    high = f * stats.f.ppf(0.975, df, n - 1)
    p = stats.f.sf(f, n - 1, df)
    return (f - 1) / (f + 1), (low - 1) / (low + 1), (high - 1) / (high + 1), float(p)


def lin(x: Vector, y: Vector) -> tuple[float, float, float, None]:
    """Return the CCC as Lin prints it, with the variance of 2000 and 1/n variances."""
    n, r = len(x), stats.pearsonr(x, y).statistic
    rho = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    u2 = (x.mean() - y.mean()) ** 2 / (x.std() * y.std())
    variance = (
        (1 - r**2) * rho**2 * (1 - rho**2) / r**2
        + 2 * rho**3 * (1 - rho) * u2 / r
        - rho**4 * u2**2 / (2 * r**2)
    ) / (n - 2)
    half = stats.norm.ppf(0.975) * variance**0.5 / (1 - rho**2)
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return rho, low, high, None


def assert_equal(found: Correlation | None, expected: tuple[float | None, ...]) -> None:
    assert found is not None
    given = (found.estimate, found.ci_low, found.ci_high, found.p_value)
    for own, wanted in zip(given, expected, strict=True):
        assert own == (wanted if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-30))


@pytest.mark.parametrize("n", [3, 4, 15, 300])
@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_coefficients_are_those_of_their_printed_formulas(n: int, noise: float) -> None:
    x, y = drawn(n, n, noise)
    m = moments(x, y)
    for kind in ("icc1", "icc3"):
        assert_equal(icc(m, kind), by_hand(kind, x, y))
    assert_equal(ccc(m), lin(x, y))
    r = stats.pearsonr(x, y)
    limits = r.confidence_interval() if n > 3 else (None, None)
    assert_equal(pearson(m), (r.statistic, *limits, r.pvalue))
    with pytest.raises(ValueError, match="icc"):
        icc(m, "icc4")


@pytest.mark.parametrize("n", [1, 2])
def test_two_pairs_have_no_coefficient(n: int) -> None:
    m = moments(*drawn(1, n))
    assert pearson(m) is ccc(m) is None
    assert [icc(m, kind) for kind in ("icc1", "icc2", "icc3")] == [None] * 3


@pytest.mark.parametrize("which", [0, 1])
def test_one_constant_score_has_an_icc_alone(which: int) -> None:
    scores = [np.array([1.0, 2.0, 6.0, 3.0]), np.full(4, 2.5)]
    m = moments(scores[which], scores[1 - which])
    assert pearson(m) is ccc(m) is None
    assert_equal(icc(m, "icc3"), by_hand("icc3", *scores))
    both = moments(scores[1], scores[1])
    assert icc(both, "icc3") is None


def test_moments_of_parts_add_up_to_those_of_all() -> None:
    x, y = drawn(5, 60)
    whole = moments(x, y)
    np.testing.assert_allclose(whole.cross, np.cov(x, y)[0, 1] * 59)
    for cuts in ([1], [20, 21], [7, 30, 55]):
        parts = [moments(*own) for own in zip(np.split(x, cuts), np.split(y, cuts), strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        np.testing.assert_allclose(list(vars(total).values()), list(vars(whole).values()))


@pytest.mark.parametrize("slope", [-1.0, 1.0, -0.3, 0.3])
def test_scores_on_a_line_have_a_correlation_of_1_to_the_last_digit(slope: float) -> None:
    """Rounding leads neither beyond 1 nor to a p-value that is no number."""
    rng = np.random.default_rng(8)
    sign = math.copysign(1, slope)
    for _ in range(200):
        n = int(rng.integers(4, 9))
        x = rng.normal(0, 1, n)
        m = moments(x, slope * x + rng.normal())
        found = pearson(m)
        assert found is not None
        assert sign * found.estimate == pytest.approx(1, abs=1e-14)
        assert abs(found.estimate) <= 1
        assert found.p_value == pytest.approx(0, abs=1e-6)
        if abs(slope) == 1:
            same = icc(m, "icc3")
            assert same is not None
            assert same.estimate == pytest.approx(sign, abs=1e-12)
            assert abs(same.estimate) <= 1
            assert same.p_value == pytest.approx((1 - sign) / 2, abs=1e-9)


@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_scores_that_are_equal_or_opposed_have_a_concordance_without_spread(slope: float) -> None:
    rng = np.random.default_rng(9)
    for _ in range(40):
        x = rng.normal(0, 1, 6)
        x -= x.mean()
        found = ccc(moments(x, slope * x))
        assert found is not None
        assert found.p_value is None
        for number in (found.estimate, found.ci_low, found.ci_high):
            assert number == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize("n", [15, 300])
def test_icc2_and_its_interval_as_mcgraw_and_wong_print_them(
    scale: float, shift: float, n: int
) -> None:
    """Case 2A of their tables 4 and 7 (Psychol Methods 1996;1:30); in any unit of the scores."""
    rng = np.random.default_rng(2)
    x = rng.normal(5, 1, n)
    y = x + shift + rng.normal(0, 0.5, n)
    msr, msc, mse = mean_squares(x, y)
    found = icc(moments(scale * x, scale * y), "icc2")
    assert found is not None
    rho = (msr - mse) / (msr + mse + 2 / n * (msc - mse))
    assert_close(found.estimate, rho)
    a = 2 * rho / (n * (1 - rho))
    b = 1 + 2 * rho * (n - 1) / (n * (1 - rho))
    v = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 + (b * mse) ** 2 / (n - 1))
    low, high = stats.f.ppf(0.975, n - 1, v), stats.f.ppf(0.975, v, n - 1)
    within = 2 * msc + (2 * n - 2 - n) * mse
    assert_close(found.ci_low, n * (msr - low * mse) / (low * within + n * msr))
    assert_close(found.ci_high, n * (high * msr - mse) / (within + n * high * msr))
    assert_close(found.p_value, stats.f.sf(msr / mse, n - 1, n - 1))


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_scores_that_differ_by_a_constant_agree_in_all_but_level(scale: float) -> None:
    x = scale * np.array([1.0, 2.0, 4.0, 7.0])
    m = moments(x, x + scale)
    consistency, absolute, linear = icc(m, "icc3"), icc(m, "icc2"), pearson(m)
    assert consistency is not None
    assert absolute is not None
    assert linear is not None
    assert consistency.estimate == pytest.approx(1)
    assert linear.estimate == pytest.approx(1)
    msr, msc, _ = mean_squares(x, x + scale)
    assert_close(absolute.estimate, msr / (msr + msc / 2))
    assert absolute.p_value == pytest.approx(0, abs=1e-12)


def test_scores_that_oppose_each_other_have_coefficients_of_minus_1() -> None:
    x = np.array([1.0, 2.0, 4.0, 7.0, 6.0])
    m = moments(x, 8 - x)
    for found in (icc(m, "icc1"), icc(m, "icc3"), pearson(m), ccc(m)):
        assert found is not None
        assert found.estimate == pytest.approx(-1)


@pytest.mark.parametrize(
    ("x", "y", "estimate"),
    [
        # No degree of freedom; too few for the lower limit's quantile, twice; five thousandths.
        ([2, 4, 2], [4, 2, 4], -2.0),
        ([0, 0, 2], [3, 4, 1], -0.625),
        ([2, 0, 1], [2, 4, 4], -6 / 19),
        ([0, 0, 4, 0], [3, 4, 0, 4], -88 / 83),
    ],
)
def test_an_icc2_that_leaves_hardly_a_degree_of_freedom_has_no_interval(
    x: Any, y: Any, estimate: float
) -> None:
    msr, msc, mse = mean_squares(np.array(x, dtype=float), np.array(y, dtype=float))
    found = icc(moments(x, y), "icc2")
    assert found is not None
    assert_close(found.estimate, estimate)
    assert_close(found.estimate, (msr - mse) / (msr + mse + 2 / len(x) * (msc - mse)))
    assert (found.ci_low, found.ci_high) == (None, None)
    assert_close(found.p_value, stats.f.sf(msr / mse, len(x) - 1, len(x) - 1))


@pytest.mark.parametrize("kind", ["icc1", "icc2", "icc3"])
def test_an_interval_holds_its_own_estimate(kind: str) -> None:
    rng = np.random.default_rng(6)
    n_limits = 0
    for _ in range(300):
        n = int(rng.integers(3, 6))
        found = icc(moments(rng.integers(0, 5, n), rng.integers(0, 5, n)), kind)
        if found is not None and found.ci_low is not None and found.ci_high is not None:
            assert found.ci_low - 1e-9 <= found.estimate <= found.ci_high + 1e-9
            n_limits += 1
    assert n_limits > 250


def test_scores_a_hair_apart_have_a_concordance_of_1_and_an_interval() -> None:
    """What rounding leaves of the variance may be below 0."""
    x = np.array([13.0, 17.0, 9.0])
    for shift in np.geomspace(1e-8, 2e-7, 400):
        found = ccc(moments(x, x + shift))
        assert found is not None
        assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((1, 1, 1), abs=1e-6)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_site_of_nobody_changes_no_coefficient(first: bool) -> None:
    full = exams_of([1.0, -20.0, 5.0, 3.0, 8.0, -4.0], 1, [0, 30.0, 12.0, 80.0, 7.0, 55.0])
    nobody = full.where(np.zeros(6, dtype=bool))
    rows = pool(SPEC, {"a": nobody, "b": full} if first else {"a": full, "b": nobody})
    alone = pool(SPEC, {"b": full})
    for measure, term in COEFFICIENTS:
        row, expected = (own["pooled", measure, "", term] for own in (rows, alone))
        for found, wanted in zip(numbers(row), numbers(expected), strict=True):
            assert found == (wanted if wanted is None else pytest.approx(wanted, rel=1e-12))
        assert row.n == 6
        own = rows["a" if first else "b", measure, "", term]
        assert (own.status, own.n) == (RowStatus.NOT_ESTIMABLE, 0)
    x, y = full.column("index_score"), full.column("reference_score")
    expected_r = stats.pearsonr(x, y)
    row = rows["pooled", "pearson_r", "", ""]
    assert_close(row.estimate, expected_r.statistic)
    assert_close(row.p_value, expected_r.pvalue)
    assert_close(row.ci_low, expected_r.confidence_interval().low)
    assert_close(row.ci_high, expected_r.confidence_interval().high)


@pytest.mark.parametrize("name", ["n", "mean_x", "mean_y", "m2_x", "m2_y", "cross"])
def test_a_withheld_moment_of_scores_withholds_its_site(name: str) -> None:
    parts = {
        "a": exams_of([1.0, 5.0, 2.0, 8.0], 1, [4.0, 9.0, 1.0, 30.0]),
        "b": exams_of([2.0, 7.0, 3.0, 1.0], 2, [5.0, 8.0, 60.0, 3.0]),
    }
    rows = pool(SPEC, parts, change=withheld("a", name))
    alone = pool(SPEC, {"b": parts["b"]})
    for measure, term in COEFFICIENTS:
        row = rows["a", measure, "", term]
        assert (row.status, row.n, numbers(row)) == (RowStatus.SUPPRESSED, None, (None,) * 5)
        assert rows["pooled", measure, "", term] == alone["pooled", measure, "", term]


def test_a_refused_site_has_a_row_of_every_coefficient() -> None:
    own = exams_of([1.0, 5.0, 2.0, 8.0], 1, [4.0, 9.0, 1.0, 30.0])
    rows = pool(SPEC, {"a": RefusalCode.INTERNAL, "b": own})
    assert {key for key in rows if key[0] == "a"} == {
        ("a", measure, "", term) for measure, term in COEFFICIENTS
    }
    assert {row.status for key, row in rows.items() if key[0] == "a"} == {RowStatus.ERROR}


def test_the_rows_of_two_sites_are_those_of_their_patients_together() -> None:
    parts = {seed: drawn(seed, n) for seed, n in ((1, 30), (2, 45))}
    sites = {f"s{seed}": exams_of(x - y, seed, y) for seed, (x, y) in parts.items()}
    rows = pool(SPEC, sites)
    x, y = (np.concatenate(own) for own in zip(*parts.values(), strict=True))
    r = stats.pearsonr(x, y)
    expected = {
        ("pearson_r", ""): ((r.statistic, *r.confidence_interval(), r.pvalue), "fisher_z"),
        ("icc", "icc1"): (by_hand("icc1", x, y), "f"),
        ("icc", "icc3"): (by_hand("icc3", x, y), "f"),
        ("ccc", ""): (lin(x, y), "lin_z"),
    }
    for (measure, term), (wanted, method) in expected.items():
        row = rows["pooled", measure, "", term]
        found = (row.estimate, row.ci_low, row.ci_high, row.p_value)
        for own, number in zip(found, wanted, strict=True):
            assert own == (number if number is None else pytest.approx(number, rel=1e-9))
        assert (row.ci_method, row.n, row.se) == (method, 75, None)
    assert rows["pooled", "icc", "", "icc2"].ci_method == "f"
    logs = pool(SPEC.model_copy(update={"scale": "log"}), sites)
    assert_close(
        logs["pooled", "pearson_r", "", ""].estimate,
        stats.pearsonr(np.log(x + 1), np.log(y + 1)).statistic,
    )


@pytest.mark.parametrize(
    "query", [Query(step="counts"), Query(step="moments", values={"at": (1.0,)})]
)
def test_correlations_are_asked_by_one_question_alone(query: Query) -> None:
    with pytest.raises(QueryError):
        estimator_for("x", plan((SPEC,))).summarise(exams_of([1.0, 2.0], 1, [3.0, 4.0]), query)
