from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedcac.disclosure import load_policy
from fedcac.disclosure.cross_table import protect_table, two_by_two_tables, withdrawal_order
from fedcac.disclosure.rules import apply_rule
from fedcac.vocabulary import RefusalCode

# Eng et al. 2021, Table 3, reconstructed; rows = reference.
SITE_1 = ((4, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 3, 0, 0), (0, 0, 1, 2, 1), (0, 0, 0, 0, 10))
SITE_3 = ((22, 3, 2, 1, 0), (1, 1, 2, 0, 0), (2, 1, 8, 2, 0), (0, 0, 3, 10, 1), (0, 0, 0, 1, 11))
SITE_4 = ((47, 1, 3, 1, 0), (7, 2, 2, 0, 0), (5, 0, 13, 4, 0), (3, 0, 9, 17, 3), (0, 0, 1, 2, 15))


def test_two_by_two_tables_follow_the_published_ones() -> None:
    assert two_by_two_tables(SITE_1) == (
        (17, 1, 0, 4),
        (17, 0, 0, 5),
        (13, 1, 0, 8),
        (10, 0, 1, 11),
    )


def test_a_table_of_large_cells_leaves_whole() -> None:
    safe = protect_table(((10, 5, 6), (7, 8, 9), (5, 5, 5)), 5, True)
    assert safe.is_whole
    assert safe.rows == frozenset(withdrawal_order(2))


def test_zero_blocks_a_table_only_where_zero_is_small() -> None:
    matrix = ((10, 0, 6), (7, 8, 9), (5, 5, 5))
    assert not protect_table(matrix, 5, True).is_whole
    assert protect_table(matrix, 5, False).is_whole


def test_the_finest_collapse_is_found() -> None:
    # Only the corner is small, so merging the two highest categories is enough.
    matrix = ((40, 9, 9, 9, 9), *(((9, 40, 9, 9, 9),) * 3), (9, 9, 9, 9, 1))
    safe = protect_table(matrix, 5, True)
    assert safe.kept_cut_offs == (0, 1, 2)
    assert np.sum(safe.collapsed) == np.sum(matrix)
    assert safe.collapsed[3] == (18, 49, 18, 28)


def test_a_collapse_with_the_middle_cut_off_is_preferred() -> None:
    # Cut-offs 0, 1 and 2 would each do alone; 2, which stands for 100, is kept.
    matrix = ((30, 0, 0, 6, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (6, 0, 0, 30, 0), (0,) * 5)
    assert protect_table(matrix, 5, True).kept_cut_offs == (2,)


def test_withdrawal_order_is_fixed() -> None:
    cut_offs = [cut_off for cut_off, positive in withdrawal_order(4) if positive]
    assert cut_offs == [1, 0, 3, 2]
    assert withdrawal_order(1) == ((0, False), (0, True))


def test_a_row_is_withdrawn_when_cut_offs_differ_by_a_small_category() -> None:
    # At 1 and at 10 the rows (6, 22) and (5, 27) hold no small cell, yet their difference says
    # that four patients are in the reference category between: only one of them leaves.
    tables = two_by_two_tables(SITE_3)
    assert tables[0][2:] == (6, 22)
    assert tables[1][2:] == (5, 27)
    assert protect_table(SITE_3, 5, True).rows == frozenset({(0, False)})


def test_fewer_patients_than_k_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than k"):
        protect_table(((1, 1), (1, 1)), 5, True)


def test_the_rule_never_releases_half_a_matrix(make: SimpleNamespace) -> None:
    research = load_policy("research")
    released = apply_rule(make.table(SITE_4), research)
    assert not isinstance(released, RefusalCode)
    document = released.to_payload()
    assert {cell for row in document["matrix"] for cell in row} == {"suppressed"}
    assert document["kept_cut_offs"] == [2]
    assert document["collapsed"] == [[80, 5], [13, 37]]
    assert document["two_by_two"] == [
        [68, 15, 5, 47],
        ["suppressed"] * 4,
        [37, 13, 5, 80],
        ["suppressed"] * 4,
    ]


def test_a_small_site_gives_its_number_and_nothing_else(make: SimpleNamespace) -> None:
    document = apply_rule(make.table(SITE_1), load_policy("research")).to_payload()  # type: ignore[union-attr]
    assert document["n_patients"] == 22
    assert {cell for four in document["two_by_two"] for cell in four} == {"suppressed"}
    assert document["kept_cut_offs"] == document["collapsed"] == []
