"""The Cox and Kaplan-Meier analyses, from sites' rows to estimates, against R's survival."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plans import plan
from scipy import special

from fedcac.exams import Exams
from fedcac.protocol import Covariate, CoxSpec, KaplanMeierSpec
from fedcac.statistics import Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import RowStatus, SiteName, TieMethod

DATA = Path(__file__).parent / "data"
DATASETS = ["veteran", "lung", "colon", "flchain", "tied"]
CLOSE = {"rel": 1e-8, "abs": 1e-10}
Z95 = float(special.ndtri(0.975))


@cache
def written(name: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"{name}.csv", dtype={"group": str})


def rows_of(name: str, dataset: str, ties: TieMethod | None = None) -> pd.DataFrame:
    rows = written(name)
    rows = rows[rows.dataset == dataset]
    return rows if ties is None else rows[rows.ties == ties.value]


@cache
def patients(dataset: str) -> pd.DataFrame:
    return written(f"survival_{dataset}" if dataset == "tied" else f"cox_{dataset}")


def sites_of(table: pd.DataFrame) -> dict[SiteName, Exams]:
    sites = {}
    for site, rows in table.groupby("site"):
        columns = {name: rows[name].to_numpy(float) for name in rows if name != "site"}
        columns["follow_up_days"] = columns.pop("time")
        keys = tuple(f"{site}-{number}" for number in range(len(rows)))
        sites[SiteName(f"s{site}")] = Exams(columns=columns, keys=keys)
    return sites


def estimates(
    spec: Any, covariates: list[Covariate], table: pd.DataFrame
) -> dict[tuple[str, str, str], Estimate]:
    """Return the rows of one analysis by measure, group and term."""
    protocol = plan((spec,), covariates=tuple(covariates), subgroups=())
    sites, estimator = sites_of(table), estimator_for("x", protocol)
    session = PoolingSession(protocol, list(sites))
    while not session.is_finished:
        query = session.queries["x"]
        session.answer(
            {site: {"x": estimator.summarise(exams, query)} for site, exams in sites.items()}
        )
    rows = session.estimates()
    assert {row.scope for row in rows} == {"pooled"}
    found = {(row.measure.value, row.group, row.term): row for row in rows}
    assert len(found) == len(rows)
    return found


@cache
def cox_rows(dataset: str, ties: TieMethod, robust: bool) -> dict[tuple[str, str, str], Estimate]:
    names = [name for name in patients(dataset) if name.startswith("x")]
    spec = CoxSpec(
        id="x",
        kind="cox",
        endpoint="mace",
        covariates=tuple(names),
        ties=ties,
        robust=robust,
        proportionality=True,
        concordance=True,
    )
    covariates = [Covariate(name=name, type="continuous", description="As in R") for name in names]
    return estimates(spec, covariates, patients(dataset))


def check_term(
    rows: dict[tuple[str, str, str], Estimate], term: str, coef: float, se: float, method: str
) -> None:
    log, ratio = (rows[measure, "", term] for measure in ("log_hazard_ratio", "hazard_ratio"))
    limits = np.array([coef, coef - Z95 * se, coef + Z95 * se])
    assert (log.estimate, log.ci_low, log.ci_high) == pytest.approx(tuple(limits), **CLOSE)
    assert log.se == pytest.approx(se, **CLOSE)
    found = (ratio.estimate, ratio.ci_low, ratio.ci_high)
    assert found == pytest.approx(tuple(np.exp(limits)), **CLOSE)
    assert log.ci_method == ratio.ci_method == method
    p_value = special.chdtrc(1, (coef / se) ** 2)
    assert (log.p_value, ratio.p_value) == pytest.approx((p_value, p_value), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("ties", list(TieMethod))
@pytest.mark.parametrize("dataset", ["veteran", "lung", "colon", "flchain"])
def test_model_based_rows_equal_coxph(dataset: str, ties: TieMethod) -> None:
    rows = cox_rows(dataset, ties, robust=False)
    wanted = rows_of("cox_expected", dataset, ties)
    for line in wanted.itertuples():
        check_term(rows, line.term, line.coef, line.se, "wald")
    assert {(row.n, row.n_events) for row in rows.values()} == {
        (wanted.n.iloc[0], wanted.n_events.iloc[0])
    }
    chi2 = 2 * (wanted.loglik.iloc[0] - wanted.null_loglik.iloc[0])
    test = rows["lr_chi2", "", ""]
    assert test.estimate == pytest.approx(chi2, **CLOSE)
    assert test.p_value == pytest.approx(special.chdtrc(len(wanted), chi2), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("ties", list(TieMethod))
@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_at_the_maximum_equal_r(dataset: str, ties: TieMethod) -> None:
    rows = cox_rows(dataset, ties, robust=True)
    for line in rows_of("survival_cox", dataset, ties).itertuples():
        check_term(rows, line.term, line.coef, line.robust_se, "wald_robust")
    tests = rows_of("survival_zph", dataset, ties)
    for line in tests.itertuples():
        found = rows["proportionality_chi2", "", "" if line.term == "GLOBAL" else line.term]
        assert (found.estimate, found.p_value) == pytest.approx((line.chi2, line.p), **CLOSE)
    harrell = rows_of("survival_concordance", dataset, ties).iloc[0]
    found = rows["c_index", "", ""]
    assert (found.estimate, found.se) == pytest.approx((harrell.c_index, harrell.se), **CLOSE)
    low, high = harrell.c_index - Z95 * harrell.se, harrell.c_index + Z95 * harrell.se
    assert (found.ci_low, found.ci_high) == pytest.approx((max(0, low), min(1, high)), **CLOSE)
    p = len(tests) - 1
    assert len(rows) == 2 * p + 1 + len(tests) + 1
    assert {row.status for row in rows.values()} == {RowStatus.OK}


def kaplan_meier_spec(dataset: str, by: str) -> KaplanMeierSpec:
    return KaplanMeierSpec(
        id="x",
        kind="kaplan_meier",
        endpoint="mace",
        by=by,
        bin_days=1,
        horizon_days=int(patients(dataset).time.max()),
    )


def nothing_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("dataset", DATASETS)
def test_daily_curves_equal_survfit(dataset: str, is_grouped: bool) -> None:
    wanted = rows_of("survival_curve", dataset)
    wanted = wanted[(wanted.group != "all") == is_grouped]
    column = wanted.column.iloc[0]
    covariate = Covariate(name=column, type="binary", description="As in R")
    spec = kaplan_meier_spec(dataset, column if is_grouped else "all")
    rows = estimates(spec, [covariate], patients(dataset))
    labels = {"all": "all", "0": "no", "1": "yes"}
    assert {row.group for row in rows.values() if row.measure.value == "survival"} == {
        labels[group] for group in wanted.group
    }
    for line in wanted.itertuples():
        own = patients(dataset)
        if is_grouped:
            own = own[own[column] == int(line.group)]
        row = rows["survival", labels[line.group], f"{line.day}"]
        assert row.estimate == pytest.approx(line.survival, rel=1e-8, abs=1e-10)
        for found, value in ((row.se, line.se), (row.ci_low, line.low), (row.ci_high, line.high)):
            number = nothing_if_nan(value)
            assert found == (None if number is None else pytest.approx(number, **CLOSE))
        assert row.n == len(own)
        assert row.n_events == own.event[own.time <= line.day].sum()
        at_risk = rows["at_risk", labels[line.group], f"{line.day}"]
        assert at_risk.estimate == np.count_nonzero(own.time > line.day)


@pytest.mark.parametrize(
    ("dataset", "grouping"), [*((name, "binary") for name in DATASETS), ("colon", "arm")]
)
def test_log_rank_rows_equal_survdiff(dataset: str, grouping: str) -> None:
    table = patients(dataset)
    if grouping == "binary":
        column = rows_of("survival_curve", dataset).column.iloc[0]
        covariate = Covariate(name=column, type="binary", description="As in R")
    else:
        table = table.assign(arm=table.x3 + 2 * table.x4)
        levels = ("observation", "levamisole", "levamisole and 5FU")
        covariate = Covariate(name="arm", type="categorical", description="Arm", levels=levels)
    rows = estimates(kaplan_meier_spec(dataset, covariate.name), [covariate], table)
    wanted = rows_of("survival_log_rank", dataset)
    wanted = wanted[wanted.grouping == grouping]
    found = rows["logrank_chi2", "", ""]
    numbers = (wanted.chi2.iloc[0], wanted.p.iloc[0])
    assert (found.estimate, found.p_value) == pytest.approx(numbers, rel=1e-8)
    assert found.n == len(table)
    assert found.n_events == wanted.observed.sum()
