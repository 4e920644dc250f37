"""Cox, Kaplan-Meier and survival calibration against plain computations on the pooled rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from plans import SPECS, draw_exams, plan
from scipy import special

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CoxSpec, Endpoint, KaplanMeierSpec, Subgroup, SurvivalCalibrationSpec
from fedcac.statistics import Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName, TieMethod

LIFELINES = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
Z95 = float(special.ndtri(0.975))

Sites = Mapping[str, Exams]
Rows = dict[tuple[str, str, str], Estimate]
Refuse = Callable[[str, str], RefusalCode | None]


def nobody(site: str, step: str) -> RefusalCode | None:
    return None


def estimates(spec: Any, sites: Sites, refuse: Refuse = nobody, **changes: Any) -> list[Estimate]:
    """Return every row of one analysis; `refuse` says with what a site answers a step."""
    protocol = plan((spec,), **changes)
    estimator = estimator_for("x", protocol)
    session = PoolingSession(protocol, [SiteName(name) for name in sites])
    for _ in range(30):
        if session.is_finished:
            return list(session.estimates())
        query = session.queries["x"]
        session.answer(
            {
                SiteName(name): {"x": refuse(name, query.step) or estimator.summarise(exams, query)}
                for name, exams in sites.items()
            }
        )
    raise AssertionError("the pooling does not end")


def pooled(spec: Any, sites: Sites, refuse: Refuse = nobody, **changes: Any) -> Rows:
    """Return the pooled rows by measure, group and term; a number stands only in a row that is ok.

    Every test passes here, so none can miss a number that is not finite or should not be there.
    """
    rows = estimates(spec, sites, refuse, **changes)
    for row in rows:
        numbers = (row.estimate, row.se, row.ci_low, row.ci_high, row.p_value)
        if row.status is RowStatus.OK:
            assert row.estimate is not None
            assert all(number is None or np.isfinite(number) for number in numbers), row
        else:
            assert all(number is None for number in numbers), row
    found = {(r.measure.value, r.group, r.term): r for r in rows if r.scope == "pooled"}
    assert len(found) == sum(r.scope == "pooled" for r in rows)
    return found


def assert_same_rows(one: Rows, other: Rows, tolerance: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for key, row in one.items():
        same = other[key]
        assert (row.status, row.n, row.n_events) == (same.status, same.n, same.n_events), key
        for name in ("estimate", "se", "ci_low", "ci_high", "p_value"):
            number, wanted = getattr(row, name), getattr(same, name)
            close = wanted if wanted is None else pytest.approx(wanted, rel=tolerance, abs=1e-12)
            assert number == close, (key, name)


def cox(**changes: Any) -> CoxSpec:
    values = {"id": "x", "kind": "cox", "endpoint": "mace", "covariates": ("age", "sex")}
    return CoxSpec(**{**values, **changes})


def at_risk_exams(seed: int, n: int, **changes: Any) -> Exams:
    """Return patients whose hazard rises with age and score; about one in three has the event."""
    exams = draw_exams(seed, n, prefix=f"{seed}-")
    rng = np.random.default_rng(seed + 1000)
    score = np.log1p(exams.column("index_score")) / 4
    hazard = np.exp(0.4 * (exams.column("age") - 62) / 10 + 0.5 * exams.column("sex") + score - 2)
    time, end = rng.exponential(900 / hazard), rng.uniform(100, 1500, n)
    # Weeks: events tie with one another and with censorings.
    changes = {
        "follow_up_days": 7.0 * np.ceil(np.minimum(time, end) / 7),
        "event": (time <= end).astype(float),
        **changes,
    }
    return Exams(columns={**exams.columns, **changes}, keys=exams.keys, secret=exams.secret)


THREE = {"a": at_risk_exams(1, 120), "b": at_risk_exams(2, 90), "c": at_risk_exams(3, 70)}


def hand_made(exams: Exams) -> dict[str, np.ndarray]:
    """Return the design columns that the plan's covariates and scores become, by term."""
    vendor, score = exams.column("vendor"), exams.column("index_score")
    return {
        "age": exams.column("age") / 10,
        "sex": exams.column("sex"),
        "vendor=b": (vendor == 1).astype(float),
        "vendor=c": (vendor == 2).astype(float),
        "1-10": ((score >= 1) & (score <= 10)).astype(float),
        "11-100": ((score > 10) & (score <= 100)).astype(float),
        "101-400": ((score > 100) & (score <= 400)).astype(float),
        ">400": (score > 400).astype(float),
        "ln(index_score+1)": np.log(score + 1),
    }


def lifelines_fit(
    sites: Sites, design: Callable[[Exams], Mapping[str, np.ndarray]], terms: tuple[str, ...]
) -> CoxPHFitter:
    frames = []
    for name, exams in sites.items():
        columns = design(exams)
        frame = pd.DataFrame({term: columns[term] for term in terms})
        frame["time"], frame["event"] = exams.column("follow_up_days"), exams.column("event")
        frames.append(frame.assign(site=name))
    model = CoxPHFitter()
    options = {"precision": 1e-12, "r_precision": 1e-13}
    rows = pd.concat(frames, ignore_index=True)
    model.fit(rows, "time", "event", strata=["site"], fit_options=options)
    return model


def check_model(rows: Rows, model: CoxPHFitter) -> None:
    terms = tuple(model.params_.index)
    assert {key[2] for key in rows if key[0] == "log_hazard_ratio"} >= set(terms)
    for term in terms:
        row = rows["log_hazard_ratio", "", term]
        assert row.estimate == pytest.approx(model.params_[term], abs=1e-6)
        assert row.se == pytest.approx(model.standard_errors_[term], abs=1e-6)


# --- Cox: what a model consists of ------------------------------------------------------------


TERMS = {
    "age": ("age",),
    "sex": ("sex",),
    "vendor": ("vendor=b", "vendor=c"),
    "risk_category": ("1-10", "11-100", "101-400", ">400"),
    "log_score": ("ln(index_score+1)",),
}


@LIFELINES
def test_a_univariable_series_is_single_models_on_the_same_patients() -> None:
    gap = np.where(np.arange(120) % 7 == 0, np.nan, THREE["a"].column("vendor"))
    sites = {**THREE, "a": THREE["a"].with_column("vendor", gap)}
    spec = cox(
        covariates=("age", "sex", "vendor"),
        risk_category="index",
        log_score="index",
        univariable=True,
    )
    series = pooled(spec, sites)
    assert {key[0] for key in series} == {"log_hazard_ratio", "hazard_ratio"}
    assert {key[2] for key in series} == {term for terms in TERMS.values() for term in terms}
    # A single model would keep who lacks another covariate; the series does not.
    complete = {name: exams.complete(["vendor"]) for name, exams in sites.items()}
    for part, terms in TERMS.items():
        changes = {part: "index"} if part in ("risk_category", "log_score") else {}
        alone = cox(covariates=() if changes else (part,), **changes)
        single = pooled(alone, complete)
        del single["lr_chi2", "", ""]
        assert_same_rows({key: row for key, row in series.items() if key[2] in terms}, single)
        check_model(series, lifelines_fit(complete, hand_made, terms))


@LIFELINES
def test_scores_enter_as_categories_and_as_logarithm() -> None:
    terms = ("age", *TERMS["risk_category"], *TERMS["log_score"])
    rows = pooled(cox(covariates=("age",), risk_category="index", log_score="index"), THREE)
    model = lifelines_fit(THREE, hand_made, terms)
    check_model(rows, model)
    assert [key[2] for key in rows if key[0] == "hazard_ratio"] == list(terms)
    test = model.log_likelihood_ratio_test()
    assert rows["lr_chi2", "", ""].estimate == pytest.approx(test.test_statistic, abs=1e-6)
    assert rows["lr_chi2", "", ""].p_value == pytest.approx(test.p_value, abs=1e-9)


def with_gaps(exams: Exams) -> Exams:
    number = np.arange(exams.n)
    for name, every in (("age", 5), ("sex", 6), ("vendor", 7)):
        exams = exams.with_column(name, np.where(number % every == 0, np.nan, exams.column(name)))
    return exams


def filled(exams: Exams) -> dict[str, np.ndarray]:
    """Return the design with zeros for what is missing, and a column that marks the gap."""
    columns = {term: np.nan_to_num(values) for term, values in hand_made(exams).items()}
    for name in ("age", "sex", "vendor"):
        columns[f"{name}=missing"] = np.isnan(exams.column(name)).astype(float)
    return columns


@LIFELINES
def test_missing_covariates_as_indicators() -> None:
    sites = {name: with_gaps(exams) for name, exams in THREE.items()}
    names = ("age", "sex", "vendor")
    rows = pooled(cox(covariates=names, missing="indicator"), sites)
    terms = [term for name in names for term in (*TERMS[name], f"{name}=missing")]
    assert [key[2] for key in rows if key[0] == "hazard_ratio"] == terms
    check_model(rows, lifelines_fit(sites, filled, tuple(terms)))
    assert {row.n for row in rows.values()} == {280}


@LIFELINES
def test_a_site_without_the_column_misses_it_for_everyone() -> None:
    columns = dict(with_gaps(THREE["c"]).columns)
    gone = {**columns, "age": np.full(70, np.nan)}
    del columns["age"]
    sites = {**{name: with_gaps(THREE[name]) for name in "ab"}}
    without = {**sites, "c": Exams(columns=columns, keys=THREE["c"].keys)}
    empty = {**sites, "c": Exams(columns=gone, keys=THREE["c"].keys)}
    spec = cox(missing="indicator")
    assert_same_rows(pooled(spec, without), pooled(spec, empty))
    terms = ("age", "age=missing", "sex", "sex=missing")
    check_model(pooled(spec, without), lifelines_fit(empty, filled, terms))


@LIFELINES
def test_by_default_only_complete_patients_count() -> None:
    sites = {name: with_gaps(exams) for name, exams in THREE.items()}
    complete = {name: exams.complete(["age", "sex"]) for name, exams in sites.items()}
    rows = pooled(cox(), sites)
    assert {row.n for row in rows.values()} == {sum(e.n for e in complete.values())}
    events = sum(int(e.column("event").sum()) for e in complete.values())
    assert {row.n_events for row in rows.values()} == {events}
    check_model(rows, lifelines_fit(complete, hand_made, ("age", "sex")))


def test_a_gap_indicator_without_a_gap_is_not_estimable() -> None:
    rows = pooled(cox(missing="indicator"), THREE)
    plain = pooled(cox(), THREE)
    for name in ("age", "sex"):
        gap = rows["hazard_ratio", "", f"{name}=missing"]
        assert gap.status is RowStatus.NOT_ESTIMABLE
        one, other = (found["hazard_ratio", "", name] for found in (rows, plain))
        assert one.estimate == pytest.approx(other.estimate, rel=1e-10)


# --- Cox: sums at the maximum, as their definitions read ---------------------------------------


Stratum = tuple[np.ndarray, np.ndarray, np.ndarray]


def strata(sites: Sites, terms: tuple[str, ...] = ("age", "sex")) -> list[Stratum]:
    return [
        (
            np.column_stack([hand_made(exams)[term] for term in terms]),
            exams.column("follow_up_days"),
            exams.column("event") == 1,
        )
        for exams in sites.values()
    ]


def score_and_information(
    stratum: Stratum, beta: np.ndarray, n_times: int, ties: TieMethod
) -> tuple[np.ndarray, np.ndarray]:
    """Return U and I of the model with x and, for `n_times` = p, x t as well, at (beta, 0)."""
    x, time, event = stratum
    size = x.shape[1] + n_times
    score, information = np.zeros(size), np.zeros((size, size))
    weight = np.exp(x @ beta)
    for moment in np.unique(time[event]):
        z = np.column_stack([x, x[:, :n_times] * moment])
        died = event & (time == moment)
        for place in range(int(died.sum())):
            left_out = place / died.sum() if ties is TieMethod.EFRON else 0.0
            share = weight * (time >= moment) * (1 - left_out * died)
            share = share / share.sum()
            mean = share @ z
            score += z[died].mean(axis=0) - mean
            information += z.T @ (share[:, None] * z) - np.outer(mean, mean)
    return score, information


def coefficients(rows: Rows, terms: tuple[str, ...] = ("age", "sex")) -> np.ndarray:
    return np.array([rows["log_hazard_ratio", "", term].estimate for term in terms])


def test_robust_errors_are_sums_of_squared_dfbetas() -> None:
    rows = pooled(cox(ties=TieMethod.BRESLOW, robust=True), THREE)
    beta = coefficients(rows)
    parts = [score_and_information(s, beta, 0, TieMethod.BRESLOW)[1] for s in strata(THREE)]
    inverse = np.linalg.inv(sum(parts))
    dfbetas = []
    for x, time, event in strata(THREE):
        weight = np.exp(x @ beta)
        for i in range(len(x)):
            residual = np.zeros(2)
            for j in np.flatnonzero(event & (time <= time[i])):
                at_risk = weight * (time >= time[j])
                from_mean = x[i] - at_risk @ x / at_risk.sum()
                residual += ((i == j) - weight[i] / at_risk.sum()) * from_mean
            dfbetas.append(inverse @ residual)
    robust = np.sqrt(np.sum(np.square(dfbetas), axis=0))
    model = np.sqrt(np.diag(inverse))
    plain = pooled(cox(ties=TieMethod.BRESLOW), THREE)
    for j, term in enumerate(("age", "sex")):
        row, other = (found["log_hazard_ratio", "", term] for found in (rows, plain))
        assert (row.ci_method, other.ci_method) == ("wald_robust", "wald")
        assert row.se == pytest.approx(robust[j], rel=1e-10)
        assert other.se == pytest.approx(model[j], rel=1e-10)
        assert row.ci_high == pytest.approx(beta[j] + Z95 * robust[j], rel=1e-10)
        p_value = special.chdtrc(1, (beta[j] / robust[j]) ** 2)
        assert row.p_value == pytest.approx(p_value, rel=1e-8)
    assert rows["lr_chi2", "", ""] == plain["lr_chi2", "", ""]


@pytest.mark.parametrize("ties", list(TieMethod))
def test_proportionality_is_the_score_test_of_a_coefficient_linear_in_time(
    ties: TieMethod,
) -> None:
    rows = pooled(cox(ties=ties, proportionality=True), THREE)
    beta = coefficients(rows)
    parts = [score_and_information(stratum, beta, 2, ties) for stratum in strata(THREE)]
    score, information = (sum(part[k] for part in parts) for k in (0, 1))
    for term, added in (("age", [2]), ("sex", [3]), ("", [2, 3])):
        kept = [0, 1, *added]
        chi2 = score[kept] @ np.linalg.solve(information[np.ix_(kept, kept)], score[kept])
        row = rows["proportionality_chi2", "", term]
        assert row.estimate == pytest.approx(chi2, rel=1e-8)
        assert row.p_value == pytest.approx(special.chdtrc(len(added), chi2), rel=1e-8)


def test_concordance_counts_the_pairs_of_patients_of_one_site() -> None:
    rows = pooled(cox(concordance=True), THREE)
    beta = coefficients(rows)
    own: list[tuple[float, float]] = []
    for x, time, event in strata(THREE):
        # Tenths of a year and whole sexes: exact ties, which x @ beta may round apart.
        risk = (x * beta).sum(axis=1)
        right, pairs = np.zeros(len(x)), np.zeros(len(x))
        for i, j in combinations(range(len(x)), 2):
            first, later = (i, j) if (time[i], not event[i]) < (time[j], not event[j]) else (j, i)
            same_end = time[i] == time[j] and event[i] == event[j]
            if not event[first] or same_end:
                continue
            gained = 0.5 if risk[first] == risk[later] else float(risk[first] > risk[later])
            right[[i, j]] += gained
            pairs[[i, j]] += 1
        own += list(zip(right, pairs, strict=True))
    a, b = np.array(own).T
    c = a.sum() / b.sum()
    row = rows["c_index", "", ""]
    assert row.estimate == pytest.approx(c, rel=1e-12)
    assert row.se == pytest.approx(2 * np.sqrt(np.sum((a - c * b) ** 2)) / b.sum(), rel=1e-10)


@pytest.mark.parametrize("code", [RefusalCode.BUDGET_SPENT, RefusalCode.UNPROTECTABLE])
def test_without_the_sums_at_the_maximum_the_model_stands(code: RefusalCode) -> None:
    spec = cox(robust=True, proportionality=True, concordance=True)
    rows = pooled(
        spec, THREE, lambda site, step: code if (site, step) == ("b", "maximum") else None
    )
    plain = pooled(cox(), THREE)
    assert_same_rows({key: rows[key] for key in plain}, plain)
    assert {rows[key].ci_method for key in plain} == {"wald", ""}
    rest = {key: row for key, row in rows.items() if key not in plain}
    assert set(rest) == {
        *(("proportionality_chi2", "", term) for term in ("age", "sex", "")),
        ("c_index", "", ""),
    }
    assert {row.status for row in rest.values()} == {RowStatus.SUPPRESSED}


# --- Endpoints and subgroups --------------------------------------------------------------------


KINDS = ("cox", "kaplan_meier", "survival_calibration")


def restricted(keep: Callable[[Exams], np.ndarray]) -> dict[str, Exams]:
    return {name: exams.where(keep(exams)) for name, exams in THREE.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_landmark_shifts_time_and_keeps_who_is_still_followed(kind: str) -> None:
    # Follow-up of one patient ends on the landmark exactly: too early.
    day = int(np.sort(column(THREE, "follow_up_days"))[40])
    endpoints = (Endpoint(name="late", definition="Event after a while", landmark_days=day),)
    spec = SPECS[kind].model_copy(update={"endpoint": "late"})
    late = pooled(spec, THREE, endpoints=endpoints)
    shifted = {
        name: exams.with_column("follow_up_days", exams.column("follow_up_days") - day)
        for name, exams in restricted(lambda exams: exams.column("follow_up_days") > day).items()
    }
    assert_same_rows(late, pooled(SPECS[kind], shifted))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exclusion_of_the_endpoint_leaves_patients_out(kind: str) -> None:
    unknown = np.where(np.arange(90) < 5, np.nan, THREE["b"].column("early"))
    sites = {**THREE, "b": THREE["b"].with_column("early", unknown)}
    rows = pooled(SPECS[kind].model_copy(update={"endpoint": "kept_mace"}), sites)
    kept = {name: exams.where(exams.column("early") == 0) for name, exams in sites.items()}
    assert sum(exams.n for exams in kept.values()) < 275
    assert_same_rows(rows, pooled(SPECS[kind], kept))


SUBGROUPS = (
    Subgroup(name="women", covariate="sex", levels=("1",), description="Women."),
    Subgroup(name="old", covariate="age", minimum=65, description="65 or older."),
    Subgroup(name="middle", covariate="age", minimum=55, below=65, description="From 55."),
    Subgroup(name="young", covariate="age", below=62, description="Below 62."),
    Subgroup(name="ac", covariate="vendor", levels=("a", "c"), description="Not b."),
)
CHOSEN: dict[str, Callable[[Exams], np.ndarray]] = {
    "women": lambda exams: exams.column("sex") == 1,
    "old": lambda exams: exams.column("age") >= 65,
    "middle": lambda exams: (exams.column("age") >= 55) & (exams.column("age") < 65),
    "young": lambda exams: exams.column("age") < 62,
    "ac": lambda exams: exams.column("vendor") != 1,
}


@pytest.mark.parametrize("name", sorted(CHOSEN))
@pytest.mark.parametrize("kind", KINDS)
def test_a_subgroup_is_the_analysis_of_its_patients(kind: str, name: str) -> None:
    spec = SPECS[kind].model_copy(update={"subgroup": name})
    rows = pooled(spec, THREE, subgroups=SUBGROUPS)
    assert_same_rows(rows, pooled(SPECS[kind], restricted(CHOSEN[name])))


# --- Sites and covariates that hold no information ----------------------------------------------


FULL_COX = cox(robust=True, proportionality=True, concordance=True)


@pytest.mark.parametrize(
    "extra",
    [
        at_risk_exams(4, 40, event=np.zeros(40)),
        at_risk_exams(4, 1, event=np.ones(1)),
        at_risk_exams(4, 1, event=np.zeros(1)),
        at_risk_exams(4, 0),
    ],
    ids=["no event", "one event", "one patient", "nobody"],
)
def test_a_site_without_comparable_patients_changes_nothing_but_n(extra: Exams) -> None:
    rows, plain = pooled(FULL_COX, {**THREE, "d": extra}), pooled(FULL_COX, THREE)
    assert {row.n for row in rows.values()} == {280 + extra.n}
    for key, row in rows.items():
        assert row.estimate == pytest.approx(plain[key].estimate, rel=1e-9), key
        close = plain[key].se if row.se is None else pytest.approx(plain[key].se, rel=1e-9)
        assert row.se == close, key


def one_column(name: str, make: Callable[[Exams], np.ndarray]) -> dict[str, Exams]:
    return {site: exams.with_column(name, make(exams)) for site, exams in THREE.items()}


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_constant_covariate_is_left_out_of_every_row(constant: float) -> None:
    rows = pooled(FULL_COX, one_column("sex", lambda exams: np.full(exams.n, constant)))
    alone = pooled(FULL_COX.model_copy(update={"covariates": ("age",)}), THREE)
    absent = {key for key in rows if key[2] == "sex"}
    assert {rows[key].status for key in absent} == {RowStatus.NOT_ESTIMABLE}
    assert len(absent) == 3
    rest = {key: row for key, row in rows.items() if key not in absent}
    assert_same_rows(rest, alone, tolerance=1e-8)


def test_a_covariate_constant_within_every_site_is_not_estimable() -> None:
    sites = {
        name: exams.with_column("sex", np.full(exams.n, float(name == "a")))
        for name, exams in THREE.items()
    }
    rows = pooled(FULL_COX, sites)
    assert rows["hazard_ratio", "", "sex"].status is RowStatus.NOT_ESTIMABLE
    assert rows["hazard_ratio", "", "age"].status is RowStatus.OK


@pytest.mark.parametrize("slope", [1.0, -3.0, 0.1])
def test_of_collinear_covariates_the_first_stays(slope: float) -> None:
    sites = one_column("risk", lambda exams: 20 + slope * exams.column("age"))
    rows = pooled(FULL_COX.model_copy(update={"covariates": ("age", "risk")}), sites)
    assert rows["hazard_ratio", "", "risk"].status is RowStatus.NOT_ESTIMABLE
    assert rows["proportionality_chi2", "", "risk"].status is RowStatus.NOT_ESTIMABLE
    alone = pooled(FULL_COX.model_copy(update={"covariates": ("age",)}), THREE)
    assert_same_rows({key: rows[key] for key in alone}, alone, tolerance=1e-7)


@pytest.mark.parametrize("others", [(), ("age",)])
def test_a_covariate_that_separates_leaves_no_number(others: tuple[str, ...]) -> None:
    # Only women have the event, at every site: the likelihood rises for ever.
    sites = one_column("sex", lambda exams: exams.column("event"))
    spec = FULL_COX.model_copy(update={"covariates": ("sex", *others)})
    rows = pooled(spec, sites)
    assert {row.status for row in rows.values()} == {RowStatus.NOT_ESTIMABLE}


@pytest.mark.parametrize(
    "sites",
    [
        {"a": at_risk_exams(1, 60, event=np.zeros(60))},
        {f"s{i}": at_risk_exams(i, 1) for i in range(6)},
        {"a": at_risk_exams(1, 0), "b": at_risk_exams(2, 0)},
        {"a": at_risk_exams(1, 3), "b": at_risk_exams(2, 2)},
    ],
    ids=["no event", "single patients", "nobody", "a handful"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_hardly_any_information_is_no_crash(kind: str, sites: Sites) -> None:
    # `pooled` checks that no number is left over; Cox has none at all here.
    rows = pooled(SPECS[kind], sites)
    if kind == "cox":
        assert {row.status for row in rows.values()} == {RowStatus.NOT_ESTIMABLE}


def test_events_that_all_happen_on_one_day_order_nobody() -> None:
    sites = {
        name: exams.with_column("event", np.ones(exams.n)).with_column(
            "follow_up_days", np.full(exams.n, 30.0)
        )
        for name, exams in THREE.items()
    }
    rows = pooled(FULL_COX.model_copy(update={"robust": False}), sites)
    for term in ("age", "sex"):
        assert rows["log_hazard_ratio", "", term].estimate == pytest.approx(0, abs=1e-12)
        assert rows["proportionality_chi2", "", term].status is RowStatus.NOT_ESTIMABLE
    assert rows["lr_chi2", "", ""].estimate == pytest.approx(0, abs=1e-9)
    assert rows["c_index", "", ""].status is RowStatus.NOT_ESTIMABLE
    assert pooled(curve_spec(), sites)["logrank_chi2", "", ""].status is RowStatus.NOT_ESTIMABLE


# --- Kaplan-Meier -------------------------------------------------------------------------------


def curve_spec(**changes: Any) -> KaplanMeierSpec:
    values = {"id": "x", "kind": "kaplan_meier", "endpoint": "mace", "by": "vendor"}
    return KaplanMeierSpec(**{**values, "bin_days": 1, "horizon_days": 1200, **changes})


def column(sites: Sites, name: str) -> np.ndarray:
    return np.concatenate([exams.column(name) for exams in sites.values()])


@LIFELINES
def test_daily_curves_are_those_of_the_pooled_rows() -> None:
    rows = pooled(curve_spec(), THREE)
    time, event, vendor = (column(THREE, name) for name in ("follow_up_days", "event", "vendor"))
    for number, label in enumerate("abc"):
        own = vendor == number
        fitter = KaplanMeierFitter().fit(time[own], event[own])
        limits = fitter.confidence_interval_survival_function_
        for day in (7, 91, 400, 1000, 1200):
            row = rows["survival", label, f"{day}"]
            survival = float(fitter.survival_function_at_times(day).iloc[0])
            assert row.estimate == pytest.approx(survival, abs=1e-10)
            low, high = limits[limits.index <= day].iloc[-1]
            assert (row.ci_low, row.ci_high) == pytest.approx((low, high), abs=1e-10)
            assert row.ci_method == "log_log"
            moments = np.unique(time[own & (event == 1) & (time <= day)])
            at_risk = np.array([np.sum(own & (time >= t)) for t in moments])
            died = np.array([np.sum(own & (event == 1) & (time == t)) for t in moments])
            greenwood = survival * np.sqrt(np.sum(died / (at_risk * (at_risk - died))))
            assert row.se == pytest.approx(greenwood, abs=1e-10)
            assert (row.n, row.n_events) == (own.sum(), died.sum())
            left = rows["at_risk", label, f"{day}"].estimate
            assert left == np.sum(own & (time > day))
        assert rows["at_risk", label, "0"].estimate == own.sum()


def test_wide_bins_are_the_actuarial_life_table() -> None:
    # 200 is no multiple of 90: the last bin is shorter.
    rows = pooled(curve_spec(by="all", bin_days=90, horizon_days=200), THREE)
    time, event = column(THREE, "follow_up_days"), column(THREE, "event") == 1
    survival = 1.0
    assert [key[2] for key in rows if key[0] == "survival"] == ["90", "180", "200"]
    for start, end in ((0, 90), (90, 180), (180, 200)):
        inside = (time > start) & (time <= end)
        exposed = np.sum(time > start) - np.sum(inside & ~event) / 2
        survival *= 1 - np.sum(inside & event) / exposed
        assert rows["survival", "all", f"{end}"].estimate == pytest.approx(survival, rel=1e-12)


@LIFELINES
@pytest.mark.parametrize("by", ["vendor", "sex", "index"])
def test_the_log_rank_test_of_one_site_is_the_plain_one(by: str) -> None:
    exams = THREE["a"]
    rows = pooled(curve_spec(by=by, bin_days=91), {"a": exams})
    group = exams.column("vendor" if by == "index" else by)
    if by == "index":
        group = np.digitize(exams.column("index_score"), [1, 10.0001, 100.0001, 400.0001])
    wanted = multivariate_logrank_test(exams.column("follow_up_days"), group, exams.column("event"))
    row = rows["logrank_chi2", "", ""]
    assert row.estimate == pytest.approx(wanted.test_statistic, rel=1e-8)
    assert row.p_value == pytest.approx(wanted.p_value, rel=1e-8)
    assert (row.n, row.n_events) == (120, exams.column("event").sum())


@LIFELINES
def test_a_group_that_one_site_lacks_is_drawn_from_the_others() -> None:
    vendor = np.minimum(THREE["a"].column("vendor"), 1)
    sites = {**THREE, "a": THREE["a"].with_column("vendor", vendor)}
    rows = pooled(curve_spec(), sites)
    others = {name: exams for name, exams in sites.items() if name != "a"}
    alone = pooled(curve_spec(), others)
    for key, row in alone.items():
        if key[1] == "c":
            assert rows[key] == row
    assert rows["survival", "a", "400"].n == np.sum(column(sites, "vendor") == 0)
    assert rows["logrank_chi2", "", ""].n == 280
    # A group that nobody is in: no curve, and the test is that of the other two.
    two = {
        name: e.with_column("vendor", np.minimum(e.column("vendor"), 1))
        for name, e in sites.items()
    }
    rows = pooled(curve_spec(), {"a": two["a"]})
    assert [row.status for key, row in rows.items() if key[1] == "c"] == [RowStatus.SUPPRESSED]
    a = two["a"]
    wanted = multivariate_logrank_test(
        a.column("follow_up_days"), a.column("vendor"), a.column("event")
    )
    assert rows["logrank_chi2", "", ""].estimate == pytest.approx(wanted.test_statistic, rel=1e-8)


def test_a_refused_site_is_named_and_left_out_of_the_curves() -> None:
    def refuse(site: str, step: str) -> RefusalCode | None:
        return RefusalCode.TOO_FEW_EVENTS if site == "c" else None

    two = {name: THREE[name] for name in "ab"}
    assert_same_rows(pooled(curve_spec(), THREE, refuse), pooled(curve_spec(), two))
    lost = [row for row in estimates(curve_spec(), THREE, refuse) if row.scope != "pooled"]
    assert [(row.scope, row.status) for row in lost] == [("c", RowStatus.SUPPRESSED)]
    hidden = pooled(curve_spec(), THREE, lambda site, step: RefusalCode.TOO_FEW_EVENTS)
    assert {row.estimate for row in hidden.values()} == {None}
    assert hidden["logrank_chi2", "", ""].status is RowStatus.SUPPRESSED


# --- Survival calibration -----------------------------------------------------------------------


CALIBRATION = SurvivalCalibrationSpec(
    id="x",
    kind="survival_calibration",
    endpoint="mace",
    prediction="risk",
    horizon_days=700,
    risk_bins=(0.1, 0.2),
)


@LIFELINES
def test_observed_risk_weighs_every_sites_curve_by_its_patients() -> None:
    rows = pooled(CALIBRATION, THREE)
    risk = column(THREE, "risk")
    for label, low, high in (
        ("0-0.1", 0, 0.1),
        ("0.1-0.2", 0.1, 0.2),
        ("0.2-1", 0.2, 2),
        ("", 0, 2),
    ):
        n, survivors, variance = 0, 0.0, 0.0
        for exams in THREE.values():
            p, time, event = (exams.column(c) for c in ("risk", "follow_up_days", "event"))
            own = (p >= low) & (p < high)
            curve = KaplanMeierFitter().fit(time[own], event[own])
            survival = float(curve.survival_function_at_times(700).iloc[0])
            moments = np.unique(time[own & (event == 1) & (time <= 700)])
            at_risk = np.array([np.sum(own & (time >= t)) for t in moments])
            died = np.array([np.sum(own & (event == 1) & (time == t)) for t in moments])
            size = own.sum()
            n += size
            survivors += size * survival
            variance += (size * survival) ** 2 * np.sum(died / (at_risk * (at_risk - died)))
        observed, se = 1 - survivors / n, np.sqrt(variance) / n
        row = rows["observed_risk", label, ""]
        assert (row.estimate, row.se) == pytest.approx((observed, se), rel=1e-10)
        limits = max(0, observed - Z95 * se), min(1, observed + Z95 * se)
        assert (row.ci_low, row.ci_high) == pytest.approx(limits, rel=1e-10)
        assert row.n == n
        expected = risk[(risk >= low) & (risk < high)].mean()
        assert rows["expected_risk", label, ""].estimate == pytest.approx(expected, rel=1e-10)
    # The loop ends with all patients.
    ratio = rows["oe_ratio", "", ""]
    assert ratio.estimate == pytest.approx(observed / expected, rel=1e-10)
    assert ratio.se == pytest.approx(se / expected, rel=1e-10)


def test_the_gate_is_told_whom_every_bin_stands_for() -> None:
    exams = THREE["a"]
    time, event = exams.column("follow_up_days"), exams.column("event") == 1
    # One patient's event is moved to the horizon itself, which counts as by the horizon.
    time = np.where(np.arange(exams.n) == np.flatnonzero(event)[0], 700.0, time)
    estimator = estimator_for("x", plan((CALIBRATION,)))
    found = estimator.summarise(exams.with_column("follow_up_days", time), Query(step="bins"))
    bins = np.digitize(exams.column("risk"), CALIBRATION.risk_bins)
    is_early = event & (time <= 700)
    groups = [
        min(np.sum(own & is_early), np.sum(own & ~is_early))
        for own in (*(bins == number for number in range(3)), bins >= 0)
    ]
    assert list(found.evidence.row_groups) == groups


@LIFELINES
def test_the_slope_is_that_of_a_stratified_model_on_the_complementary_log_log() -> None:
    row = pooled(CALIBRATION, THREE)["calibration_slope", "", ""]
    model = lifelines_fit(
        THREE, lambda exams: {"slope": np.log(-np.log(1 - exams.column("risk")))}, ("slope",)
    )
    assert row.estimate == pytest.approx(model.params_["slope"], abs=1e-6)
    assert row.se == pytest.approx(model.standard_errors_["slope"], abs=1e-6)
    assert row.ci_low == pytest.approx(row.estimate - Z95 * row.se, rel=1e-10)


def test_predictions_that_say_nothing() -> None:
    sites = one_column("risk", lambda exams: np.full(exams.n, 0.15))
    rows = pooled(CALIBRATION, sites)
    assert rows["calibration_slope", "", ""].status is RowStatus.NOT_ESTIMABLE
    for label in ("0-0.1", "0.2-1"):
        assert rows["observed_risk", label, ""].status is RowStatus.NOT_ESTIMABLE
    assert rows["observed_risk", "0.1-0.2", ""].estimate == pytest.approx(
        rows["observed_risk", "", ""].estimate, rel=1e-12
    )
    assert rows["expected_risk", "", ""].estimate == pytest.approx(0.15)


def test_certain_predictions_are_finite() -> None:
    sites = one_column("risk", lambda exams: exams.column("event"))
    rows = pooled(CALIBRATION, sites)
    assert rows["expected_risk", "0-0.1", ""].estimate == 0
    assert rows["expected_risk", "0.2-1", ""].estimate == 1
    assert rows["observed_risk", "0-0.1", ""].estimate == 0


@pytest.mark.parametrize("step", ["bins", "newton"])
def test_a_site_that_refuses_one_step_of_calibration(step: str) -> None:
    def refuse(site: str, asked: str) -> RefusalCode | None:
        return RefusalCode.TOO_FEW_EVENTS if (site, asked) == ("c", step) else None

    rows = pooled(CALIBRATION, THREE, refuse)
    both, two = pooled(CALIBRATION, THREE), pooled(CALIBRATION, {n: THREE[n] for n in "ab"})
    lacks = (
        {"calibration_slope"}
        if step == "newton"
        else {"observed_risk", "expected_risk", "oe_ratio"}
    )
    wanted = {key: (two if key[0] in lacks else both)[key] for key in rows}
    assert_same_rows(rows, wanted)
