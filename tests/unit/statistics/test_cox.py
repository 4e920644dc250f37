"""The Cox analysis through its own class: design, pooling, and everything that can go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from numpy.typing import NDArray

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CoxSpec
from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics import Estimate, PoolingSession, QueryError, estimator_for
from fedcac.statistics.heterogeneity import random_effects
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

DEMO = load_shipped("demo-nongated")


def exams_of(seed: int, n: int, **changes: NDArray[np.float64]) -> Exams:
    rng = np.random.default_rng(seed)
    age = rng.normal(62, 9, n)
    sex = rng.integers(0, 2, n).astype(float)
    score = np.where(rng.random(n) < 0.4, 0.0, rng.lognormal(4, 2, n))
    time = rng.exponential(900 / np.exp(0.03 * (age - 62) + 0.4 * sex)).round() + 1
    columns = {
        "age": age,
        "sex": sex,
        "reference_score": score,
        "index_score": score,
        "follow_up_days": np.minimum(time, 1500),
        "event": (time < 1500).astype(float),
        **changes,
    }
    return Exams(columns=columns, keys=tuple(f"{seed}-{i}" for i in range(n)))


def spec_of(**changes: Any) -> CoxSpec:
    values = {"id": "x", "kind": "cox", "endpoint": "mace", "covariates": ("age", "sex"), **changes}
    return CoxSpec(**values)


def fit(
    sites: dict[str, Exams | RefusalCode], spec: CoxSpec, late_refusal: str = ""
) -> list[Estimate]:
    protocol = DEMO.model_copy(update={"analyses": (spec,)})
    estimator = estimator_for("x", protocol)
    session = PoolingSession(protocol, [SiteName(name) for name in sites])
    exchange = 0
    while not session.is_finished:
        exchange += 1
        assert exchange < 30
        query = session.queries["x"]
        answers: dict[SiteName, Any] = {}
        for name, exams in sites.items():
            is_late = name == late_refusal and exchange > 1
            if isinstance(exams, RefusalCode) or is_late:
                code = exams if isinstance(exams, RefusalCode) else RefusalCode.TOO_MANY_EXCHANGES
                answers[SiteName(name)] = {"x": code}
            else:
                answers[SiteName(name)] = {"x": estimator.summarise(exams, query)}
        session.answer(answers)
    return list(session.estimates())


def row(rows: list[Estimate], measure: str, term: str = "", scope: str = "pooled") -> Estimate:
    found = [r for r in rows if (r.measure.value, r.term, r.scope) == (measure, term, scope)]
    assert len(found) == 1
    return found[0]


def lifelines_fit(sites: dict[str, Exams]) -> CoxPHFitter:
    frames = []
    for name, exams in sites.items():
        frames.append(
            pd.DataFrame(
                {
                    "age": exams.column("age") / 10,
                    "male": exams.column("sex"),
                    "time": exams.column("follow_up_days"),
                    "event": exams.column("event"),
                    "site": name,
                }
            )
        )
    model = CoxPHFitter()
    model.fit(
        pd.concat(frames, ignore_index=True),
        "time",
        "event",
        strata=["site"],
        fit_options={"precision": 1e-12, "r_precision": 1e-13},
    )
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_agrees_with_lifelines_on_the_pooled_rows() -> None:
    sites = {"a": exams_of(1, 150), "b": exams_of(2, 90), "c": exams_of(3, 60)}
    rows = fit(dict(sites), spec_of())
    model = lifelines_fit(sites)
    for term, name in (("age", "age"), ("sex=male", "male")):
        ours = row(rows, "log_hazard_ratio", term)
        assert ours.estimate == pytest.approx(model.params_[name], abs=1e-8)
        assert ours.se == pytest.approx(model.standard_errors_[name], abs=1e-8)
        ratio = row(rows, "hazard_ratio", term)
        assert ratio.estimate == pytest.approx(np.exp(model.params_[name]), rel=1e-8)
        assert ratio.p_value == pytest.approx(model.summary.loc[name, "p"], abs=1e-8)
        assert ratio.n == 300
    test = model.log_likelihood_ratio_test()
    assert row(rows, "lr_chi2").estimate == pytest.approx(test.test_statistic, abs=1e-7)
    assert row(rows, "lr_chi2").p_value == pytest.approx(test.p_value, abs=1e-8)


def test_risk_categories_are_indicators_against_the_lowest() -> None:
    rows = fit({"a": exams_of(1, 400)}, spec_of(covariates=(), risk_category="reference"))
    terms = {r.term for r in rows if r.measure.value == "hazard_ratio"}
    assert terms == {"1-10", "11-100", "101-400", ">400"}


def test_rows_with_a_missing_covariate_are_left_out() -> None:
    age = np.where(np.arange(120) % 6 == 0, np.nan, np.linspace(40, 80, 120))
    rows = fit({"a": exams_of(1, 120, age=age)}, spec_of())
    assert row(rows, "hazard_ratio", "age").n == 100


def test_a_site_without_events_changes_nothing_but_n() -> None:
    full = exams_of(1, 150)
    quiet = exams_of(2, 50, event=np.zeros(50))
    alone, both = fit({"a": full}, spec_of()), fit({"a": full, "b": quiet}, spec_of())
    one, other = (row(rows, "log_hazard_ratio", "age") for rows in (alone, both))
    assert other.estimate == pytest.approx(one.estimate, abs=1e-10)
    assert other.se == pytest.approx(one.se, abs=1e-10)


def test_constant_and_collinear_covariates_are_not_estimable() -> None:
    rows = fit({"a": exams_of(1, 150, sex=np.ones(150))}, spec_of())
    assert row(rows, "hazard_ratio", "sex=male").status is RowStatus.NOT_ESTIMABLE
    assert row(rows, "hazard_ratio", "age").status is RowStatus.OK
    exams = exams_of(1, 150)
    twin = exams_of(1, 150, age=10 * exams.column("sex") + 50)
    rows = fit({"a": twin}, spec_of())
    statuses = [row(rows, "hazard_ratio", term).status for term in ("age", "sex=male")]
    assert statuses == [RowStatus.OK, RowStatus.NOT_ESTIMABLE]


def test_separation_is_not_estimable_and_never_a_number() -> None:
    sex = np.repeat([0.0, 1.0], 40)
    event = sex.copy()
    time = np.tile(np.arange(1.0, 41.0), 2)
    exams = exams_of(1, 80, sex=sex, event=event, follow_up_days=time)
    rows = fit({"a": exams}, spec_of(covariates=("sex",)))
    found = row(rows, "hazard_ratio", "sex=male")
    assert found.status is RowStatus.NOT_ESTIMABLE
    assert found.estimate is None


def test_strata_of_one_patient_hold_no_information() -> None:
    sites: dict[str, Exams | RefusalCode] = {f"s{i}": exams_of(i, 1) for i in range(5)}
    rows = fit(sites, spec_of())
    assert row(rows, "hazard_ratio", "age").status is RowStatus.NOT_ESTIMABLE


def test_a_refused_site_is_left_out_and_named() -> None:
    full = exams_of(1, 150)
    rows = fit({"a": full, "b": RefusalCode.TOO_FEW_EVENTS}, spec_of())
    alone = fit({"a": full}, spec_of())
    assert row(rows, "log_hazard_ratio", "age").estimate == pytest.approx(
        row(alone, "log_hazard_ratio", "age").estimate, abs=1e-10
    )
    assert row(rows, "log_hazard_ratio", "age", scope="b").status is RowStatus.SUPPRESSED


def test_a_site_that_refuses_later_is_left_out_of_the_fit() -> None:
    sites: dict[str, Exams | RefusalCode] = {"a": exams_of(1, 150), "b": exams_of(2, 150)}
    rows = fit(sites, spec_of(), late_refusal="b")
    alone = fit({"a": exams_of(1, 150)}, spec_of())
    found = row(rows, "log_hazard_ratio", "age")
    expected = row(alone, "log_hazard_ratio", "age")
    assert found.estimate == pytest.approx(expected.estimate, abs=1e-8)
    assert found.n == expected.n == 150


def test_all_refused_is_suppressed() -> None:
    rows = fit({"a": RefusalCode.TOO_FEW_EVENTS, "b": RefusalCode.TOO_FEW_PATIENTS}, spec_of())
    assert row(rows, "hazard_ratio", "age").status is RowStatus.SUPPRESSED


@pytest.mark.parametrize(
    "query",
    [
        Query(step="newton"),
        Query(step="newton", values={"beta": (0.0,)}),
        Query(step="other", values={"beta": (0.0, 0.0)}),
        Query(step="newton", values={"beta": (0.0, 0.0), "more": (1.0,)}),
    ],
)
def test_malformed_queries_are_refused(query: Query) -> None:
    protocol = DEMO.model_copy(update={"analyses": (spec_of(),)})
    with pytest.raises(QueryError):
        estimator_for("x", protocol).summarise(exams_of(1, 60), query)


def test_a_huge_beta_neither_overflows_nor_gives_nan() -> None:
    protocol = DEMO.model_copy(update={"analyses": (spec_of(),)})
    query = Query(step="newton", values={"beta": (400.0, -400.0)})
    terms = estimator_for("x", protocol).summarise(exams_of(1, 200), query)
    numbers = (terms.log_likelihood, *terms.gradient, *np.ravel(terms.information))
    assert np.all(np.isfinite(numbers))


def test_every_site_has_its_own_model_and_they_are_summarised() -> None:
    sites = {f"s{number}": exams_of(number, 150 + 40 * number) for number in range(4)}
    rows = fit(dict(sites), spec_of(by_site=True))
    found = {(row.scope, row.measure, row.group, row.term): row for row in rows}
    logs: dict[str, list[tuple[float, float]]] = {"age": [], "sex=male": []}
    for name, exams in sites.items():
        own = fit({name: exams}, spec_of())
        for term, pairs in logs.items():
            expected = next(
                row for row in own if row.measure is Measure.LOG_HAZARD_RATIO and row.term == term
            )
            assert expected.estimate is not None
            assert expected.se is not None
            pairs.append((expected.estimate, expected.se**2))
            row = found[name, Measure.HAZARD_RATIO, "", term]
            assert row.estimate == pytest.approx(np.exp(expected.estimate), rel=1e-9)
            assert row.ci_low == pytest.approx(
                np.exp(expected.estimate - 1.959963984540054 * expected.se), rel=1e-9
            )
            assert row.n == exams.n
    for term, pairs in logs.items():
        mean = random_effects([beta for beta, _ in pairs], [v for _, v in pairs])
        assert mean is not None
        row = found["meta", Measure.HAZARD_RATIO, "", term]
        assert row.estimate == pytest.approx(np.exp(mean.estimate), rel=1e-9)
        assert row.ci_high == pytest.approx(np.exp(mean.ci[1]), rel=1e-9)
        without = random_effects([b for b, _ in pairs[1:]], [v for _, v in pairs[1:]])
        assert without is not None
        row = found["meta", Measure.HAZARD_RATIO, "without s0", term]
        assert row.estimate == pytest.approx(np.exp(without.estimate), rel=1e-9)
        assert row.n == sum(exams.n for exams in sites.values()) - sites["s0"].n


def test_a_site_without_events_has_no_model_of_its_own() -> None:
    sites = {f"s{number}": exams_of(number, 150) for number in range(3)}
    sites["s3"] = exams_of(9, 60, event=np.zeros(60))
    rows = fit(dict(sites), spec_of(by_site=True))
    own = [row for row in rows if row.scope == "s3"]
    assert {row.status for row in own} == {RowStatus.NOT_ESTIMABLE}
    meta = [row for row in rows if row.scope == "meta" and row.measure is Measure.HAZARD_RATIO]
    assert all(row.status is RowStatus.OK and row.n == 450 for row in meta)
