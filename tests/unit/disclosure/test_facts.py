"""What was told before, as facts over the cells of a table; judged by enumeration."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fedcac.canonical import digest_of
from fedcac.disclosure import (
    Gate,
    MemoryLedger,
    Question,
    Refusal,
    Release,
    audit,
    beside,
    facts,
    load_policy,
)
from fedcac.disclosure.audit import Facts, Possible, is_any_narrowed
from fedcac.disclosure.beside import protect_beside
from fedcac.disclosure.cross_table import protect_table, two_by_two_tables
from fedcac.disclosure.facts import Earlier, earlier_facts
from fedcac.disclosure.groups import group_of
from fedcac.disclosure.margins import table_sums
from fedcac.statistics.confusion import ConfusionCounts
from fedcac.vocabulary import RefusalCode

RESEARCH = load_policy("research")
K = 5
PATIENTS = tuple(f"p{i}" for i in range(200))
Matrix = tuple[tuple[int, ...], ...]


def _aggregate(matrix: Matrix) -> ConfusionCounts:
    return ConfusionCounts(
        n_patients=sum(map(sum, matrix)), matrix=matrix, two_by_two=two_by_two_tables(matrix)
    )


def _question(
    index: str = "index_score",
    reference: str = "reference_score",
    categories: str = "cuts",
    n: int = 200,
    columns: tuple[str, ...] | None = None,
) -> Question:
    scores = [index, reference]
    return Question(
        round_id="round-1",
        protocol_digest=digest_of("protocol"),
        exchange=1,
        analysis=f"{index} {reference} {n}",
        analysis_digest=digest_of([*scores, n]),
        query_digest=digest_of("counts"),
        cohort_digest=digest_of("cohort"),
        scores_digest=digest_of(scores),
        categories_digest=digest_of(categories),
        columns=columns or tuple(sorted(scores)),
        group=group_of(PATIENTS[:n], PATIENTS),
        cohort_size=len(PATIENTS),
    )


WHOLE = ((20, 20, 20), (20, 40, 20), (20, 20, 20))
PARTIAL = ((58, 2, 10), (10, 30, 10), (10, 10, 60))


def _told(*pairs: tuple[Question, Matrix]) -> tuple[Gate, MemoryLedger]:
    ledger = MemoryLedger()
    gate = Gate(RESEARCH, ledger)
    for question, matrix in pairs:
        assert isinstance(gate.release(question, _aggregate(matrix)), Release)
    return gate, ledger


def _earlier(question: Question, matrix: Matrix, ledger: MemoryLedger) -> Earlier | None:
    return earlier_facts(question, matrix, ledger.entries, ledger)


# --- programs -------------------------------------------------------------------------------


def test_intervals_are_those_of_an_enumeration() -> None:
    rng = np.random.default_rng(3)
    every = np.array(list(product(range(9), repeat=4)))
    for _ in range(20):
        true = rng.multinomial(8, [0.25] * 4)
        coefficients = np.vstack([np.ones(4, dtype=int), rng.integers(-1, 2, (2, 4))])
        known = Facts(coefficients, coefficients @ true)
        agrees = every[np.all(every @ coefficients.T == known.values, axis=1)]
        possible = Possible(known, 8, 100)
        for bits in product((False, True), repeat=4):
            sums = agrees @ np.array(bits).astype(int)
            assert possible.interval(np.array(bits)) == (sums.min(), sums.max())


def test_what_is_not_solved_counts_as_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Facts(np.ones((1, 3), dtype=np.int64), np.array([20]))
    after = before.joined(np.array([[True, True, False]]), np.array([12]))
    cell, small = np.array([[True, False, False]]), np.array([True])

    def is_exposed(n_programs: int = 10) -> bool:
        possible = (Possible(known, 20, n_programs) for known in (before, after))
        return is_any_narrowed(*possible, cell, small, K, zero=True)

    assert not is_exposed()
    assert is_exposed(n_programs=1)
    monkeypatch.setattr(audit, "milp", lambda *_args, **_kwargs: Unsolved())
    assert is_exposed()


class Unsolved:
    x = None
    status = 1


def test_a_group_as_narrow_before_is_not_exposed_by_more_facts() -> None:
    before = Facts(np.array([[1, 1, 1], [1, 1, 0]]), np.array([20, 2]))
    cell, small = np.array([[True, False, False]]), np.array([True])
    same = [Possible(before, 20, 10), Possible(before, 20, 10)]
    assert not is_any_narrowed(*same, cell, small, K, zero=True)
    told = before.joined(np.array([[1, 0, 0]]), np.array([1]))
    assert is_any_narrowed(same[0], Possible(told, 20, 10), cell, small, K, zero=True)
    # A count that is not known may be small where the interval says so: 20 - 2 is not.
    rest, unknown = np.array([[False, False, True]]), None
    assert not is_any_narrowed(same[0], Possible(told, 20, 10), rest, unknown, K, zero=True)


# --- facts ----------------------------------------------------------------------------------


def test_nothing_told_changes_nothing() -> None:
    earlier = _earlier(_question(), PARTIAL, MemoryLedger())
    assert earlier is not None
    assert protect_beside(PARTIAL, K, True, earlier) == protect_table(PARTIAL, K, True)


@pytest.mark.parametrize("matrix", [WHOLE, PARTIAL])
def test_the_same_table_again_is_the_same_answer(matrix: Matrix) -> None:
    _, ledger = _told((_question(), matrix))
    earlier = _earlier(_question(), matrix, ledger)
    assert earlier is not None
    assert protect_beside(matrix, K, True, earlier) == protect_table(matrix, K, True)


def test_every_number_of_a_table_is_a_true_sum() -> None:
    for matrix in (WHOLE, PARTIAL):
        gate, _ = _told()
        answer = gate.release(_question(), _aggregate(matrix))
        assert isinstance(answer, Release)
        sums = table_sums(answer.payload)
        counts = np.array(matrix).reshape(-1)
        assert sums
        assert all(int(counts[cells].sum()) == n for cells, n in sums)
        # The numbers of the payload that are shown are all there, and no others.
        shown = [n for _, n in sums]
        parts = ("matrix", "two_by_two", "collapsed")
        assert sorted(shown) == sorted(
            n for part in parts for row in answer.payload[part] for n in row if isinstance(n, int)
        )


@pytest.mark.parametrize(
    ("second", "is_judged"),
    [
        ({"index": "visual_score"}, True),
        ({"reference": "other_reader"}, True),
        ({"index": "visual_score", "reference": "other_reader"}, True),
        ({"index": "visual_score", "categories": "others"}, False),
        ({"index": "visual_score", "columns": ("age",)}, False),
    ],
)
def test_scores_and_cut_offs_have_to_be_known(second: dict[str, Any], is_judged: bool) -> None:
    _, ledger = _told((_question(), PARTIAL))
    assert (_earlier(_question(**second), PARTIAL, ledger) is not None) is is_judged


def test_tables_in_a_circle_are_not_judged() -> None:
    chain = [_question(), _question(index="visual_score")]
    _, ledger = _told(*((question, WHOLE) for question in chain))
    last = _question(index="index_score", reference="visual_score")
    assert _earlier(last, WHOLE, ledger) is None
    # What cannot be judged has to be whole, as before.
    gate = Gate(RESEARCH, ledger)
    assert gate.release(last, _aggregate(PARTIAL)) == Refusal(RefusalCode.NESTED_COHORT)
    assert isinstance(gate.release(last, _aggregate(WHOLE)), Release)


def test_other_cut_offs_of_a_shared_score_are_refused_even_if_whole() -> None:
    gate, _ = _told((_question(), WHOLE))
    other = _question(index="visual_score", categories="others")
    assert gate.release(other, _aggregate(WHOLE)) == Refusal(RefusalCode.NESTED_COHORT)
    apart = _question("visual_score", "other_reader", categories="others")
    assert isinstance(gate.release(apart, _aggregate(WHOLE)), Release)


@pytest.mark.parametrize("limit", ["MAXIMUM_ATOMS", "MAXIMUM_FACTS", "MAXIMUM_PARTS"])
def test_beyond_the_limits_tables_are_compared_in_pairs(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ledger = _told((_question(), PARTIAL))
    visual = _question(index="visual_score")
    assert _earlier(visual, PARTIAL, ledger) is not None
    monkeypatch.setattr(facts, limit, 0)
    assert _earlier(visual, PARTIAL, ledger) is None
    assert gate.release(visual, _aggregate(PARTIAL)) == Refusal(RefusalCode.NESTED_COHORT)


def test_no_form_that_protects_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, _ = _told((_question(), PARTIAL))
    monkeypatch.setattr(beside, "MAXIMUM_PROGRAMS", 0)
    answer = gate.release(_question(index="visual_score"), _aggregate(PARTIAL))
    assert answer == Refusal(RefusalCode.UNPROTECTABLE)


def test_a_second_index_test_gets_a_table_of_its_own() -> None:
    gate, _ = _told((_question(), PARTIAL))
    answer = gate.release(_question(index="visual_score"), _aggregate(PARTIAL))
    assert isinstance(answer, Release)
    assert answer.payload["kept_cut_offs"] == [1]
