"""Searches for a maximum, what carries them, and columns that hold what they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import BASE, FULL, SPECS, draw_exams, plan

from fedcac.aggregate import BinnedCounts, SurvivalTable
from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import AucSpec, ComparisonSpec, CoxSpec, DescriptivesSpec
from fedcac.statistics import PoolingSession, QueryError, estimator_for, register_estimator
from fedcac.statistics.accuracy import Accuracy
from fedcac.statistics.concordance import (
    Concordance,
    concordance,
    concordant_pairs,
    count_smaller_before,
)
from fedcac.statistics.cox import CoxTerms, survival_data
from fedcac.statistics.design import design_evidence
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.newton import maximise
from fedcac.statistics.risk_sets import score_residuals
from fedcac.statistics.rows import Value, two_sided_p, wald
from fedcac.vocabulary import (
    CellStatus,
    RefusalCode,
    RowStatus,
    ScoreRole,
    SiteName,
    TieMethod,
)

Vector = NDArray[np.float64]
SITE = SiteName("s")


# --- searches ---------------------------------------------------------------------------------


def terms(value: float, gradient: Vector, information: Vector) -> CoxTerms:
    return CoxTerms(
        n_patients=50,
        n_events=9,
        log_likelihood=value,
        gradient=tuple(gradient.tolist()),
        information=tuple(tuple(row) for row in information.tolist()),
    )


def search(of: Any, start: Vector, *, is_concave: bool) -> Fit:
    """Maximise a function that returns value, gradient and information."""
    running = maximise((SITE,), len(start), CoxTerms, start=start, is_concave=is_concave)
    query = next(running)
    while True:
        try:
            query = running.send({SITE: terms(*of(np.array(query.values["beta"])))})
        except StopIteration as stop:
            return stop.value


def two_hills(beta: Vector) -> tuple[float, Vector, Vector]:
    """-(b^2 - 1)^2 - 2 c^2: maxima at b = -1 and 1, a saddle between them."""
    b, c = beta
    value = -((b**2 - 1) ** 2) - 2 * c**2
    return value, np.array([-4 * b * (b**2 - 1), -4 * c]), np.diag([12 * b**2 - 4, 4.0])


@pytest.mark.parametrize(("start", "top"), [(0.1, 1.0), (-0.3, -1.0), (3.0, 1.0), (1.0, 1.0)])
def test_between_two_hills_the_search_climbs_the_nearer_one(start: float, top: float) -> None:
    fit = search(two_hills, np.array([start, 0.7]), is_concave=False)
    assert fit.status is FitStatus.OK
    np.testing.assert_allclose(fit.parameters, [top, 0.0], atol=1e-8)
    np.testing.assert_allclose(fit.standard_errors, [8**-0.5, 0.5])
    np.testing.assert_allclose(fit.covariance, np.diag([1 / 8, 1 / 4]), atol=1e-9)
    assert fit.log_likelihood == pytest.approx(0, abs=1e-12)
    assert fit.null_log_likelihood == pytest.approx(two_hills(np.array([start, 0.7]))[0])


def test_a_saddle_is_no_maximum() -> None:
    fit = search(two_hills, np.zeros(2), is_concave=False)
    assert fit.status is FitStatus.NOT_IDENTIFIED
    assert np.isnan(fit.parameters).all()
    assert not fit.identified.any()


@pytest.mark.parametrize("is_concave", [True, False])
def test_a_flat_likelihood_identifies_nothing(is_concave: bool) -> None:
    fit = search(lambda _: (0.0, np.zeros(2), np.zeros((2, 2))), np.zeros(2), is_concave=is_concave)
    assert fit.status is FitStatus.NOT_IDENTIFIED


def test_information_that_vanishes_on_the_way_ends_the_search() -> None:
    """At the start all is well; one step on, the second parameter has lost its information."""

    def fading(beta: Vector) -> tuple[float, Vector, Vector]:
        is_start = bool(np.all(beta == 0))
        return float(beta.sum()), np.ones(2), np.diag([1.0, 1.0 if is_start else 0.0])

    assert search(fading, np.zeros(2), is_concave=True).status is FitStatus.NOT_IDENTIFIED

    def tilting(beta: Vector) -> tuple[float, Vector, Vector]:
        off = 0.0 if np.all(beta == 0) else 2.0
        return float(beta.sum()), np.ones(2), np.array([[1.0, off], [off, 1.0]])

    assert search(tilting, np.zeros(2), is_concave=True).status is FitStatus.NOT_IDENTIFIED


def test_units_do_not_decide_what_is_identified() -> None:
    scale = np.array([1e-7, 1e6])

    def hill(beta: Vector) -> tuple[float, Vector, Vector]:
        away = beta * scale - 1
        return float(-(away @ away) / 2), -away * scale, np.diag(scale**2)

    fit = search(hill, np.zeros(2), is_concave=True)
    assert fit.identified.all()
    np.testing.assert_allclose(fit.parameters * scale, [1, 1])
    np.testing.assert_allclose(fit.standard_errors * scale, [1, 1])


# --- columns that hold what they cannot -------------------------------------------------------


def test_an_event_that_is_neither_0_nor_1() -> None:
    exams = draw_exams(1, 40)
    event = exams.column("event").copy()
    event[3] = 2.0
    estimator = estimator_for("x", plan((SPECS["cox"],)))
    with pytest.raises(TableError) as error:
        survival_data(estimator, exams.with_column("event", event))
    assert error.value.code == "table.unknown_event"
    time, flags = survival_data(estimator, exams)
    np.testing.assert_array_equal(time, exams.column("follow_up_days"))
    np.testing.assert_array_equal(flags, exams.column("event") == 1)
    with pytest.raises(KeyError, match="endpoint"):
        survival_data(estimator_for("x", plan((SPECS["accuracy"],))), exams)


@pytest.mark.parametrize("value", [3.0, -1.0, 0.5])
def test_a_level_that_the_protocol_does_not_know(value: float) -> None:
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("vendor",))
    exams = draw_exams(1, 40)
    vendor = exams.column("vendor").copy()
    vendor[0] = value
    query = Query(step="newton", values={"beta": (0.0, 0.0)})
    with pytest.raises(TableError) as error:
        estimator_for("x", plan((spec,))).summarise(exams.with_column("vendor", vendor), query)
    assert error.value.code == "table.unknown_level"
    grouped = estimator_for("x", plan((SPECS["kaplan_meier"],)))
    with pytest.raises(ValueError, match="code of a group"):
        grouped.summarise(exams.with_column("vendor", vendor), Query(step="table"))
    described = DescriptivesSpec(id="x", kind="descriptives", covariates=("vendor",), by="all")
    with pytest.raises(ValueError, match="code of a level"):
        estimator_for("x", plan((described,))).summarise(
            exams.with_column("vendor", vendor), Query(step="counts")
        )


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_prediction_that_is_no_risk(value: float) -> None:
    exams = draw_exams(1, 40)
    risk = exams.column("risk").copy()
    risk[0] = value
    estimator = estimator_for("x", plan((SPECS["survival_calibration"],)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimator.summarise(exams.with_column("risk", risk), Query(step="bins"))


def test_risk_sets_that_weigh_nothing_or_too_much() -> None:
    x, time = np.array([[800.0], [0.0]]), np.array([1.0, 2.0])
    event = np.array([True, True])
    with pytest.raises(ValueError, match="weighs nothing"):
        score_residuals(x, time, event, np.array([1.0]), TieMethod.EFRON)
    with pytest.raises(ValueError, match="not finite"), np.errstate(over="ignore"):
        score_residuals(x, time, event, np.array([1e306]), TieMethod.EFRON)


# --- concordance ------------------------------------------------------------------------------


def test_pairs_of_nobody_and_of_the_censored() -> None:
    nobody = np.empty(0), np.empty(0), np.empty(0, dtype=bool)
    assert concordance(*nobody) == Concordance(0, 0, 0, 0, 0, 0)
    assert concordant_pairs(*nobody) == (0.0, 0.0)
    censored = np.arange(4.0), np.arange(4.0), np.zeros(4, dtype=bool)
    assert concordance(*censored) == Concordance(0, 0, 0, 0, 0, 0)
    assert concordant_pairs(*censored) == (0.0, 0.0)
    queries = np.array([0, 3]), np.array([1, 1])
    assert count_smaller_before(np.empty(0, dtype=np.int64), *queries).tolist() == [0, 0]


def test_pairs_counted_one_by_one() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 7, 25):
        risk, time = rng.integers(0, 5, n).astype(float), rng.integers(1, 6, n).astype(float)
        event = rng.random(n) < 0.6
        counted = np.zeros(3)
        a, b = np.zeros(n), np.zeros(n)
        for i in range(n):
            for j in range(n):
                later = time[j] > time[i] or (time[j] == time[i] and not event[j])
                if not event[i] or not later:
                    continue
                kind = 2 if risk[i] == risk[j] else int(risk[i] < risk[j])
                counted[kind] += 1
                b[[i, j]] += 1
                a[[i, j]] += (1.0, 0.0, 0.5)[kind]
        found = concordance(risk, time, event)
        assert found.numbers().tolist() == [*counted, a @ a, a @ b, b @ b]
        assert concordant_pairs(risk, time, event) == (counted[0] + counted[2] / 2, counted.sum())


# --- sessions ---------------------------------------------------------------------------------


def test_a_kind_is_registered_once_and_an_analysis_is_found_by_its_id() -> None:
    with pytest.raises(ValueError, match="taken"):
        register_estimator(Accuracy)
    with pytest.raises(KeyError):
        estimator_for("y", plan((SPECS["accuracy"],)))
    estimator = estimator_for("x", plan((SPECS["accuracy"],)))
    assert (estimator.fit, estimator.models) == (None, ())


def test_what_builds_on_fits_waits_for_them() -> None:
    """Declared before its models, an analysis is asked after them, and told in its place."""
    protocol = plan((SPECS["reclassification"], BASE, FULL))
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
    exams = draw_exams(2, 150)
    session = PoolingSession(protocol, [SITE])
    asked: list[set[str]] = []
    while not session.is_finished:
        queries = session.queries
        asked.append(set(queries))
        assert {row.analysis for row in session.estimates()}.isdisjoint(queries)
        session.answer(
            {SITE: {name: estimators[name].summarise(exams, q) for name, q in queries.items()}}
        )
    assert asked[0] == {"base", "full"}
    assert asked[-1] == {"x"}
    assert not any({"x"} < step for step in asked)
    order = [row.analysis for row in session.estimates()]
    assert order == sorted(order, key=["x", "base", "full"].index)


# --- what a gate withheld ---------------------------------------------------------------------


def test_a_table_that_one_site_withholds_is_compared_over_the_others() -> None:
    parts = {f"s{seed}": draw_exams(seed, 120, f"{seed}-") for seed in range(2)}

    def gate(site: str, query: Any, answer: Any) -> Any:
        if site != "s1" or not isinstance(answer, BinnedCounts):
            return answer
        starts = tuple((groups[0], ()) for groups in answer.starts)
        counts = tuple((groups[0], ()) for groups in answer.counts)
        return answer.model_copy(update={"starts": starts, "counts": counts})

    spec = ComparisonSpec(
        id="x", kind="comparison", compare="index_tests", cut_offs=(100,), bins=400
    )
    rows, alone = pool(spec, parts, change=gate), pool(spec, {"s0": parts["s0"]})
    assert rows == alone
    hidden = pool(spec, {"s1": parts["s1"]}, change=gate)
    assert {row.status for row in hidden.values()} == {RowStatus.SUPPRESSED}
    assert all(numbers(row) == (None,) * 5 for row in hidden.values())


def test_placement_values_that_sites_withhold_leave_the_aucs_suppressed() -> None:
    parts = {"a": draw_exams(1, 120), "b": draw_exams(2, 90)}

    def gate(site: str, query: Any, answer: Any) -> Any:
        if query.step != "placements":
            return answer
        return answer.model_copy(update={"values": ((),) * len(answer.values)})

    for kind in ("comparison", "fusion"):
        rows = pool(SPECS[kind], parts, change=gate)
        found = [row for row in rows.values() if row.measure.value.startswith("auc")]
        assert found
        assert {row.status for row in found} == {RowStatus.SUPPRESSED}
        assert all(numbers(row) == (None,) * 5 for row in found)


@pytest.mark.parametrize("code", [RefusalCode.BUDGET_SPENT, RefusalCode.NO_REPLY])
def test_where_all_sites_refuse_placement_values_the_aucs_say_why(code: RefusalCode) -> None:
    def gate(site: str, query: Any, answer: Any) -> Any:
        return code if query.step == "placements" else answer

    status = RowStatus.ERROR if code is RefusalCode.NO_REPLY else RowStatus.SUPPRESSED
    for kind in ("comparison", "fusion"):
        rows = pool(SPECS[kind], {"a": draw_exams(1, 120)}, change=gate)
        found = [row for row in rows.values() if row.measure.value.startswith("auc")]
        assert found
        assert {row.status for row in found} == {status}


def test_a_comparison_in_which_nobody_has_the_condition() -> None:
    low = np.linspace(1, 90, 60)
    exams = draw_exams(1, 60, reference_score=low, index_score=low[::-1], visual_score=low)
    spec = ComparisonSpec(id="x", kind="comparison", compare="index_tests", cut_offs=(10, 100))
    rows = pool(spec, {"a": exams})
    # The other cut-off has both classes, and is asked without this one.
    assert rows["pooled", "auc_difference", "", "10"].status is RowStatus.OK
    for group in ("index", "comparator"):
        assert rows["pooled", "auc", group, "100"].status is RowStatus.NOT_ESTIMABLE
    assert rows["pooled", "auc_difference", "", "100"].status is RowStatus.NOT_ESTIMABLE
    alone = pool(spec.model_copy(update={"cut_offs": (100.0,)}), {"a": exams})
    assert alone["pooled", "auc_difference", "", "100"].status is RowStatus.NOT_ESTIMABLE
    for measure in ("sensitivity", "ppv", "f1"):
        for role in ("index", "comparator"):
            row = rows["pooled", measure, role, "100"]
            assert (row.status, row.n, row.estimate) == (RowStatus.NOT_ESTIMABLE, 0, None)
        assert rows["pooled", f"{measure}_difference", "", "100"].status is RowStatus.NOT_ESTIMABLE
    specificity = rows["pooled", "specificity", "index", "100"]
    assert (specificity.estimate, specificity.n) == (1.0, 60)


def test_f1_of_each_test_has_the_interval_of_its_jaccard_index() -> None:
    parts = {"a": draw_exams(4, 200)}
    exams = parts["a"]
    spec = ComparisonSpec(id="x", kind="comparison", compare="index_tests", cut_offs=(100,))
    rows = pool(spec, parts)
    truth = exams.column("reference_score") > 100
    for role, column in (("index", "index_score"), ("comparator", "visual_score")):
        test = exams.column(column) > 100
        tp, n = np.sum(test & truth), np.sum(test | truth)
        j, z2 = tp / n, 1.959963984540054**2
        centre, half = j + z2 / (2 * n), (z2 * (j * (1 - j) / n + z2 / (4 * n * n))) ** 0.5
        limits = [(centre + sign * half) / (1 + z2 / n) for sign in (-1, 1)]
        row = rows["pooled", "f1", role, "100"]
        assert_close(row.estimate, 2 * j / (1 + j))
        assert_close(row.ci_low, 2 * limits[0] / (1 + limits[0]))
        assert_close(row.ci_high, 2 * limits[1] / (1 + limits[1]))
        assert row.n == n


def test_histograms_that_sites_withhold_leave_a_fusion_with_its_coefficients() -> None:
    def gate(site: str, query: Any, answer: Any) -> Any:
        if not isinstance(answer, BinnedCounts):
            return answer
        empty = ((), ())
        return answer.model_copy(update={"starts": (empty,) * 2, "counts": (empty,) * 2})

    rows = pool(SPECS["fusion"], {"a": draw_exams(1, 150)}, change=gate)
    assert rows["pooled", "auc", "fusion", "100"].status is RowStatus.SUPPRESSED
    assert rows["pooled", "log_odds_ratio", "", "age"].status is RowStatus.OK


def test_curves_of_sites_without_a_common_edge_are_suppressed() -> None:
    parts = {"a": draw_exams(1, 150), "b": draw_exams(2, 150)}

    def gate(site: str, _: Any, answer: Any) -> Any:
        if not isinstance(answer, SurvivalTable):
            return answer
        # One bin of each group, that of each site another.
        last = 4 if site == "a" else 7
        table = {"edges": ((0, last),) * 3} | {
            name: tuple((value,) for value in values)
            for name, values in (
                ("at_risk", [row[0] for row in answer.at_risk]),
                ("events", [sum(row[:last]) for row in answer.events]),
                ("censored", [sum(row[:last]) for row in answer.censored]),
            )
        }
        return answer.model_copy(update=table)

    rows = pool(SPECS["kaplan_meier"], parts, change=gate)
    for group in ("a", "b", "c"):
        row = rows["pooled", "survival", group, ""]
        assert (row.status, row.estimate) == (RowStatus.SUPPRESSED, None)
    one = pool(SPECS["kaplan_meier"], {"a": parts["a"]}, change=gate)
    assert one["pooled", "survival", "a", "360"].status is RowStatus.OK


def test_a_group_with_a_withheld_count_is_not_drawn() -> None:
    def gate(site: str, _: Any, answer: Any) -> Any:
        if not isinstance(answer, SurvivalTable):
            return answer
        events = ((CellStatus.SUPPRESSED, *answer.events[0][1:]), *answer.events[1:])
        return answer.model_copy(update={"events": events})

    rows = pool(SPECS["kaplan_meier"], {"a": draw_exams(1, 150)}, change=gate)
    assert rows["pooled", "survival", "a", ""].status is RowStatus.SUPPRESSED
    assert rows["pooled", "survival", "b", "90"].status is RowStatus.OK


# --- descriptives of scores -------------------------------------------------------------------


def test_scores_are_described_as_numbers_and_as_categories() -> None:
    parts: dict[str, Exams] = {f"s{n}": draw_exams(n, 300, f"{n}-") for n in range(3)}
    spec = DescriptivesSpec(
        id="x",
        kind="descriptives",
        covariates=("sex",),
        scores=(ScoreRole.REFERENCE,),
        by="all",
    )
    rows = pool(spec, parts)
    score = np.concatenate([exams.column("reference_score") for exams in parts.values()])
    assert_close(rows["pooled", "mean", "all", "reference_score"].estimate, score.mean())
    assert_close(rows["pooled", "sd", "all", "reference_score"].estimate, score.std(ddof=1))
    for measure, share in (("median", 0.5), ("quartile_low", 0.25), ("quartile_high", 0.75)):
        found = rows["pooled", measure, "all", "reference_score"].estimate
        # Within a bin of the public grid, 128 of them even in ln(score + 1) up to 10 000.
        assert abs(np.log1p(found) - np.log1p(np.quantile(score, share))) < 2 * np.log1p(1e4) / 127
    category = (score >= 1).astype(int) + (score > 10) + (score > 100) + (score > 400)
    for number, label in enumerate(("0", "1-10", "11-100", "101-400", ">400")):
        term = f"reference_score_category={label}"
        terms_ = [key[3] for key in rows if key[1] == "count" and key[3].endswith(f"={label}")]
        assert len(terms_) == 1, (term, terms_)
        row = rows["pooled", "count", "all", terms_[0]]
        assert (row.estimate, row.n) == (np.sum(category == number), len(score))
    assert [key[3] for key in rows if key[3].endswith("=missing")] == ["sex=missing"]


def test_a_refused_site_of_zero_inflated_regression_is_named() -> None:
    parts = {"a": draw_exams(1, 150), "b": RefusalCode.TOO_FEW_PATIENTS}
    rows = pool(SPECS["zero_inflated"], parts)
    assert rows["pooled", "zip_log_rate_ratio", "", "index"].status is RowStatus.OK
    row = rows["b", "zip_log_rate_ratio", "", "index"]
    assert (row.status, row.estimate) == (RowStatus.SUPPRESSED, None)
    zeros = np.zeros(60)
    none = pool(
        SPECS["zero_inflated"], {"a": draw_exams(1, 60, reference_score=zeros, index_score=zeros)}
    )
    row = none["pooled", "zip_log_rate_ratio", "", "index"]
    assert (row.status, row.estimate) == (RowStatus.NOT_ESTIMABLE, None)


# --- what a row and a gate are told -----------------------------------------------------------


def test_rows_say_how_their_interval_was_made() -> None:
    parts = {f"s{n}": draw_exams(n, 100, f"{n}-") for n in range(3)}
    rows = pool(SPECS["correlation"], parts)
    for scope, n in (("s0", 100), ("pooled", 300)):
        for measure, term, method in (
            ("pearson_r", "", "fisher_z"),
            *(("icc", kind, "f") for kind in ("icc1", "icc2", "icc3")),
            ("ccc", "", "lin_z"),
        ):
            row = rows[scope, measure, "", term]
            assert (row.ci_method, row.n, row.se) == (method, n, None)
    row = pool(SPECS["distribution"], parts)["pooled", "ks_d", "", ""]
    assert (row.ci_method, row.n, row.se, row.ci_low) == ("grid_bounds", 300, None, row.estimate)
    row = pool(SPECS["agreement"], parts)["pooled", "kappa_linear", "", ""]
    assert (row.ci_method, row.n) == ("fleiss1969", 300)
    row = pool(SPECS["bland_altman"], parts)["pooled", "loa_low", "", ""]
    assert (row.ci_method, row.n, row.p_value) == ("t", 300, None)


def test_a_normal_test_needs_a_standard_error() -> None:
    assert two_sided_p(1.0, 0.0) is None
    assert two_sided_p(0.0, 0.0) is None
    assert_close(two_sided_p(-1.959963984540054, 1.0), 0.05)
    assert wald(0.5, 0.0) == wald(0.5, None) == Value(0.5)
    value = wald(0.9, 0.1, high=1.0, low=0.8, is_tested=True)
    assert (value.ci_low, value.ci_high, value.ci_method) == (0.8, 1.0, "wald")
    assert_close(value.p_value, 2.257177e-19, 1e-24)


def test_the_gate_is_told_how_many_are_positive_at_every_cut_off() -> None:
    exams = draw_exams(5, 90)
    score = exams.column("reference_score")
    expected = tuple((int(np.sum(score > cut)),) for cut in (10, 100))
    auc = AucSpec(id="x", kind="auc", value="score", cut_offs=(10.0, 100.0))
    estimator = estimator_for("x", plan((auc,)))
    for step in ("histogram", "within"):
        assert estimator.summarise(exams, Query(step=step)).evidence.nested == expected
    estimator = estimator_for("x", plan((SPECS["calibration"],)))
    bins = estimator.summarise(exams, Query(step="bins"))
    assert set(bins.evidence.nested) == {expected[1]}
    assert len(bins.evidence.nested) == len(bins.values)
    estimator = estimator_for("x", plan((SPECS["comparison"],)))
    cells = estimator.summarise(exams, Query(step="cells")).evidence.nested
    for cut, nested in zip((10, 100), cells, strict=True):
        flags = [
            exams.column(name) > cut for name in ("reference_score", "index_score", "visual_score")
        ]
        wanted = []
        for chosen in range(1, 8):
            own = [flag for bit, flag in zip((4, 2, 1), flags, strict=True) if chosen & bit]
            wanted += [int(np.all(own, axis=0).sum()), int(np.any(own, axis=0).sum())]
        assert nested == tuple(wanted)


def test_the_gate_is_told_the_smallest_group_of_a_sites_own_model() -> None:
    exams = draw_exams(5, 90)
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("sex", "age"), by_site=True)
    own = estimator_for("x", plan((spec,))).summarise(exams, Query(step="by_site"))
    women = int(exams.column("sex").sum())
    assert own.evidence.smallest_group == min(women, 90 - women)
    assert own.evidence.n_parameters == 2
    assert (own.n_patients, own.n_events) == (90, exams.column("event").sum())
    beta = np.array([row[0] for row in own.values])
    spread = np.array([exams.column("sex").std(), exams.column("age").std() / 10])
    assert_close(own.evidence.parameter_norm, np.max(np.abs(beta) * spread))
    # Without an indicator everybody is one group.
    spec = spec.model_copy(update={"covariates": ("age",)})
    own = estimator_for("x", plan((spec,))).summarise(exams, Query(step="by_site"))
    assert own.evidence.smallest_group == 90


def test_a_term_that_a_site_does_not_identify_has_no_ratio_there() -> None:
    parts = {f"s{n}": draw_exams(n, 150, f"{n}-") for n in range(4)}
    parts["s1"] = parts["s1"].with_column("sex", np.ones(150))
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("age", "sex"), by_site=True)
    rows = pool(spec, parts)
    row = rows["s1", "hazard_ratio", "", "sex"]
    assert (row.status, row.estimate, row.n) == (RowStatus.NOT_ESTIMABLE, None, 150)
    assert rows["s1", "hazard_ratio", "", "age"].status is RowStatus.OK
    assert rows["meta", "hazard_ratio", "", "sex"].n == 450
    assert rows["meta", "hazard_ratio", "", "age"].n == 600


def test_a_design_of_nobody() -> None:
    evidence = design_evidence(np.empty((0, 3)), np.ones(3), np.array([True, False, False]))
    assert (evidence.n_parameters, evidence.smallest_group, evidence.parameter_norm) == (3, 0, 0)


def test_quartiles_in_the_outermost_bins() -> None:
    """A quarter at the protocol's minimum, and a quarter in the last bin below its maximum."""
    age = np.concatenate([np.full(40, 18.0), np.full(60, 60.0), np.full(60, 119.9)])
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("age",), by="all")
    rows = pool(spec, {"a": draw_exams(1, 160, age=age)})
    width = (120 - 18) / 127
    low = rows["pooled", "quartile_low", "all", "age"].estimate
    assert_close(low, 18.0)
    high = rows["pooled", "quartile_high", "all", "age"].estimate
    # Twenty of the sixty of the last bin.
    assert_close(high, 120 - width + width / 3)
    assert abs(rows["pooled", "median", "all", "age"].estimate - 60) < width


@pytest.mark.parametrize(
    ("code", "status"),
    [(RefusalCode.BUDGET_SPENT, RowStatus.SUPPRESSED), (RefusalCode.INTERNAL, RowStatus.ERROR)],
)
def test_a_regression_that_no_site_answers_after_its_start(
    code: RefusalCode, status: RowStatus
) -> None:
    def gate(site: str, query: Any, answer: Any) -> Any:
        return code if query.step == "newton" else answer

    for kind in ("zero_inflated", "calibration", "survival_calibration"):
        rows = pool(SPECS[kind], {"a": draw_exams(1, 150)}, change=gate)
        found = [
            row for row in rows.values() if row.measure.value.startswith(("zip", "calibration"))
        ]
        assert found
        for row in found:
            assert (row.status, row.ci_method) == (status, "")
            assert numbers(row) == (None,) * 5


def test_sums_at_a_maximum_beyond_what_can_be_computed_are_a_fault_of_the_question() -> None:
    estimator = estimator_for("x", plan((SPECS["cox"],)))
    query = Query(step="maximum", values={"beta": (1e4, 1e4)})
    with pytest.raises(QueryError):
        estimator.summarise(draw_exams(1, 60), query)
