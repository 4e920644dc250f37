"""Meta-analysis, univariate and bivariate, against the numbers metafor wrote to data/meta_*.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedcac.statistics.heterogeneity import dersimonian_laird, random_effects
from fedcac.statistics.reitsma import MINIMUM_SITES_BIVARIATE, Fallback, Reitsma, reitsma

DATA = Path(__file__).parent / "data"
UNIVARIATE = pd.read_csv(DATA / "meta_univariate.csv")
UNIVARIATE_EXPECTED = pd.read_csv(DATA / "meta_univariate_expected.csv")
BIVARIATE_EXPECTED = pd.read_csv(DATA / "meta_bivariate_expected.csv").set_index("dataset")
DATASETS = list(UNIVARIATE.dataset.unique())

Table = tuple[int, int, int, int]


def estimates_of(dataset: str) -> tuple[list[float], list[float]]:
    rows = UNIVARIATE[UNIVARIATE.dataset == dataset]
    return rows.y.tolist(), rows.v.tolist()


def expected_of(dataset: str, method: str) -> pd.Series:
    rows = UNIVARIATE_EXPECTED
    return rows[(rows.dataset == dataset) & (rows.method == method)].iloc[0]


def tables_of(dataset: str) -> list[Table]:
    rows = pd.read_csv(DATA / f"meta_bivariate_{dataset}.csv")
    return [(row.tp, row.fn, row.fp, row.tn) for row in rows.itertuples()]


def fitted(tables: list[Table]) -> Reitsma:
    fit = reitsma(tables)
    assert isinstance(fit, Reitsma)
    return fit


@pytest.mark.parametrize("dataset", DATASETS)
def test_heterogeneity_equals_rma(dataset: str) -> None:
    expected = expected_of(dataset, "DL")
    found = dersimonian_laird(*estimates_of(dataset))
    assert found is not None
    np.testing.assert_allclose(
        [found.q, found.p_value, found.i2, found.tau2],
        [expected.q, expected.p_value, expected.i2, expected.tau2],
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("dataset", DATASETS)
def test_random_effects_equal_rma_reml_knha(dataset: str) -> None:
    expected = expected_of(dataset, "REML")
    found = random_effects(*estimates_of(dataset))
    assert found is not None
    np.testing.assert_allclose(
        [found.estimate, found.se, *(found.ci or ()), found.tau2],
        [expected.estimate, expected.se, expected.ci_low, expected.ci_high, expected.tau2],
        rtol=0,
        atol=1e-8,
    )
    assert found.n_sites == expected.k
    half = stats.t.ppf(0.975, expected.k - 2) * np.sqrt(expected.tau2 + expected.se**2)
    limits = [expected.estimate - half, expected.estimate + half]
    assert found.prediction == pytest.approx(limits, rel=0, abs=1e-7)


@pytest.mark.parametrize("dataset", list(BIVARIATE_EXPECTED.index))
def test_bivariate_model_equals_rma_mv(dataset: str) -> None:
    expected = BIVARIATE_EXPECTED.loc[dataset]
    found = fitted(tables_of(dataset))
    assert found.n_sites == expected.n_sites
    np.testing.assert_allclose(found.means, [expected.mean_se, expected.mean_sp], atol=1e-7)
    (se_se, covariance), (_, se_sp) = found.covariance
    np.testing.assert_allclose(
        [np.sqrt(se_se), np.sqrt(se_sp), covariance],
        [expected.se_se, expected.se_sp, expected.covariance],
        atol=1e-7,
    )
    np.testing.assert_allclose(found.tau, [expected.tau_se, expected.tau_sp], atol=1e-6)
    assert found.rho == pytest.approx(expected.rho, abs=1e-6)
    for name in ("sensitivity", "specificity"):
        np.testing.assert_allclose(
            getattr(found, name),
            [expected[name], expected[f"{name}_low"], expected[f"{name}_high"]],
            atol=1e-7,
        )


def test_the_bivariate_sets_have_empty_cells_and_correlations_of_both_signs() -> None:
    assert BIVARIATE_EXPECTED.n_empty.max() > 0
    assert BIVARIATE_EXPECTED.rho.min() < -0.3
    assert BIVARIATE_EXPECTED.rho.max() > 0.2


def test_the_order_of_sites_does_not_matter() -> None:
    tables = tables_of("twelve")
    one, other = fitted(tables), fitted(tables[::-1])
    np.testing.assert_allclose(one.means, other.means, atol=1e-9)
    np.testing.assert_allclose([*one.tau, one.rho], [*other.tau, other.rho], atol=1e-8)


def test_exchanging_the_classes_exchanges_sensitivity_and_specificity() -> None:
    tables = tables_of("fifteen")
    one, other = fitted(tables), fitted([(tn, fp, fn, tp) for tp, fn, fp, tn in tables])
    np.testing.assert_allclose(one.sensitivity, other.specificity, atol=1e-9)
    np.testing.assert_allclose(one.tau, other.tau[::-1], atol=1e-8)
    assert one.rho == pytest.approx(other.rho, abs=1e-8)


def test_sites_without_a_class_do_not_count() -> None:
    tables = tables_of("twelve")
    extended = [*tables, (0, 0, 4, 30), (12, 3, 0, 0), (0, 0, 0, 0)]
    one, other = fitted(tables), fitted(extended)
    assert one.n_sites == other.n_sites
    np.testing.assert_array_equal(one.means, other.means)
    nine = tables[: MINIMUM_SITES_BIVARIATE - 1]
    assert reitsma([*nine, (0, 0, 4, 30), (12, 3, 0, 0)]) is Fallback.FEW_SITES


def test_too_few_sites() -> None:
    tables = tables_of("forty")
    assert reitsma([]) is Fallback.FEW_SITES
    assert reitsma(tables[: MINIMUM_SITES_BIVARIATE - 1]) is Fallback.FEW_SITES
    assert isinstance(reitsma(tables[:MINIMUM_SITES_BIVARIATE]), Reitsma)


def test_a_search_that_stops_early_is_not_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # No data are known that defeat the search, so it is confined to a range without the maximum.
    monkeypatch.setattr("fedcac.statistics.reitsma.LARGEST_FACTOR", 0.1)
    monkeypatch.setattr("fedcac.statistics.reitsma.STEPS", 0)
    assert reitsma(tables_of("forty")) is Fallback.NOT_CONVERGED


def test_equal_sites_have_no_variance_between_them() -> None:
    assert reitsma([(80, 20, 30, 170)] * 12) is Fallback.SINGULAR


def test_a_deterministic_trade_off_is_singular() -> None:
    tables = [(1000 - 60 * k, 60 * k, 1000 - 60 * k, 60 * k) for k in range(2, 14)]
    assert reitsma(tables) is Fallback.SINGULAR


def test_perfect_sites_are_singular() -> None:
    assert reitsma([(30 + k, 0, 0, 60 + k) for k in range(12)]) is Fallback.SINGULAR
