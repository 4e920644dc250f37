"""What a statistician with every row would run for the analyses of scores and probabilities.

Each function takes the rows of all sites, one patient a row, and returns the numbers of
scikit-learn, statsmodels or scipy under the names that `estimates.csv` has for them: measure,
group and term. Where no package has a statistic, its definition is written out with numpy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from statsmodels.api import GLM, Logit, add_constant, families
from statsmodels.discrete.count_model import ZeroInflatedPoisson
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.weightstats import DescrStatsW

__all__ = ["MILLER_CUT_OFFS", "MILLER_LABELS", "Numbers", "miller_category"]

Numbers = dict[tuple[str, str, str], tuple[float, float | None]]
"""Estimate, and standard error where the software gives one."""

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

MILLER_CUT_OFFS = (1.0, 100.0, 400.0)
MILLER_LABELS = ("<1", "1-100", "101-400", ">400")
_HONG_CUT_OFFS = (1.0, 100.0, 400.0)
_RISK_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, np.inf)


def _miller_above(score: Vector, cut: float) -> Flags:
    # Categories include their upper limit, but a score of 1 has calcium.
    return score >= cut if cut == MILLER_CUT_OFFS[0] else score > cut


def miller_category(score: Vector) -> NDArray[np.int64]:
    """Return the risk category, 0 to 3."""
    category: NDArray[np.int64] = np.sum(
        [_miller_above(score, cut) for cut in MILLER_CUT_OFFS], axis=0
    )
    return category


def _scores(rows: pd.DataFrame, *roles: str) -> list[Vector]:
    return [rows[f"{role}_score"].to_numpy(dtype=np.float64) for role in roles]


def agreement(rows: pd.DataFrame) -> Numbers:
    """Return kappas and the tests of equal margins by statsmodels."""
    index, reference = (miller_category(score) for score in _scores(rows, "index", "reference"))
    table = np.zeros((4, 4))
    np.add.at(table, (reference, index), 1)
    found: Numbers = {}
    for weights in ("unweighted", "linear", "quadratic"):
        kappa = cohens_kappa(table, wt=None if weights == "unweighted" else weights)
        found[f"kappa_{weights}", "", ""] = kappa.kappa, kappa.std_kappa
    for name in ("stuart_maxwell", "bhapkar"):
        test = SquareTable(table, shift_zeros=False).homogeneity(name)
        found[f"{name}_chi2", "", ""] = float(test.statistic), None
    return found


_RATES: dict[str, Callable[[Flags, Flags], float]] = {
    "sensitivity": lambda truth, called: float(recall_score(truth, called)),
    "specificity": lambda truth, called: float(recall_score(~truth, ~called)),
    "ppv": lambda truth, called: float(precision_score(truth, called)),
    "npv": lambda truth, called: float(precision_score(~truth, ~called)),
    "f1": lambda truth, called: float(f1_score(truth, called)),
}


def accuracy(rows: pd.DataFrame) -> Numbers:
    """Return the rates of every cut-off by scikit-learn."""
    index, reference = _scores(rows, "index", "reference")
    found: Numbers = {}
    for cut in MILLER_CUT_OFFS:
        truth, called = _miller_above(reference, cut), _miller_above(index, cut)
        for name, rate in _RATES.items():
            found[name, "", f"{cut:g}"] = rate(truth, called), None
        found["accuracy", "", f"{cut:g}"] = float(accuracy_score(truth, called)), None
    return found


def bland_altman(rows: pd.DataFrame) -> Numbers:
    """Return the bias by statsmodels and the limits of agreement."""
    index, reference = _scores(rows, "index", "reference")
    apart = DescrStatsW(index - reference, ddof=1)
    reach = 1.96 * apart.std
    return {
        ("bias", "", ""): (apart.mean, apart.std_mean),
        ("loa_low", "", ""): (apart.mean - reach, None),
        ("loa_high", "", ""): (apart.mean + reach, None),
    }


def correlation(rows: pd.DataFrame) -> Numbers:
    """Return Pearson's r by scipy; intraclass and concordance correlation by definition."""
    index, reference = _scores(rows, "index", "reference")
    both = np.column_stack([index, reference])
    n = len(both)
    between = 2 * both.mean(axis=1).var(ddof=1)
    raters = n * both.mean(axis=0).var(ddof=1)
    total = both.var(ddof=1) * (2 * n - 1)
    within = (total - between * (n - 1)) / n
    residual = (total - between * (n - 1) - raters) / (n - 1)
    covariance = np.cov(both.T, ddof=0)
    shift = (index.mean() - reference.mean()) ** 2
    icc = {
        "icc1": (between - within) / (between + within),
        "icc2": (between - residual) / (between + residual + 2 * (raters - residual) / n),
        "icc3": (between - residual) / (between + residual),
    }
    return {
        ("pearson_r", "", ""): (float(stats.pearsonr(index, reference).statistic), None),
        **{("icc", "", name): (float(value), None) for name, value in icc.items()},
        ("ccc", "", ""): (float(2 * covariance[0, 1] / (np.trace(covariance) + shift)), None),
    }


def distribution_means(rows: pd.DataFrame) -> Numbers:
    """Return the mean difference by statsmodels."""
    index, reference = _scores(rows, "index", "reference")
    apart = DescrStatsW(index - reference, ddof=1)
    return {("mean_difference", "", ""): (apart.mean, apart.std_mean)}


def distribution_distance(rows: pd.DataFrame) -> Numbers:
    """Return the Kolmogorov-Smirnov distance by scipy."""
    index, reference = _scores(rows, "index", "reference")
    return {("ks_d", "", ""): (float(stats.ks_2samp(index, reference).statistic), None)}


def zero_inflated(rows: pd.DataFrame) -> Numbers:
    """Return who scored, as log rate and log odds ratio, by statsmodels.

    Both scores are rounded to whole numbers, as a site rounds them.
    """
    index, reference = (np.rint(score) for score in _scores(rows, "index", "reference"))
    score = np.concatenate([reference, index])
    design = np.column_stack([np.ones(len(score)), np.repeat([0.0, 1.0], len(index))])
    model = ZeroInflatedPoisson(score, design, exog_infl=design, inflation="logit")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(method="bfgs", maxiter=5000, gtol=1e-9, disp=0)
    return {
        ("zip_log_odds_ratio", "", "index"): (float(fit.params[1]), None),
        ("zip_log_rate_ratio", "", "index"): (float(fit.params[3]), None),
    }


def comparison_rates(rows: pd.DataFrame) -> Numbers:
    """Return both tests' rates and their differences by scikit-learn."""
    index, reference, other = _scores(rows, "index", "reference", "visual")
    found: Numbers = {}
    for cut in MILLER_CUT_OFFS:
        truth = _miller_above(reference, cut)
        for name, rate in _RATES.items():
            own, theirs = (rate(truth, _miller_above(score, cut)) for score in (index, other))
            found[name, "index", f"{cut:g}"] = own, None
            found[name, "comparator", f"{cut:g}"] = theirs, None
            found[f"{name}_difference", "", f"{cut:g}"] = own - theirs, None
    return found


def comparison_areas(rows: pd.DataFrame) -> Numbers:
    """Return both tests' areas under the curve by scikit-learn."""
    index, reference, other = _scores(rows, "index", "reference", "visual")
    found: Numbers = {}
    for cut in MILLER_CUT_OFFS:
        truth = _miller_above(reference, cut)
        found["auc", "index", f"{cut:g}"] = float(roc_auc_score(truth, index)), None
        found["auc", "comparator", f"{cut:g}"] = float(roc_auc_score(truth, other)), None
    return found


def _by_category(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    category = miller_category(*_scores(rows, "index"))
    return [(label, rows[category == number]) for number, label in enumerate(MILLER_LABELS)]


def descriptives_moments(rows: pd.DataFrame) -> Numbers:
    """Return means, deviations and shares by pandas, and the test of shares by scipy."""
    found: Numbers = {}
    groups = _by_category(rows)
    for label, own in groups:
        found["mean", label, "age"] = float(own["age"].mean()), None
        found["sd", label, "age"] = float(own["age"].std(ddof=1)), None
        found["proportion", label, "sex=female"] = float((own["sex"] == "female").mean()), None
    table = [[(own["sex"] == sex).sum() for sex in ("female", "male")] for _, own in groups]
    chi2 = stats.chi2_contingency(np.array(table), correction=False).statistic
    found["difference_test", "", "sex"] = float(chi2), None
    return found


def descriptives_quantiles(rows: pd.DataFrame) -> Numbers:
    """Return medians and quartiles by pandas."""
    shares = {"median": 0.5, "quartile_low": 0.25, "quartile_high": 0.75}
    return {
        (name, label, "age"): (float(own["age"].quantile(share)), None)
        for label, own in _by_category(rows)
        for name, share in shares.items()
    }


# --- probabilities (Hong's tables) ------------------------------------------------------------


def _probabilities(rows: pd.DataFrame, cut: float) -> tuple[Vector, Flags]:
    column = "index_probability_0" if cut == 1 else f"index_probability_{cut:g}"
    truth = rows["reference_score"].to_numpy(dtype=np.float64) >= cut
    return rows[column].to_numpy(dtype=np.float64), truth


def _logit(probability: Vector) -> Vector:
    cut = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(cut / (1 - cut))


def auc(rows: pd.DataFrame) -> Numbers:
    """Return the area of every cut-off by scikit-learn."""
    found: Numbers = {}
    for cut in _HONG_CUT_OFFS:
        values, truth = _probabilities(rows, cut)
        found["auc", "", f"{cut:g}"] = float(roc_auc_score(truth, values)), None
    return found


def calibration(rows: pd.DataFrame) -> Numbers:
    """Return intercept and slope by statsmodels, and risks by bin."""
    found: Numbers = {}
    for cut in _HONG_CUT_OFFS:
        values, truth = _probabilities(rows, cut)
        x, y, term = _logit(values), truth.astype(float), f"{cut:g}"
        large = GLM(y, np.ones((len(x), 1)), families.Binomial(), offset=x)
        fit = large.fit(tol=1e-14, maxiter=200)
        found["calibration_intercept", "", term] = float(fit.params[0]), float(fit.bse[0])
        slope = Logit(y, add_constant(x)).fit(disp=0, method="newton", tol=1e-14)
        found["calibration_slope", "", term] = float(slope.params[1]), float(slope.bse[1])
        for low, high in pairwise(_RISK_EDGES):
            own = (values >= low) & (values < high)
            label = f"{low:g}-{1 if high == np.inf else high:g}"
            found["observed_risk", label, term] = float(y[own].mean()), None
            found["expected_risk", label, term] = float(values[own].mean()), None
        found["oe_ratio", "", term] = float(y.sum() / values.sum()), None
    return found


def fusion_model(rows: pd.DataFrame) -> Numbers:
    """Return the coefficients of the model of image and clinical factors by statsmodels."""
    values, truth = _probabilities(rows, 100.0)
    columns = {
        "(intercept)": np.ones(len(rows)),
        "logit(index_probability_100)": _logit(values),
        "age": rows["age"].to_numpy() / 10,
        "sex=male": (rows["sex"] == "male").to_numpy(dtype=np.float64),
        "bmi": rows["bmi"].to_numpy(),
    }
    design = np.column_stack(list(columns.values()))
    fit = Logit(truth.astype(float), design).fit(disp=0, method="newton", tol=1e-14)
    return {
        ("log_odds_ratio", "", term): (float(fit.params[place]), float(fit.bse[place]))
        for place, term in enumerate(columns)
    }


def fusion_area(rows: pd.DataFrame) -> Numbers:
    """Return the area of the image's probability alone by scikit-learn."""
    values, truth = _probabilities(rows, 100.0)
    return {("auc", "image", "100"): (float(roc_auc_score(truth, values)), None)}
