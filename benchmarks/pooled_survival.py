"""What a statistician with every row would run for the survival analyses.

As `pooled_scores`: the rows of all sites in, numbers of lifelines and statsmodels out, under the
names of `estimates.csv`. Where our estimand compares patients of one site only, so does this.
"""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from benchmarks.pooled_scores import MILLER_LABELS, Numbers, miller_category

__all__ = ["HORIZON_DAYS", "cox", "kaplan_meier", "reclassification", "survival_calibration"]

HORIZON_DAYS = 1096
_LAST_DAY = 1820
_BASE = ("age", "sex=male", "diabetes")
_FULL = (*_BASE, *MILLER_LABELS[1:])
_RISK_BINS = (0.05, 0.1, 0.2)

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


def _outcome(rows: pd.DataFrame) -> tuple[Vector, Flags]:
    return rows["follow_up_days"].to_numpy(dtype=np.float64), rows["event"].to_numpy() == 1


def _design(rows: pd.DataFrame) -> pd.DataFrame:
    category = miller_category(rows["index_score"].to_numpy(dtype=np.float64))
    columns = {
        "age": rows["age"] / 10,
        "sex=male": (rows["sex"] == "male").astype(float),
        "diabetes": rows["diabetes"].astype(float),
    }
    for number, label in enumerate(MILLER_LABELS[1:], start=1):
        columns[label] = pd.Series((category == number).astype(float), index=rows.index)
    return pd.DataFrame(columns)


def _fitted(rows: pd.DataFrame, design: pd.DataFrame) -> CoxPHFitter:
    """Return lifelines' model by site with Efron's ties."""
    days, event = _outcome(rows)
    frame = design.assign(days=days, event=event, site=rows["site"])
    model = CoxPHFitter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"precision": 1e-10, "r_precision": 1e-12}
        model.fit(frame, "days", "event", strata=["site"], fit_options=options)
    return model


def _likelihood_ratio(model: CoxPHFitter) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(model.log_likelihood_ratio_test().test_statistic)


def cox(rows: pd.DataFrame) -> Numbers:
    """Return log hazard ratios and the likelihood ratio of the full model by lifelines."""
    model = _fitted(rows, _design(rows)[list(_FULL)])
    found: Numbers = {
        ("log_hazard_ratio", "", term): (
            float(model.params_[term]),
            float(model.standard_errors_[term]),
        )
        for term in _FULL
    }
    found["lr_chi2", "", ""] = _likelihood_ratio(model), None
    return found


def kaplan_meier(rows: pd.DataFrame) -> Numbers:
    """Return the curves' values at every day with an event, and the log-rank test by site."""
    days, event = _outcome(rows)
    category = miller_category(rows["index_score"].to_numpy(dtype=np.float64))
    found: Numbers = {}
    for number, label in enumerate(MILLER_LABELS):
        own = category == number
        curve = SurvfuncRight(days[own], event[own].astype(int))
        for day, value, se in zip(
            curve.surv_times, curve.surv_prob, curve.surv_prob_se, strict=True
        ):
            if day <= _LAST_DAY:
                found["survival", label, f"{day:g}"] = float(value), float(se)
    chi2, _ = survdiff(days, event.astype(int), category, strata=rows["site"].to_numpy())
    found["logrank_chi2", "", ""] = float(chi2), None
    return found


def _efron_hazard(design: Vector, days: Vector, event: Flags, beta: Vector) -> float:
    """Return a site's cumulative baseline hazard at the horizon, ties as Efron has them."""
    weight = np.exp(design @ beta)
    total = 0.0
    for day in np.unique(days[event & (days <= HORIZON_DAYS)]):
        tied = event & (days == day)
        at_risk, dying, n = weight[days >= day].sum(), weight[tied].sum(), int(tied.sum())
        total += sum(1 / (at_risk - place / n * dying) for place in range(n))
    return total


def _alive(days: Vector, event: Flags) -> float:
    """Return how many of these patients are free of the event at the horizon, by Kaplan-Meier."""
    if len(days) == 0:
        return 0.0
    curve = KaplanMeierFitter().fit(days, event)
    return len(days) * float(curve.survival_function_at_times(HORIZON_DAYS).iloc[0])


def _ordered(predictor: Vector, days: Vector, event: Flags) -> tuple[float, float]:
    """Return pairs that the predictor orders rightly, ties as one half, and pairs in all."""
    later = (days[None, :] > days[:, None]) | ((days[None, :] == days[:, None]) & ~event[None, :])
    is_pair = event[:, None] & later
    rightly = (predictor[:, None] > predictor[None, :]) + 0.5 * (
        predictor[:, None] == predictor[None, :]
    )
    return float((is_pair * rightly).sum()), float(is_pair.sum())


def reclassification(rows: pd.DataFrame) -> Numbers:
    """Return what the score's category adds to a model, by lifelines' fits and curves."""
    design = _design(rows)
    names = (list(_BASE), list(_FULL))
    models = [_fitted(rows, design[own]) for own in names]
    betas = [model.params_[own].to_numpy() for model, own in zip(models, names, strict=True)]
    counts, areas, ordered = np.zeros((3, 2)), np.zeros(3), np.zeros(3)
    for _, site in rows.groupby("site"):
        days, event = _outcome(site)
        risks = []
        area_pairs = float(event.sum() * (~event).sum())
        for number, (own, beta) in enumerate(zip(names, betas, strict=True)):
            x = design.loc[site.index, own].to_numpy()
            predictor = x @ beta
            hazard = _efron_hazard(x, days, event, beta)
            risks.append(1 - np.exp(-hazard * np.exp(predictor)))
            areas[number] += roc_auc_score(event, predictor) * area_pairs
            rightly, pairs = _ordered(predictor, days, event)
            ordered[number] += rightly
        areas[2] += area_pairs
        ordered[2] += pairs
        up, down = risks[1] - risks[0] > 1e-12, risks[0] - risks[1] > 1e-12
        for place, chosen in enumerate((np.ones(len(days), dtype=bool), up, down)):
            alive = _alive(days[chosen], event[chosen])
            counts[place] += chosen.sum() - alive, alive
    (n_event, n_none), (event_up, none_up), (event_down, none_down) = counts
    nri_event, nri_none = (event_up - event_down) / n_event, (none_down - none_up) / n_none
    chi2 = [_likelihood_ratio(model) for model in models]
    values = {
        "nri_event": nri_event,
        "nri_nonevent": nri_none,
        "nri_overall": nri_event + nri_none,
        "auc_difference": (areas[1] - areas[0]) / areas[2],
        "c_index_difference": (ordered[1] - ordered[0]) / ordered[2],
        "lr_chi2_increase": chi2[1] - chi2[0],
    }
    return {(name, "", ""): (float(value), None) for name, value in values.items()}


def survival_calibration(rows: pd.DataFrame) -> Numbers:
    """Return risks by bin of the prediction, O/E, and the slope by lifelines."""
    risk = rows["risk"].to_numpy(dtype=np.float64)
    found: Numbers = {}
    edges = (0.0, *_RISK_BINS, np.inf)
    chosen = {
        f"{low:g}-{1 if high == np.inf else high:g}": (risk >= low) & (risk < high)
        for low, high in pairwise(edges)
    }
    for label, own in {**chosen, "": np.ones(len(risk), dtype=bool)}.items():
        alive = sum(_alive(*_outcome(site)) for _, site in rows[own].groupby("site"))
        observed, expected = 1 - alive / own.sum(), risk[own].mean()
        if label:
            found["observed_risk", label, ""] = float(observed), None
            found["expected_risk", label, ""] = float(expected), None
    found["oe_ratio", "", ""] = float(observed / expected), None
    slope = pd.DataFrame({"slope": np.log(-np.log1p(-risk))}, index=rows.index)
    model = _fitted(rows, slope)
    found["calibration_slope", "", ""] = (
        float(model.params_["slope"]),
        float(model.standard_errors_["slope"]),
    )
    return found
