"""Generated site tables of scored patients whose margins are those of published cohorts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from fedcac.errors import UsageError
from fedcac.phantom import clinical_margins as margins
from fedcac.vocabulary import Vessel

__all__ = ["SiteTables", "eng_tables", "miller_tables", "write_tables"]

Row = dict[str, str]
SiteTables = dict[str, list[Row]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Scores above zero follow one log-normal law, cut to the category's interval.
_LOG_MEAN, _LOG_SD, _HIGHEST_SCORE = 4.1, 1.9, 6000.0

# Follow-up in days, so that the observed one has the published median of 2.8 years (1.7-4.1); the
# first value is above 90 days, so nobody is lost before early revascularisation ends.
_FOLLOW_UP: margins.Quantiles = (100, 765, 1150, 1605, 2300)
# Yearly hazard of a patient of 65 years in the reference categories.
_YEARLY_HAZARD = 0.0125
_DAYS = 365.25
# Effect of one category by which the expert differs from the model: the paper finds the expert's
# categories as predictive as the model's.
_EXPERT_LOG_HR = 0.35

_EARLY_DAYS = 90
_N_EARLY, _N_EARLY_REVASCULARISED = 80, 68
# First event by model category: death, infarction, unstable angina; the rest revascularisation.
# Assumptions: deaths are a smaller part at high scores, as their hazard ratios are smaller.
_FIRST_EVENT = ((0.62, 0.13, 0.10), (0.50, 0.13, 0.12), (0.42, 0.13, 0.12), (0.42, 0.13, 0.12))
_LATER_DEATH = 0.12
_MISSING_SHARE = {"bmi": 0.02, "stress_lvef": 0.01}
_VISUAL = ("absent", "present", "extensive")


def miller_tables(seed: int, n_sites: int = 4, copies: int = 1) -> SiteTables:
    """Return tables of Miller 2023's external cohort, divided among sites.

    Over all sites, the categories by expert, model and visual estimate, the characteristics by
    model category and MACE, and MACE by model category and perfusion deficit are the published
    counts. Event times follow the published hazard ratios. Sites differ in size and case mix.

    Parameters
    ----------
    seed
        The same seed gives the same tables.
    n_sites
        With four sites they hold 40, 30, 20 and 10 % of the patients.
    copies
        Number of cohorts of 2,271 patients. More than one must be a multiple of `n_sites`: every
        site then holds whole cohorts.

    Returns
    -------
    dict
        Site name to rows, a row being column name to cell text.

    Raises
    ------
    UsageError
        If the numbers do not make sense.
    """
    if n_sites < 1 or copies < 1 or (copies > 1 and copies % n_sites):
        raise UsageError(
            "Copies of the cohort are one, or a multiple of the number of sites.",
            code="bad_cohort",
            cure="Give at least one site, and one copy or a multiple of the sites.",
        )
    sites: dict[str, list[Row]] = {f"site{number + 1}": [] for number in range(n_sites)}
    names = list(sites)
    for copy in range(copies):
        rng = np.random.default_rng([seed, copy])
        rows, severity = _miller_cohort(rng)
        if copies > 1:
            home = np.full(len(rows), copy % n_sites)
        else:
            home = _case_mix(rng, severity, n_sites)
        for number in rng.permutation(len(rows)):
            sites[names[home[number]]].append(rows[number])
    return _identified(sites)


def eng_tables(seed: int) -> SiteTables:
    """Return tables of Eng 2021's four external sites, with the published cross-tables.

    Vessel scores sum to the totals. `nongated_reader_score` is a reader of the non-gated exam
    itself, so it agrees with the index score at least as well as the gated reference does.
    """
    sites: SiteTables = {}
    for number, (site, matrix) in enumerate(margins.ENG_MATRICES.items()):
        rng = np.random.default_rng([seed, number])
        reference, index = _cells(matrix)
        index_score, reference_score = _paired_scores(rng, index, reference, margins.ENG_CUT_OFFS)
        is_index = rng.random(len(index)) < 0.75
        reader = _near(
            rng,
            np.where(is_index, index_score, reference_score),
            np.where(is_index, index, reference),
            margins.ENG_CUT_OFFS,
            0.12,
        )
        columns = {"index_score": _text(index_score), "reference_score": _text(reference_score)}
        shares = rng.dirichlet((0.3, 1.2, 0.7, 0.9), len(index))
        columns |= _vessels(rng, "index", index_score, shares)
        columns |= _vessels(rng, "reference", reference_score, shares)
        columns["nongated_reader_score"] = _text(reader)
        rows = _rows(columns)
        sites[site] = [rows[patient] for patient in rng.permutation(len(rows))]
    return _identified(sites)


def write_tables(tables: Mapping[str, Sequence[Mapping[str, str]]], folder: Path) -> list[Path]:
    """Write one CSV file per site into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for site, rows in tables.items():
        path = folder / f"{site}.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        paths.append(path)
    return paths


# --- Miller 2023 ----------------------------------------------------------------------------


def _miller_cohort(rng: np.random.Generator) -> tuple[list[Row], Ints]:
    """Return the rows of one cohort and the model's category of each."""
    visual, expert, model = _cells(margins.VISUAL_EXPERT_MODEL)
    index, reference = _paired_scores(rng, model, expert, margins.MILLER_CUT_OFFS)
    seen = np.maximum(reference, 10.0)  # a reader who sees calcium where the expert does not
    estimate = _near(rng, seen, visual, (1.0, 400.0), 0.5)
    # 'Present' spans the cut-off at 100: halves stay off it.
    estimate = np.where(visual == 0, 0.0, np.floor(estimate) + 0.5)
    columns: dict[str, Any] = {
        "index_score": _text(index),
        "reference_score": _text(reference),
        "visual_score": _text(estimate),
        "visual_cac": [_VISUAL[level] for level in visual],
        "known_cad": ["0"] * len(model),
    }
    events, totals = np.array(margins.EVENTS), np.add(margins.EVENTS, margins.NON_EVENTS)
    tpd = np.empty_like(model)
    for category, counts in enumerate(totals):
        tpd[model == category] = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    values = {
        "age": _from_quantiles(rng, margins.AGE, model),
        "bmi": _from_quantiles(rng, margins.BMI, model),
        "rest_tpd": _from_quantiles(rng, margins.REST_TPD, tpd),
        "stress_lvef": _from_quantiles(rng, margins.STRESS_LVEF, tpd),
    }
    follow_up = _from_quantiles(rng, (_FOLLOW_UP,), np.zeros_like(model)) // 1
    hazard = _hazard(model, tpd, expert, values)
    event = _draw_events(rng, hazard * follow_up, (model, tpd), events)
    traits = _draw_traits(rng, model, event)
    hazard *= np.exp(sum(margins.LOG_HAZARD_RATIOS.get(n, 0.0) * x for n, x in traits.items()))

    columns["age"] = _text(values["age"])
    columns["sex"] = np.where(traits.pop("male"), "male", "female").tolist()
    columns |= {name: [str(int(x)) for x in trait] for name, trait in traits.items()}
    columns["stress_tpd"] = [margins.TPD_LABELS[level] for level in tpd]
    for name in ("bmi", "rest_tpd", "stress_lvef"):
        is_missing = rng.random(len(model)) < _MISSING_SHARE.get(name, 0.0)
        columns[name] = np.where(is_missing, "", _text(values[name])).tolist()
    columns |= _endpoints(rng, hazard, follow_up, event, model)
    return _rows(columns), model


def _hazard(model: Ints, tpd: Ints, expert: Ints, values: Mapping[str, Floats]) -> Floats:
    """Return the daily hazard without the binary characteristics, shape (n,)."""
    effects = margins.LOG_HAZARD_RATIOS
    log_hazard = np.take(margins.MODEL_LOG_HR, model) + np.take(margins.TPD_LOG_HR, tpd)
    log_hazard += _EXPERT_LOG_HR * (expert - model)
    for name, usual in (("age", 65.0), ("bmi", 29.0), ("stress_lvef", 66.0)):
        log_hazard += effects[name] * (values[name] - usual)
    hazard: Floats = _YEARLY_HAZARD / _DAYS * np.exp(log_hazard)
    return hazard


def _draw_events(
    rng: np.random.Generator, cumulative: Floats, strata: tuple[Ints, Ints], counts: Ints
) -> NDArray[np.bool_]:
    """Draw exactly `counts[stratum]` patients with an event, by the odds of their hazard."""
    # The largest of log weight plus Gumbel noise: weighted sampling without replacement.
    keys = np.log(np.expm1(cumulative)) + rng.gumbel(size=len(cumulative))
    event = np.zeros(len(cumulative), dtype=np.bool_)
    for stratum, count in np.ndenumerate(counts):
        members = np.flatnonzero((strata[0] == stratum[0]) & (strata[1] == stratum[1]))
        event[members[np.argsort(-keys[members])[:count]]] = True
    return event


def _draw_traits(
    rng: np.random.Generator, model: Ints, event: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Give binary characteristics to exactly the published numbers by category and MACE."""
    traits = {}
    for name, totals in margins.BINARY_TOTALS.items():
        trait = np.zeros(len(model), dtype=np.bool_)
        for category, (total, with_event) in enumerate(
            zip(totals, margins.BINARY_EVENTS[name], strict=True)
        ):
            for has_event, count in ((True, with_event), (False, total - with_event)):
                members = np.flatnonzero((model == category) & (event == has_event))
                trait[rng.choice(members, count, replace=False)] = True
        traits[name] = trait
    return traits


def _endpoints(
    rng: np.random.Generator,
    hazard: Floats,
    follow_up: Floats,
    event: NDArray[np.bool_],
    model: Ints,
) -> dict[str, list[str]]:
    """Draw event times and kinds; death and infarction are events of patients with MACE."""
    # Exponential time, given that it falls within follow-up.
    drawn = -np.log1p(rng.random(len(event)) * np.expm1(-hazard * follow_up)) / hazard
    days = np.where(event, np.clip(np.ceil(drawn), 1, follow_up), follow_up)
    # The earliest events move into the first 90 days in their order: Cox estimates see the order.
    early = np.flatnonzero(event)[np.argsort(days[event], kind="stable")][:_N_EARLY]
    later = np.setdiff1d(np.flatnonzero(event), early)
    days[early] = np.sort(rng.integers(1, _EARLY_DAYS + 1, _N_EARLY))
    days[later] = np.maximum(days[later], _EARLY_DAYS + 1)

    draw = rng.random(len(event))[:, None]
    kind = (draw > np.cumsum(np.take(_FIRST_EVENT, model, axis=0), axis=1)).sum(axis=1)
    is_early = np.zeros_like(event)
    is_early[rng.choice(early, _N_EARLY_REVASCULARISED, replace=False)] = True
    first_is_death = event & (kind == 0) & ~is_early
    dies_later = event & ~first_is_death & (rng.random(len(event)) < _LATER_DEATH)
    later_day = np.ceil(days + rng.random(len(event)) * (follow_up - days))
    death_days = np.where(first_is_death, days, np.where(dies_later, later_day, follow_up))
    has_infarction = event & (kind == 1) & ~is_early
    death = first_is_death | dies_later
    return {
        "follow_up_days": _text(days),
        "event": _text(event),
        "death_days": _text(death_days),
        "death": _text(death),
        "death_mi_days": _text(np.where(has_infarction, days, death_days)),
        "death_mi": _text(death | has_infarction),
        "early_revascularisation": _text(is_early),
    }


def _case_mix(rng: np.random.Generator, severity: Ints, n_sites: int) -> Ints:
    """Divide patients among sites of falling size; later sites prefer higher categories."""
    shares = np.arange(n_sites, 0, -1)
    bounds = np.round(len(severity) * np.cumsum(shares) / shares.sum()).astype(np.int64)
    home = np.full(len(severity), -1)
    sizes = np.diff(bounds, prepend=0)
    # Smallest site first, so that its preference has patients left to choose from.
    for site in range(n_sites - 1, -1, -1):
        free = np.flatnonzero(home < 0)
        tilt = 0.35 * site / max(n_sites - 1, 1)
        keys = tilt * severity[free] + rng.gumbel(size=len(free))
        home[free[np.argsort(-keys)[: sizes[site]]]] = site
    return home


# --- scores and cells -----------------------------------------------------------------------


def _cells(counts: ArrayLike) -> tuple[Ints, ...]:
    """Return the coordinates of a table of counts, each repeated as often as it counts."""
    table = np.asarray(counts)
    return tuple(np.repeat(axis.ravel(), table.ravel()) for axis in np.indices(table.shape))


def _bounds(category: Ints, cut_offs: Sequence[float]) -> tuple[Floats, Floats]:
    edges = np.array([*cut_offs, _HIGHEST_SCORE])
    above = np.maximum(category, 1)
    return edges[above - 1], edges[above]


def _inside(score: Floats, category: Ints, cut_offs: Sequence[float]) -> Floats:
    """Round to one decimal, and keep half a unit from cut-offs: every convention then agrees."""
    low, high = _bounds(category, cut_offs)
    return np.where(category == 0, 0.0, np.clip(np.round(score, 1), low + 0.5, high - 0.5))


def _near(
    rng: np.random.Generator, score: Floats, category: Ints, cut_offs: Sequence[float], sd: float
) -> Floats:
    return _inside(score * rng.lognormal(0.0, sd, len(score)), category, cut_offs)


def _paired_scores(
    rng: np.random.Generator, index: Ints, reference: Ints, cut_offs: Sequence[float]
) -> tuple[Floats, Floats]:
    """Draw correlated scores inside given categories; where these differ, near each other."""
    shared, pull = rng.normal(size=len(index)), np.clip(reference - index, -1, 1)
    found = []
    for category, sign in ((index, 1.0), (reference, -1.0)):
        rank = norm.cdf(0.85 * shared + 0.5 * rng.normal(size=len(index)) + sign * pull)
        low, high = (
            norm.cdf((np.log(b) - _LOG_MEAN) / _LOG_SD) for b in _bounds(category, cut_offs)
        )
        score = np.exp(_LOG_MEAN + _LOG_SD * norm.ppf(low + rank * (high - low)))
        found.append(_inside(score, category, cut_offs))
    return found[0], found[1]


def _vessels(
    rng: np.random.Generator, prefix: str, score: Floats, shares: Floats
) -> dict[str, list[str]]:
    """Divide totals among the vessels in tenths, so that the sums are exact."""
    own = shares * rng.lognormal(0.0, 0.3, shares.shape)
    tenths = rng.multinomial(
        np.round(score * 10).astype(np.int64), own / own.sum(axis=1, keepdims=True)
    )
    return {f"{prefix}_{v.value}": _text(tenths[:, i] / 10) for i, v in enumerate(Vessel)}


def _from_quantiles(
    rng: np.random.Generator, quantiles: Sequence[margins.Quantiles], group: Ints
) -> Floats:
    """Draw from the law that is uniform between a group's minimum, quartiles and maximum."""
    rank = rng.random(len(group))
    values = np.empty(len(group))
    for number, points in enumerate(quantiles):
        mine = group == number
        values[mine] = np.interp(rank[mine], (0.0, 0.25, 0.5, 0.75, 1.0), points)
    return np.round(values, 1)


def _text(values: ArrayLike) -> list[str]:
    return [f"{value:g}" for value in np.asarray(values, dtype=np.float64)]


def _rows(columns: Mapping[str, Sequence[str]]) -> list[Row]:
    cells = zip(*columns.values(), strict=True)
    return [dict(zip(columns, line, strict=True)) for line in cells]


def _identified(sites: SiteTables) -> SiteTables:
    return {
        site: [{"patient_id": f"{site}-{n:05d}", **row} for n, row in enumerate(rows, start=1)]
        for site, rows in sites.items()
    }
