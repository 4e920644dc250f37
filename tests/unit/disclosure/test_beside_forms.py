"""What a cross table gives, and then less and less, beside what was told before: worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedcac.canonical import digest_of
from fedcac.disclosure import MemoryLedger
from fedcac.disclosure.audit import Facts
from fedcac.disclosure.beside import _forms, protect_beside
from fedcac.disclosure.cross_table import Matrix, protect_table
from fedcac.disclosure.facts import Earlier, earlier_facts
from fedcac.disclosure.groups import group_of
from fedcac.disclosure.question import Question

K = 5
THREE = ((58, 2, 10), (10, 30, 10), (10, 10, 60))
FOUR = ((30, 8, 0, 0), (8, 30, 8, 0), (0, 8, 30, 8), (0, 0, 8, 30))

# Rows of 2x2 tables: the cut-off, and whether the reference is positive.
Form = tuple[tuple[int, ...], str]


def told(matrix: Matrix) -> list[Form]:
    return [
        (
            form.kept_cut_offs,
            " ".join(f"{cut}{'+' if up else '-'}" for cut, up in sorted(form.rows)),
        )
        for form in _forms(matrix, K, True)
    ]


@pytest.mark.parametrize(
    ("matrix", "forms"),
    [
        # Whole; its rows, one by one; the number of patients.
        (((30, 8), (8, 30)), [((), "0- 0+"), ((), "0- 0+"), ((), "0+"), ((), "")]),
        (((30, 8), (2, 30)), [((), "0-"), ((), "0-"), ((), "")]),
        (
            THREE,
            [
                ((1,), "0- 0+ 1- 1+"),
                # Rows beside the finest collapse, but not those that follow from it.
                ((1,), "0- 0+ 1- 1+"),
                ((1,), "0+ 1- 1+"),
                ((1,), "1- 1+"),
                # Of a coarser one no row that does not.
                ((0,), "0- 0+"),
                ((), "0- 0+ 1- 1+"),
                ((), "0+ 1- 1+"),
                ((), "1- 1+"),
                ((), "1+"),
                ((), ""),
            ],
        ),
        (
            FOUR,
            [
                ((1,), "0- 0+ 1- 1+ 2- 2+"),
                ((1,), "0- 0+ 1- 1+ 2- 2+"),
                ((1,), "0+ 1- 1+ 2- 2+"),
                ((1,), "1- 1+ 2- 2+"),
                ((1,), "1- 1+ 2+"),
                ((1,), "1- 1+"),
                ((0,), "0- 0+"),
                ((2,), "2- 2+"),
                ((), "0- 0+ 1- 1+ 2- 2+"),
                ((), "0+ 1- 1+ 2- 2+"),
                ((), "1- 1+ 2- 2+"),
                ((), "1- 1+ 2+"),
                ((), "1- 1+"),
                ((), "1+"),
                ((), ""),
            ],
        ),
    ],
)
def test_what_a_table_gives_in_turn(matrix: Matrix, forms: list[Form]) -> None:
    given = list(_forms(matrix, K, True))
    assert told(matrix) == forms
    assert given[0] == protect_table(matrix, K, True)
    # Only the table by itself may be whole, and what is collapsed has no small cell.
    assert not any(form.is_whole for form in given[1:])
    assert all(n >= K for form in given[1:] for row in form.collapsed for n in row)
    n_patients = sum(map(sum, matrix))
    assert all(sum(map(sum, form.collapsed)) in (0, n_patients) for form in given)


def question(n: int) -> Question:
    patients = [f"p{i}" for i in range(n)]
    columns = ("index", "reference")
    return Question(
        round_id="round-1",
        protocol_digest=digest_of("protocol"),
        exchange=1,
        analysis="table",
        analysis_digest=digest_of("table"),
        query_digest=digest_of("counts"),
        cohort_digest=digest_of("cohort"),
        scores_digest=digest_of(list(columns)),
        categories_digest=digest_of("cuts"),
        columns=columns,
        group=group_of(patients, patients),
        cohort_size=n,
    )


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(
    "matrix", [((40, 0), (0, 40)), ((40, 5), (5, 40)), ((40, 1), (5, 40)), THREE]
)
def test_beside_nothing_a_table_gives_what_it_gives_by_itself(matrix: Matrix, zero: bool) -> None:
    ledger = MemoryLedger()
    earlier = earlier_facts(question(sum(map(sum, matrix))), matrix, ledger.entries, ledger)
    assert earlier is not None
    alone = protect_table(matrix, K, zero)
    assert protect_beside(matrix, K, zero, earlier) == alone
    # Nobody in a cell is no small number where zeros may be shown.
    smallest = min(n for row in matrix for n in row)
    assert alone.is_whole is (smallest >= K or (smallest == 0 and not zero))


def test_a_single_patient_is_small_where_zeros_may_be_shown() -> None:
    matrix = ((40, 1), (6, 40))
    one_row = frozenset({(0, True)})
    assert protect_table(matrix, K, False).rows == one_row
    # Told before: how many are positive by the index. Less the true positives, that is the one.
    every, positive = [1, 1, 1, 1], [0, 1, 0, 1]
    for told_before, rows in (([every], one_row), ([every, positive], frozenset())):
        coefficients = np.array(told_before)
        earlier = Earlier(
            facts=Facts(coefficients, coefficients @ np.array([40, 1, 6, 40])),
            own=np.arange(4)[None],
            own_sums=coefficients.astype(np.bool_),
            others=np.zeros((0, 4), dtype=np.bool_),
            n_patients=87,
            is_complete=True,
        )
        form = protect_beside(matrix, K, False, earlier)
        assert form is not None
        assert form.rows == rows


@pytest.mark.parametrize(("in_the_middle", "is_whole"), [(2, False), (10, True)])
def test_a_whole_table_of_all_beside_one_of_a_group(in_the_middle: int, is_whole: bool) -> None:
    # The group's table is known cell by cell; that of all, less it, is that of the others.
    group, others = np.full(9, 10), np.full(9, 10)
    others[4] = in_the_middle
    known = np.hstack([np.eye(9, dtype=np.int64), np.zeros((9, 9), dtype=np.int64)])
    earlier = Earlier(
        facts=Facts(known, known @ np.concatenate([group, others])),
        own=np.arange(18).reshape(2, 9),
        own_sums=np.ones((1, 9), dtype=np.bool_),
        others=np.hstack([np.zeros((9, 9)), np.eye(9)]).astype(np.bool_),
        n_patients=int(group.sum() + others.sum()),
        is_complete=True,
    )
    table = (group + others).reshape(3, 3)
    matrix = tuple(tuple(int(n) for n in row) for row in table)
    assert protect_table(matrix, K, True).is_whole
    form = protect_beside(matrix, K, True, earlier)
    assert (form is not None and form.is_whole) is is_whole
