"""Answers that are safe one by one, put together. Judged by an integer program of the test's own.

The judge knows the plan, as a coordinator does, and every payload. Its unknowns are how many
patients there are with each combination of scores and group: whatever tables and margins say
together is in it, and nothing of the gate's own audit is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy.optimize import Bounds, LinearConstraint, milp

from fedcac.aggregate import FlowCounts
from fedcac.aggregate.shapes import FlowStage
from fedcac.canonical import digest_of
from fedcac.disclosure import FLOW, Release, question_of
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AgreementSpec,
    AucSpec,
    CategoryScheme,
    ComparisonSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
    Protocol,
    Subgroup,
)
from fedcac.statistics import estimator_for
from fedcac.statistics.auc import WITHIN_QUERY
from fedcac.statistics.comparison import CELLS_QUERY
from fedcac.statistics.descriptives import COUNTS_QUERY
from fedcac.statistics.kaplan_meier import TABLE_QUERY

K = 5
COLUMNS = {"reference": "reference_score", "index": "index_score", "comparator": "visual_score"}

Values = dict[str, NDArray[np.float64]]
Who = Callable[[Values], NDArray[np.bool_]]
Asked = tuple[Protocol, str]
Told = list[tuple[Who, int]]


# --- the plans ------------------------------------------------------------------------------


def scheme(*cut_offs: float) -> CategoryScheme:
    """Return categories whose cut-offs lie between the scores of the generated patients."""
    labels = [f"{number}" for number in range(len(cut_offs) + 1)]
    return CategoryScheme(cut_offs=cut_offs, labels=tuple(labels))


def protocol_of(*cut_offs: float) -> Protocol:
    """Return a plan with the analyses that tell counts of categories."""

    def auc(name: str, index: str, cut: float) -> AucSpec:
        return AucSpec(id=name, kind="auc", index=index, cut_offs=(cut,), bins=100)

    curves = {"by_index": "index", "by_reference": "reference"}
    return plan(
        [
            AgreementSpec(id="table", kind="agreement"),
            AgreementSpec(id="visual", kind="agreement", index="comparator"),
            *(
                AgreementSpec(id=f"table_{name}", kind="agreement", subgroup=name)
                for name in ("a", "b")
            ),
            AgreementSpec(id="visual_a", kind="agreement", index="comparator", subgroup="a"),
            *(auc(f"auc_{cut:g}", "index", cut) for cut in cut_offs),
            *(auc(f"auc_visual_{cut:g}", "comparator", cut) for cut in cut_offs),
            ComparisonSpec(id="cells", kind="comparison", compare="index_tests", bins=100),
            *(
                KaplanMeierSpec(
                    id=name,
                    kind="kaplan_meier",
                    endpoint="mace",
                    by=by,
                    bin_days=400,
                    horizon_days=800,
                )
                for name, by in curves.items()
            ),
            DescriptivesSpec(id="sizes", kind="descriptives", covariates=("age",), by="index"),
        ],
        categories=scheme(*cut_offs),
        subgroups=tuple(
            Subgroup(name=name, covariate="vendor", levels=(name,), description=f"Vendor {name}.")
            for name in ("a", "b")
        ),
    )


PLAN = protocol_of(10, 100)
FINE = protocol_of(20, 100)
LEVELS = (5.0, 50.0, 500.0)


def query_of(protocol: Protocol, name: str) -> Query:
    """Return the first question of an analysis, or the one that tells counts."""
    kinds = {"kaplan_meier": TABLE_QUERY, "descriptives": COUNTS_QUERY, "auc": WITHIN_QUERY}
    kinds["comparison"] = CELLS_QUERY
    kind = protocol.analysis(name).kind
    return kinds[kind] if kind in kinds else next(estimator_for(name, protocol).pool(["site"]))


def patients(
    rows: Sequence[tuple[float, float, float]], vendor: Sequence[int] | None = None
) -> Exams:
    """Return patients with these (reference, index, visual) scores, who all live long."""
    reference, index, visual = np.array(rows, dtype=float).T
    n = len(rows)
    return draw_exams(
        1,
        n,
        reference_score=reference,
        index_score=index,
        visual_score=visual,
        vendor=np.zeros(n) if vendor is None else np.array(vendor, dtype=float),
        follow_up_days=np.full(n, 900.0),
        event=np.zeros(n),
    )


def from_table(counts: Sequence[Sequence[int]], levels: Sequence[float] = LEVELS) -> list[Any]:
    """Return scores of patients whose table (rows = reference) this is; visual equals index."""
    return [
        (levels[i], levels[j], levels[j])
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        for _ in range(n)
    ]


# --- what an answer tells -------------------------------------------------------------------


def above(role: str, cut: float) -> Who:
    return lambda values: values[COLUMNS[role]] > cut


def band(role: str, low: float, high: float) -> Who:
    return lambda values: (values[COLUMNS[role]] > low) & (values[COLUMNS[role]] <= high)


def both(*parts: Who) -> Who:
    return lambda values: np.logical_and.reduce([part(values) for part in parts])


def of_vendors(*levels: int) -> Who:
    return lambda values: np.isin(values["vendor"], levels)


def told_by(protocol: Protocol, name: str, payload: dict[str, Any]) -> Told:
    """Return every count that an answer tells, and whom it counts."""
    spec: Any = protocol.analysis(name)
    subgroup = getattr(spec, "subgroup", None)
    of = of_vendors({"a": 0, "b": 1}[subgroup]) if subgroup else of_vendors(0, 1, 2)
    cuts = protocol.categories.cut_offs
    parts = {
        "agreement": _of_table,
        "auc": _of_classes,
        "comparison": _of_cells,
        "kaplan_meier": _of_curves,
        "descriptives": _of_sizes,
    }[spec.kind](spec, cuts, payload)
    counts = [(of, payload["n_patients"]), *((both(of, who), n) for who, n in parts)]
    return [(who, n) for who, n in counts if isinstance(n, int)]


def _bands(role: str, cuts: Sequence[float]) -> list[Who]:
    return [band(role, low, high) for low, high in pairwise([-1.0, *cuts, np.inf])]


def _of_table(spec: Any, cuts: Sequence[float], payload: dict[str, Any]) -> Iterator[Any]:
    kept = [cuts[i] for i in payload["kept_cut_offs"]]
    for edges, matrix in ((cuts, payload["matrix"]), (kept, payload["collapsed"])):
        rows, columns = _bands(spec.reference, edges), _bands(spec.index, edges)
        for i, row in enumerate(matrix):
            yield from ((both(rows[i], columns[j]), n) for j, n in enumerate(row))
    for cut, four in zip(cuts, payload["two_by_two"], strict=True):
        index, reference = above(spec.index, cut), above(spec.reference, cut)
        sides = product((reference, _not(reference)), (index, _not(index)))
        yield from ((both(*side), n) for side, n in zip(sides, four, strict=True))


def _not(who: Who) -> Who:
    return lambda values: ~who(values)


def _of_classes(spec: Any, cuts: Sequence[float], payload: dict[str, Any]) -> Iterator[Any]:
    for cut, row in zip(spec.cut_offs, payload["values"], strict=True):
        if row:
            yield above(spec.reference, cut), round(row[0])


def _of_cells(spec: Any, cuts: Sequence[float], payload: dict[str, Any]) -> Iterator[Any]:
    for cut, starts, groups in zip(cuts, payload["starts"], payload["counts"], strict=True):
        shared, one, two = (above(role, cut) for role in ("reference", "index", "comparator"))
        for is_positive, (firsts, counts) in enumerate(zip(starts, groups, strict=True)):
            own = shared if is_positive else _not(shared)
            cells = [both(own, a, b) for a, b in product((_not(one), one), (_not(two), two))]
            for (low, high), n in zip(pairwise([*firsts, 4]), counts, strict=True):
                inside = cells[low:high]
                yield (lambda v, inside=inside: np.logical_or.reduce([c(v) for c in inside])), n


def _of_curves(spec: Any, cuts: Sequence[float], payload: dict[str, Any]) -> Iterator[Any]:
    for who, row in zip(_bands(spec.by, cuts), payload["at_risk"], strict=True):
        if row:
            yield who, row[0]


def _of_sizes(spec: Any, cuts: Sequence[float], payload: dict[str, Any]) -> Iterator[Any]:
    edges = [-1.0, *cuts, np.inf]
    firsts, counts = payload["starts"][0][0], payload["counts"][0][0]
    for (low, high), n in zip(pairwise([*firsts, len(cuts) + 1]), counts, strict=True):
        yield band(spec.by, edges[low], edges[high]), n


# --- the judge ------------------------------------------------------------------------------


def confined(exams: Exams, told: Told, tables: Sequence[tuple[str, str]]) -> list[str]:
    """Return the small cells and margins of these tables that all facts confine to below k."""
    columns = sorted({COLUMNS[role] for table in tables for role in table} | set(COLUMNS.values()))
    levels = {name: np.unique(exams.column(name)) for name in columns}
    levels["vendor"] = np.unique(exams.column("vendor"))
    mesh = np.meshgrid(*levels.values(), indexing="ij")
    atoms = {name: part.reshape(-1) for name, part in zip(levels, mesh, strict=True)}
    true = {name: exams.column(name) for name in levels}
    masks = np.array([who(atoms) for who, _ in told], dtype=float)
    counts = np.array([n for _, n in told], dtype=float)
    assert [int(who(true).sum()) for who, _ in told] == counts.tolist()
    found = []
    vendors = [
        subset
        for size in range(1, len(levels["vendor"]) + 1)
        for subset in combinations([int(v) for v in levels["vendor"]], size)
    ]
    for (reference, index), who in product(tables, vendors):
        sides = [_singles(levels[COLUMNS[role]], role) for role in (reference, index)]
        for (one, first), (two, second) in product(*sides):
            target = both(of_vendors(*who), first, second)
            n = int(target(true).sum())
            if n < K and (one or two):
                low, high = _interval(masks, counts, target(atoms), exams.n)
                assert low <= n <= high
                if high - low < K:
                    found.append(f"{reference}{one} {index}{two} vendors {who}: {low}..{high}")
    return found


def _singles(levels: NDArray[np.float64], role: str) -> list[tuple[str, Who]]:
    every: tuple[str, Who] = ("", lambda values: np.ones(len(values["vendor"]), dtype=bool))
    return [every, *((f"={x:g}", band(role, x - 1, x)) for x in levels)]


def _interval(
    masks: NDArray[np.float64], counts: NDArray[np.float64], target: NDArray[np.bool_], n: int
) -> tuple[int, int]:
    # Atoms in the same facts, and in or out of the target together, are one unknown.
    columns = np.unique(np.vstack([masks, target]), axis=1)
    ends = []
    for sign in (1, -1):
        solved = milp(
            sign * columns[-1],
            constraints=LinearConstraint(columns[:-1], counts, counts),
            bounds=Bounds(0, n),
            integrality=np.ones(columns.shape[1]),
        )
        assert solved.status == 0
        ends.append(round(sign * float(solved.fun)))
    return ends[0], ends[1]


def answers(exams: Exams, asked: Sequence[Asked], *, is_one_ledger: bool) -> tuple[Told, int]:
    """Return what a site tells, and to how many questions, remembering earlier answers or not."""
    gate, told, n_released = gate_of("research"), [], 0
    for number, (protocol, name) in enumerate(asked, 1):
        own = gate if is_one_ledger else gate_of("research")
        query = query_of(protocol, name)
        answer = answer_to(own, protocol, name, exams, query, exchange=number)
        if isinstance(answer, Release):
            told += told_by(protocol, name, answer.payload)
            n_released += 1
    return told, n_released


# --- the attacks ----------------------------------------------------------------------------

BOTH_TABLES = (("reference", "index"), ("reference", "comparator"))


def drawn(
    seed: int, levels: Sequence[float] = LEVELS, shares: Sequence[float] | None = None
) -> Exams:
    """Return 30 to 119 patients whose tests agree with the reference most of the time.

    `shares` of the reference's categories; drawn, too, if not given.
    """
    rng = np.random.default_rng(seed)
    n, size = int(rng.integers(30, 120)), len(levels)
    reference = rng.choice(size, n, p=rng.dirichlet([1.2] * size) if shares is None else shares)
    index, visual = (
        np.where(rng.random(n) < 0.7, reference, rng.integers(0, size, n)) for _ in range(2)
    )
    places = np.array(levels)
    return patients(list(zip(places[reference], places[index], places[visual], strict=True)))


def other_margin() -> Exams:
    """Return patients of whom a table tells the positives at 100, a second one those at 10."""
    table = {
        (5, 5, 5): 30,
        (5, 5, 50): 10,
        (5, 500, 5): 10,
        (50, 5, 50): 3,
        (500, 5, 50): 5,
        (500, 5, 5): 5,
        (500, 500, 5): 5,
        (500, 500, 500): 32,
    }
    return patients([scores for scores, n in table.items() for _ in range(n)])


def three_vendors() -> Exams:
    """Return patients of three vendors, each with enough in every cell but the last in one."""
    tables = [np.full((3, 3), n) for n in (6, 7, 6)]
    tables[2][2, 0] = 2
    rows = [from_table(table.tolist()) for table in tables]
    return patients(
        [row for part in rows for row in part],
        [vendor for vendor, part in enumerate(rows) for _ in part],
    )


def asked_of(*names: str) -> list[Asked]:
    return [(PLAN, name) for name in names]


ATTACKS = [
    pytest.param(drawn(60), asked_of("auc_visual_10", "table"), id="margin, then table"),
    pytest.param(drawn(60), asked_of("table", "auc_visual_10"), id="table, then margin"),
    pytest.param(drawn(60), asked_of("cells", "table"), id="bins by class, then table"),
    pytest.param(drawn(60), asked_of("table", "cells"), id="table, then bins by class"),
    pytest.param(drawn(1), asked_of("by_index", "table"), id="sizes of curves, then table"),
    pytest.param(drawn(1), asked_of("table", "by_index"), id="table, then sizes of curves"),
    pytest.param(drawn(1), asked_of("sizes", "table"), id="sizes of groups, then table"),
    pytest.param(drawn(1), asked_of("table", "sizes"), id="table, then sizes of groups"),
    pytest.param(drawn(60), asked_of("auc_10", "by_reference"), id="margin, then sizes"),
    pytest.param(drawn(1), asked_of("by_reference", "auc_100"), id="sizes, then margin"),
    pytest.param(other_margin(), asked_of("table", "visual"), id="two tables of one reference"),
    pytest.param(
        drawn(1, (5.0, 15.0, 50.0, 500.0)),
        [(PLAN, "table"), (FINE, "table")],
        id="nested rows of other cut-offs",
    ),
    pytest.param(
        three_vendors(), asked_of("table", "table_a", "table_b"), id="all less two subgroups"
    ),
]


@pytest.mark.parametrize(("exams", "asked"), ATTACKS)
def test_answers_that_are_safe_alone_do_not_tell_a_small_cell_together(
    exams: Exams, asked: list[Asked]
) -> None:
    alone, n_alone = answers(exams, asked, is_one_ledger=False)
    assert n_alone == len(asked)
    assert confined(exams, alone, BOTH_TABLES)
    together, n_together = answers(exams, asked, is_one_ledger=True)
    assert n_together >= 1
    assert confined(exams, together, BOTH_TABLES) == []


@pytest.mark.parametrize("lost", [3, 10])
def test_the_flow_less_a_table_are_those_without_a_value(lost: int) -> None:
    exams = drawn(2)
    visual = exams.column("visual_score").copy()
    visual[:lost] = np.nan
    exams = exams.with_column("visual_score", visual)
    flow = FlowCounts(n_patients=exams.n, stages=dict.fromkeys(FlowStage, exams.n), exclusions={})
    for is_flow_first in (True, False):
        gate = gate_of("research")
        told = {}
        for is_flow in (is_flow_first, not is_flow_first):
            if is_flow:
                question = question_of(
                    PLAN,
                    FLOW,
                    Query(step=FLOW),
                    round_id="round-1",
                    exchange=1,
                    cohort_digest=digest_of(flow.to_payload()),
                    cohort_size=exams.n,
                )
                answer = gate.release(question, flow)
            else:
                answer = answer_to(gate, PLAN, "visual", exams, query_of(PLAN, "visual"))
            if isinstance(answer, Release):
                told[is_flow] = answer.payload["n_patients"]
        is_both = len(told) == 2
        assert is_both is (lost >= K)
        assert not is_both or told[True] - told[False] == lost


# --- any two or three answers ---------------------------------------------------------------

QUESTIONS = ("table", "visual", "auc_10", "auc_100", "auc_visual_10", "auc_visual_100")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    names=st.lists(st.sampled_from(QUESTIONS), min_size=2, max_size=3, unique=True),
)
def test_whatever_is_asked_no_small_cell_is_confined(seed: int, names: list[str]) -> None:
    # Few in the middle category, so that the positives at both cut-offs must not be told.
    exams = drawn(seed, shares=(0.5, 0.05, 0.45))
    told, _ = answers(exams, asked_of(*names), is_one_ledger=True)
    assert confined(exams, told, BOTH_TABLES) == []


SUBGROUPS = ("table", "table_a", "table_b", "visual_a")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(5, 8), min_size=18, max_size=18),
    rest=st.lists(st.integers(1, 7), min_size=9, max_size=9),
    names=st.permutations(SUBGROUPS),
)
def test_whatever_subgroup_is_asked_no_small_cell_is_confined(
    counts: list[int], rest: list[int], names: list[str]
) -> None:
    tables = np.array([*counts, *rest]).reshape(3, 3, 3).tolist()
    rows = [from_table(table) for table in tables]
    vendor = [number for number, part in enumerate(rows) for _ in part]
    exams = patients([row for part in rows for row in part], vendor)
    told, _ = answers(exams, asked_of(*names[:3]), is_one_ledger=True)
    assert confined(exams, told, BOTH_TABLES) == []
