"""What a site answers to a reclassification: its sums and what the gate is told, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plans import BASE, FULL, draw_exams, plan

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CoxSpec, ReclassificationSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.net_reclassification import directions, reclassified
from fedcac.statistics.refit import table_query
from fedcac.vocabulary import ReclassificationType, Resampling, RiskEstimator

Vector = NDArray[np.float64]


def spec_of(**changes: Any) -> ReclassificationSpec:
    values = {"id": "x", "kind": "reclassification", "base": "base", "full": "full"}
    return ReclassificationSpec(
        **{**values, "horizon_days": 700, "uncertainty": Resampling.NONE, **changes}
    )


def estimator(spec: ReclassificationSpec | None = None, pair: Any = (BASE, FULL)) -> Any:
    return estimator_for("x", plan((*pair, spec or spec_of())))


EXAMS = draw_exams(7, 83)
BETA = np.array([0.21, -0.43, 0.13, -0.29, 0.22])


def test_what_the_gate_is_told_of_replicates() -> None:
    spread = EXAMS.column("age").std() / 10, EXAMS.column("sex").std()
    for method, smallest in ((Resampling.JACKKNIFE, 83 // 5), (Resampling.BOOTSTRAP, 83)):
        of = estimator(spec_of(uncertainty=method, replicates=5))
        # The largest coefficient of all replicates, in standard deviations.
        table = np.tile(BETA, (5, 1))
        table[2, 1] = -7.0
        for step, width in (("refit", 5), ("measures", 12)):
            found = of.summarise(EXAMS, table_query(step, table))
            assert np.array(found.values).shape == (5, width)
            assert found.evidence.smallest_group == smallest
            assert found.evidence.parameter_norm == pytest.approx(max(7 * spread[1], spread[0]))
            assert (found.n_patients, found.n_events) == (83, EXAMS.column("event").sum())


def test_pairs_and_patients_behind_the_measures() -> None:
    of = estimator(spec_of(estimator=RiskEstimator.BINARY))
    found = of.summarise(EXAMS, table_query("measures", BETA[None, :]))
    event, time = EXAMS.column("event") == 1, EXAMS.column("follow_up_days")
    shared = [EXAMS.column("age") / 10, EXAMS.column("sex")]
    designs = shared, [*shared, np.log1p(EXAMS.column("index_score"))]
    is_auc = event[:, None] & ~event
    is_later = (time > time[:, None]) | ((time == time[:, None]) & ~event)
    is_c = event[:, None] & is_later
    ordered = []
    for design, beta in zip(designs, (BETA[:2], BETA[2:]), strict=True):
        risk = (np.column_stack(design) * beta).sum(axis=1)
        right = (risk[:, None] > risk) + (risk[:, None] == risk) / 2
        ordered.append(((right * is_auc).sum(), (right * is_c).sum()))
    (auc0, c0), (auc1, c1) = ordered
    wanted = auc0, auc1, is_auc.sum(), c0, c1, is_c.sum()
    assert found.values[0][6:] == pytest.approx(wanted)
    assert found.values[0][0] == event.sum()
    # Who moves up or down, with and without the event: all of them, or those who stay are none.
    up, down = found.values[0][1:6:3], found.values[0][2:6:3]
    assert found.evidence.smallest_group == min(*up, *down)
    assert sum((*up, *down)) == 83


def test_a_step_that_reclassification_does_not_ask() -> None:
    query = Query(step="other", values={"beta": tuple(BETA.tolist())})
    with pytest.raises(QueryError, match="refit"):
        estimator().summarise(EXAMS, query)


@pytest.mark.parametrize("size", [1e5, 1e308])
@pytest.mark.parametrize("step", ["refit", "measures"])
def test_parameters_beyond_what_can_be_computed_are_a_fault_of_the_query(
    step: str, size: float
) -> None:
    """Linear predictors that are not finite, or beside which a risk set weighs nothing."""
    of = estimator(spec_of(uncertainty=Resampling.BOOTSTRAP, replicates=5))
    query = table_query(step, np.tile(np.array([size, -size, size, -size, size]), (5, 1)))
    if (step, size) == ("refit", 1e5):
        # Gradients are taken relative to each risk set.
        assert np.isfinite(of.summarise(EXAMS, query).values).all()
        return
    with pytest.raises(QueryError):
        of.summarise(EXAMS, query)


def summed(exams: Exams, beta: Vector, pair: Any = (BASE, FULL)) -> tuple[float, ...]:
    sums: tuple[float, ...] = (
        estimator(spec_of(type=ReclassificationType.DIFFERENCE, delta=0.01), pair)
        .summarise(exams, table_query("measures", beta[None, :]))
        .values[0]
    )
    return sums


def test_where_a_covariate_has_its_zero_changes_no_risk() -> None:
    """Ages counted from 40,000 years ago: predictors of about 1000."""
    later = EXAMS.with_column("age", EXAMS.column("age") + 40_000)
    np.testing.assert_allclose(summed(later, BETA), summed(EXAMS, BETA), rtol=1e-9)


@pytest.mark.parametrize("spread", [10.0, 300.0, 480.0])
def test_whose_hazard_is_beyond_all_others_has_the_event_for_sure(spread: float) -> None:
    """The models tell men from women and women from men by a factor of e^spread."""
    pair = tuple(
        CoxSpec(id=name, kind="cox", endpoint="mace", covariates=("sex",))
        for name in ("base", "full")
    )
    columns = {"follow_up_days": 100.0 + np.arange(40), "event": np.ones(40)}
    exams = draw_exams(1, 40, sex=(np.arange(40) % 10 == 5).astype(float), **columns)
    sums = summed(exams, np.array([spread, -spread]), pair)
    # All have the event by the horizon. Base: the four women first; full: the men.
    assert sums[:6] == pytest.approx((40, 36, 4, 0, 0, 0))
    # Four women who outlive the horizon and all men: high risks then none, and the men's reverse.
    days = np.where(np.arange(40) < 36, 100.0, 900.0) + np.arange(40)
    columns = {"follow_up_days": days, "event": (days < 700).astype(float)}
    exams = draw_exams(1, 40, sex=(days > 700).astype(float), **columns)
    sums = summed(exams, np.array([spread, -spread]), pair)
    assert sums[:6] == pytest.approx((36, 36, 0, 4, 0, 4))


def test_hazards_too_far_apart_for_any_number_overflow_nothing() -> None:
    pair = tuple(
        CoxSpec(id=name, kind="cox", endpoint="mace", covariates=("sex",))
        for name in ("base", "full")
    )
    days = np.where(np.arange(40) < 36, 100.0, 900.0) + np.arange(40)
    columns = {"follow_up_days": days, "event": (days < 700).astype(float)}
    exams = draw_exams(1, 40, sex=(days > 700).astype(float), **columns)
    assert np.isfinite(summed(exams, np.array([1000.0, 300.0]), pair)).all()


def test_whoever_has_the_event_at_any_time_counts_in_the_binary_estimator() -> None:
    old, new = np.full(6, 0.5), np.array([0.6, 0.7, 0.6, 0.4, 0.3, 0.4])
    time = np.array([800.0, 900.0, 100.0, 800.0, 100.0, 100.0])
    event = np.array([True, True, False, True, False, False])
    found = reclassified(old, new, time, event, spec_of(estimator=RiskEstimator.BINARY))
    assert found.numbers() == (3, 2, 1, 3, 1, 2)
    assert found.smallest_group == 1
    # By the horizon nobody had it; on its day all three of them.
    km = spec_of(estimator=RiskEstimator.KM)
    assert reclassified(old, new, time, event, km).smallest_group == 0
    assert reclassified(old, new, np.minimum(time, 700), event, km).smallest_group == 1


def test_risks_alike_but_for_rounding_move_nobody_whatever_the_type() -> None:
    old, new = np.array([0.2, 0.2, 0.2]), np.array([0.2 + 5e-13, 0.2 - 5e-13, 0.2 + 2e-12])
    for kind in (ReclassificationType.CATEGORY_FREE, ReclassificationType.DIFFERENCE):
        changes = {"delta": 1e-13} if kind is ReclassificationType.DIFFERENCE else {}
        assert directions(old, new, spec_of(type=kind, **changes)).tolist() == [0, 0, 1]
    # A risk on a cut belongs to the category above it.
    cut = spec_of(type=ReclassificationType.CATEGORICAL, cuts=(0.2, 0.35))
    old, new = np.array([0.2, 0.19, 0.34, 0.9]), np.array([0.19, 0.2, 0.35, 0.35])
    assert directions(old, new, cut).tolist() == [-1, 1, 1, 0]
    # A least difference belongs to its type alone.
    risks = np.array([0.2, 0.2]), np.array([0.25, 0.35])
    assert directions(*risks, spec_of(delta=0.1)).tolist() == [1, 1]
    spec = spec_of(type=ReclassificationType.DIFFERENCE, delta=0.1)
    assert directions(*risks, spec).tolist() == [0, 1]


def test_an_event_at_a_censorings_day_weighs_as_before_it() -> None:
    """Of four one is censored on day 50, when one has the event; then two are left."""
    time = np.array([50.0, 50.0, 80.0, 900.0])
    event = np.array([True, False, True, False])
    old, new = np.full(4, 0.5), np.array([0.6, 0.6, 0.4, 0.4])
    found = reclassified(old, new, time, event, spec_of(estimator=RiskEstimator.IPW))
    # Whoever has the event is at risk of being censored: three quarters are left behind the day.
    assert found.numbers() == pytest.approx((1 + 4 / 3, 1, 4 / 3, 4 / 3, 0, 4 / 3))
