"""Questions an analysis does not ask, and answers that do not fit a question: faults at a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from plans import SPECS, draw_exams, needed_models, plan

from fedcac.aggregate import (
    Aggregate,
    BinnedCounts,
    CrossTable,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.statistics import (
    Estimate,
    PoolingSession,
    QueryError,
    SiteAnswers,
    estimator_for,
    registered_estimators,
)
from fedcac.statistics.sums import summed_totals, totals_status
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus, SiteName

Change = Callable[[Any], Any]
Rows = Mapping[tuple[Any, ...], Estimate]

KINDS = sorted(SPECS)
WRONG, RIGHT = SiteName("wrong"), SiteName("right")


def pool(kind: str, change: Change, sites: tuple[SiteName, ...]) -> Rows:
    """Return the rows of a kind where one site's answers are changed."""
    protocol = plan((*needed_models(SPECS[kind]).values(), SPECS[kind]))
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
    exams = {site: draw_exams(number, 110, site) for number, site in enumerate(sites)}
    session = PoolingSession(protocol, sites)

    def answer(site: SiteName, name: str, query: Query) -> Any:
        own = estimators[name].summarise(exams[site], query)
        return change(own) if (site, name) == (WRONG, "x") else own

    while not session.is_finished:
        queries = session.queries
        answers: SiteAnswers = {
            site: {name: answer(site, name, query) for name, query in queries.items()}
            for site in sites
        }
        session.answer(answers)
    rows = [row for row in session.estimates() if row.analysis == "x"]
    return {(row.scope, row.measure, row.group, row.term): row for row in rows}


def cut(aggregate: Aggregate, *names: str) -> Aggregate:
    """Return an aggregate whose lists lack their last entry, or repeat it if it is the only one."""
    return aggregate.model_copy(
        update={
            name: getattr(aggregate, name)[:-1] or getattr(aggregate, name) * 2 for name in names
        }
    )


def shorter(answer: Any) -> Aggregate:
    """Return an answer of the same kind about fewer things."""
    match answer:
        case Totals():
            return cut(answer, "values")
        case Moments():
            return cut(answer, "n", "mean", "m2")
        case PairedMoments():
            return cut(answer, "n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")
        case BinnedCounts():
            return cut(answer, "starts", "counts")
        case SurvivalTable():
            return cut(answer, "edges", "at_risk", "events", "censored")
        case CrossTable():
            matrix = tuple(row[:-1] for row in answer.matrix[:-1])
            return cut(answer, "two_by_two").model_copy(update={"matrix": matrix})
        case LikelihoodTerms():
            size = len(answer.gradient) + 1
            update = {"gradient": (0.0,) * size, "information": ((0.0,) * size,) * size}
            return answer.model_copy(update=update)
    raise AssertionError(answer)


def narrower(answer: Any) -> Aggregate:
    """Return an answer of the same kind with shorter rows, or beyond the public grid."""
    match answer:
        case Totals():
            return answer.model_copy(update={"values": tuple(row[:-1] for row in answer.values)})
        case BinnedCounts():
            far = tuple(
                tuple((*row[:-1], row[-1] + 500) for row in groups) for groups in answer.starts
            )
            return answer.model_copy(update={"starts": far})
        case SurvivalTable():
            far = tuple((*row[:-1], row[-1] + 500) for row in answer.edges)
            return answer.model_copy(update={"edges": far})
    return shorter(answer)


def fewer_groups(answer: Any) -> Aggregate:
    if isinstance(answer, BinnedCounts):
        starts, counts = (
            tuple(groups[:-1] or groups * 2 for groups in part)
            for part in (answer.starts, answer.counts)
        )
        return answer.model_copy(update={"starts": starts, "counts": counts})
    return narrower(answer)


def of_another_kind(answer: Any) -> Aggregate:
    """Return what no analysis asks for here."""
    protocol = plan((SPECS["correlation"], SPECS["accuracy"].model_copy(update={"id": "y"})))
    is_cross = isinstance(answer, CrossTable)
    name, step = ("x", "moments") if is_cross else ("y", "counts")
    return estimator_for(name, protocol).summarise(draw_exams(1, 40), Query(step=step))


@pytest.mark.parametrize("sites", [(RIGHT, WRONG), (WRONG,)], ids=["one_of_two", "alone"])
@pytest.mark.parametrize("how", [shorter, narrower, fewer_groups, of_another_kind])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_does_not_fit_is_a_fault_at_its_site(
    kind: str, how: Change, sites: tuple[SiteName, ...]
) -> None:
    """It neither ends the pooling for everybody nor enters a number."""
    expected = pool(kind, lambda _: RefusalCode.INTERNAL, sites)
    assert pool(kind, how, sites) == expected
    if len(sites) == 1:
        # The likelihood ratio of two models is that of their fits.
        pooled = [row for row in expected.values() if row.measure.value != "lr_chi2_increase"]
        assert {row.status for row in pooled if row.scope == "pooled"} == {RowStatus.ERROR}


@pytest.mark.parametrize("kind", sorted(registered_estimators()))
def test_a_question_that_an_analysis_does_not_ask_is_an_error(kind: str) -> None:
    protocol = plan((*needed_models(SPECS[kind]).values(), SPECS[kind]))
    estimator, exams = estimator_for("x", protocol), draw_exams(1, 60)
    asked = next(estimator.pool([SiteName("a")])) if kind != "reclassification" else None
    for query in (
        Query(step="everything"),
        Query(step="everything", values={"beta": (0.0,) * 4}),
        *([] if asked is None else [asked.model_copy(update={"values": {"other": (1.0,)}})]),
    ):
        with pytest.raises(QueryError):
            estimator.summarise(exams, query)


@pytest.mark.parametrize("kind", ["cox", "fusion", "zero_inflated", "survival_calibration"])
def test_parameters_that_lead_beyond_what_can_be_computed_are_an_error(kind: str) -> None:
    estimator = estimator_for("x", plan((SPECS[kind],)))
    exams = draw_exams(1, 60)
    size = {"cox": 2, "fusion": 4, "zero_inflated": 4, "survival_calibration": 1}[kind]
    for beta in ((1e308,) * size, (0.0,) * (size + 1), (0.0,) * (size - 1)):
        if kind == "fusion" and len(beta) == size:
            # A probability of 0 or 1 can be computed.
            continue
        with pytest.raises(QueryError):
            estimator.summarise(exams, Query(step="newton", values={"beta": beta}))


# --- what a gate withheld -------------------------------------------------------------------


def without_one_cell(answer: Any, name: str) -> Any:
    first = (CellStatus.SUPPRESSED, *getattr(answer, name)[1:])
    return answer.model_copy(update={name: first})


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("bland_altman", ("n", "mean", "m2")),
        ("correlation", ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")),
        ("distribution", ("n", "mean", "m2")),
        ("descriptives", ("n", "mean", "m2")),
    ],
)
def test_one_withheld_moment_withholds_the_site(kind: str, names: tuple[str, ...]) -> None:
    measures = {
        "bland_altman": ("bias", "loa_low", "loa_high"),
        "correlation": ("pearson_r", "ccc"),
        "distribution": ("mean_difference",),
        "descriptives": ("mean", "sd"),
    }[kind]
    alone = pool(kind, lambda answer: answer, (RIGHT,))

    def first(rows: Rows, scope: str, measure: str) -> Estimate:
        return next(
            row for row in rows.values() if (row.scope, row.measure.value) == (scope, measure)
        )

    for name in names:

        def withhold(answer: Any, name: str = name) -> Any:
            return without_one_cell(answer, name) if hasattr(answer, name) else answer

        rows, hidden = pool(kind, withhold, (RIGHT, WRONG)), pool(kind, withhold, (WRONG,))
        for measure in measures:
            row, expected = first(rows, "pooled", measure), first(alone, "pooled", measure)
            assert (row.estimate, row.n) == (expected.estimate, expected.n)
            row = first(hidden, "pooled", measure)
            assert (row.status, row.estimate, row.n) == (RowStatus.SUPPRESSED, None, None)
            if kind in ("bland_altman", "correlation"):
                assert first(rows, WRONG, measure).status is RowStatus.SUPPRESSED


@pytest.mark.parametrize("kind", ["accuracy", "bland_altman", "correlation", "distribution"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_patients_leave_no_number_that_is_not_finite(kind: str, n: int) -> None:
    """Under a policy without a minimum a site of nobody may answer."""
    protocol = plan((SPECS[kind],))
    estimator = estimator_for("x", protocol)
    session = PoolingSession(protocol, [RIGHT])
    exams: Exams = draw_exams(1, 3).where(np.arange(3) < n)
    while not session.is_finished:
        session.answer({RIGHT: {"x": estimator.summarise(exams, session.queries["x"])}})
    for row in session.estimates():
        for number in (row.estimate, row.se, row.ci_low, row.ci_high, row.p_value):
            assert number is None or np.isfinite(number), row
        assert (row.estimate is None) is (row.status is not RowStatus.OK)


# --- sums at a maximum ----------------------------------------------------------------------


def totals(*rows: tuple[float, ...]) -> Any:
    sample = estimator_for("x", plan((SPECS["survival_calibration"],)))
    answer = sample.summarise(draw_exams(1, 60), Query(step="bins"))
    return answer.model_copy(update={"values": rows})


def test_sums_are_whole_or_none() -> None:
    one, other = totals((1.0, 2.0), (3.0, 4.0)), totals((10.0, 20.0), (30.0, 40.0))
    kind, a, b = type(one), SiteName("a"), SiteName("b")
    total = summed_totals({a: one, b: other}, (a, b), kind, (2, 2))
    np.testing.assert_array_equal(total, [[11, 22], [33, 44]])
    assert summed_totals({a: one, b: other}, (a, b), kind, (2, 3)) is None
    assert summed_totals({a: one, b: RefusalCode.NO_REPLY}, (a, b), kind, (2, 2)) is None
    assert summed_totals({}, (), kind, (2, 2)) is None
    assert totals_status({a: one, b: RefusalCode.BUDGET_SPENT}, (a, b), kind) is (
        RowStatus.SUPPRESSED
    )
    assert totals_status({a: one, b: other}, (a, b), kind) is RowStatus.ERROR
    assert totals_status({}, (), kind) is RowStatus.NOT_ESTIMABLE
