"""`python docs/studies/attacks.py`: published leaks tried against the gate, off and on.

Every attack is tried twice: under the policy `open`, which switches the rules off, and under
`research`. It sees what leaves the site and what was published besides, nothing else; where a
leak is one that the software cannot make at all, its docstring says so. attacks.csv holds what was
recovered.
"""

from __future__ import annotations

import contextlib
import csv
import io
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from fedcac.aggregate import Evidence, Totals
from fedcac.aggregate.vectors import aggregate_of
from fedcac.canonical import digest_of
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import (
    Contribution,
    Gate,
    MemoryLedger,
    Question,
    Release,
    load_policy,
    question_of,
)
from fedcac.disclosure.groups import group_of
from fedcac.disclosure.history import numbers_released
from fedcac.disclosure.rules import apply_rule
from fedcac.errors import RoundError
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    Covariate,
    CoxSpec,
    DescriptivesSpec,
    Endpoint,
    FusionSpec,
    KaplanMeierSpec,
    Pooling,
    Protocol,
    ReclassificationSpec,
    ScoreColumn,
    Subgroup,
)
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.schema import ClinicalCriterion
from fedcac.signing import SigningKey
from fedcac.statistics import estimator_for
from fedcac.statistics.descriptive_variables import N_BINS
from fedcac.statistics.descriptives import COUNTS_QUERY, MOMENTS_QUERY, CharacteristicMoments
from fedcac.statistics.grids import covariate_edges
from fedcac.statistics.kaplan_meier import TABLE_QUERY
from fedcac.statistics.newton import STEP
from fedcac.statistics.refit import REFIT, table_query
from fedcac.statistics.resampling import replicate_rows
from fedcac.vocabulary import RefusalCode, Resampling
from site_agent.exams.table_source import TableSource
from site_agent.rounds.masked_sums import MaskedSums
from site_agent.state.store import SiteStore

FIELDS = ("attack", "attacker_sees", "gate_off", "gate_on", "test")
TABLE = Path(__file__).with_suffix(".csv")

Vector = NDArray[np.float64]
Answer = dict[str, Any] | RefusalCode

OPEN = "none: remains open"
"""Stands in the table for a test, where the gate does not stop an attack."""

EXACT = 1e-6
"""A value counts as recovered if it is this near to the true one."""

OLDEST, YOUNGEST = 97.3, 31.2


@dataclass(frozen=True)
class Finding:
    """How much of what was looked for was found, and what the gate said."""

    recovered: int
    of: int
    what: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.recovered} of {self.of} {self.what}" + (self.note and f"; {self.note}")


@dataclass(frozen=True)
class Attack:
    """An attack, what it looks at, and the test that fails if it succeeds again."""

    name: str
    sees: str
    run: Callable[[str], Finding]
    test: str


# --- a site and its gate --------------------------------------------------------------------


class Site:
    """One hospital: a gate with an empty ledger, and answers as the coordinator gets them."""

    def __init__(self, profile: str) -> None:
        self.gate = Gate(load_policy(profile), MemoryLedger())
        self.refusals: list[RefusalCode] = []

    def ask(
        self, protocol: Protocol, analysis: str, exams: Exams, query: Query, cohort: str = "cohort"
    ) -> Answer:
        """Return the payload that leaves, or the code of the refusal; every question is a round."""
        estimator = estimator_for(analysis, protocol)
        group = group_of(estimator.cohort(exams).keys, exams.keys)
        aggregate = estimator.summarise(exams, query)
        return self.release(protocol, analysis, query, aggregate, cohort, (group, exams.n))

    def release(
        self,
        protocol: Protocol,
        analysis: str,
        query: Query,
        aggregate: Any,
        cohort: str,
        group: tuple[str, int] = ("", 0),
    ) -> Answer:
        """Put any aggregate through the gate; `group` is whom it is about, of how many."""
        question = self._question(protocol, analysis, query, cohort, group)
        answer = self.gate.release(question, aggregate)
        if isinstance(answer, Release):
            return answer.payload
        self.refusals.append(answer.code)
        return answer.code

    def add(
        self, protocol: Protocol, analysis: str, exams: Exams, query: Query
    ) -> Contribution | None:
        """Return what the site adds to a masked sum; the coordinator sees the sum alone."""
        estimator = estimator_for(analysis, protocol)
        group = group_of(estimator.cohort(exams).keys, exams.keys)
        question = self._question(protocol, analysis, query, "cohort", (group, exams.n))
        aggregate = estimator.summarise(exams, query)
        answer = self.gate.contribute(question, aggregate, protocol.pooling.least_sites)
        if isinstance(answer, Contribution):
            return answer
        self.refusals.append(answer.code)
        return None

    def _question(
        self, protocol: Protocol, analysis: str, query: Query, cohort: str, group: tuple[str, int]
    ) -> Question:
        return question_of(
            protocol,
            analysis,
            query,
            round_id=f"round-{len(self.gate._ledger.entries)}",
            exchange=1,
            cohort_digest=digest_of(cohort),
            group=group[0],
            cohort_size=group[1],
        )

    @property
    def said(self) -> str:
        """The refusal codes given, each once."""
        return ", ".join(sorted({f"`{code.value}`" for code in self.refusals}))


def protocol_of(*analyses: Any, **changes: Any) -> Protocol:
    """Return a valid protocol with these analyses."""
    return Protocol(**{**_document(), "analyses": analyses, **changes})


@cache
def _document() -> dict[str, Any]:
    demo = load_shipped("demo-nongated")
    document = {name: getattr(demo, name) for name in type(demo).model_fields}
    document["covariates"] = (
        Covariate(
            name="age",
            type="continuous",
            description="Age",
            unit="years",
            minimum=18,
            maximum=120,
        ),
        Covariate(name="sex", type="binary", description="Female sex"),
        Covariate(name="marked", type="binary", description="Marks one patient"),
    )
    document["endpoints"] = (Endpoint(name="mace", definition="Event"),)
    return document


def exams_of(n: int, seed: int = 1, **columns: Any) -> Exams:
    """Return generated patients of different ages, of whom half have the event."""
    rng = np.random.default_rng(seed)
    ages = np.r_[YOUNGEST, np.round(rng.choice(np.arange(400, 850), n - 2, False) / 10, 1), OLDEST]
    drawn: dict[str, Any] = {
        "reference_score": rng.choice([0.0, 5, 50, 250, 800], n),
        "index_score": rng.choice([0.0, 5, 50, 250, 800], n),
        "age": ages,
        "sex": rng.integers(0, 2, n).astype(float),
        "marked": (np.arange(n) == 0).astype(float),
        "index_probability_100": rng.uniform(0.1, 0.9, n).round(3),
        "follow_up_days": rng.permutation(n) + 10.0,
        "event": (np.arange(n) % 2).astype(float),
    }
    return Exams(columns=drawn | columns, keys=tuple(f"k{i}" for i in range(n)), secret=b"site")


def moments_of(name: str = "x", subgroup: str | None = None, by: str = "all") -> DescriptivesSpec:
    """Return an analysis that tells the number and the mean age of patients."""
    return DescriptivesSpec(
        id=name, kind="descriptives", covariates=("age",), by=by, subgroup=subgroup
    )


def total_age(answer: Answer) -> tuple[int, float] | None:
    """Return the number of patients and the sum of their ages, if released."""
    if isinstance(answer, RefusalCode) or not isinstance(answer["n"][0], int):
        return None
    return answer["n"][0], answer["n"][0] * answer["mean"][0]


def count_found(found: Any, true: Any) -> int:
    """Return how many of the true values are among those found."""
    guesses = np.asarray(list(found), dtype=float)
    return sum(bool(np.any(np.abs(guesses - value) < EXACT)) for value in true)


# --- 1. a published cross table -------------------------------------------------------------

SITE_1 = np.array(
    [[4, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 3, 0, 0], [0, 0, 1, 2, 1], [0, 0, 0, 0, 10]]
)
KAPPA = 0.8024


def exams_like(matrix: NDArray[np.int64]) -> Exams:
    """Return patients whose cross table, shape (5, 5), is this one."""
    scores = np.array([0.0, 5, 50, 250, 800])
    rows, columns = np.indices((5, 5))
    return exams_of(
        int(matrix.sum()),
        reference_score=np.repeat(scores[rows.ravel()], matrix.ravel()),
        index_score=np.repeat(scores[columns.ravel()], matrix.ravel()),
    )


def block(rows: range, columns: range) -> Vector:
    """Return the indicator, shape (25,), of a rectangle of cells."""
    mask = np.zeros((5, 5))
    mask[np.ix_(list(rows), list(columns))] = 1
    return mask.ravel()


def known_sums(table: dict[str, Any]) -> Iterator[tuple[Vector, int]]:
    """Yield every released number as a sum over the cells; the matrix itself is not looked at."""
    yield block(range(5), range(5)), table["n_patients"]
    for cut, four in enumerate(table["two_by_two"]):
        low, high = range(cut + 1), range(cut + 1, 5)
        sides = ((high, high), (high, low), (low, high), (low, low))
        for (rows, columns), count in zip(sides, four, strict=True):
            if count != "suppressed":
                yield block(rows, columns), count
    edges = [0, *(cut + 1 for cut in table["kept_cut_offs"]), 5]
    for i, row in enumerate(table["collapsed"]):
        for j, count in enumerate(row):
            yield block(range(*edges[i : i + 2]), range(*edges[j : j + 2])), count


def cell_ranges(sums: list[tuple[Vector, int]]) -> NDArray[np.int64]:
    """Return the least and the greatest count of every cell, shape (25, 2), by integer search."""
    return count_ranges(sums, np.eye(25))


def count_ranges(sums: list[tuple[Vector, int]], groups: Vector) -> NDArray[np.int64]:
    """Return the least and the greatest count of groups of cells, shape (n_groups, 2)."""
    masks = np.stack([mask for mask, _ in sums])
    values = np.array([value for _, value in sums], dtype=float)
    ranges = np.zeros((len(groups), 2), dtype=np.int64)
    for number, group in enumerate(groups):
        for end, sign in enumerate((1, -1)):
            found = milp(
                sign * group,
                constraints=LinearConstraint(masks, values, values),
                bounds=Bounds(0, np.inf),
                integrality=np.ones(len(group)),
            )
            ranges[number, end] = round(float(sign * found.fun))
    return ranges


def published_table(profile: str) -> Finding:
    """Eng 2021, Table 3, Site 1: the 5x5 matrix from its 2x2 tables, margins and kappa."""
    exams = exams_like(SITE_1)
    protocol = protocol_of(AgreementSpec(id="x", kind="agreement"))
    site = Site(profile)
    table = site.ask(protocol, "x", exams, next(estimator_for("x", protocol).pool(["site"])))
    if isinstance(table, RefusalCode):
        return Finding(0, 25, "cells", site.said)
    sums = list(known_sums(table))
    if profile == "open":
        # The printed kappa and the margins tell how many lie on the diagonal. What the gate
        # leaves has neither margins nor a kappa of the five categories.
        chance = float(SITE_1.sum(axis=1) @ SITE_1.sum(axis=0)) / 22**2
        sums.append((np.eye(5).ravel(), round(22 * (KAPPA * (1 - chance) + chance))))
    ranges = cell_ranges(sums)
    widths = ranges[:, 1] - ranges[:, 0]
    found = int(np.sum((widths == 0) & (ranges[:, 0] == SITE_1.ravel())))
    narrowest = int(widths[SITE_1.ravel() < 5].min())
    note = "" if found == 25 else f"a small cell can be any of {narrowest + 1} numbers or more"
    return Finding(found, 25, "cells", note)


CROSSED = {
    (5, 5, 5): 30,
    (5, 5, 50): 10,
    (5, 800, 5): 10,
    (50, 5, 50): 3,
    (800, 5, 50): 5,
    (800, 5, 5): 5,
    (800, 800, 5): 5,
    (800, 800, 800): 32,
}
"""Patients by reference, index and visual score; three have a reference score of 11 to 100."""


def linked_tables(profile: str) -> Finding:
    """Two index tests crossed with one reference: each table tells of its categories."""
    scores = np.repeat(np.array(list(CROSSED), dtype=float), list(CROSSED.values()), axis=0)
    names = ("reference_score", "index_score", "visual_score")
    exams = exams_of(100, **dict(zip(names, scores.T, strict=True)))
    protocol = protocol_of(
        AgreementSpec(id="x", kind="agreement"),
        AgreementSpec(id="y", kind="agreement", index="comparator"),
        comparator=ScoreColumn(column="visual_score", description="Visual estimate"),
    )
    site, what = Site(profile), "categories' sizes"
    tables = [
        site.ask(protocol, name, exams, next(estimator_for(name, protocol).pool(["site"])))
        for name in ("x", "y")
    ]
    # The unknowns are the cells of both tables, whose rows have the same sums.
    rows = [block(range(i, i + 1), range(5)) for i in range(5)]
    facts = [(np.r_[row, -row], 0) for row in rows]
    for half, table in enumerate(tables):
        if isinstance(table, dict):
            empty = np.zeros(25)
            facts += [
                (np.r_[empty, mask] if half else np.r_[mask, empty], count)
                for mask, count in known_sums(table)
            ]
    ranges = count_ranges(facts, np.hstack([np.stack(rows), np.zeros((5, 25))]))
    sizes = np.array([np.sum(scores[:, 0] == value) for value in (0, 5, 50, 250, 800)])
    small, widths = sizes < 5, ranges[:, 1] - ranges[:, 0]
    found = int(np.sum(widths[small] == 0))
    told = [i for i, table in enumerate(tables) if isinstance(table, dict)]
    note = f"{len(told)} of 2 tables answered; each can be any of {widths[small].min() + 1} numbers"
    return Finding(found, int(small.sum()), what, "" if found else f"{note} or more")


# --- 2. and 3. Cox models -------------------------------------------------------------------

COX = CoxSpec(id="cox", kind="cox", endpoint="mace", covariates=("age", "sex"))
AGE_ONLY = CoxSpec(id="cox", kind="cox", endpoint="mace", covariates=("age",))


def cox_query(*beta: float) -> Query:
    """Return the question for a Cox likelihood at these log hazard ratios."""
    return Query(step=STEP, values={"beta": beta})


def single_events(profile: str) -> Finding:
    """A stratum with one event: the gradient is the patient less the mean of those at risk."""
    found, n_strata, codes = 0, 35, set()
    protocol = protocol_of(COX, moments_of())
    for seed in range(n_strata):
        exams = exams_of(40, seed, event=np.zeros(40))
        first = int(np.argmin(exams.column("follow_up_days")))
        exams = exams.with_column("event", (np.arange(40) == first).astype(float))
        site = Site(profile)
        terms = site.ask(protocol, "cox", exams, cox_query(0.0, 0.0))
        everyone = total_age(site.ask(protocol, "x", exams, MOMENTS_QUERY))
        codes.add(site.said)
        if isinstance(terms, dict) and everyone is not None:
            age = terms["gradient"][0] + everyone[1] / everyone[0]
            # The share of women lies between 0 and 1, so the sign tells the sex.
            is_woman = terms["gradient"][1] > 0
            right = is_woman == bool(exams.column("sex")[first])
            found += right and abs(age - exams.column("age")[first]) < EXACT
    return Finding(found, n_strata, "events' age and sex", ", ".join(sorted(codes - {""})))


class RiskSetSums(Totals):
    """WebDISCO's message: patients, and the sum of their ages, at risk at every event."""

    kind: ClassVar[str] = "risk_set_sums"


def risk_sets(profile: str) -> Finding:
    """WebDISCO sends sums over the risk set of every event: neighbours are subtracted."""
    exams = exams_of(40, event=(np.arange(40) % 8 > 0).astype(float))
    time, event = exams.column("follow_up_days"), exams.column("event") == 1
    order = np.argsort(time[event])
    at_risk = time[None, :] >= time[event][order][:, None]
    message = RiskSetSums(
        n_patients=40,
        n_events=int(event.sum()),
        values=tuple(map(tuple, np.c_[at_risk.sum(1), at_risk @ exams.column("age")].tolist())),
        evidence=Evidence(smallest_group=40),
    )
    ages, what = exams.column("age")[event][order], "patients' ages"
    site = Site(profile)
    answer = site.release(protocol_of(COX), "cox", cox_query(0.0, 0.0), message, "cohort")
    if profile == "research" and isinstance(answer, RefusalCode):
        return Finding(0, len(ages), what, site.said)
    # No policy lets a type through that is not registered: this is the message as published.
    lost = -np.diff(np.array(message.values), axis=0, append=0)
    return Finding(count_found(lost[lost[:, 0] == 1, 1], ages), len(ages), what)


def large_parameter(profile: str) -> Finding:
    """At a large log hazard ratio the mean of those at risk is the age of the oldest of them."""
    exams = exams_of(120)
    oldest = int(np.argmax(exams.column("age")))
    time, event = exams.column("follow_up_days"), exams.column("event")
    time[oldest], event[oldest] = 1000.0, 0.0
    protocol = protocol_of(AGE_ONLY, moments_of(by="mace"))

    def estimate(beta: float) -> tuple[float, str]:
        site = Site(profile)
        terms = site.ask(protocol, "cox", exams, cox_query(beta))
        by_event = site.ask(protocol, "x", exams, MOMENTS_QUERY)
        if isinstance(terms, RefusalCode) or isinstance(by_event, RefusalCode):
            return np.nan, site.said
        events = by_event["n"][1] * by_event["mean"][1]
        return (events - terms["gradient"][0]) / terms["n_events"], ""

    age, said = estimate(50.0)
    if not said:
        return Finding(int(abs(age - OLDEST) < EXACT), 1, "ages of the oldest")
    allowed, _ = estimate(2.99 / float(exams.column("age").std()))
    note = f"{said}; at 2.99 per SD, which is answered, off by {abs(allowed - OLDEST):.1f} years"
    return Finding(int(abs(age - OLDEST) < EXACT), 1, "ages of the oldest", note)


# --- 4. cohorts that differ by one patient --------------------------------------------------


def nested_cohorts(profile: str) -> Finding:
    """The sum over all patients less the sum over all but one, for one patient after another."""
    exams, protocol, found = exams_of(40), protocol_of(moments_of()), []
    site = Site(profile)
    everyone = total_age(site.ask(protocol, "x", exams, MOMENTS_QUERY))
    for left_out in range(exams.n):
        others = exams.where(np.arange(exams.n) != left_out)
        rest = total_age(site.ask(protocol, "x", others, MOMENTS_QUERY, f"without {left_out}"))
        if everyone is not None and rest is not None:
            found.append(everyone[1] - rest[1])
    return Finding(count_found(found, exams.column("age")), exams.n, "patients' ages", site.said)


# --- 5. replicates --------------------------------------------------------------------------


def known_samples(profile: str) -> Finding:
    """As many sums over bootstrap samples as patients, solved for the patients.

    The gate off stands for a coordinator who knows the site's secret, and with it the weights.
    """
    exams = exams_of(40)
    rows = replicate_rows(exams, "x", Resampling.BOOTSTRAP, 80)
    sums = np.array([exams.column("age")[drawn].sum() for drawn in rows])
    secret = exams.secret if profile == "open" else b"guess"
    guessed = replicate_rows(exams.with_secret(secret), "x", Resampling.BOOTSTRAP, 80)
    weights = np.array([np.bincount(drawn, minlength=exams.n) for drawn in guessed], dtype=float)
    ages = exams.column("age")
    found = np.linalg.lstsq(weights, sums, rcond=None)[0]
    if profile == "open":
        return Finding(int(np.sum(np.abs(found - ages) < EXACT)), exams.n, "ages, secret known")
    off = np.mean(np.abs(found - ages))
    chance = np.mean(np.abs(ages.mean() - ages))
    note = f"off by {off:.0f} years on average (calling everybody average: {chance:.0f})"
    return Finding(int(np.sum(np.abs(found - ages) < EXACT)), exams.n, "ages, secret guessed", note)


def many_samples(profile: str) -> Finding:
    """An added-value analysis with as many bootstrap samples as patients, asked over and over."""
    base = CoxSpec(id="base", kind="cox", endpoint="mace", covariates=("age",))
    full = CoxSpec(id="full", kind="cox", endpoint="mace", covariates=("age", "sex"))
    spec = ReclassificationSpec(
        id="x",
        kind="reclassification",
        base="base",
        full="full",
        horizon_days=100,
        uncertainty=Resampling.BOOTSTRAP,
        replicates=120,
    )
    protocol, exams, site, told = protocol_of(base, full, spec), exams_of(120), Site(profile), 0
    for step in range(3):
        query = table_query(REFIT, np.full((120, 3), step * 1e-4))
        answer = site.ask(protocol, "x", exams, query)
        told += 0 if isinstance(answer, RefusalCode) else numbers_released(answer)
    return Finding(told, 3 * 120 * 3, "numbers about 120 patients", site.said)


def single_folds(profile: str) -> Finding:
    """Cross-validation with a fold per patient: each sum lacks one patient, no secret needed."""
    exams = exams_of(20, reference_score=np.where(np.arange(20) < 12, 250.0, 20.0))
    spec = FusionSpec(id="x", kind="fusion", covariates=("age",), cut_off=100, folds=20, bins=100)
    site = Site(profile)
    # At parameters of 0 a patient's part is half of the covariates, plus or minus.
    answer = site.ask(protocol_of(spec), "x", exams, table_query(REFIT, np.zeros((20, 3))))
    if isinstance(answer, RefusalCode):
        return Finding(0, 20, "patients' ages", site.said)
    sums = np.array(answer["values"])
    alone = sums.sum(axis=0) / 19 - sums
    return Finding(
        count_found(alone[:, 2] / alone[:, 0], exams.column("age")), 20, "patients' ages"
    )


# --- 6. survival at exact times -------------------------------------------------------------


def exact_times(profile: str) -> Finding:
    """A life table in bins of one day names the day of every event."""
    rng = np.random.default_rng(4)
    time = rng.permutation(400)[:60] + 1.0
    event = np.arange(60) < 25
    spec = KaplanMeierSpec(
        id="x", kind="kaplan_meier", endpoint="mace", by="all", bin_days=1, horizon_days=400
    )
    exams = exams_of(60, follow_up_days=time, event=event.astype(float))
    site = Site(profile)
    table = site.ask(protocol_of(spec), "x", exams, TABLE_QUERY)
    if isinstance(table, RefusalCode) or not table["edges"][0]:
        return Finding(0, 25, "days of events", site.said or "no curve is shown")
    edges, events = table["edges"][0], table["events"][0]
    days = [last for last, n in zip(edges[1:], events, strict=True) if n == 1]
    bins = zip(edges[1:], edges[:-1], events, strict=True)
    least, fewest = min((last - first, n) for last, first, n in bins if n)
    note = "" if days else f"shortest span shown: {least} days with {fewest} events"
    return Finding(count_found(days, time[event]), 25, "days of events", note)


# --- 7. extremes ----------------------------------------------------------------------------


def extremes(profile: str) -> Finding:
    """Where the released histogram says that the youngest, the median and the oldest must be."""
    exams, site = exams_of(120), Site(profile)
    protocol = protocol_of(moments_of())
    answer = site.ask(protocol, "x", exams, COUNTS_QUERY)
    what = "of youngest, median, oldest within a year"
    if isinstance(answer, RefusalCode):
        return Finding(0, 3, what, site.said)
    starts, counts = answer["starts"][1][0], np.array(answer["counts"][1][0])
    # The grid is public: it follows from the limits that the protocol declares.
    declared = protocol.covariate("age")
    limits = np.r_[18.0, covariate_edges(declared, N_BINS), 120.0]
    firsts, lasts = limits[starts], limits[[*starts[1:], len(limits) - 1]]
    filled = np.flatnonzero(counts)
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    bins = [filled[0], median, filled[-1]]
    ages = np.sort(exams.column("age"))
    for place, age in zip(bins, (ages[0], ages[59], ages[-1]), strict=True):
        if not firsts[place] <= age <= lasts[place]:
            raise AssertionError("the bounds must hold")
    widths = [float(lasts[place] - firsts[place]) for place in bins]
    note = "spans " + ", ".join(f"{width:.1f}" for width in widths) + " years"
    return Finding(sum(width < 1 for width in widths), 3, what, note)


# --- 8. many protocols about one cohort -----------------------------------------------------


@cache
def age_protocol() -> Protocol:
    """Return a protocol that asks for the mean age of a subgroup, whose limits are to be set."""
    anybody = Subgroup(name="part", covariate="age", minimum=0.0, description="A span of ages.")
    return protocol_of(moments_of(subgroup="part"), subgroups=(anybody,))


def ask_part(site: Site, exams: Exams, minimum: float = 0.0, below: float = 200.0) -> Answer:
    """Ask, in a protocol of its own, for the number and mean age of the patients in a span."""
    protocol = age_protocol()
    limits = protocol.subgroups[0].model_copy(update={"minimum": minimum, "below": below})
    protocol = protocol.model_copy(update={"subgroups": (limits,)})
    return site.ask(protocol, "x", exams, MOMENTS_QUERY)


def differencing(profile: str) -> Finding:
    """Sixty patients between 50 and 75, and a protocol for each tenth of a year: subtraction."""
    drawn = np.random.default_rng(6).choice(np.arange(500, 750), 60, replace=False)
    exams, site, told = exams_of(60, age=np.round(drawn / 10, 1)), Site(profile), []
    limits = np.round(np.arange(50.05, 75, 0.1), 2)
    for limit in limits:
        total = total_age(ask_part(site, exams, below=float(limit)))
        told += [] if total is None else [total]
    told = [(0, 0.0), *told]
    found = [b[1] - a[1] for a, b in pairwise(told) if b[0] - a[0] == 1]
    note = f"{site.said}; {len(told) - 1} of {len(limits)} answered" if site.refusals else ""
    return Finding(count_found(found, exams.column("age")), exams.n, "patients' ages", note)


def likelihoods(profile: str) -> Finding:
    """Sixty protocols, each with a Cox model of its own of the same columns."""
    exams, site, told = exams_of(120), Site(profile), 0
    declared = protocol_of(COX)
    for step in range(60):
        age = declared.covariates[0].model_copy(update={"scale": 1.0 + step})
        protocol = declared.model_copy(update={"covariates": (age, *declared.covariates[1:])})
        answer = site.ask(protocol, "cox", exams, cox_query(0.01 * step, 0.0))
        told += 0 if isinstance(answer, RefusalCode) else numbers_released(answer)
    return Finding(told, 60 * 6, "numbers about 480 values", site.said)


WINDOWS = (22, 27, 50)


def sliding_windows(profile: str) -> Finding:
    """Spans of ages that hold 22, 27 or 50 patients, from every patient on: equations to solve.

    No two of them differ in number by 1 to 4. The limits are taken to part neighbours; a
    coordinator would try every tenth of a year and keep what is answered.
    """
    exams, site = exams_of(80), Site(profile)
    ages = np.sort(exams.column("age"))
    cuts = np.r_[ages - 0.05, 200.0]
    rows, sums = [], []
    for size in WINDOWS:
        for first in range(exams.n - size + 1):
            low, high = float(cuts[first]), float(cuts[first + size])
            total = total_age(ask_part(site, exams, low, high))
            if total is not None:
                rows.append((np.arange(exams.n) >= first) & (np.arange(exams.n) < first + size))
                sums.append(total[1])
    if not rows:
        return Finding(0, exams.n, "patients' ages", site.said)
    found = np.linalg.lstsq(np.array(rows, dtype=float), np.array(sums), rcond=None)[0]
    right = int(np.sum(np.abs(found - ages) < EXACT))
    note = f"{len(sums)} of {len(sums) + len(site.refusals)} answered" if site.refusals else ""
    return Finding(right, exams.n, "patients' ages", note)


# --- 9. a malicious protocol ----------------------------------------------------------------


def isolating_subgroup(profile: str) -> Finding:
    """A subgroup that holds one patient, then all but that one."""
    exams, site = exams_of(120), Site(profile)
    everyone, alone, others = (
        total_age(ask_part(site, exams, *span))
        for span in ((0.0, 200.0), (OLDEST, 200.0), (0.0, OLDEST))
    )
    found = [] if alone is None else [alone[1]]
    if everyone is not None and others is not None:
        found.append(everyone[1] - others[1])
    return Finding(count_found(found, [OLDEST]), 1, "patients' ages", site.said)


def isolating_covariate(profile: str) -> Finding:
    """A covariate that marks one patient: its gradient tells whether that one had the event."""
    exams, found, codes = exams_of(120), 0, set()
    protocol = protocol_of(CoxSpec(id="cox", kind="cox", endpoint="mace", covariates=("marked",)))
    first = np.argsort(exams.column("follow_up_days"))
    for marked in first[:40]:
        own = exams.with_column("marked", (np.arange(120) == marked).astype(float))
        site = Site(profile)
        terms = site.ask(protocol, "cox", own, cox_query(0.0))
        codes.add(site.said)
        if isinstance(terms, dict):
            found += (terms["gradient"][0] > 0) == bool(exams.column("event")[marked])
    return Finding(found, 40, "patients' events", ", ".join(sorted(codes - {""})))


def isolating_exclusion(profile: str) -> Finding:
    """An endpoint that excludes the one patient whom a column marks, beside one that does not."""
    exams, site = exams_of(120), Site(profile)
    criterion = ClinicalCriterion(column="marked", exclude_if=1, statement="Marked.")
    totals = []
    for exclusion in (None, criterion):
        endpoint = Endpoint(name="mace", definition="Event", exclusion=exclusion)
        protocol = protocol_of(moments_of(by="mace"), endpoints=(endpoint,))
        answer = site.ask(protocol, "x", exams, MOMENTS_QUERY)
        if not isinstance(answer, RefusalCode):
            pairs = zip(answer["n"], answer["mean"], strict=True)
            totals.append(sum(n * mean for n, mean in pairs if isinstance(n, int)))
    found = [totals[0] - totals[1]] if len(totals) == 2 else []
    return Finding(count_found(found, [exams.column("age")[0]]), 1, "patients' ages", site.said)


# --- 10. smuggling --------------------------------------------------------------------------

MESSAGE = "MRN 4711"


def text(profile: str) -> Finding:
    """A patient's number in place of a number, a further field, a dictionary's key."""
    site, protocol, passed = Site(profile), protocol_of(moments_of()), 0
    fair = CharacteristicMoments(n_patients=50, n=(50,), mean=(1.0,), m2=(1.0,))
    forged: list[dict[str, Any]] = [
        {"mean": (MESSAGE,)},
        {"n": ({MESSAGE: 50},)},
        {"n_patients": MESSAGE},
        {"note": MESSAGE},
        {"kind": MESSAGE},
        {"mean": (MESSAGE.encode(),)},
    ]
    for change in forged:
        try:
            copy = fair.model_copy(update=change)
            answer = site.release(protocol, "x", MOMENTS_QUERY, copy, str(change))
        except Exception as error:
            passed += MESSAGE in str(error)
        else:
            passed += MESSAGE in str(answer)
    return Finding(passed, len(forged), "attempts carry text")


def low_bits(profile: str) -> Finding:
    """A message in the last bits of a number: how many of a double's 52 arrive."""
    policy = load_policy(profile)

    def released(bits: int) -> float:
        number = struct.unpack("<d", struct.pack("<Q", bits))[0]
        fair = CharacteristicMoments(n_patients=50, n=(50,), mean=(number,), m2=(1.0,))
        safe: Any = apply_rule(fair, policy)
        return float(safe.mean[0])

    base = struct.unpack("<Q", struct.pack("<d", 62.34567890123456))[0]
    arrives = [released(base) != released(base ^ (1 << bit)) for bit in range(52)]
    return Finding(sum(arrives), 52, "bits of a number arrive")


# --- 11. sums over sites --------------------------------------------------------------------

TABLE_SPEC = AgreementSpec(id="x", kind="agreement")
SAME_COUNTS = AccuracySpec(id="y", kind="accuracy")
SUMS = Pooling(mode="masked", least_sites=3)


@cache
def four_tables(smallest: int) -> tuple[NDArray[np.int64], ...]:
    """Return three tables of hundreds of patients without smaller cells, and the one of 22."""
    return (*np.random.default_rng(3).integers(smallest, 24, (3, 5, 5)), SITE_1)


def sum_less_answers(profile: str) -> Finding:
    """A masked sum of four tables, and afterwards what the other three sites tell of their own.

    The same question is not answered both ways under any policy. The same counts are asked for
    under another name as well; the three sites have small cells.
    """
    sites, tables = [Site(profile) for _ in range(4)], four_tables(0)
    protocol = protocol_of(TABLE_SPEC, SAME_COUNTS, pooling=SUMS)
    parts = _added(sites, tables, protocol)
    told = [_told(sites, tables, protocol, analysis) for analysis in ("x", "y")]
    return _rest(parts, max(told, key=len), sites)


def sum_less_whole_tables(profile: str) -> Finding:
    """First three sites' counts without a small cell under another name, then the sum of four."""
    sites, tables = [Site(profile) for _ in range(4)], four_tables(8)
    protocol = protocol_of(TABLE_SPEC, SAME_COUNTS, pooling=SUMS)
    told = _told(sites, tables, protocol, "y")
    return _rest(_added(sites, tables, protocol), told, sites)


def _added(sites: Sequence[Site], tables: Sequence[Any], protocol: Protocol) -> list[Contribution]:
    query = next(estimator_for("x", protocol).pool(["site"]))
    pairs = zip(sites, tables, strict=True)
    parts = [site.add(protocol, "x", exams_like(matrix), query) for site, matrix in pairs]
    return [part for part in parts if part is not None]


def _told(
    sites: Sequence[Site], tables: Sequence[Any], protocol: Protocol, analysis: str
) -> list[Vector]:
    """Return the tables that all sites but the small one give by themselves."""
    query = next(estimator_for(analysis, protocol).pool(["site"]))
    pairs = zip(sites[:3], tables[:3], strict=True)
    told = [site.ask(protocol, analysis, exams_like(matrix), query) for site, matrix in pairs]
    return [np.array(one["matrix"], dtype=float) for one in told if isinstance(one, dict)]


def _rest(parts: list[Contribution], told: list[Vector], sites: Sequence[Site]) -> Finding:
    """Subtract what three sites told from the sum of four: all that the coordinator has."""
    said = ", ".join(sorted({site.said for site in sites} - {""}))
    if len(parts) < 4 or len(told) < 3:
        return Finding(0, 25, "cells of the small site", said)
    total = np.array(_sum_of(parts).matrix, dtype=float)
    found = int(np.sum(total - np.sum(told, axis=0) == SITE_1))
    return Finding(found, 25, "cells of the small site")


def _sum_of(parts: Sequence[Contribution]) -> Any:
    vector = np.sum([part.vector for part in parts], axis=0)
    return aggregate_of(parts[0].layout, vector.tolist())


def sum_less_models(profile: str) -> Finding:
    """Three sites' own Cox models of age, and the sum of four over models of age and of sex.

    The fourth site has 6 events, and under `research` too few to answer by itself.
    """
    models = CoxSpec(
        id="x", kind="cox", endpoint="mace", covariates=("age", "sex"), univariable=True
    )
    protocol = protocol_of(models, AGE_ONLY, pooling=SUMS)
    sites = [Site(profile) for _ in range(4)]
    exams = [exams_of(120, seed) for seed in range(1, 5)]
    exams[3] = exams[3].with_column("event", (np.arange(120) < 6).astype(float))
    asked = next(estimator_for("cox", protocol).pool(["site"]))
    own = [site.ask(protocol, "cox", one, asked) for site, one in zip(sites, exams, strict=True)]
    query = next(estimator_for("x", protocol).pool(["site"]))
    added = [site.add(protocol, "x", one, query) for site, one in zip(sites, exams, strict=True)]
    parts = [one for one in added if one is not None]
    told = [one["gradient"][0] for one in own[:3] if isinstance(one, dict)]
    true = estimator_for("cox", protocol).summarise(exams[3], asked)
    said = ", ".join(sorted({site.said for site in sites} - {""}))
    what = "gradients of the small site"
    if len(parts) < 4 or len(told) < 3:
        return Finding(0, 1, what, said)
    left = _sum_of(parts).gradient[0] - sum(told)
    return Finding(count_found([left], true.gradient[:1]), 1, what)


def sum_over_fewer(profile: str) -> Finding:
    """Two masked rounds, the second without the small site: their difference is its table.

    The gate's policy is `research` both times: that both sums are over the same sites is not its
    rule but the site's own check of a plan, which is switched off for "gate off".
    """
    check = MaskedSums._check_sites
    is_off = profile == "open"
    protocol = protocol_of(TABLE_SPEC, pooling=SUMS)
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(MaskedSums, "_check_sites", _answer_any if is_off else check),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        sites = [_site_over(Path(name), number) for number in range(4)]
        lead, sums = SigningKey.generate(), []
        for members in (sites, sites[:3]):
            try:
                view = run_round(protocol, members, load_policy("research"), lead)
            except RoundError as error:
                code = error.code.removeprefix("round.")
                return Finding(0, 25, "cells of the small site", f"`{code}`")
            table: Any = view.sums[0]["x"].answer
            sums.append(np.array(table.matrix))
        for site in sites:
            site.store.close()
    found = int(np.sum(sums[0] - sums[1] == SITE_1))
    return Finding(found, 25, "cells of the small site")


def _answer_any(*_: Any) -> None:
    """Answer a plan over any sites."""


def _site_over(folder: Path, number: int) -> InMemorySite:
    """Return a site that remembers its rounds, over the table of one of the four."""
    exams, path = exams_like(four_tables(8)[number]), folder / f"site{number + 1}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "reference_score", "index_score"))
        scores = (exams.column("reference_score"), exams.column("index_score"))
        writer.writerows(zip(exams.keys, *scores, strict=True))
    return InMemorySite(
        name=path.stem,
        source=TableSource(path),
        store=SiteStore(":memory:"),
        ledger_path=folder / path.stem / "ledger.jsonl",
        secret=b"site",
    )


@cache
def attacks() -> tuple[Attack, ...]:
    """Return every attack in the order of the table."""
    leaks, statistics = "test_published_leaks.py", "test_statistics_attacks.py"
    return (
        Attack(
            "published table",
            "2x2 tables, margins and kappa of 22 patients",
            published_table,
            "test_reconstruction.py::test_published_margins_tables_and_kappa_determine_every_cell",
        ),
        Attack(
            "linked tables",
            "cross tables of two index tests with one reference, of 100 patients",
            linked_tables,
            "test_earlier_facts.py::"
            "test_answers_that_are_safe_alone_do_not_tell_a_small_cell_together",
        ),
        Attack(
            "single event",
            "a Cox gradient at 0 and the cohort's mean age, 35 strata with one event each",
            single_events,
            "test_likelihood.py::test_a_single_event_gives_the_patient_away",
        ),
        Attack(
            "risk-set sums",
            "WebDISCO's sums over the risk set of each of 35 events",
            risk_sets,
            f"{leaks}::test_sums_over_risk_sets_are_no_aggregate",
        ),
        Attack(
            "large parameter",
            "a Cox gradient at 50 per year and the mean age by event",
            large_parameter,
            "test_likelihood.py::test_a_large_parameter_singles_out_the_oldest",
        ),
        Attack(
            "nested cohorts",
            "mean age of all, and of all but one, 40 times",
            nested_cohorts,
            f"{leaks}::test_cohorts_without_one_patient_each",
        ),
        Attack(
            "known samples",
            "80 sums over bootstrap samples of 40 patients",
            known_samples,
            f"{statistics}::test_a_known_secret_turns_replicates_into_equations",
        ),
        Attack(
            "many samples",
            "gradients of 120 bootstrap samples of 120 patients, three times",
            many_samples,
            f"{leaks}::test_as_many_samples_as_patients_are_refused",
        ),
        Attack(
            "single folds",
            "cross-validation's sums that leave one of 20 patients out each",
            single_folds,
            f"{statistics}::test_folds_of_one_patient_give_every_row_away",
        ),
        Attack(
            "exact times",
            "a life table in bins of one day",
            exact_times,
            f"{statistics}::test_one_day_bins_name_the_days_of_single_events",
        ),
        Attack(
            "extremes",
            "a histogram of age; no minimum, maximum or exact median is released",
            extremes,
            f"{leaks}::test_a_histogram_bounds_the_extremes_loosely",
        ),
        Attack(
            "many protocols: subtraction",
            "mean age below each of 250 limits",
            differencing,
            f"{leaks}::test_a_protocol_for_every_age_limit",
        ),
        Attack(
            "many protocols: likelihoods",
            "a Cox likelihood of two parameters in each of 60 protocols",
            likelihoods,
            f"{leaks}::test_the_budget_is_counted_over_all_protocols",
        ),
        Attack(
            "many protocols: windows",
            "mean age of spans that hold 22, 27 or 50 of 80 patients",
            sliding_windows,
            f"{leaks}::test_spans_that_add_up_to_all_but_one",
        ),
        Attack(
            "malicious subgroup",
            "mean age of one patient, of all, and of all others",
            isolating_subgroup,
            f"{leaks}::test_a_subgroup_or_exclusion_of_one_patient",
        ),
        Attack(
            "malicious covariate",
            "a Cox gradient of a covariate that is 1 for one patient, 40 times",
            isolating_covariate,
            f"{leaks}::test_a_covariate_that_marks_one_patient",
        ),
        Attack(
            "malicious exclusion",
            "mean age with and without an exclusion that fits one patient",
            isolating_exclusion,
            f"{leaks}::test_a_subgroup_or_exclusion_of_one_patient",
        ),
        Attack(
            "smuggled text",
            "fields, keys, kinds and errors of forged aggregates",
            text,
            "test_smuggling.py::test_an_unvalidated_copy_is_looked_through",
        ),
        Attack(
            "smuggled bits",
            "the digits of a released mean",
            low_bits,
            f"{leaks}::test_digits_beyond_the_twelfth_do_not_leave",
        ),
        Attack(
            "sum less open answers",
            "a masked sum of four sites' tables, and what three of the sites tell by themselves",
            sum_less_answers,
            "test_sums_over_sites.py::test_the_sum_less_the_open_answers_of_the_others",
        ),
        Attack(
            "sum less whole tables",
            "the same, where three sites without a small cell told their counts for accuracy",
            sum_less_whole_tables,
            "test_sums_over_sites.py::test_nothing_but_means_stands_beside_a_sum_about_the_same_patients",
        ),
        Attack(
            "sum less open models",
            "a masked sum of four sites' Cox gradients, and three sites' own of one of the models",
            sum_less_models,
            "test_sums_over_sites.py::test_nothing_but_means_stands_beside_a_sum_about_the_same_patients",
        ),
        Attack(
            "sum over fewer sites",
            "two masked sums of one question, over four sites and over three of them",
            sum_over_fewer,
            "federation/test_masked_rounds.py::test_a_second_round_over_other_sites_is_not_answered",
        ),
    )


def row_of(attack: Attack) -> dict[str, str]:
    """Return a line of the table: the attack tried under both policies."""
    findings = (str(attack.run(profile)) for profile in ("open", "research"))
    return dict(zip(FIELDS, (attack.name, attack.sees, *findings, attack.test), strict=True))


def main() -> None:
    """Try every attack and write the table."""
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(row_of, attacks()))


if __name__ == "__main__":
    main()
