"""Secret groups and samples, and the spread of a statistic over them."""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.exams import Exams
from fedcac.statistics.resampling import deal_groups, replicate_rows, replicate_spread
from fedcac.vocabulary import Resampling


def exams_of(n: int, secret: bytes = b"a site's secret") -> Exams:
    return Exams({}, tuple(f"patient-{i}" for i in range(n)), secret)


def by_key(exams: Exams, groups: np.ndarray) -> dict[str, int]:
    return dict(zip(exams.keys, groups.tolist(), strict=True))


# --- groups ---------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=60)
@given(n=st.integers(1, 300), n_groups=st.integers(2, 40), secret=st.binary(min_size=1))
def test_group_sizes_differ_by_at_most_one(n: int, n_groups: int, secret: bytes) -> None:
    groups = deal_groups(exams_of(n, secret), "study|nri", n_groups)
    sizes = np.bincount(groups, minlength=n_groups)
    assert len(sizes) == n_groups
    assert sizes.sum() == n
    assert sizes.max() - sizes.min() <= 1


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_groups_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    exams = exams_of(83)
    keys = np.random.default_rng(seed).permutation(exams.keys)
    shuffled = Exams({}, tuple(str(key) for key in keys), exams.secret)
    first = by_key(exams, deal_groups(exams, "study|nri", 7))
    assert by_key(shuffled, deal_groups(shuffled, "study|nri", 7)) == first


def test_groups_are_dealt_in_the_order_of_the_tags() -> None:
    exams = exams_of(11)
    tags = {
        key: hmac.new(exams.secret, f"resampling|study|nri|{key}".encode(), hashlib.sha256).digest()
        for key in exams.keys
    }
    dealt = {key: place % 4 for place, key in enumerate(sorted(tags, key=tags.__getitem__))}
    assert by_key(exams, deal_groups(exams, "study|nri", 4)) == dealt


def test_groups_differ_by_secret_and_by_purpose() -> None:
    n, n_groups = 400, 10
    own = deal_groups(exams_of(n), "study|nri", n_groups)
    others = {
        "secret": deal_groups(exams_of(n, b"another secret"), "study|nri", n_groups),
        "analysis": deal_groups(exams_of(n), "study|auc", n_groups),
        "study": deal_groups(exams_of(n), "other|nri", n_groups),
    }
    for name, other in others.items():
        # Unrelated deals agree in a tenth of the patients, give or take 1.5 per cent.
        assert 0.03 < np.mean(own == other) < 0.17, name
    assert np.array_equal(own, deal_groups(exams_of(n), "study|nri", n_groups))


def test_groups_do_not_follow_the_keys() -> None:
    n, n_groups = 2000, 10
    groups = deal_groups(exams_of(n), "study|nri", n_groups)
    # Neighbours in the list share a group no more often than strangers.
    assert 0.06 < np.mean(groups[1:] == groups[:-1]) < 0.14


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_without_a_secret_nothing_is_resampled(method: Resampling) -> None:
    with pytest.raises(ValueError, match="secret"):
        replicate_rows(exams_of(40, b""), "study|nri", method, 5)


# --- rows of replicates ---------------------------------------------------------------------


def test_jackknife_leaves_out_every_patient_exactly_once() -> None:
    exams = exams_of(47)
    rows = replicate_rows(exams, "study|nri", Resampling.JACKKNIFE, 6)
    groups = deal_groups(exams, "study|nri", 6)
    assert len(rows) == 6
    for group, kept in enumerate(rows):
        assert np.array_equal(kept, np.flatnonzero(groups != group))
        assert np.all(np.diff(kept) > 0)
    assert np.array_equal(np.bincount(np.concatenate(rows), minlength=47), np.full(47, 5))


def test_bootstrap_rows_are_of_the_site_and_sorted() -> None:
    n, replicates = 61, 30
    rows = replicate_rows(exams_of(n), "study|nri", Resampling.BOOTSTRAP, replicates)
    assert len(rows) == replicates
    for drawn in rows:
        assert drawn.shape == (n,)
        assert drawn.min() >= 0
        assert drawn.max() < n
        assert np.all(np.diff(drawn) >= 0)
    assert len({tuple(drawn.tolist()) for drawn in rows}) == replicates


def test_bootstrap_draws_everybody_equally_often() -> None:
    n, replicates = 50, 1000
    rows = replicate_rows(exams_of(n), "study|nri", Resampling.BOOTSTRAP, replicates)
    times = np.bincount(np.concatenate(rows), minlength=n)
    # Counts are binomial with variance just under `replicates`; five standard deviations.
    assert np.all(np.abs(times - replicates) < 5 * math.sqrt(replicates))
    left_out = np.mean([n - len(np.unique(drawn)) for drawn in rows]) / n
    assert left_out == pytest.approx((1 - 1 / n) ** n, abs=0.01)


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_replicates_hold_the_same_patients_in_any_order_of_rows(method: Resampling) -> None:
    exams = exams_of(35)
    keys = tuple(str(key) for key in np.random.default_rng(4).permutation(exams.keys))
    shuffled = Exams({}, keys, exams.secret)
    first = replicate_rows(exams, "study|nri", method, 5)
    second = replicate_rows(shuffled, "study|nri", method, 5)
    for one, other in zip(first, second, strict=True):
        assert sorted(exams.keys[i] for i in one) == sorted(shuffled.keys[i] for i in other)


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_replicates_differ_by_secret_and_by_purpose(method: Resampling) -> None:
    def drawn(secret: bytes, purpose: str) -> list[list[int]]:
        rows = replicate_rows(exams_of(60, secret), purpose, method, 5)
        return [row.tolist() for row in rows]

    own = drawn(b"secret", "study|nri")
    assert own == drawn(b"secret", "study|nri")
    for other in (drawn(b"secres", "study|nri"), drawn(b"secret", "study|auc")):
        assert all(one != another for one, another in zip(own, other, strict=True))


def test_the_first_samples_do_not_depend_on_how_many_are_asked() -> None:
    few = replicate_rows(exams_of(30), "study|nri", Resampling.BOOTSTRAP, 3)
    many = replicate_rows(exams_of(30), "study|nri", Resampling.BOOTSTRAP, 8)
    assert all(np.array_equal(one, other) for one, other in zip(few, many[:3], strict=True))


def test_no_method_leaves_nothing_to_resample() -> None:
    with pytest.raises(ValueError, match="nothing to resample"):
        replicate_rows(exams_of(30), "study|nri", Resampling.NONE, 5)


# --- spread ---------------------------------------------------------------------------------


def test_jackknife_spread_by_hand() -> None:
    # Mean 2, squares 4 + 1 + 0 + 1 + 4 = 10; SE^2 = 4/5 * 10 = 8.
    spread = replicate_spread(2.5, np.array([0.0, 1.0, 2.0, 3.0, 4.0]), Resampling.JACKKNIFE)
    assert spread is not None
    assert spread.se == pytest.approx(math.sqrt(8), rel=1e-14)
    # t(4) at 0.975 is 2.776445 (printed tables: 2.776).
    assert spread.ci_low == pytest.approx(2.5 - 2.7764451051977987 * math.sqrt(8), rel=1e-10)
    assert spread.ci_high == pytest.approx(2.5 + 2.7764451051977987 * math.sqrt(8), rel=1e-10)
    assert spread.ci_method == "jackknife_t"
    # With 4 degrees of freedom the distribution function has a closed form.
    t = 2.5 / math.sqrt(8)
    u = t / math.sqrt(4 + t**2)
    assert spread.p_value == pytest.approx(1 - 1.5 * u + 0.5 * u**3, rel=1e-10)


def test_small_bootstrap_spread_by_hand() -> None:
    # Squares 10 over 4: SE^2 = 2.5, a normal interval about the estimate.
    spread = replicate_spread(2.5, np.array([0.0, 1.0, 2.0, 3.0, 4.0]), Resampling.BOOTSTRAP)
    assert spread is not None
    assert spread.se == pytest.approx(math.sqrt(2.5), rel=1e-14)
    assert spread.ci_low == pytest.approx(2.5 - 1.959963984540054 * math.sqrt(2.5), rel=1e-12)
    assert spread.ci_high == pytest.approx(2.5 + 1.959963984540054 * math.sqrt(2.5), rel=1e-12)
    assert spread.ci_method == "bootstrap_normal"
    z = 2.5 / math.sqrt(2.5)
    assert spread.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-10)


def test_percentile_interval_from_200_samples_on() -> None:
    samples = np.arange(201.0)[::-1].copy()
    spread = replicate_spread(7.0, samples, Resampling.BOOTSTRAP)
    assert spread is not None
    # Of 0 .. 200 the quantile q lies at 200 q; the estimate does not matter.
    assert (spread.ci_low, spread.ci_high) == pytest.approx((5.0, 195.0))
    assert spread.ci_method == "bootstrap_percentile"
    assert spread.se == pytest.approx(math.sqrt(201 * 202 / 12))
    for n, method in ((199, "bootstrap_normal"), (200, "bootstrap_percentile")):
        found = replicate_spread(7.0, samples[:n], Resampling.BOOTSTRAP)
        assert found is not None
        assert found.ci_method == method


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_equal_replicates_give_a_point_without_a_p_value(method: Resampling) -> None:
    spread = replicate_spread(0.25, np.full(10, 0.25), method)
    assert spread is not None
    assert (spread.se, spread.ci_low, spread.ci_high) == (0.0, 0.25, 0.25)
    assert spread.p_value is None


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
@pytest.mark.parametrize(
    ("estimate", "replicates"),
    [(1.0, [1.0]), (1.0, []), (1.0, [1.0, math.nan]), (1.0, [1.0, math.inf]), (math.nan, [1, 2])],
)
def test_no_spread_where_a_value_is_missing(
    method: Resampling, estimate: float, replicates: list[float]
) -> None:
    assert replicate_spread(estimate, np.array(replicates, dtype=float), method) is None


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    replicates=st.lists(st.floats(-10, 10), min_size=5, max_size=30),
    estimate=st.floats(-10, 10),
    shift=st.floats(-5, 5),
    scale=st.floats(0.1, 10),
)
def test_spread_follows_shift_and_scale(
    replicates: list[float], estimate: float, shift: float, scale: float
) -> None:
    values = np.array(replicates)
    for method in (Resampling.JACKKNIFE, Resampling.BOOTSTRAP):
        plain = replicate_spread(estimate, values, method)
        moved = replicate_spread(shift + scale * estimate, shift + scale * values, method)
        assert plain is not None
        assert moved is not None
        assert moved.se == pytest.approx(scale * plain.se, rel=1e-6, abs=1e-9)
        assert moved.ci_low == pytest.approx(shift + scale * plain.ci_low, rel=1e-6, abs=1e-6)
        assert moved.ci_high == pytest.approx(shift + scale * plain.ci_high, rel=1e-6, abs=1e-6)


# --- against statistics whose standard error is known ---------------------------------------


def test_jackknife_of_a_mean_with_groups_of_one_is_its_standard_error() -> None:
    n = 120
    values = np.random.default_rng(3).gamma(2, 3, n)
    rows = replicate_rows(exams_of(n), "study|mean", Resampling.JACKKNIFE, n)
    spread = replicate_spread(
        float(values.mean()), np.array([values[r].mean() for r in rows]), Resampling.JACKKNIFE
    )
    assert spread is not None
    assert spread.se == pytest.approx(values.std(ddof=1) / math.sqrt(n), rel=1e-10)


def test_jackknife_of_a_mean_is_about_its_standard_error() -> None:
    n, n_groups, deals = 400, 20, 60
    exams = exams_of(n)
    values = np.random.default_rng(8).gamma(2, 3, n)
    squares = []
    for deal in range(deals):
        rows = replicate_rows(exams, f"deal {deal}", Resampling.JACKKNIFE, n_groups)
        means = np.array([values[r].mean() for r in rows])
        spread = replicate_spread(float(values.mean()), means, Resampling.JACKKNIFE)
        assert spread is not None
        squares.append(spread.se**2)
    usual = values.var(ddof=1) / n
    # One deal's variance scatters by sqrt(2/19) = 32 %, the mean of 60 by 4 %.
    assert np.mean(squares) == pytest.approx(usual, rel=0.13)
    assert np.std(squares) / usual == pytest.approx(math.sqrt(2 / (n_groups - 1)), rel=0.35)


def test_bootstrap_of_a_mean_is_about_its_standard_error() -> None:
    n = 300
    values = np.random.default_rng(5).gamma(2, 3, n)
    rows = replicate_rows(exams_of(n), "study|mean", Resampling.BOOTSTRAP, 1000)
    means = np.array([values[r].mean() for r in rows])
    spread = replicate_spread(float(values.mean()), means, Resampling.BOOTSTRAP)
    assert spread is not None
    usual = values.std() / math.sqrt(n)
    assert spread.se == pytest.approx(usual, rel=0.1)
    assert spread.ci_low == pytest.approx(values.mean() - 1.96 * usual, abs=0.25 * usual)
    assert spread.ci_high == pytest.approx(values.mean() + 1.96 * usual, abs=0.25 * usual)
