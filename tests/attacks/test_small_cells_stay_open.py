"""Whatever the table, the numbers released never pin a small group down. By enumeration."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.disclosure.cross_table import protect_table, two_by_two_tables

N = 12
K = 3


@lru_cache(maxsize=1)
def _all_tables() -> np.ndarray:
    # Every 3x3 table of N patients: stars and bars, 125 970 of them, shape (m, 3, 3).
    bars = np.array(list(combinations(range(N + 8), 8)))
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), N + 8)])
    return (np.diff(edges, axis=1) - 1).reshape(-1, 3, 3)


def _two_by_two(tables: np.ndarray, c: int) -> np.ndarray:
    high, low = slice(c + 1, 3), slice(0, c + 1)
    sides = ((high, high), (high, low), (low, high), (low, low))
    return np.stack([tables[:, r, k].sum(axis=(1, 2)) for r, k in sides], axis=1)


def _agreeing(matrix: tuple[tuple[int, ...], ...], zero: bool) -> np.ndarray:
    safe = protect_table(matrix, K, zero)
    tables = _all_tables()
    if safe.is_whole:
        return np.array([matrix])
    agrees = np.ones(len(tables), dtype=bool)
    for c, cells in enumerate(two_by_two_tables(matrix)):
        for positive, part in ((True, slice(0, 2)), (False, slice(2, 4))):
            if (c, positive) in safe.rows:
                agrees &= np.all(_two_by_two(tables, c)[:, part] == cells[part], axis=1)
    for c in safe.kept_cut_offs:
        # With two cut-offs a collapse that is not whole keeps one, and is its 2x2 table.
        (true_low, fp), (fn, tp) = safe.collapsed
        agrees &= np.all(_two_by_two(tables, c) == (tp, fn, fp, true_low), axis=1)
    return tables[agrees]


@st.composite
def _matrices(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    # Patients fall on few cells, so that empty, small and large cells all occur.
    cells = draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    places = draw(st.lists(st.sampled_from(cells), min_size=N, max_size=N))
    counts = np.bincount(places, minlength=9).reshape(3, 3)
    return tuple(tuple(int(count) for count in row) for row in counts)


@settings(max_examples=150, deadline=None)
@given(matrix=_matrices(), zero=st.booleans())
def test_no_small_group_is_confined(matrix: tuple[tuple[int, ...], ...], zero: bool) -> None:
    tables = _agreeing(matrix, zero)
    true = np.array(matrix)
    assert any(np.array_equal(table, true) for table in tables)
    spans = [slice(a, b) for a in range(3) for b in range(a + 1, 4)]
    for rows in spans:
        for columns in spans:
            count = true[rows, columns].sum()
            if count >= K or (count == 0 and not zero):
                continue
            seen = tables[:, rows, columns].sum(axis=(1, 2))
            assert seen.max() - seen.min() >= K


@settings(max_examples=150, deadline=None)
@given(matrix=_matrices(), zero=st.booleans())
def test_no_released_number_is_small(matrix: tuple[tuple[int, ...], ...], zero: bool) -> None:
    safe = protect_table(matrix, K, zero)
    tables = two_by_two_tables(matrix)
    shown = [count for row in safe.collapsed for count in row]
    shown += [n for c, positive in safe.rows for n in tables[c][:2] if positive]
    shown += [n for c, positive in safe.rows for n in tables[c][2:] if not positive]
    assert all(count >= K or (count == 0 and not zero) for count in shown)
