"""Added value of a model over four sites against a recomputation on all rows, refits included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from plans import draw_exams, plan
from scipy import special

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CoxSpec, Protocol, ReclassificationSpec
from fedcac.statistics import Estimate, PoolingSession, estimator_for
from fedcac.statistics.net_reclassification import directions
from fedcac.statistics.resampling import deal_groups, replicate_rows
from fedcac.statistics.risk_sets import baseline_hazard
from fedcac.vocabulary import (
    ReclassificationType,
    RefusalCode,
    Resampling,
    RiskEstimator,
    RowStatus,
    SiteName,
    TieMethod,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

HORIZON = 700
TERMS = ("age", "sex", "ln(index_score+1)")
MEASURES = ("nri_event", "nri_nonevent", "nri_overall", "auc_difference", "c_index_difference")

Sites = Mapping[str, Exams]
Refuse = Callable[[str, str, str], RefusalCode | None]
Pair = tuple[CoxSpec, CoxSpec]


def site_exams(seed: int, n: int) -> Exams:
    """Return patients whose hazard rises with age, sex and score, under a secret of the site."""
    exams = draw_exams(seed, n, prefix=f"{seed}-")
    rng = np.random.default_rng(seed + 500)
    score = np.log1p(exams.column("index_score")) / 4
    hazard = np.exp(0.4 * (exams.column("age") - 62) / 10 + 0.4 * exams.column("sex") + score - 2)
    time, end = rng.exponential(900 / hazard), rng.uniform(100, 1500, n)
    columns = {
        **exams.columns,
        "follow_up_days": 7.0 * np.ceil(np.minimum(time, end) / 7),
        "event": (time <= end).astype(float),
    }
    return Exams(columns=columns, keys=exams.keys, secret=f"secret {seed}".encode())


FOUR = {f"s{seed}": site_exams(seed, n) for seed, n in ((1, 110), (2, 90), (3, 84), (4, 71))}


def cox(name: str, *covariates: str, **changes: Any) -> CoxSpec:
    return CoxSpec(id=name, kind="cox", endpoint="mace", covariates=covariates, **changes)


SCORED = (cox("base", "age", "sex"), cox("full", "age", "sex", log_score="index"))
# Few distinct risks: most pairs of patients tie in one model or in both.
DISCRETE = (
    cox("base", "sex", ties=TieMethod.BRESLOW),
    cox("full", "sex", "vendor", ties=TieMethod.BRESLOW),
)
PAIRS = {"scored": SCORED, "discrete": DISCRETE}


def spec_of(**changes: Any) -> ReclassificationSpec:
    values = {"id": "x", "kind": "reclassification", "base": "base", "full": "full"}
    return ReclassificationSpec(
        **{**values, "horizon_days": HORIZON, "uncertainty": Resampling.NONE, **changes}
    )


@dataclass
class Run:
    """The rows of a protocol's analyses, and the last parameters and sums of analysis x."""

    estimates: Sequence[Estimate]
    betas: np.ndarray | None = None
    sums: np.ndarray | None = None

    def row(self, measure: str, analysis: str = "x", term: str = "") -> Estimate:
        key = (analysis, "pooled", measure, term)
        found = [r for r in self.estimates if (r.analysis, r.scope, r.measure.value, r.term) == key]
        assert len(found) == 1
        return found[0]


def run(protocol: Protocol, sites: Sites, refuse: Refuse = lambda *_: None) -> Run:
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
    session = PoolingSession(protocol, [SiteName(name) for name in sites])
    found = Run(())
    for _ in range(40):
        if session.is_finished:
            found.estimates = session.estimates()
            return found
        queries = session.queries
        answers: dict[SiteName, dict[str, Any]] = {
            SiteName(site): {
                name: refuse(site, name, query.step) or estimators[name].summarise(exams, query)
                for name, query in queries.items()
            }
            for site, exams in sites.items()
        }
        own = [given["x"] for given in answers.values() if "x" in given]
        is_answered = not any(isinstance(answer, RefusalCode) for answer in own)
        if "x" in queries and queries["x"].step == "measures" and is_answered:
            found.sums = np.sum([np.array(answer.values) for answer in own], axis=0)
            betas = np.array(queries["x"].values["beta"])
            found.betas = betas.reshape(len(found.sums), -1)
        session.answer(answers)
    raise AssertionError("the pooling does not end")


def analysed(
    spec: ReclassificationSpec,
    sites: Sites = FOUR,
    pair: Pair = SCORED,
    refuse: Refuse = lambda *_: None,
) -> Run:
    return run(plan((*pair, spec)), sites, refuse)


# --- the recomputation --------------------------------------------------------------------------


def design(exams: Exams, model: CoxSpec) -> np.ndarray:
    columns = []
    for name in model.covariates:
        values = exams.column(name)
        if name == "vendor":
            columns += [values == 1, values == 2]
        else:
            columns.append(values / 10 if name == "age" else values)
    if model.log_score != "none":
        columns.append(np.log(exams.column("index_score") + 1))
    return np.column_stack(columns).astype(float)


def fitted(sites: Sites, pair: Pair) -> tuple[list[np.ndarray], list[float]]:
    """Return coefficients and likelihood-ratio chi-square of both models by full Newton."""
    rows = run(plan(pair), sites).estimates
    betas = [
        [r.estimate for r in rows if (r.analysis, r.measure) == (model.id, "log_hazard_ratio")]
        for model in pair
    ]
    chi2 = [
        next(r.estimate for r in rows if (r.analysis, r.measure) == (m.id, "lr_chi2")) for m in pair
    ]
    return [np.array(beta, dtype=float) for beta in betas], chi2


@cache
def fitted_to_all(pair: str) -> tuple[list[np.ndarray], list[float]]:
    return fitted(FOUR, PAIRS[pair])


def survival_at(time: np.ndarray, event: np.ndarray, horizon: float) -> float:
    if len(time) == 0:
        return 1.0
    return float(KaplanMeierFitter().fit(time, event).survival_function_at_times(horizon).iloc[0])


def moves(old: np.ndarray, new: np.ndarray, spec: ReclassificationSpec) -> np.ndarray:
    if spec.type is ReclassificationType.CATEGORICAL:
        return np.sign(sum((new >= cut) * 1 - (old >= cut) * 1 for cut in spec.cuts))
    least = spec.delta if spec.type is ReclassificationType.DIFFERENCE else 1e-12
    return np.where(new - old > least, 1, 0) - np.where(old - new > least, 1, 0)


def counted(
    moved: np.ndarray, time: np.ndarray, event: np.ndarray, spec: ReclassificationSpec
) -> np.ndarray:
    """Return patients with and without the event (columns): everyone's, moved up, moved down."""
    groups = (np.ones(len(moved), dtype=bool), moved > 0, moved < 0)
    if spec.estimator is RiskEstimator.BINARY:
        return np.array([[np.sum(event[g]), np.sum(~event[g])] for g in groups], dtype=float)
    if spec.estimator is RiskEstimator.KM:
        alive = [np.sum(g) * survival_at(time[g], event[g], HORIZON) for g in groups]
        return np.array([[np.sum(g) - a, a] for g, a in zip(groups, alive, strict=True)])
    # Inverse probability of not being censored just before the event, or by the horizon.
    censoring = KaplanMeierFitter().fit(time, ~event).survival_function_.iloc[:, 0]
    found = np.zeros((3, 2))
    for row, group in enumerate(groups):
        for t in time[group & event & (time <= HORIZON)]:
            found[row, 0] += 1 / censoring[censoring.index < t].iloc[-1]
        late = np.sum(group & (time > HORIZON))
        found[row, 1] = late / censoring[censoring.index <= HORIZON].iloc[-1]
    return found


def ordered_rightly(risk: np.ndarray, is_pair: np.ndarray) -> float:
    """Return pairs (i, j) in which i has the higher risk, ties as one half."""
    higher = risk[:, None] > risk[None, :]
    tied = risk[:, None] == risk[None, :]
    return float(np.sum(is_pair * (higher + tied / 2)))


def measured(
    sites: Sites, pair: Pair, betas: list[np.ndarray], spec: ReclassificationSpec
) -> np.ndarray:
    """Return the five measures at given coefficients, in the order of MEASURES."""
    counts = np.zeros((3, 2))
    gained, pairs = np.zeros((2, 2)), np.zeros(2)
    for exams in sites.values():
        time, event = exams.column("follow_up_days"), exams.column("event") == 1
        # Row i had the event, column j none; and: i had it while j was still followed.
        is_auc = event[:, None] & ~event[None, :]
        is_later = (time[None, :] > time[:, None]) | (
            (time[None, :] == time[:, None]) & ~event[None, :]
        )
        is_c = event[:, None] & is_later
        pairs += is_auc.sum(), is_c.sum()
        risks = []
        for number, (model, beta) in enumerate(zip(pair, betas, strict=True)):
            x = design(exams, model)
            predictor = (x * beta).sum(axis=1)
            hazard = baseline_hazard(x, time, event, beta, HORIZON, model.ties)
            risks.append(1 - np.exp(-hazard * np.exp(predictor)))
            gained[number] += ordered_rightly(predictor, is_auc), ordered_rightly(predictor, is_c)
        counts += counted(moves(risks[0], risks[1], spec), time, event, spec)
    (n_event, n_none), (event_up, none_up), (event_down, none_down) = counts
    nri_event, nri_none = (event_up - event_down) / n_event, (none_down - none_up) / n_none
    return np.array([nri_event, nri_none, nri_event + nri_none, *((gained[1] - gained[0]) / pairs)])


TYPES: dict[str, dict[str, Any]] = {
    "category_free": {},
    "categorical": {"type": ReclassificationType.CATEGORICAL, "cuts": (0.2, 0.35, 0.5)},
    "difference": {"type": ReclassificationType.DIFFERENCE, "delta": 0.03},
}


# --- estimates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", sorted(PAIRS))
@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_every_estimate_equals_its_formula(estimator: RiskEstimator, kind: str, pair: str) -> None:
    models = PAIRS[pair]
    spec = spec_of(estimator=estimator, **TYPES[kind])
    found = analysed(spec, pair=models)
    betas, chi2 = fitted_to_all(pair)
    wanted = measured(FOUR, models, betas, spec)
    # A test in which nobody moves would show nothing.
    assert np.all(wanted != 0)
    for measure, value in zip(MEASURES, wanted, strict=True):
        row = found.row(measure)
        assert row.estimate == pytest.approx(value, abs=1e-10), measure
        assert (row.se, row.ci_low, row.ci_high, row.p_value) == (None,) * 4
        assert (row.ci_method, row.status) == ("", RowStatus.OK)
        assert (row.n, row.n_events) == (355, sum(e.column("event").sum() for e in FOUR.values()))
    ratio = found.row("lr_chi2_increase")
    df = len(betas[1]) - len(betas[0])
    assert ratio.estimate == pytest.approx(chi2[1] - chi2[0], abs=1e-8)
    assert ratio.p_value == pytest.approx(special.chdtrc(df, chi2[1] - chi2[0]), rel=1e-7)


def test_a_site_without_an_event_by_the_horizon_moves_nobody() -> None:
    late = FOUR["s4"].column("follow_up_days") + HORIZON
    sites = {**FOUR, "s4": FOUR["s4"].with_column("follow_up_days", late)}
    betas, _ = fitted(sites, SCORED)
    for estimator in RiskEstimator:
        spec = spec_of(estimator=estimator)
        found = analysed(spec, sites)
        wanted = measured(sites, SCORED, betas, spec)
        values = [found.row(measure).estimate for measure in MEASURES]
        assert values == pytest.approx(list(wanted), abs=1e-10)


@pytest.mark.parametrize(
    ("changes", "old", "new", "moved"),
    [
        # A risk on a cut belongs to the category above it.
        ({**TYPES["categorical"]}, (0.2, 0.19, 0.35, 0.5), (0.19, 0.2, 0.34, 0.9), (-1, 1, -1, 0)),
        ({**TYPES["categorical"]}, (0.1, 0.9, 0.4), (0.9, 0.1, 0.36), (1, -1, 0)),
        # Risks that rounding alone keeps apart are the same risk.
        ({}, (0.3, 0.3, 0.3, 0.3), (0.3, 0.3 + 1e-15, 0.3 + 1e-9, 0.3 - 1e-9), (0, 0, 1, -1)),
        # A change by delta exactly is not larger than delta.
        (
            {"type": ReclassificationType.DIFFERENCE, "delta": 0.25},
            (0.25, 0.5, 0.25, 0.75),
            (0.5, 0.25, 0.51, 0.25),
            (0, 0, 1, -1),
        ),
    ],
)
def test_who_moves(
    changes: dict[str, Any],
    old: tuple[float, ...],
    new: tuple[float, ...],
    moved: tuple[int, ...],
) -> None:
    found = directions(np.array(old), np.array(new), spec_of(**changes))
    assert tuple(found) == moved


@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_the_gate_is_told_the_smallest_group_behind_a_sum(estimator: RiskEstimator) -> None:
    spec = spec_of(estimator=estimator)
    protocol = plan((*SCORED, spec))
    betas, _ = fitted_to_all("scored")
    exams = FOUR["s1"]
    time, event = exams.column("follow_up_days"), exams.column("event") == 1
    # The horizon itself counts as by the horizon.
    time = np.where(event & (time > 200), HORIZON, time)
    exams = exams.with_column("follow_up_days", time)
    query = Query(step="measures", values={"beta": tuple(np.concatenate(betas).tolist())})
    evidence = estimator_for("x", protocol).summarise(exams, query).evidence
    risks = []
    for model, beta in zip(SCORED, betas, strict=True):
        x = design(exams, model)
        hazard = baseline_hazard(x, time, event, beta, HORIZON, model.ties)
        risks.append(1 - np.exp(-hazard * np.exp((x * beta).sum(axis=1))))
    moved = moves(risks[0], risks[1], spec)
    is_binary = estimator is RiskEstimator.BINARY
    has_event = event if is_binary else event & (time <= HORIZON)
    cells = [
        np.sum((moved == way) & (has_event == kind)) for way in (1, -1) for kind in (True, False)
    ]
    assert evidence.smallest_group == min(cells)
    spreads = [
        np.abs(beta) * design(exams, model).std(axis=0)
        for model, beta in zip(SCORED, betas, strict=True)
    ]
    assert evidence.parameter_norm == pytest.approx(max(spread.max() for spread in spreads))


# --- uncertainty --------------------------------------------------------------------------------


def without_group(sites: Sites, protocol: Protocol, n_groups: int, group: int) -> Sites:
    purpose = f"{protocol.id}|x"
    return {
        name: exams.where(deal_groups(exams, purpose, n_groups) != group)
        for name, exams in sites.items()
    }


def drawn(sites: Sites, protocol: Protocol, replicates: int, number: int) -> Sites:
    samples = {}
    for name, exams in sites.items():
        purpose = f"{protocol.id}|x"
        rows = replicate_rows(exams, purpose, Resampling.BOOTSTRAP, replicates)[number]
        columns = {column: values[rows] for column, values in exams.columns.items()}
        samples[name] = Exams(columns=columns, keys=tuple(str(i) for i in range(len(rows))))
    return samples


def released(sums: np.ndarray) -> np.ndarray:
    """Return the measures that every replicate's pooled sums stand for, shape (R, 5)."""
    n_event, event_up, event_down, n_none, none_up, none_down, *rest = sums.T
    auc0, auc1, auc_pairs, c0, c1, c_pairs = rest
    event, none = (event_up - event_down) / n_event, (none_down - none_up) / n_none
    differences = (auc1 - auc0) / auc_pairs, (c1 - c0) / c_pairs
    return np.column_stack([event, none, event + none, *differences])


def check_replicates(
    found: Run, spec: ReclassificationSpec, samples: Sequence[Sites]
) -> np.ndarray:
    """Compare every replicate with full refits, and return the refits' measures, shape (R, 5)."""
    refits = [fitted(sample, SCORED)[0] for sample in samples]
    brute = np.array(
        [
            measured(sample, SCORED, betas, spec)
            for sample, betas in zip(samples, refits, strict=True)
        ]
    )
    se = np.array([found.row(measure).se for measure in MEASURES])
    errors = [
        found.row("log_hazard_ratio", model.id, term).se
        for model, terms in zip(SCORED, (TERMS[:2], TERMS), strict=True)
        for term in terms
    ]
    assert found.sums is not None
    assert found.betas is not None
    # What a refit may be off by is to vanish beside the uncertainty it serves to estimate.
    last = slice(-len(samples), None)
    distance = np.abs(found.betas[last] - np.array([np.concatenate(b) for b in refits]))
    assert np.all(distance <= 1e-3 * np.array(errors))
    assert np.all(np.abs(released(found.sums)[last] - brute) <= 1e-3 * se)
    return brute


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [
        (RiskEstimator.KM, "category_free"),
        (RiskEstimator.BINARY, "categorical"),
        (RiskEstimator.IPW, "difference"),
    ],
)
def test_jackknife_equals_refitting_without_every_group(
    estimator: RiskEstimator, kind: str
) -> None:
    n_groups = 6
    spec = spec_of(
        estimator=estimator,
        uncertainty=Resampling.JACKKNIFE,
        replicates=n_groups,
        **TYPES[kind],
    )
    protocol = plan((*SCORED, spec))
    found = run(protocol, FOUR)
    samples = [without_group(FOUR, protocol, n_groups, group) for group in range(n_groups)]
    brute = check_replicates(found, spec, samples)
    plain = analysed(spec.model_copy(update={"uncertainty": Resampling.NONE}))
    for measure, values in zip(MEASURES, brute.T, strict=True):
        row = found.row(measure)
        assert row.estimate == plain.row(measure).estimate
        se = np.sqrt((n_groups - 1) / n_groups * np.sum((values - values.mean()) ** 2))
        assert row.se == pytest.approx(se, rel=0.01)
        half = special.stdtrit(n_groups - 1, 0.975) * row.se
        limits = (row.estimate - half, row.estimate + half)
        assert (row.ci_low, row.ci_high) == pytest.approx(limits, rel=1e-10)
        p_value = 2 * special.stdtr(n_groups - 1, -abs(row.estimate) / row.se)
        assert row.p_value == pytest.approx(p_value, rel=1e-10)
        assert row.ci_method == "jackknife_t"
    ratio = found.row("lr_chi2_increase")
    assert (ratio.se, ratio.ci_low, ratio.ci_method) == (None, None, "")


def test_bootstrap_equals_refitting_on_every_sample() -> None:
    n_samples = 6
    spec = spec_of(uncertainty=Resampling.BOOTSTRAP, replicates=n_samples)
    protocol = plan((*SCORED, spec))
    found = run(protocol, FOUR)
    samples = [drawn(FOUR, protocol, n_samples, number) for number in range(n_samples)]
    brute = check_replicates(found, spec, samples)
    for measure, values in zip(MEASURES, brute.T, strict=True):
        row = found.row(measure)
        assert row.se == pytest.approx(np.std(values, ddof=1), rel=0.01)
        half = special.ndtri(0.975) * row.se
        limits = (row.estimate - half, row.estimate + half)
        assert (row.ci_low, row.ci_high) == pytest.approx(limits, rel=1e-10)
        assert row.p_value == pytest.approx(special.chdtrc(1, (row.estimate / row.se) ** 2))
        assert row.ci_method == "bootstrap_normal"


def test_many_samples_give_percentiles() -> None:
    spec = spec_of(uncertainty=Resampling.BOOTSTRAP, replicates=200)
    two = {name: FOUR[name] for name in ("s1", "s2")}
    found = analysed(spec, two, (cox("base", "sex"), cox("full", "age", "sex")))
    assert found.sums is not None
    assert len(found.sums) >= 200
    for measure, values in zip(MEASURES, released(found.sums)[-200:].T, strict=True):
        row = found.row(measure)
        limits = np.quantile(values, [0.025, 0.975])
        assert (row.ci_low, row.ci_high) == pytest.approx(tuple(limits), abs=1e-12)
        assert row.se == pytest.approx(np.std(values, ddof=1), rel=1e-10)
        assert row.ci_method == "bootstrap_percentile"


@pytest.mark.parametrize("uncertainty", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_a_site_that_refuses_the_replicates_costs_the_intervals_alone(
    uncertainty: Resampling,
) -> None:
    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        return RefusalCode.BUDGET_SPENT if (site, step) == ("s2", "refit") else None

    found = analysed(spec_of(uncertainty=uncertainty), refuse=refuse)
    plain = analysed(spec_of())
    for measure in (*MEASURES, "lr_chi2_increase"):
        assert found.row(measure) == plain.row(measure)


def test_a_site_that_refuses_the_replicates_measures_costs_the_intervals_alone() -> None:
    asked: list[str] = []

    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        if (site, step) != ("s2", "measures"):
            return None
        asked.append(step)
        return RefusalCode.BUDGET_SPENT if len(asked) > 1 else None

    found = analysed(spec_of(uncertainty=Resampling.JACKKNIFE, replicates=8), refuse=refuse)
    assert len(asked) == 2
    plain = analysed(spec_of())
    for measure in (*MEASURES, "lr_chi2_increase"):
        assert found.row(measure) == plain.row(measure)


def test_a_site_that_refuses_the_measures_suppresses_them() -> None:
    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        return RefusalCode.UNPROTECTABLE if (site, step) == ("s2", "measures") else None

    found = analysed(spec_of(), refuse=refuse)
    assert found.sums is None
    for measure in MEASURES:
        row = found.row(measure)
        assert (row.status, row.estimate) == (RowStatus.SUPPRESSED, None)
    assert found.row("lr_chi2_increase") == analysed(spec_of()).row("lr_chi2_increase")


# --- models that cannot be compared, or do not differ --------------------------------------------


def assert_absent(found: Run, status: RowStatus) -> None:
    for measure in (*MEASURES, "lr_chi2_increase"):
        row = found.row(measure)
        assert row.status is status, measure
        assert (row.estimate, row.se, row.p_value) == (None,) * 3


@pytest.mark.parametrize("model", ["base", "full"])
def test_models_of_different_sites_are_not_compared(model: str) -> None:
    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        return RefusalCode.TOO_MANY_PARAMETERS if (site, analysis) == ("s3", model) else None

    assert_absent(analysed(spec_of(), refuse=refuse), RowStatus.SUPPRESSED)


def test_models_of_different_sites_of_one_size_are_not_compared() -> None:
    lost = {("s3", "base"), ("twin", "full")}
    sites = {**FOUR, "twin": site_exams(7, FOUR["s3"].n)}

    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        return RefusalCode.INTERNAL if (site, analysis) in lost else None

    assert_absent(analysed(spec_of(), sites, refuse=refuse), RowStatus.ERROR)


def test_models_of_different_patients_are_not_compared() -> None:
    gap = np.where(np.arange(110) < 4, np.nan, FOUR["s1"].column("vendor"))
    sites = {**FOUR, "s1": FOUR["s1"].with_column("vendor", gap)}
    pair = (cox("base", "age", "sex"), cox("full", "age", "sex", "vendor"))
    assert_absent(analysed(spec_of(), sites, pair), RowStatus.NOT_ESTIMABLE)


def test_a_site_that_refuses_both_models_is_left_out_of_the_comparison() -> None:
    def refuse(site: str, analysis: str, step: str) -> RefusalCode | None:
        return RefusalCode.TOO_FEW_EVENTS if site == "s3" and analysis != "x" else None

    three = {name: exams for name, exams in FOUR.items() if name != "s3"}
    found = analysed(spec_of(), refuse=refuse)
    plain = analysed(spec_of(), three)
    for measure in (*MEASURES, "lr_chi2_increase"):
        assert found.row(measure).estimate == pytest.approx(plain.row(measure).estimate, abs=1e-9)
        assert found.row(measure).n == plain.row(measure).n == 355 - 84


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_EVENTS, RowStatus.SUPPRESSED),
        (RefusalCode.NOT_COMPUTABLE, RowStatus.NOT_APPLICABLE),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_without_a_fit_there_is_no_comparison(code: RefusalCode, status: RowStatus) -> None:
    assert_absent(analysed(spec_of(), refuse=lambda *_: code), status)


def test_a_model_without_a_maximum_is_not_compared() -> None:
    sites = {name: exams.with_column("sex", exams.column("event")) for name, exams in FOUR.items()}
    pair = (cox("base", "age"), cox("full", "age", "sex"))
    assert_absent(analysed(spec_of(), sites, pair), RowStatus.NOT_ESTIMABLE)


@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_a_constant_covariate_adds_nothing(estimator: RiskEstimator) -> None:
    sites = {name: e.with_column("risk", np.full(e.n, 0.25)) for name, e in FOUR.items()}
    pair = (cox("base", "age", "sex"), cox("full", "age", "sex", "risk"))
    spec = spec_of(estimator=estimator, uncertainty=Resampling.JACKKNIFE, replicates=5)
    found = analysed(spec, sites, pair)
    for measure in MEASURES:
        row = found.row(measure)
        assert (row.estimate, row.se, row.ci_low, row.ci_high) == (0, 0, 0, 0)
        assert row.p_value is None
    ratio = found.row("lr_chi2_increase")
    assert ratio.estimate == pytest.approx(0, abs=1e-8)
    assert ratio.p_value is None


def test_models_of_which_none_contains_the_other_have_no_likelihood_ratio_test() -> None:
    pair = (cox("base", "vendor"), cox("full", "age", "sex", log_score="index"))
    ratio = analysed(spec_of(), pair=pair).row("lr_chi2_increase")
    _, chi2 = fitted(FOUR, pair)
    assert ratio.estimate == pytest.approx(chi2[1] - chi2[0], abs=1e-8)
    assert ratio.p_value is None


@pytest.mark.parametrize("event", [0.0, 1.0])
def test_without_events_or_survivors_there_is_nothing_to_reclassify(event: float) -> None:
    sites = {
        name: exams.with_column("event", np.full(exams.n, event)) for name, exams in FOUR.items()
    }
    found = analysed(spec_of(estimator=RiskEstimator.BINARY), sites)
    for measure in MEASURES[:4]:
        assert found.row(measure).status is RowStatus.NOT_ESTIMABLE
    # With an event for everyone the models still order the patients.
    assert (found.row("c_index_difference").status is RowStatus.OK) == (event == 1)
