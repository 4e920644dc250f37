"""The audit against every table there can be, counted out; and what bounds its programs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcac.disclosure import audit
from fedcac.disclosure.audit import (
    Counts,
    Facts,
    Mask,
    Possible,
    is_any_exposed,
    is_any_narrowed,
    nested_differences,
)

N_ATOMS = 5
ATOMS = np.eye(N_ATOMS, dtype=np.bool_)
GROUPS = np.array([*product([False, True], repeat=N_ATOMS)][1:])
"""Every group of atoms there is."""


@cache
def _tables(n_patients: int) -> Counts:
    """Return every table of so many patients, shape (n_tables, N_ATOMS)."""
    counts = np.array([*product(range(n_patients + 1), repeat=N_ATOMS)])
    return counts[counts.sum(axis=1) == n_patients]


def _agreeing(facts: Facts, n_patients: int) -> Counts:
    """Return the tables that agree with facts."""
    tables = _tables(n_patients)
    return tables[(tables @ facts.coefficients.T == facts.values).all(axis=1)]


def _ends(tables: Counts, group: Mask) -> tuple[int, int]:
    """Return the least and the greatest number of a group's patients in these tables."""
    sums = tables @ group
    return int(sums.min()), int(sums.max())


def _drawn(seed: int) -> tuple[Counts, Facts]:
    """Return a table of six patients, and facts of it: their number and sums over some atoms."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(6, rng.dirichlet(np.ones(N_ATOMS)))
    known = np.vstack([np.ones((1, N_ATOMS)), rng.random((rng.integers(1, 4), N_ATOMS)) < 0.5])
    return counts, Facts(known.astype(np.int64), known.astype(np.int64) @ counts)


def _is_few(counts: Counts, group: Mask, k: int, zero: bool) -> bool:
    n = int(counts @ group)
    return 0 < n < k or (zero and n == 0)


@pytest.mark.parametrize("seed", range(30))
def test_intervals_are_those_of_all_tables_there_can_be(seed: int) -> None:
    _, facts = _drawn(seed)
    tables, possible = _agreeing(facts, 6), Possible(facts, 6, 2 * len(GROUPS))
    for group in (*GROUPS, *GROUPS[::-1]):
        assert possible.interval(group) == _ends(tables, group)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("zero", [True, False])
def test_exposed_is_a_small_group_that_few_tables_leave_open(seed: int, zero: bool) -> None:
    counts, facts = _drawn(seed)
    tables = _agreeing(facts, 6)
    for k in (2, 3, 4):
        is_exposed = False
        for group in (*ATOMS, *GROUPS[seed % 5 :: 5]):
            low, high = _ends(tables, group)
            found = high - low < k and _is_few(counts, group, k, zero)
            told = is_any_exposed(counts, facts.coefficients == 1, group[np.newaxis], k, zero=zero)
            assert told is found
            is_exposed |= found and int(group.sum()) == 1
        told = is_any_exposed(counts, facts.coefficients == 1, ATOMS, k, zero=zero)
        assert told is is_exposed


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("zero", [True, False])
def test_narrowed_is_a_small_group_of_which_more_is_known_than_before(
    seed: int, zero: bool
) -> None:
    counts, facts = _drawn(seed)
    before = Facts(facts.coefficients[:2], facts.values[:2])
    tables, tables_before = _agreeing(facts, 6), _agreeing(before, 6)
    for k in (2, 3, 4):
        for group in (*ATOMS, *GROUPS[seed % 7 :: 7]):
            low, high = _ends(tables, group)
            is_new = high - low < k and _ends(tables_before, group) != (low, high)
            for is_small in (None, _is_few(counts, group, k, zero)):
                possible = [Possible(known, 6, 100) for known in (before, facts)]
                small = None if is_small is None else np.array([is_small])
                told = is_any_narrowed(*possible, group[np.newaxis], small, k, zero=zero)
                may_be_small = low < k and (zero or high > 0) if is_small is None else is_small
                assert told is (is_new and may_be_small)


def test_what_was_met_before_takes_no_program() -> None:
    facts = Facts(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]), np.array([9, 7, 5]))
    possible = Possible(facts, 16, 2)
    cell, told = np.array([True, False, False, False]), np.array([False, True, True, False])
    assert not possible.has_shown(cell, 0)
    assert possible.interval(cell) == (4, 9)
    assert possible.has_shown(cell, 5)
    assert not possible.has_shown(cell, 6)
    # Both programs are used up. What they found, and what facts add up to, is known without.
    assert possible.interval(cell) == (4, 9)
    assert possible.interval(told) == possible.interval(told) == (5, 5)
    assert possible.interval(np.array([True, True, True, True])) == (16, 16)
    assert possible.interval(np.array([False, False, False, True])) is None


@pytest.mark.parametrize(("n_programs", "interval"), [(0, None), (1, None), (2, (4, 9))])
def test_a_program_too_many_is_not_solved(
    n_programs: int, interval: tuple[int, int] | None
) -> None:
    facts = Facts(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]), np.array([9, 7, 5]))
    possible = Possible(facts, 16, n_programs)
    assert possible.interval(np.array([True, False, False, False])) == interval


def test_no_atom_holds_more_patients_than_the_most() -> None:
    facts = Facts(np.array([[1, 1, 0], [0, 1, 1]]), np.array([10, 12]))
    cell = np.array([True, False, False])
    assert Possible(facts, 12, 2).interval(cell) == (0, 10)
    assert Possible(facts, 8, 2).interval(cell) == (2, 6)


def test_facts_that_contradict_one_another_confine_nothing() -> None:
    facts = Facts(np.array([[1, 1], [1, 1], [1, 0]]), np.array([9, 8, 3]))
    assert Possible(facts, 9, 10).interval(np.array([True, True])) is None


def test_a_group_is_no_combination_of_facts_about_it_alone() -> None:
    # Twice the first and the second are 10: together they are 5 to 10.
    facts = Facts(np.array([[2, 1]]), np.array([10]))
    assert Possible(facts, 10, 2).interval(np.array([True, True])) == (5, 10)


def test_patients_are_whole() -> None:
    # Without that the second atom could hold 0 to 1.5, or 2 once that is rounded.
    sums = ["1111111", "1000111", "1001100", "1011000", "1100001"]
    known = np.array([[int(letter) for letter in row] for row in sums])
    counts = np.array([3, 1, 2, 1, 0, 3, 1])
    second = np.array([False, True, *[False] * 5])
    assert Possible(Facts(known, known @ counts), 11, 2).interval(second) == (0, 1)
    assert is_any_exposed(counts, known == 1, second[np.newaxis], 2, zero=False)


def test_further_facts_are_taken_in_any_number() -> None:
    start = Facts(np.array([[1, 1, 1]]), np.array([20]))
    one = start.joined(np.array([True, False, False]), np.array([4]))
    two = one.joined(np.array([[0, 1, 0], [0, 0, 1]]), np.array([9, 7]))
    assert two.coefficients.tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert two.values.tolist() == [20, 4, 9, 7]
    assert two.coefficients.dtype.kind == one.coefficients.dtype.kind == "i"


def _answers(*answers: tuple[list[float] | None, int]) -> Callable[..., Any]:
    """Return a solver that gives these answers in turn."""
    left = iter(answers)

    def solve(objective: NDArray[np.float64], **_: object) -> SimpleNamespace:
        x, status = next(left)
        return SimpleNamespace(x=None if x is None else np.array(x), status=status)

    return solve


FREE = [0.0, 12.0, 0.0, 20.0], [12.0, 0.0, 12.0, 8.0]
"""Tables that leave the first cell open over 0 to 12."""
UNSOLVED = [((None, 0),), ((FREE[0], 1),), ((None, 1),)]


@pytest.mark.parametrize("answer", UNSOLVED)
@pytest.mark.parametrize("is_second", [False, True])
def test_a_program_without_a_proven_solution_counts_as_exposed(
    answer: tuple[Any, ...], is_second: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = np.array([2, 10, 2, 18])
    facts = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], dtype=np.bool_)
    cell = np.array([[True, False, False, False]])
    wide = [(FREE[1], 0), (FREE[0], 0)]
    monkeypatch.setattr(audit, "milp", _answers(*wide))
    assert not is_any_exposed(counts, facts, cell, 5, zero=True)
    # The witnesses alone would be wide enough by then.
    answers = (wide[0], *answer) if is_second else (*answer, wide[1])
    monkeypatch.setattr(audit, "milp", _answers(*answers))
    assert is_any_exposed(counts, facts, cell, 5, zero=True)


@pytest.mark.parametrize("answer", UNSOLVED)
@pytest.mark.parametrize("is_second", [False, True])
def test_a_program_without_a_proven_solution_gives_no_interval(
    answer: tuple[Any, ...], is_second: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Facts(np.array([[1, 1, 0, 0], [0, 1, 1, 0]]), np.array([12, 12]))
    cell = np.array([True, False, False, False])
    solved = (FREE[0], 0)
    answers = (solved, *answer) if is_second else (*answer, solved)
    monkeypatch.setattr(audit, "milp", _answers(*answers))
    possible = Possible(facts, 32, 10)
    assert possible.interval(cell) is None
    # It counts as confined.
    before = Possible(Facts(facts.coefficients[:1], facts.values[:1]), 32, 10)
    assert is_any_narrowed(before, possible, cell[np.newaxis], None, 5, zero=False)


def test_one_sum_is_inside_another_only_if_all_of_it_is() -> None:
    sums = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]], dtype=np.bool_)
    found = nested_differences(sums)
    assert found.tolist() == [[False, False, True, False], [True, False, False, False]]
    assert nested_differences(sums[:2]).tolist() == []
    chain = np.tril(np.ones((3, 3), dtype=np.bool_))
    steps = {tuple(row) for row in nested_differences(chain).tolist()}
    assert steps == {
        tuple(bool(a and not b) for a, b in zip(outer, inner, strict=True))
        for outer, inner in [*pairwise(chain[::-1].tolist()), (chain[2], chain[0])]
    }
