"""`python docs/studies/resampling.py`: coverage and width of 95 % intervals with refitting.

Simulates cohorts of four sites, fits two Cox models to each, and compares intervals for what the
second adds: delete-a-group jackknife, bootstrap within sites, bootstrap of the pooled cohort.

Thousands of replicates are refitted at once as weights on the same patients. Before anything is
counted, the batched sums are compared with the package's own functions on replicated rows.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One process on one core: results and times do not depend on how many threads a machine offers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.exams import Exams
from fedcac.protocol import ReclassificationSpec
from fedcac.statistics.concordance import concordance
from fedcac.statistics.net_reclassification import (
    TIE,
    Reclassified,
    net_reclassification,
    reclassified,
)
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.statistics.resampling import replicate_rows, replicate_spread
from fedcac.statistics.risk_sets import baseline_hazard
from fedcac.vocabulary import ReclassificationType, Resampling, TieMethod

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Vector = NDArray[np.float64]
Models = tuple[Vector, Vector]

YEAR = 365.25
HORIZON = 1095
CUTS = (0.05, 0.15)
GROUPS = (10, 20, 40)
SAMPLES = 200
Z95 = float(special.ndtri(0.975))

MEASURES = (
    "nri_overall_free",
    "nri_event_free",
    "nri_nonevent_free",
    "nri_overall_categorical",
    "nri_event_categorical",
    "nri_nonevent_categorical",
    "auc_difference",
    "c_index_difference",
)
METHODS = (
    *(f"jackknife_{n_groups}" for n_groups in GROUPS),
    "site_bootstrap_percentile",
    "site_bootstrap_normal",
    "pooled_bootstrap_percentile",
    "pooled_bootstrap_normal",
)
REFERENCE = "pooled_bootstrap_percentile"


@dataclass(frozen=True)
class Scenario:
    """Site sizes, how the score enters the full model, and its log hazard ratio per ln unit."""

    name: str
    sizes: tuple[int, ...]
    marker: str
    effect: float
    cohorts: int


SCENARIOS = (
    Scenario("large_score", (900, 680, 450, 240), "log_score", 0.18, 150),
    Scenario("large_category", (900, 680, 450, 240), "category", 0.18, 100),
    Scenario("large_null", (900, 680, 450, 240), "log_score", 0.0, 200),
    Scenario("small_score", (250, 250, 250, 250), "log_score", 0.18, 200),
    Scenario("small_null", (250, 250, 250, 250), "log_score", 0.0, 400),
)


@dataclass(frozen=True)
class Site:
    """Patients by rising follow-up (no ties): designs (n, p), time, event, and the events' rows."""

    designs: Models
    time: Vector
    event: NDArray[np.bool_]
    rows: NDArray[np.int64]


# --- data -----------------------------------------------------------------------------------


def draw_site(rng: np.random.Generator, number: int, n: int, scenario: Scenario) -> Site:
    """Return one site's patients; the sites differ in age and in risk."""
    # Ages are not rounded or cut off, so that no two patients have the same predictor.
    age = rng.normal(64 + (0, 1, -1, 2)[number], 10, n)
    female = (rng.random(n) < 0.45).astype(float)
    latent = 0.02 * (age - 64) - 0.3 * female + rng.normal(0, 1, n)
    perfusion = np.searchsorted((0.0, 0.6, 1.2), latent)
    has_calcium = rng.random(n) < special.expit(0.9 + 0.07 * (age - 64) - 0.8 * female)
    log_positive = rng.normal(4.6 + 0.04 * (age - 64) - 0.4 * female, 1.8)
    score = np.where(has_calcium, np.exp(log_positive), 0.0)
    log_score = np.log1p(score)
    predictor = (
        0.35 * (age - 64) / 10
        - 0.2 * female
        + np.array([0.0, 0.3, 0.6, 1.0])[perfusion]
        + scenario.effect * (log_score - 3.4)
    )
    yearly = 0.033 * np.array([1.0, 1.2, 0.8, 1.0])[number]
    onset = rng.exponential(YEAR / (yearly * np.exp(predictor)))
    followed = rng.uniform(1.5 * YEAR, 5.5 * YEAR, n)
    event = onset <= followed
    base = np.column_stack([age / 10, female, *(perfusion == level for level in (1, 2, 3))])
    category = np.searchsorted((0.0, 100.0, 400.0), score)
    added = (
        log_score[:, None]
        if scenario.marker == "log_score"
        else np.column_stack([category == level for level in (1, 2, 3)]).astype(float)
    )
    time = np.minimum(onset, followed)
    order = np.argsort(time)
    designs = base[order], np.hstack([base, added])[order]
    return Site(designs, time[order], event[order], np.flatnonzero(event[order]))


def draw_cohort(rng: np.random.Generator, scenario: Scenario, scale: float = 1) -> list[Site]:
    """Return the sites of one cohort, each `scale` times as large as the scenario says."""
    return [
        draw_site(rng, number, round(size * scale), scenario)
        for number, size in enumerate(scenario.sizes)
    ]


# --- many replicates at once: weights (R, n) per site ------------------------------------------


def at_risk(values: Vector, site: Site) -> Vector:
    """Return sums of values (R, n) over the patients at risk at every event time, (R, k)."""
    between: Vector = np.add.reduceat(values, site.rows, axis=1)
    return np.ascontiguousarray(np.cumsum(between[:, ::-1], axis=1)[:, ::-1])


def likelihood_terms(
    site: Site, weights: Vector, model: int, betas: Vector
) -> tuple[Vector, Vector]:
    """Return gradients (R, p) and informations (R, p, p); copies of a patient are Efron ties."""
    x = site.designs[model] - site.designs[model].mean(axis=0)
    p, rows = x.shape[1], site.rows
    risk = np.exp(betas @ x.T)
    weighted = weights * risk
    own, copies = risk[:, rows], weights[:, rows]
    s0 = at_risk(weighted, site)
    s1 = np.stack([at_risk(weighted * x[:, c], site) for c in range(p)], axis=2)
    gradient = copies @ x[rows]
    hazard = np.where(copies > 0, 1 / np.maximum(s0, own), 0.0)
    mean = s1 * hazard[:, :, None]
    gradient -= mean.sum(axis=1)
    information = -(mean.transpose(0, 2, 1) @ mean)
    taken = np.zeros_like(s0)
    for place in range(1, int(copies.max())):
        # Few events are drawn so often: only those are worked on.
        r, k = np.nonzero(copies > place)
        share = place * own[r, k]
        inverse = 1 / (s0[r, k] - share)
        hazard[r, k] += inverse
        taken[r, k] += share * inverse
        mean = (s1[r, k] - share[:, None] * x[rows[k]]) * inverse[:, None]
        which, starts = np.unique(r, return_index=True)
        gradient[which] -= np.add.reduceat(mean, starts, axis=0)
        information[which] -= np.add.reduceat(mean[:, :, None] * mean[:, None, :], starts, axis=0)
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), p * p)
    n_passed = np.cumsum(site.event)
    summed = np.hstack([np.zeros((len(betas), 1)), np.cumsum(hazard, axis=1)])[:, n_passed]
    second = (weighted * summed) @ products - taken @ products[rows]
    return gradient, information + second.reshape(-1, p, p)


def newton(sites: Sequence[Site], weights: Sequence[Vector], model: int, start: Vector) -> Vector:
    """Return the maxima (R, p) of the stratified likelihood; NaN where none was found."""
    betas = start.copy()
    for _ in range(12):
        terms = [likelihood_terms(s, w, model, betas) for s, w in zip(sites, weights, strict=True)]
        gradient = sum((g for g, _ in terms), np.zeros_like(betas))
        information = sum((i for _, i in terms), np.zeros((*betas.shape, betas.shape[1])))
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        betas += step
        scaled = np.abs(step) * np.sqrt(np.einsum("rpp->rp", information))
        # Newton's error after a step is about its square, so this leaves about 1e-6 of an SE.
        if scaled.max() < 1e-3:
            return betas
    betas[scaled.max(axis=1) >= 1e-3] = np.nan
    return betas


def survivors(weights: Vector, site: Site, n_early: int) -> Vector:
    """Return n S(horizon) by Kaplan and Meier in every row of weights, shape (R,)."""
    exposed = at_risk(weights, site)[:, :n_early]
    died = weights[:, site.rows[:n_early]]
    survival = np.prod(1 - died / np.maximum(exposed, 1), axis=1)
    return np.asarray(weights.sum(axis=1) * survival)


def ordered_pairs(weights: Vector, site: Site, predictor: Vector) -> tuple[Vector, Vector]:
    """Return per replicate the rightly ordered pairs of AUC and C; predictors have no ties."""
    n = len(site.time)
    comparable = np.arange(n) > site.rows[:, None]
    auc, c = np.empty(len(weights)), np.empty(len(weights))
    for r, (weight, score) in enumerate(zip(weights.astype(np.float32), predictor, strict=True)):
        higher = score[site.rows, None] > score
        cases = weight[site.rows].astype(np.float64)
        without = np.where(site.event, np.float32(0), weight)
        auc[r] = cases @ (higher.astype(np.float32) @ without)
        c[r] = cases @ ((higher & comparable).astype(np.float32) @ weight)
    return auc, c


def site_sums(site: Site, weights: Vector, betas: Models) -> Vector:
    """Return a site's sums behind the measures, shape (R, 16)."""
    rows = site.rows
    n_early = int(np.count_nonzero(site.time[rows] <= HORIZON))
    risks, predictors = [], []
    for x, beta in zip(site.designs, betas, strict=True):
        predictor = beta @ (x - x.mean(axis=0)).T
        risk = np.exp(predictor)
        own, copies = risk[:, rows[:n_early]], weights[:, rows[:n_early]]
        s0 = at_risk(weights * risk, site)[:, :n_early]
        hazard = np.zeros(len(weights))
        for place in range(int(copies.max())):
            hazard += np.where(copies > place, 1 / np.maximum(s0 - place * own, own), 0).sum(axis=1)
        risks.append(-np.expm1(-hazard[:, None] * risk))
        predictors.append(predictor)
    change = risks[1] - risks[0]
    free = np.where(np.abs(change) > TIE, np.sign(change), 0)
    old, new = (np.searchsorted(CUTS, risk, side="right") for risk in risks)
    masked = [
        weights,
        *(weights * (move == way) for move in (free, np.sign(new - old)) for way in (1, -1)),
    ]
    survived = [survivors(chosen, site, n_early) for chosen in masked]
    lost = [chosen.sum(axis=1) - s for chosen, s in zip(masked, survived, strict=True)]
    pairs = [ordered_pairs(weights, site, predictor) for predictor in predictors]
    cases, without = weights[:, rows], np.where(site.event, 0.0, weights)
    later = at_risk(weights, site) - cases
    return np.column_stack(
        [
            *lost,
            *survived,
            pairs[0][0],
            pairs[1][0],
            cases.sum(axis=1) * without.sum(axis=1),
            pairs[0][1],
            pairs[1][1],
            (cases * later).sum(axis=1),
        ]
    )


def measures(sums: Vector) -> Vector:
    """Return the measures (R, 8) from sums over sites (R, 16)."""
    lost, survived = sums[:, :5], sums[:, 5:10]
    columns = []
    for up, down in ((1, 2), (3, 4)):
        event = (lost[:, up] - lost[:, down]) / lost[:, 0]
        nonevent = (survived[:, down] - survived[:, up]) / survived[:, 0]
        columns += [event + nonevent, event, nonevent]
    for first in (10, 13):
        columns.append((sums[:, first + 1] - sums[:, first]) / sums[:, first + 2])
    return np.column_stack(columns)


def replicate_measures(sites: Sequence[Site], weights: Sequence[Vector]) -> tuple[Vector, Models]:
    """Refit both models on every row of weights, starting from all patients; return measures."""
    betas = []
    for model in (0, 1):
        everyone = [np.ones((1, len(site.time))) for site in sites]
        start = np.zeros((1, sites[0].designs[model].shape[1]))
        fit = newton(sites, everyone, model, start)
        betas.append(newton(sites, weights, model, np.repeat(fit, len(weights[0]), axis=0)))
    chosen = betas[0], betas[1]
    sums = [site_sums(site, w, chosen) for site, w in zip(sites, weights, strict=True)]
    return measures(np.sum(sums, axis=0)), chosen


# --- the same with the package's functions, one replicate at a time --------------------------


def package_fit(sites: Sequence[Site], chosen: Sequence[Any], model: int) -> Vector:
    """Return the stratified maximum by Newton's method from sums over sites, shape (p,)."""
    beta = np.zeros(sites[0].designs[model].shape[1])
    for _ in range(20):
        terms = [
            partial_likelihood(s.designs[model][r], s.time[r], s.event[r], beta, TieMethod.EFRON)
            for s, r in zip(sites, chosen, strict=True)
        ]
        information = np.sum([term.information for term in terms], axis=0)
        step = np.linalg.solve(information, np.sum([term.gradient for term in terms], axis=0))
        beta = beta + step
        if np.max(np.abs(step)) < 1e-10:
            break
    return beta


def package_measures(sites: Sequence[Site], chosen: Sequence[Any], betas: Models) -> Vector:
    """Return the measures (8,) of the chosen rows as the analysis `reclassification` forms them."""
    specs = [
        ReclassificationSpec(
            id="x", kind="reclassification", base="b", full="f", horizon_days=HORIZON, **more
        )
        for more in ({}, {"type": ReclassificationType.CATEGORICAL, "cuts": CUTS})
    ]
    moved = [np.zeros(Reclassified.N_NUMBERS) for _ in specs]
    auc, c = np.zeros(3), np.zeros(3)
    for site, rows in zip(sites, chosen, strict=True):
        time, event = site.time[rows], site.event[rows]
        risks = []
        for model, beta in enumerate(betas):
            x = site.designs[model][rows]
            x = x - x.mean(axis=0)
            predictor = (x * beta).sum(axis=1)
            hazard = baseline_hazard(x, time, event, beta, HORIZON, TieMethod.EFRON)
            risks.append(-np.expm1(-hazard * np.exp(predictor)))
            ever = concordance(predictor, np.where(event, 0.0, 1.0), event)
            timed = concordance(predictor, time, event)
            auc[model] += ever.concordant + ever.tied / 2
            c[model] += timed.concordant + timed.tied / 2
        auc[2] += ever.n_pairs
        c[2] += timed.n_pairs
        for total, spec in zip(moved, specs, strict=True):
            total += reclassified(risks[0], risks[1], time, event, spec).numbers()
    found = []
    for total in moved:
        event_, nonevent, overall = (
            net_reclassification(Reclassified.from_numbers(total)) or (np.nan,) * 3
        )
        found += [overall, event_, nonevent]
    return np.array([*found, (auc[1] - auc[0]) / auc[2], (c[1] - c[0]) / c[2]])


def verify(seed: int) -> float:
    """Return the largest difference between the batched and the package's measures."""
    worst = 0.0
    for number, scenario in enumerate(SCENARIOS):
        rng = np.random.default_rng([seed, 99, number])
        sites = draw_cohort(rng, scenario)
        weights, _ = all_weights(rng, sites, f"{seed}|verify")
        first = sum(GROUPS)
        some = [0, 1, first, first + 1, first + SAMPLES + 1, first + 2 * SAMPLES]
        _, betas = replicate_measures(sites, [w[some] for w in weights])
        chosen = [
            [np.repeat(np.arange(len(row)), row) for row in w[some].astype(int)] for w in weights
        ]
        # Sums at the package's own maxima; the batched maxima are 1e-6 standard errors off.
        for r in range(len(some)):
            rows = [site_rows[r] for site_rows in chosen]
            own = package_fit(sites, rows, 0), package_fit(sites, rows, 1)
            for model in (0, 1):
                worst = max(worst, float(np.max(np.abs(own[model] - betas[model][r]))) / 100)
            at = own[0][None, :], own[1][None, :]
            sums = [
                site_sums(site, w[some[r]][None, :], at)
                for site, w in zip(sites, weights, strict=True)
            ]
            batched = measures(np.sum(sums, axis=0))[0]
            worst = max(worst, float(np.max(np.abs(batched - package_measures(sites, rows, own)))))
    return worst


def true_values(seed: int, scenario: Scenario, patients: int) -> Vector:
    """Return the measures of models fitted to, and judged on, a very large cohort, shape (8,).

    Without an effect the two models are the same in the limit: nobody moves, all values are 0.
    """
    if scenario.effect == 0:
        return np.zeros(len(MEASURES))
    rng = np.random.default_rng([seed, 1, SCENARIOS.index(scenario)])
    sites = draw_cohort(rng, scenario, patients / sum(scenario.sizes))
    everyone = [slice(None)] * len(sites)
    betas = package_fit(sites, everyone, 0), package_fit(sites, everyone, 1)
    return package_measures(sites, everyone, betas)


# --- intervals ------------------------------------------------------------------------------


def all_weights(
    rng: np.random.Generator, sites: Sequence[Site], secret: str
) -> tuple[list[Vector], dict[str, slice]]:
    """Return every replicate's weights (R, n) per site; row 0 is all patients; and which is which.

    Jackknife groups and samples within sites are the package's own, from each site's secret.
    """
    sizes = [len(site.time) for site in sites]
    blocks: list[list[Vector]] = [[np.ones((1, n))] for n in sizes]
    where: dict[str, slice] = {}
    plans = [
        *((f"jackknife_{g}", Resampling.JACKKNIFE, g) for g in GROUPS),
        ("site_bootstrap", Resampling.BOOTSTRAP, SAMPLES),
    ]
    first = 1
    for name, method, replicates in plans:
        for number, n in enumerate(sizes):
            exams = Exams({}, tuple(f"{i}" for i in range(n)), f"{secret}|{number}".encode())
            rows = replicate_rows(exams, name, method, replicates)
            blocks[number].append(np.array([np.bincount(r, minlength=n) for r in rows], float))
        where[name] = slice(first, first + replicates)
        first += replicates
    total = sum(sizes)
    drawn = rng.integers(0, total, (SAMPLES, total))
    pooled = np.array([np.bincount(row, minlength=total) for row in drawn], float)
    for number, part in enumerate(np.split(pooled, np.cumsum(sizes)[:-1], axis=1)):
        blocks[number].append(part)
    where["pooled_bootstrap"] = slice(first, first + SAMPLES)
    return [np.vstack(block) for block in blocks], where


def intervals(estimate: float, found: Vector, where: dict[str, slice]) -> Iterator[Vector]:
    """Yield low, high and standard error for every method in order; NaN if there is none."""
    for name, part in where.items():
        is_jackknife = name.startswith("jackknife")
        method = Resampling.JACKKNIFE if is_jackknife else Resampling.BOOTSTRAP
        spread = replicate_spread(estimate, found[part], method)
        if spread is None:
            yield from [np.full(3, np.nan)] * (1 if is_jackknife else 2)
            continue
        yield np.array([spread.ci_low, spread.ci_high, spread.se])
        if not is_jackknife:
            half = Z95 * spread.se
            yield np.array([estimate - half, estimate + half, spread.se])


def one_cohort(seed: int, scenario: Scenario, number: int) -> tuple[Vector, Vector, float]:
    """Return estimates (8,), intervals (8, methods, 3) and the share of patients with the event."""
    index = SCENARIOS.index(scenario)
    rng = np.random.default_rng([seed, 2, index, number])
    sites = draw_cohort(rng, scenario)
    weights, where = all_weights(rng, sites, f"{seed}|{index}|{number}")
    found, _ = replicate_measures(sites, weights)
    limits = [list(intervals(float(found[0, m]), found[:, m], where)) for m in range(len(MEASURES))]
    share = sum(len(s.rows) for s in sites) / sum(len(s.time) for s in sites)
    return found[0], np.array(limits), share


def summary(
    scenario: Scenario, truth: Vector, estimates: Vector, limits: Vector
) -> list[dict[str, Any]]:
    """Return one row per measure and method from all cohorts of a scenario."""
    rows = []
    widths = limits[..., 1] - limits[..., 0]
    for m, measure in enumerate(MEASURES):
        reference = np.nanmean(widths[:, m, METHODS.index(REFERENCE)])
        for k, method in enumerate(METHODS):
            low, high, se = limits[:, m, k].T
            is_known = np.isfinite(low)
            covers = ((low <= truth[m]) & (truth[m] <= high))[is_known]
            coverage, n = float(covers.mean()), int(is_known.sum())
            rows.append(
                {
                    "scenario": scenario.name,
                    "measure": measure,
                    "method": method,
                    "true_value": truth[m],
                    "mean_estimate": estimates[:, m].mean(),
                    "sd_estimate": estimates[:, m].std(ddof=1) if n > 1 else np.nan,
                    "mean_se": np.nanmean(se),
                    "cohorts": n,
                    "missing": len(low) - n,
                    "coverage": coverage,
                    "coverage_mcse": (coverage * (1 - coverage) / n) ** 0.5,
                    "below": float((high < truth[m])[is_known].mean()),
                    "above": float((low > truth[m])[is_known].mean()),
                    "mean_width": np.nanmean(widths[:, m, k]),
                    "width_ratio": np.nanmean(widths[:, m, k]) / reference,
                }
            )
    return rows


# --- output ---------------------------------------------------------------------------------


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the results, numbers to six significant digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def draw_figure(results: Path, path: Path) -> None:
    """Draw coverage by measure and method, one panel per scenario, from the written results."""
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    plt.rcParams.update({"svg.hashsalt": "resampling", "font.size": 8, "svg.fonttype": "none"})
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    figure, axes = plt.subplots(
        1, len(names), sharex=True, sharey=True, figsize=(2.3 * len(names) + 1.5, 5)
    )
    styles = dict(zip(METHODS, ("o", "o", "o", "s", "D", "s", "D"), strict=True))
    colours = dict(
        zip(
            METHODS,
            ("#9ecae1", "#3182bd", "#08306b", "#fd8d3c", "#a63603", "#bdbdbd", "#525252"),
            strict=True,
        )
    )
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        own = [row for row in rows if row["scenario"] == name]
        n = int(own[0]["cohorts"])
        half = 1.96 * (0.95 * 0.05 / n) ** 0.5
        axis.axvspan(95 - 100 * half, min(95 + 100 * half, 100), color="#eeeeee", zorder=0)
        axis.axvline(95, color="black", linewidth=0.7, zorder=1)
        for k, method in enumerate(METHODS):
            chosen = [row for row in own if row["method"] == method]
            axis.plot(
                [100 * float(row["coverage"]) for row in chosen],
                [MEASURES.index(row["measure"]) + (k - 3) * 0.11 for row in chosen],
                linestyle="none",
                marker=styles[method],
                markersize=3.5,
                color=colours[method],
                label=method.replace("_", " "),
            )
        axis.set_title(f"{name.replace('_', ' ')} ({n} cohorts)", fontsize=8)
        axis.set_xlabel("coverage, %")
        axis.set_xlim(100 * min(float(row["coverage"]) for row in rows) - 1, 101)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(MEASURES)), [m.replace("_", " ") for m in MEASURES])
    first.invert_yaxis()
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def say(text: str) -> None:
    """Write a line of progress to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the study and write resampling.csv and resampling.svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, help="simulated cohorts per scenario")
    parser.add_argument("--seed", type=int, default=20230)
    parser.add_argument("--truth", type=int, default=600_000, help="patients for true values")
    parser.add_argument("--scenario", action="append", help="only this scenario; may be repeated")
    parser.add_argument("--figure", action="store_true", help="only redraw the figure")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    results, figure = arguments.out / "resampling.csv", arguments.out / "resampling.svg"
    if arguments.figure:
        draw_figure(results, figure)
        return
    worst = verify(arguments.seed)
    say(f"batched against package: largest difference {worst:.1e}")
    if worst > 1e-9:
        sys.exit("the batched sums are not the package's")
    rows: list[dict[str, Any]] = []
    for scenario in SCENARIOS:
        if arguments.scenario and scenario.name not in arguments.scenario:
            continue
        start = clock.perf_counter()
        truth = true_values(arguments.seed, scenario, arguments.truth)
        say(f"{scenario.name}: true values after {clock.perf_counter() - start:.0f} s")
        found = [
            one_cohort(arguments.seed, scenario, number)
            for number in range(arguments.cohorts or scenario.cohorts)
        ]
        estimates, limits = (np.array([r[part] for r in found]) for part in (0, 1))
        rows += summary(scenario, truth, estimates, limits)
        share = np.mean([r[2] for r in found])
        say(f"{scenario.name}: {share:.1%} events, {clock.perf_counter() - start:.0f} s in all")
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_csv(rows, results)
        draw_figure(results, figure)


if __name__ == "__main__":
    main()
