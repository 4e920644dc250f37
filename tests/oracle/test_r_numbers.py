"""Cox, kappa and proportions against the numbers that R wrote to tests/oracle/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedcac.statistics.cox import CoxTerms
from fedcac.statistics.intervals import clopper_pearson, wilson
from fedcac.statistics.kappa import cohen_kappa
from fedcac.statistics.newton import FitStatus, maximise
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.vocabulary import KappaWeights, SiteName, TieMethod

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("ties", list(TieMethod))
@pytest.mark.parametrize("dataset", ["veteran", "lung", "colon", "flchain"])
def test_distributed_cox_equals_coxph(dataset: str, ties: TieMethod) -> None:
    table = pd.read_csv(DATA / f"cox_{dataset}.csv")
    expected = pd.read_csv(DATA / "cox_expected.csv")
    expected = expected[(expected.dataset == dataset) & (expected.ties == ties.value)]
    terms = list(expected.term)
    strata = {SiteName(f"s{site}"): rows for site, rows in table.groupby("site")}
    search = maximise(tuple(strata), len(terms), CoxTerms)
    query = next(search)
    while True:
        beta = np.array(query.values["beta"])
        answers = {}
        for site, rows in strata.items():
            found = partial_likelihood(
                rows[terms].to_numpy(float),
                rows.time.to_numpy(float),
                rows.event.to_numpy() == 1,
                beta,
                ties,
            )
            answers[site] = CoxTerms(
                n_patients=len(rows),
                n_events=found.n_events,
                log_likelihood=found.log_likelihood,
                gradient=tuple(found.gradient.tolist()),
                information=tuple(tuple(row) for row in found.information.tolist()),
            )
        try:
            query = search.send(answers)
        except StopIteration as stop:
            fit = stop.value
            break
    assert fit.status is FitStatus.OK
    np.testing.assert_allclose(fit.parameters, expected.coef, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fit.standard_errors, expected.se, rtol=0, atol=1e-10)
    assert fit.log_likelihood == pytest.approx(expected.loglik.iloc[0], abs=1e-9)
    assert fit.null_log_likelihood == pytest.approx(expected.null_loglik.iloc[0], abs=1e-9)
    assert (fit.n_patients, fit.n_events) == (expected.n.iloc[0], expected.n_events.iloc[0])


@pytest.mark.parametrize("row", list(pd.read_csv(DATA / "kappa_expected.csv").itertuples()))
def test_kappa_equals_vcd(row: object) -> None:
    matrix = np.loadtxt(DATA / f"matrix_{row.matrix}.csv", delimiter=",", dtype=np.int64)
    kappa = cohen_kappa(matrix, KappaWeights(row.weights))
    assert kappa is not None
    assert kappa.estimate == pytest.approx(row.kappa, abs=1e-13)
    assert kappa.se == pytest.approx(row.se, abs=1e-13)


def test_intervals_equal_prop_test_and_binom_test() -> None:
    rows = pd.read_csv(DATA / "proportions_expected.csv")
    low, high = wilson(rows.successes, rows.n)
    np.testing.assert_allclose(low, rows.wilson_low, atol=1e-12)
    np.testing.assert_allclose(high, rows.wilson_high, atol=1e-12)
    low, high = clopper_pearson(rows.successes, rows.n)
    np.testing.assert_allclose(low, rows.exact_low, atol=1e-10)
    np.testing.assert_allclose(high, rows.exact_high, atol=1e-10)
