"""Zero-inflated regression over sites: its start, its maximum, and what is said of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, assert_same, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import optimize, special, stats

from fedcac.aggregate import LikelihoodTerms, Totals
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import ZeroInflatedSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.zip_patient_effect import zip_random_terms
from fedcac.vocabulary import RefusalCode, RowStatus

Vector = NDArray[np.float64]
Pairs = tuple[list[int], list[int]]

PLAIN = SPECS["zero_inflated"]
MIXED = ZeroInflatedSpec(id="x", kind="zero_inflated", patient_effect=True)

# Reference and index; the mean of both is small, so that a few of the zeros are not in excess.
SMALL: Pairs = (
    [0, 3, 2, 0, 5, 1, 0, 4, 2, 0, 3, 6, 0, 2, 1, 0, 4, 3, 0, 2],
    [1, 0, 5, 0, 7, 2, 0, 0, 3, 1, 6, 8, 0, 4, 0, 2, 5, 9, 0, 3],
)
# What takes sixteen exchanges: hardly any zero of the reference is in excess.
SLOW: Pairs = (
    [1, 1, 2, 0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, 0, 1, 1],
    [0, 0, 2, 2, 2, 0, 0, 0, 0, 5, 3, 4, 0, 3, 0, 4, 2, 5, 0, 2],
)
# Patients who differ; from the start the search passes where the likelihood bends upwards.
VARIED: Pairs = (
    [0, 1, 3, 3, 0, 3, 4, 4, 7, 1, 0, 2, 8, 5, 4, 1, 0, 3, 5, 0],
    [0, 1, 3, 1, 0, 0, 0, 4, 5, 3, 0, 0, 0, 0, 0, 3, 1, 3, 0, 3],
)


def site(pairs: Pairs, chosen: slice = slice(None), prefix: str = "k") -> Exams:
    reference, index = (np.array(own[chosen], dtype=float) for own in pairs)
    return draw_exams(1, len(reference), prefix, reference_score=reference, index_score=index)


def halves(pairs: Pairs) -> dict[str, Exams]:
    return {"a": site(pairs, slice(0, 7), "a"), "b": site(pairs, slice(7, None), "b")}


def one_sample(y: Vector) -> tuple[float, float, Vector]:
    """Return log mu, logit pi and their covariance for one sample, from its moments.

    The mean of the positives is mu / (1 - exp(-mu)), and their share (1 - pi)(1 - exp(-mu)).
    """
    positive = y[y > 0]
    mu = optimize.brentq(lambda m: m / -np.expm1(-m) - positive.mean(), 1e-6, 1e3, xtol=1e-14)
    share = len(positive) / len(y)
    pi = 1 + share / np.expm1(-mu)
    n_zeros = len(y) - len(positive)

    def log_likelihood(log_mu: float, logit_pi: float) -> float:
        m, p = np.exp(log_mu), special.expit(logit_pi)
        return float(
            n_zeros * np.log(p + (1 - p) * np.exp(-m))
            + len(positive) * np.log1p(-p)
            + positive.sum() * log_mu
            - len(positive) * m
        )

    at, h = np.array([np.log(mu), special.logit(pi)]), 1e-3
    bend = np.empty((2, 2))
    for i, e in enumerate(np.eye(2) * h):
        for j, f in enumerate(np.eye(2) * h):
            near = [log_likelihood(*(at + k * e + m * f)) for k in (1, -1) for m in (1, -1)]
            bend[i, j] = (near[0] - near[1] - near[2] + near[3]) / (4 * h * h)
    return float(at[0]), float(at[1]), np.linalg.inv(-bend)


@pytest.mark.parametrize("pairs", [SMALL, SLOW], ids=["small", "slow"])
def test_two_readers_are_two_samples(pairs: Pairs) -> None:
    """With one parameter per reader the maximum is that of each sample by itself."""
    rows = pool(PLAIN, halves(pairs))
    reference, index = (one_sample(np.array(own, dtype=float)) for own in pairs)
    assert list(rows) == [
        ("pooled", "zip_log_rate_ratio", "", "index"),
        ("pooled", "zip_log_odds_ratio", "", "index"),
    ]
    for place, row in enumerate(rows.values()):
        difference = index[place] - reference[place]
        se = (reference[2][place, place] + index[2][place, place]) ** 0.5
        assert_close(row.estimate, difference, 1e-5)
        assert_close(row.se, se, 1e-4)
        assert_close(row.ci_low, row.estimate - stats.norm.ppf(0.975) * row.se, 1e-12)
        assert_close(row.ci_high, row.estimate + stats.norm.ppf(0.975) * row.se, 1e-12)
        assert_close(row.p_value, 2 * stats.norm.sf(abs(row.estimate) / row.se), 1e-12)
        assert (row.n, row.ci_method, row.status) == (20, "wald", RowStatus.OK)
        assert row.n_events == sum(a > 0 or b > 0 for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("spec", [PLAIN, MIXED], ids=["plain", "mixed"])
@pytest.mark.parametrize("is_reference", [True, False])
def test_a_reader_without_a_zero_has_no_odds_of_one(
    spec: ZeroInflatedSpec, is_reference: bool
) -> None:
    """The log odds tend to minus infinity, however flat the likelihood has become by then."""
    none = [max(count, 1) for count in SMALL[0 if is_reference else 1]]
    pairs = (none, SMALL[1]) if is_reference else (SMALL[0], none)
    rows = pool(spec, halves(pairs))
    assert {row.status for row in rows.values()} == {RowStatus.NOT_ESTIMABLE}
    assert all(row.estimate is None and row.se is None for row in rows.values())


@pytest.mark.parametrize("spec", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_rows_are_the_maximum_of_the_sum_of_sites(spec: ZeroInflatedSpec) -> None:
    asked: list[Query] = []
    released: list[list[Any]] = []

    def keep(_: str, query: Query, answer: Any) -> Any:
        asked.append(query)
        return answer

    rows = pool(spec, halves(VARIED), released, keep)
    last, beta = released[-1], np.array(asked[-1].values["beta"])
    size = 5 if spec.patient_effect else 4
    assert len(beta) == size
    assert all(isinstance(answer, LikelihoodTerms) for answer in last)
    gradient = np.sum([answer.gradient for answer in last], axis=0)
    information = np.sum([answer.information for answer in last], axis=0)
    covariance = np.linalg.inv(information)
    assert gradient @ covariance @ gradient < 1e-8
    places = {"zip_log_rate_ratio": 1, "zip_log_odds_ratio": 3, "zip_log_sigma": 4}
    assert [key[1] for key in rows] == list(places)[: size - 2]
    for (_, measure, _, term), row in rows.items():
        place = places[measure]
        assert_close(row.estimate, beta[place], 1e-4)
        assert_close(row.se, covariance[place, place] ** 0.5, 1e-4)
        assert (row.p_value is None) is (measure == "zip_log_sigma")
        assert (term, row.n, row.n_events) == ("index", 20, 17)
        assert_close(row.ci_high - row.ci_low, 2 * stats.norm.ppf(0.975) * row.se, 1e-9)


def test_patients_may_be_anywhere_but_together() -> None:
    whole, parts = pool(MIXED, {"a": site(VARIED)}), pool(MIXED, halves(VARIED))
    for key, row in whole.items():
        assert_same(parts[key], row, 1e-6)


# --- the start --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "index", "expected", "smallest"),
    [
        # Four with a zero beside a score, three with zeros alone, rounded to whole numbers.
        (
            [0, 3.4, 0.4, 7, 0, 0.5, 5, 0, 2],
            [2, 0, 0.3, 9.6, 0, 0, 1, 1.4, 0],
            (18, 10, 31),
            3,
        ),
        # One patient with zeros alone.
        ([0, 3, 4, 7, 0], [0, 0, 5, 0, 8], (10, 5, 27), 1),
        # No patient with one zero.
        ([0, 3, 4, 7, 0], [0, 6, 5, 1, 0], (10, 4, 26), 0),
    ],
)
def test_the_sums_to_start_from(
    reference: list[float], index: list[float], expected: tuple[float, ...], smallest: int
) -> None:
    exams = draw_exams(
        1, len(index), reference_score=np.array(reference), index_score=np.array(index)
    )
    found = estimator_for("x", plan((PLAIN,))).summarise(exams, Query(step="start"))
    assert found.values == (expected,)
    assert found.n_patients == len(index)
    pairs = np.column_stack([np.rint(reference), np.rint(index)])
    assert found.n_events == np.sum(pairs.any(axis=1))
    assert found.evidence.smallest_group == smallest


@pytest.mark.parametrize("spec", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_the_search_starts_at_the_moments_of_all_sites(spec: ZeroInflatedSpec) -> None:
    asked: list[Query] = []

    def keep(_: str, query: Query, answer: Any) -> Any:
        asked.append(query)
        return RefusalCode.BUDGET_SPENT if query.step == "newton" else answer

    pool(spec, halves(SMALL), change=keep)
    # Of forty scores twenty-six are positive; their sum is 94.
    assert (int(np.sum(SMALL)), np.count_nonzero(SMALL)) == (94, 26)
    start = (np.log(94 / 26), 0.0, np.log(14.5 / 26.5), 0.0)
    if spec.patient_effect:
        # A variance of 1 adds half of it to the log mean.
        start = (start[0] - 0.5, *start[1:], 0.0)
    assert [query.step for query in asked] == ["start"] * 2 + ["newton"] * 2
    np.testing.assert_allclose(asked[-1].values["beta"], start, rtol=1e-12)


def withheld(*sites: str) -> Any:
    def change(name: str, query: Query, answer: Any) -> Any:
        if query.step == "start" and name in sites:
            assert isinstance(answer, Totals)
            return answer.model_copy(update={"values": ((),)})
        return answer

    return change


def test_a_start_that_a_site_withholds() -> None:
    """The maximum is the same from wherever it is looked for; without any start there is none."""
    rows, whole = pool(PLAIN, halves(SMALL), change=withheld("a")), pool(PLAIN, halves(SMALL))
    for key, row in whole.items():
        assert_same(rows[key], row, 1e-5)
    none = pool(PLAIN, halves(SMALL), change=withheld("a", "b"))
    assert none.keys() == whole.keys()
    for row in none.values():
        assert (row.status, row.n, numbers(row)) == (RowStatus.SUPPRESSED, None, (None,) * 5)


def test_zeros_alone_have_no_mean() -> None:
    nothing: Pairs = ([0] * 8, [0] * 8)
    for spec, measures in ((PLAIN, 2), (MIXED, 3)):
        rows = pool(spec, {"a": site(nothing), "b": RefusalCode.TOO_FEW_PATIENTS})
        assert len(rows) == measures
        for (scope, _, _, term), row in rows.items():
            assert (scope, term, row.status) == ("pooled", "index", RowStatus.NOT_ESTIMABLE)
            assert (row.n, numbers(row)) == (None, (None,) * 5)


def test_a_site_that_refuses_is_named() -> None:
    refusals = {"b": RefusalCode.TOO_FEW_EVENTS, "c": RefusalCode.INTERNAL}
    rows = pool(PLAIN, {"a": site(SMALL), **refusals})
    alone = pool(PLAIN, {"a": site(SMALL)})
    for key, row in alone.items():
        assert_same(rows[key], row)
    others = {key: row.status.value for key, row in rows.items() if key not in alone}
    measure = ("zip_log_rate_ratio", "", "index")
    assert others == {("b", *measure): "suppressed", ("c", *measure): "error"}
    none = pool(PLAIN, refusals)
    assert {(key[0], row.status.value) for key, row in none.items()} == {("pooled", "suppressed")}

    def late(_: str, query: Query, answer: Any) -> Any:
        return RefusalCode.BUDGET_SPENT if query.step == "newton" else answer

    rows = pool(PLAIN, {"a": site(SMALL)}, change=late)
    assert {key[0] for key in rows} == {"a", "pooled"}
    assert {(row.status.value, row.n) for row in rows.values()} == {("suppressed", None)}


# --- what a site tells ------------------------------------------------------------------------


@pytest.mark.parametrize("n_nodes", [None, 1, 5])
def test_the_likelihood_of_a_site(n_nodes: int | None) -> None:
    at = np.array([1.1, 0.4, -0.9, 0.3, -0.2])
    spec = PLAIN
    if n_nodes is not None:
        spec = MIXED.model_copy(update={"n_nodes": n_nodes})
    else:
        at = at[:4]
    query = Query(step="newton", values={"beta": tuple(at.tolist())})
    found = estimator_for("x", plan((spec,))).summarise(site(VARIED), query)
    y = np.array(VARIED, dtype=float)
    eta, zeta = at[0] + at[1] * np.arange(2), at[2] + at[3] * np.arange(2)
    if n_nodes is None:
        pi, mu = special.expit(zeta)[:, None], np.exp(eta)[:, None]
        expected = np.log(pi * (y == 0) + (1 - pi) * stats.poisson.pmf(y, mu)).sum()
    else:
        # Patients one after the other, in another order of rows.
        design = np.column_stack([np.ones(40), np.repeat([0.0, 1.0], 20)])
        patient = np.tile(np.arange(20), 2)
        expected = zip_random_terms(y.ravel(), design, design, patient, at, n_nodes).log_likelihood
    assert_close(found.log_likelihood, expected, 1e-12)
    assert (found.n_patients, found.n_events) == (20, 17)
    assert (len(found.gradient), len(found.information)) == (len(at), len(at))
    assert found.evidence.n_parameters == len(at)
    # Columns of ones have no spread; those of the reader have one of 1/2.
    assert_close(found.evidence.parameter_norm, 0.4 / 2)
    assert found.evidence.smallest_group is None


@pytest.mark.parametrize("spec", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_what_a_site_does_not_answer(spec: ZeroInflatedSpec) -> None:
    estimator = estimator_for("x", plan((spec,)))
    size = 5 if spec.patient_effect else 4
    for query in (
        Query(step="counts"),
        Query(step="start", values={"beta": (0.0,)}),
        Query(step="newton"),
        Query(step="newton", values={"beta": (0.0,) * (size + 1)}),
        Query(step="newton", values={"beta": (0.0,) * (size - 1)}),
        Query(step="newton", values={"beta": (301.0, *(0.0,) * (size - 1))}),
    ):
        with pytest.raises(QueryError):
            estimator.summarise(site(SMALL), query)
