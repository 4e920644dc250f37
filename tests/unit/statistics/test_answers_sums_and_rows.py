"""What every analysis shares: answers sorted, sums, rows and their status, cohorts, sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close
from plans import SPECS, draw_exams, needed_models, plan
from scipy import stats

from fedcac.aggregate import BinnedCounts, Moments, Totals
from fedcac.exams import Exams
from fedcac.protocol import (
    AgreementSpec,
    CoxSpec,
    DescriptivesSpec,
    Pooling,
    Subgroup,
)
from fedcac.statistics import (
    PoolingSession,
    estimator_for,
    registered_estimators,
)
from fedcac.statistics.bland_altman import DifferenceMoments
from fedcac.statistics.calibration import CalibrationBins
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.statistics.estimator import Estimate, register_estimator
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.refit import refit
from fedcac.statistics.rows import (
    Value,
    absent_status,
    fit_status,
    two_sided_p,
    value_row,
    wald,
)
from fedcac.statistics.session import SUM_OF_SITES
from fedcac.statistics.sums import (
    answered,
    is_binned,
    is_long,
    is_table,
    missing_status,
    summed_totals,
    totals_status,
)
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

A, B, C = SiteName("a"), SiteName("b"), SiteName("c")
LOST = RefusalCode.NO_REPLY


# --- answers ----------------------------------------------------------------------------------


def totals(*rows: tuple[float, ...]) -> Totals:
    return CalibrationBins(n_patients=9, n_events=None, values=rows)


def moments(length: int) -> Moments:
    zeros = (0.0,) * length
    return DifferenceMoments(n_patients=9, n=(0,) * length, mean=zeros, m2=zeros)


def binned(*variables: tuple[tuple[int, ...], ...]) -> BinnedCounts:
    counts = tuple(tuple((1,) * len(row) for row in groups) for groups in variables)
    return CharacteristicCounts(n_patients=9, starts=variables, counts=counts)


def test_answers_are_sorted_by_what_they_are() -> None:
    good, wide, other = totals((1.0, 2.0)), totals((1.0, 2.0, 3.0)), moments(1)
    given = {C: good, A: wide, B: LOST, SiteName("d"): other}
    sites = (A, B, C, SiteName("d"))
    found, refused = answered(given, sites, CalibrationBins, is_table(1, 2))
    assert found == {C: good}
    assert refused == {A: RefusalCode.INTERNAL, B: LOST, SiteName("d"): RefusalCode.INTERNAL}
    assert list(refused) == [A, B, SiteName("d")]


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (totals((1.0, 2.0), (3.0, 4.0)), True),
        (totals((1.0, 2.0), ()), True),
        (totals((), ()), True),
        (totals((1.0,), (3.0,)), False),
        (totals((1.0, 2.0, 3.0), ()), False),
        (totals((1.0, 2.0)), False),
        (totals((1.0, 2.0), (3.0, 4.0), ()), False),
    ],
)
def test_tables_have_their_rows_and_columns(answer: Totals, is_right: bool) -> None:
    assert is_table(2, 2)(answer) is is_right


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (binned(((0, 1),), ((0, 2), (0,))), True),
        (binned(((),), ((), (0, 1, 2))), True),
        (binned(((0, 2),), ((0, 2), (0,))), False),
        (binned(((0, 1),), ((0, 2), (0, 3))), False),
        (binned(((0, 1),), ((0, 3), (0,))), False),
        (binned(((0, 1), (0,)), ((0, 2), (0,))), False),
        (binned(((0, 1),), ((0, 2),)), False),
        (binned(((0, 1),)), False),
        (binned(((0, 1),), ((0, 2), (0,)), ((0,),)), False),
    ],
)
def test_bins_are_on_the_grid_of_their_variable(answer: BinnedCounts, is_right: bool) -> None:
    """One group on two bins, then two groups on three."""
    assert is_binned([(1, 2), (2, 3)])(answer) is is_right


def test_moments_have_their_terms() -> None:
    assert [is_long(2)(moments(length)) for length in (1, 2, 3)] == [False, True, False]


def test_totals_are_added_over_all_sites_or_not_at_all() -> None:
    one, other = totals((1.0, 2.0), (3.0, 4.0)), totals((10.0, 20.0), (30.0, 40.0))
    found = summed_totals({A: one, B: other}, (A, B), CalibrationBins, (2, 2))
    np.testing.assert_array_equal(found, [[11, 22], [33, 44]])
    tall = totals((1.0,), (2.0,))
    alone = summed_totals({A: one, B: tall}, (B,), CalibrationBins, (2, 1))
    np.testing.assert_array_equal(alone, tall.values)
    for answers, sites, shape in (
        ({A: one, B: other}, (A, B), (2, 3)),
        ({A: one, B: totals((1.0, 2.0))}, (A, B), (2, 2)),
        ({A: one, B: totals((10.0, 20.0), ())}, (A, B), (2, 2)),
        ({A: one, B: LOST}, (A, B), (2, 2)),
        ({A: one, B: moments(2)}, (A, B), (2, 2)),
        ({}, (), (2, 2)),
    ):
        assert summed_totals(answers, sites, CalibrationBins, shape) is None


def test_replicates_without_a_row_of_one_site_end_in_a_status() -> None:
    """A withheld row is empty: a fault at the site, not an error for all."""
    running = refit(np.zeros((2, 1)), np.eye(1), (A, B), CalibrationBins)
    next(running)
    with pytest.raises(StopIteration) as end:
        running.send({A: totals((1.0,), (2.0,)), B: totals((1.0,), ())})
    assert end.value.value is RowStatus.ERROR


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ({}, RowStatus.NOT_ESTIMABLE),
        ({A: totals((1.0,))}, RowStatus.ERROR),
        ({A: totals((1.0,)), B: RefusalCode.TOO_FEW_EVENTS}, RowStatus.SUPPRESSED),
        ({A: totals((1.0,)), B: RefusalCode.EMPTY_COHORT}, RowStatus.NOT_APPLICABLE),
        ({A: moments(1)}, RowStatus.ERROR),
        ({A: RefusalCode.EMPTY_COHORT, B: RefusalCode.EMPTY_COHORT}, RowStatus.NOT_APPLICABLE),
    ],
)
def test_why_there_is_no_sum(answers: dict[SiteName, Any], status: RowStatus) -> None:
    assert totals_status(answers, tuple(answers), CalibrationBins) is status


# --- rows -------------------------------------------------------------------------------------


def test_the_status_of_no_site_is_the_gravest() -> None:
    ok = [RowStatus.SUPPRESSED, RowStatus.ERROR, RowStatus.NOT_ESTIMABLE, RowStatus.NOT_APPLICABLE]
    for place, status in enumerate(ok):
        assert absent_status(reversed(ok[place:])) is status
    assert absent_status([]) is RowStatus.NOT_ESTIMABLE
    assert missing_status([]) is RowStatus.NOT_ESTIMABLE
    assert missing_status([LOST, RefusalCode.NESTED_COHORT]) is RowStatus.SUPPRESSED
    assert missing_status([LOST, RefusalCode.EMPTY_COHORT]) is RowStatus.ERROR


def fit(status: FitStatus, **refused: RefusalCode) -> Fit:
    return Fit(
        status=status,
        parameters=np.array([0.5, np.nan, -2.0]),
        standard_errors=np.array([0.1, np.nan, 0.2]),
        covariance=np.diag([0.01, 0.0, 0.04]),
        identified=np.array([True, False, True]),
        log_likelihood=-3.0,
        null_log_likelihood=-4.0,
        n_patients=50,
        n_events=9,
        sites=(A,),
        refused={SiteName(name): code for name, code in refused.items()},
        n_exchanges=4,
    )


def test_what_a_fit_says_of_itself() -> None:
    found = fit(FitStatus.OK)
    assert found.is_ok
    np.testing.assert_array_equal(found.coefficients, [0.5, 0.0, -2.0])
    assert found.degrees_of_freedom == 2
    expected = {
        FitStatus.OK: RowStatus.OK,
        FitStatus.NOT_IDENTIFIED: RowStatus.NOT_ESTIMABLE,
        FitStatus.UNBOUNDED: RowStatus.NOT_ESTIMABLE,
        FitStatus.NOT_CONVERGED: RowStatus.ERROR,
        FitStatus.OUT_OF_BOUNDS: RowStatus.SUPPRESSED,
        FitStatus.NO_ANSWER: RowStatus.NOT_APPLICABLE,
    }
    for status, row in expected.items():
        own = fit(status, b=RefusalCode.EMPTY_COHORT)
        assert (own.is_ok, fit_status(own)) == (status is FitStatus.OK, row)


def test_an_interval_and_a_test_need_a_standard_error() -> None:
    z = stats.norm.ppf(0.975)
    found = wald(0.3, 0.2)
    assert (found.estimate, found.se, found.ci_method, found.p_value) == (0.3, 0.2, "wald", None)
    assert_close(found.ci_low, 0.3 - 0.2 * z, 1e-12)
    assert_close(found.ci_high, 0.3 + 0.2 * z, 1e-12)
    cut = wald(0.3, 0.2, low=0.0, high=0.5, method="other", is_tested=True)
    assert (cut.ci_low, cut.ci_high, cut.ci_method) == (0.0, 0.5, "other")
    assert_close(cut.p_value, 2 * stats.norm.sf(1.5), 1e-12)
    for se in (None, 0.0, -0.1):
        assert wald(0.3, se, is_tested=True) == Value(0.3)
    for se, p in ((0.5, 2 * stats.norm.sf(2)), (2.0, 2 * stats.norm.sf(0.5))):
        assert_close(two_sided_p(-1.0, se), p, 1e-12)
        assert_close(two_sided_p(1.0, se), p, 1e-12)
    assert two_sided_p(1.0, 0.0) is None
    assert two_sided_p(1.0, -1.0) is None


def test_a_row_holds_what_it_was_given() -> None:
    names: dict[str, Any] = {"group": "g", "term": "t", "n": 9, "n_events": 4}
    value = Value(1.0, 2.0, 3.0, 4.0, "how", 0.5)
    found = value_row("x", "pooled", Measure.BIAS, value, **names)
    assert found == Estimate(
        "x", "pooled", Measure.BIAS, "g", "t", 1.0, 2.0, 3.0, 4.0, "how", 0.5, 9, 4, RowStatus.OK
    )
    none = value_row("x", "pooled", Measure.BIAS, None, absent=RowStatus.SUPPRESSED, **names)
    assert none == Estimate(
        "x", "pooled", Measure.BIAS, "g", "t", n=9, n_events=4, status=RowStatus.SUPPRESSED
    )
    plain = value_row("x", "a", Measure.BIAS, None)
    assert plain == Estimate("x", "a", Measure.BIAS, status=RowStatus.NOT_ESTIMABLE)


# --- cohorts ----------------------------------------------------------------------------------

SUBGROUPS = (
    Subgroup(name="women", covariate="sex", levels=("1",), description="Women."),
    Subgroup(name="men", covariate="sex", levels=("0",), description="Men."),
    Subgroup(name="two", covariate="vendor", levels=("a", "c"), description="Two vendors."),
    Subgroup(name="old", covariate="age", minimum=65, description="65 or older."),
    Subgroup(name="young", covariate="age", below=50, description="Below 50."),
    Subgroup(name="middle", covariate="age", minimum=50, below=65, description="50 to 64."),
)


def chosen(spec: Any, exams: Exams) -> list[str]:
    protocol = plan((spec,), subgroups=SUBGROUPS)
    return [key.removeprefix("k") for key in estimator_for("x", protocol).cohort(exams).keys]


@pytest.mark.parametrize(
    ("subgroup", "expected"),
    [
        (None, "0123456"),
        ("women", "135"),
        ("men", "0246"),
        ("two", "01346"),
        ("old", "56"),
        ("young", "01"),
        ("middle", "234"),
    ],
)
def test_who_is_in_a_subgroup(subgroup: str | None, expected: str) -> None:
    exams = draw_exams(
        1,
        7,
        age=np.array([40, 49.9, 50, 60, 64.9, 65, 80]),
        sex=np.array([0.0, 1, 0, 1, 0, 1, 0]),
        vendor=np.array([0.0, 2, 1, 0, 2, 1, 0]),
    )
    assert chosen(AgreementSpec(id="x", kind="agreement", subgroup=subgroup), exams) == [*expected]


@pytest.mark.parametrize(
    ("endpoint", "expected", "times"),
    [
        ("mace", "123456", [30, 90, 91, 200, 400, 0]),
        # Followed for more than 90 days, and time counts from there.
        ("late_mace", "345", [1, 110, 310]),
        # Treated early: 2 and 4.
        ("kept_mace", "1356", [30, 91, 400, 0]),
    ],
)
def test_who_is_followed_for_an_endpoint(endpoint: str, expected: str, times: list[float]) -> None:
    exams = draw_exams(
        1,
        7,
        follow_up_days=np.array([500.0, 30, 90, 91, 200, 400, 0]),
        early=np.array([0.0, 0, 1, 0, 1, 0, 0]),
        age=np.array([np.nan, 50, 50, 50, 50, 50, 50]),
    )
    spec = CoxSpec(id="x", kind="cox", endpoint=endpoint, covariates=("age",))
    assert chosen(spec, exams) == [*expected]
    cohort = estimator_for("x", plan((spec,))).cohort(exams)
    assert cohort.column("follow_up_days").tolist() == times


def test_an_analysis_needs_its_columns_alone() -> None:
    needed = set(estimator_for("x", plan((SPECS["kaplan_meier"],))).columns)
    assert needed == {"follow_up_days", "event", "vendor"}
    # A gap in a covariate that is described is part of the description.
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("age",), by="sex")
    assert estimator_for("x", plan((spec,))).columns == ("sex",)


# --- the registry and the session -------------------------------------------------------------


def test_a_kind_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = registered_estimators()
    assert kinds.keys() == SPECS.keys()
    taken = type(estimator_for("x", plan((SPECS["agreement"],))))
    with pytest.raises(ValueError, match="'agreement' is taken"):
        register_estimator(taken)
    kinds.clear()
    assert registered_estimators().keys() == SPECS.keys()
    monkeypatch.setattr("fedcac.statistics.estimator._REGISTRY", {})
    assert register_estimator(taken) is taken
    assert registered_estimators() == {"agreement": taken}


def test_an_analysis_is_found_by_its_name() -> None:
    others = SPECS["agreement"].model_copy(update={"id": "y"})
    protocol = plan((SPECS["accuracy"], others))
    assert estimator_for("x", protocol).kind == "accuracy"
    assert estimator_for("y", protocol).kind == "agreement"
    with pytest.raises(KeyError):
        estimator_for("z", protocol)


def drive(session: PoolingSession, protocol: Any, sites: dict[SiteName, Exams]) -> list[set[str]]:
    """Answer till the end; return which analyses asked in each exchange."""
    asked = []
    for _ in range(40):
        if session.is_finished:
            return asked
        queries = session.queries
        asked.append(set(queries))
        session.answer(
            {
                site: {
                    name: estimator_for(name, protocol).summarise(exams, query)
                    for name, query in queries.items()
                }
                for site, exams in sites.items()
            }
        )
    raise AssertionError(asked)


def test_an_analysis_waits_for_the_fits_it_builds_on() -> None:
    spec = SPECS["reclassification"].model_copy(update={"replicates": 2})
    parts = (
        spec,
        *needed_models(spec).values(),
        SPECS["kaplan_meier"].model_copy(update={"id": "y"}),
    )
    protocol = plan(parts)
    session = PoolingSession(protocol, [A])
    assert not session.is_finished
    assert session.estimates() == ()
    # What is asked cannot be changed from outside.
    session.queries.clear()
    assert session.queries
    asked = drive(session, protocol, {A: draw_exams(1, 60)})
    assert asked[0] == {"base", "full", "y"}
    first = next(place for place, names in enumerate(asked) if "x" in names)
    assert not {"base", "full"} & set().union(*asked[first:])
    order = list(dict.fromkeys(row.analysis for row in session.estimates()))
    assert order == ["x", "base", "full", "y"]


@pytest.mark.parametrize("kind", ["accuracy", "agreement", "bland_altman"])
def test_of_sums_over_sites_there_are_pooled_rows_alone(kind: str) -> None:
    protocol = plan((SPECS[kind],), pooling=Pooling(mode="masked", least_sites=3))
    session = PoolingSession(protocol, [A, B, C])
    exams = draw_exams(1, 40)
    drive(session, protocol, {SUM_OF_SITES: exams})
    masked = session.estimates()
    assert {row.scope for row in masked} == {"pooled"}
    # The same rows, with others, from one site that is named.
    open_session = PoolingSession(plan((SPECS[kind],)), [A])
    drive(open_session, plan((SPECS[kind],)), {A: exams})
    rows = open_session.estimates()
    assert masked == tuple(row for row in rows if row.scope == "pooled")
    assert len(rows) > len(masked)
    assert not any(row.group.startswith("without") for row in masked)
