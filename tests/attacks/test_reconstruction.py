"""Eng 2021, Table 3: what a small site published gives its whole 5x5 table away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from fedcac.disclosure import Gate, MemoryLedger, Question, Release, load_policy
from fedcac.disclosure.rules import apply_rule
from fedcac.vocabulary import RefusalCode

SITE_1 = ((4, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 3, 0, 0), (0, 0, 1, 2, 1), (0, 0, 0, 0, 10))
SITE_2 = ((20, 1, 1, 0, 0), (2, 0, 2, 0, 0), (2, 0, 12, 2, 1), (0, 0, 3, 10, 3), (0, 0, 0, 1, 15))
SITE_3 = ((22, 3, 2, 1, 0), (1, 1, 2, 0, 0), (2, 1, 8, 2, 0), (0, 0, 3, 10, 1), (0, 0, 0, 1, 11))
SITE_4 = ((47, 1, 3, 1, 0), (7, 2, 2, 0, 0), (5, 0, 13, 4, 0), (3, 0, 9, 17, 3), (0, 0, 1, 2, 15))

Fact = tuple[np.ndarray, int]


def _block(size: int, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    mask = np.zeros((size, size))
    mask[np.ix_(list(rows), list(columns))] = 1
    return mask.ravel()


def read_facts(payload: dict[str, Any]) -> list[Fact]:
    """Turn every number of a released table into a sum over the cells of the matrix."""
    size = len(payload["matrix"])
    everything = range(size)
    facts = [(_block(size, everything, everything), payload["n_patients"])]
    for i, row in enumerate(payload["matrix"]):
        facts += [(_block(size, [i], [j]), cell) for j, cell in enumerate(row)]
    for c, four in enumerate(payload["two_by_two"]):
        low, high = range(c + 1), range(c + 1, size)
        sides = ((high, high), (high, low), (low, high), (low, low))
        facts += [(_block(size, r, k), cell) for (r, k), cell in zip(sides, four, strict=True)]
    edges = [0, *(c + 1 for c in payload["kept_cut_offs"]), size]
    for i, row in enumerate(payload["collapsed"]):
        for j, cell in enumerate(row):
            block = _block(size, range(edges[i], edges[i + 1]), range(edges[j], edges[j + 1]))
            facts.append((block, cell))
    return [(mask, cell) for mask, cell in facts if cell != "suppressed"]


def bounds_given(facts: list[Fact], target: np.ndarray) -> tuple[int, int]:
    """Return the least and greatest value of a sum of cells that agree with the facts."""
    masks = np.stack([mask for mask, _ in facts])
    values = np.array([value for _, value in facts], dtype=float)
    ends = []
    for sign in (1, -1):
        found = milp(
            sign * target,
            constraints=LinearConstraint(masks, values, values),
            bounds=Bounds(0, np.inf),
            integrality=np.ones(masks.shape[1]),
        )
        assert found.status == 0
        ends.append(round(float(sign * found.fun)))
    return ends[0], ends[1]


def _release(
    profile: str, matrix: Any, make: SimpleNamespace, ask: Callable[..., Question]
) -> dict[str, Any]:
    released = Gate(load_policy(profile), MemoryLedger()).release(ask(), make.table(matrix))
    assert isinstance(released, Release)
    return released.payload


def test_published_margins_tables_and_kappa_determine_every_cell(
    make: SimpleNamespace, ask: Callable[..., Question]
) -> None:
    # Even with the matrix itself withheld: the four 2x2 tables, and the trace, which follows from
    # the printed kappa and the margins.
    payload = _release("open", SITE_1, make, ask)
    payload["matrix"] = [["suppressed"] * 5] * 5
    matrix = np.array(SITE_1)
    expected = float((matrix.sum(axis=1) @ matrix.sum(axis=0)) / 22**2)
    trace = round(22 * (0.8024 * (1 - expected) + expected))
    facts = [*read_facts(payload), (np.eye(5).ravel(), trace)]
    for cell in range(25):
        target = np.eye(25)[cell]
        assert bounds_given(facts, target) == (matrix.flat[cell], matrix.flat[cell])


@pytest.mark.parametrize("matrix", [SITE_1, SITE_2, SITE_3, SITE_4])
@pytest.mark.parametrize("profile", ["research", "cms"])
def test_the_gate_leaves_every_small_cell_and_category_open(
    matrix: Any, profile: str, make: SimpleNamespace, ask: Callable[..., Question]
) -> None:
    k = load_policy(profile).minimum_cell
    facts = read_facts(_release(profile, matrix, make, ask))
    true = np.array(matrix)
    groups = [np.eye(25)[cell] for cell in range(25)]
    groups += [_block(5, [i], range(5)) for i in range(5)]
    groups += [_block(5, range(5), [j]) for j in range(5)]
    for group in groups:
        if group @ true.ravel() < k:
            low, high = bounds_given(facts, group)
            assert high - low >= k


def test_primary_suppression_alone_would_not_do(
    make: SimpleNamespace, ask: Callable[..., Question]
) -> None:
    payload = _release("open", SITE_3, make, ask)
    payload["matrix"] = [
        [cell if cell >= 5 else "suppressed" for cell in row] for row in payload["matrix"]
    ]
    payload["two_by_two"] = [
        [cell if cell >= 5 else "suppressed" for cell in four] for four in payload["two_by_two"]
    ]
    facts = read_facts(payload)
    widths = [high - low for low, high in (bounds_given(facts, np.eye(25)[c]) for c in range(25))]
    small = [np.array(SITE_3).flat[c] < 5 for c in range(25)]
    assert any(width < 5 for width, is_small in zip(widths, small, strict=True) if is_small)


def test_nested_cut_offs_are_not_subtracted(
    make: SimpleNamespace, ask: Callable[..., Question]
) -> None:
    # Four patients have a reference score of 1-10. Published 2x2 tables at 1 and at 10 say so.
    def category_two(payload: dict[str, Any]) -> tuple[int, int]:
        return bounds_given(read_facts(payload), _block(5, [1], range(5)))

    published = _release("open", SITE_3, make, ask)
    published["matrix"] = [["suppressed"] * 5] * 5
    assert category_two(published) == (4, 4)
    low, high = category_two(_release("research", SITE_3, make, ask))
    assert high - low >= 5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([20, 60, 150, 500]))
def test_random_tables_leave_every_small_cell_and_category_open(
    make: SimpleNamespace, seed: int, n: int
) -> None:
    # Tables as models make them: heavy on the diagonal, uneven between categories.
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(range(5), range(5)))
    chance = np.exp(-rng.uniform(0.2, 2) * distance) * rng.dirichlet(np.ones(5))[:, None]
    true = rng.multinomial(n, (chance / chance.sum()).ravel())
    matrix = tuple(tuple(int(count) for count in row) for row in true.reshape(5, 5))
    released = apply_rule(make.table(matrix), load_policy("research"))
    assert not isinstance(released, RefusalCode)
    facts = read_facts(released.to_payload())
    groups = [*np.eye(25), *(_block(5, [i], range(5)) for i in range(5))]
    groups += [_block(5, range(5), [j]) for j in range(5)]
    for group in groups:
        if group @ true < 5:
            low, high = bounds_given(facts, group)
            assert high - low >= 5
