"""What cannot be judged, or cannot be written down, does not leave."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedcac.aggregate import Evidence
from fedcac.canonical import digest_of
from fedcac.disclosure import (
    FileLedger,
    Gate,
    MemoryLedger,
    Question,
    Refusal,
    Release,
    groups,
    ledger,
    load_policy,
)
from fedcac.disclosure.cross_table import two_by_two_tables
from fedcac.disclosure.facts import earlier_facts
from fedcac.disclosure.groups import group_of, tells_few
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.errors import GateError
from fedcac.statistics.comparison import PairSums
from fedcac.statistics.confusion import ConfusionCounts
from fedcac.vocabulary import CellStatus, ExclusionReason, RefusalCode

RESEARCH = load_policy("research")
PATIENTS = tuple(f"p{number:03d}" for number in range(300))
Ask = Callable[..., Question]
Matrix = tuple[tuple[int, ...], ...]

WHOLE = ((40, 30, 22), (30, 50, 30), (18, 30, 50))


def table(matrix: Matrix) -> ConfusionCounts:
    return ConfusionCounts(
        n_patients=sum(map(sum, matrix)), matrix=matrix, two_by_two=two_by_two_tables(matrix)
    )


def question(
    name: str = "x",
    index: str = "index_score",
    reference: str = "reference_score",
    n: int = 300,
) -> Question:
    """Return the question for a table of the first n patients."""
    scores = [index, reference]
    return Question(
        round_id="round-1",
        protocol_digest=digest_of("protocol"),
        exchange=1,
        analysis=name,
        analysis_digest=digest_of(name),
        query_digest=digest_of("counts"),
        cohort_digest=digest_of("cohort"),
        scores_digest=digest_of(scores),
        categories_digest=digest_of("cuts"),
        columns=tuple(sorted(scores)),
        group=group_of(PATIENTS[:n], PATIENTS),
        cohort_size=len(PATIENTS),
    )


def less(matrix: Matrix, each: int) -> Matrix:
    return tuple(tuple(count - each for count in row) for row in matrix)


# --- rules ----------------------------------------------------------------------------------


def test_a_type_that_no_rule_looks_at_whole_does_not_leave(make: SimpleNamespace) -> None:
    class Noted(type(make.means(100, 100))):  # type: ignore[misc]
        note: int = 7

    noted = Noted(n_patients=100, n=(100,), mean=(1.0,), m2=(1.0,))
    assert apply_rule(noted, RESEARCH) is RefusalCode.UNREGISTERED_TYPE


def test_a_flow_that_is_suppressed_before_the_gate_does_not_enter(make: SimpleNamespace) -> None:
    flow = make.flow((80, 70, 60, 60, 60), no_dicom=10)
    check_consistency(flow)
    stages = {**flow.stages, next(iter(flow.stages)): CellStatus.SUPPRESSED}
    reasons = {ExclusionReason.NO_DICOM: CellStatus.SUPPRESSED}
    for hidden in ({"stages": stages}, {"exclusions": reasons}):
        with pytest.raises(GateError) as caught:
            check_consistency(flow.model_copy(update=hidden))
        assert caught.value.code == "gate.inconsistent_aggregate"
        assert "nothing has left" in caught.value.cure


def test_what_is_given_once_is_not_added_at_another_query_either(ask: Ask) -> None:
    # At other query values the same patients' sums could be subtracted from the first.
    sums = PairSums(
        n_patients=100,
        n_events=None,
        values=((1.0, 2.0),),
        evidence=Evidence(smallest_group=50, row_groups=(50,)),
    )
    for act in ("release", "contribute"):
        gate = Gate(RESEARCH, MemoryLedger())
        least = (3,) if act == "contribute" else ()
        first, again, other = (
            getattr(gate, act)(ask(query=query, exchange=exchange), sums, *least)
            for query, exchange in ((0, 1), (0, 2), (1, 3))
        )
        assert first == again
        assert not isinstance(first, Refusal)
        assert other == Refusal(RefusalCode.TOO_MANY_EXCHANGES)


# --- groups ---------------------------------------------------------------------------------


def test_more_small_parts_than_are_looked_at_count_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every patient is in other groups than every other: seventeen parts of one.
    rng = np.random.default_rng(1)
    codes = rng.choice(np.arange(1, 256), 17, replace=False)
    keys = [f"p{number:02d}" for number in range(17)]
    eight = [
        group_of([key for key, code in zip(keys, codes, strict=True) if code >> bit & 1], keys)
        for bit in range(8)
    ]
    assert not tells_few(eight[:1], 17, 2)
    assert tells_few(eight, 17, 2)
    # All unions looked at, none is told of.
    monkeypatch.setattr(groups, "MAXIMUM_SMALL_PARTS", 17)
    assert not tells_few(eight, 17, 2)


def test_without_the_file_of_groups_nothing_more_is_told_of_a_cohort(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = Gate(RESEARCH, FileLedger(path)).release(question("all"), table(WHOLE))
    assert isinstance(first, Release)
    path.with_suffix(".groups").unlink()
    reopened = FileLedger(path)
    assert earlier_facts(question("women", n=255), WHOLE, reopened.entries, reopened) is None
    gate = Gate(RESEARCH, reopened)
    other = gate.release(question("women", n=255), table(less(WHOLE, 5)))
    assert other == Refusal(RefusalCode.NESTED_COHORT)
    # What was told already is no news.
    again = gate.release(question("all"), table(WHOLE))
    assert isinstance(again, Release)
    assert again.content == first.content


# --- tables told earlier --------------------------------------------------------------------


def test_a_table_that_belies_an_earlier_one_is_not_judged_beside_it() -> None:
    kept = MemoryLedger()
    gate = Gate(RESEARCH, kept)
    assert isinstance(gate.release(question(), table(WHOLE)), Release)
    # As many patients of the same cohort: the site's table was changed in between.
    moved = ((41, 29, 20), *WHOLE[1:])
    assert earlier_facts(question("again"), WHOLE, kept.entries, kept) is not None
    assert earlier_facts(question("again"), moved, kept.entries, kept) is None
    # With index and reference exchanged the earlier table is the turned one.
    swapped = question("swapped", index="reference_score", reference="index_score")
    columns: Matrix = tuple(zip(*WHOLE, strict=True))
    assert earlier_facts(swapped, columns, kept.entries, kept) is not None
    assert earlier_facts(swapped, WHOLE, kept.entries, kept) is None
    refused = gate.release(question("again"), table(moved))
    assert refused == Refusal(RefusalCode.NESTED_COHORT)


def test_beside_tables_of_two_groups_a_third_has_to_be_whole() -> None:
    kept = MemoryLedger()
    gate = Gate(RESEARCH, kept)
    for each, n in ((0, 300), (6, 246)):
        answer = gate.release(question(f"of {n}", n=n), table(less(WHOLE, each)))
        assert isinstance(answer, Release)
    small = question("of 192", "visual_score", n=192)
    matrix = less(WHOLE, 12)
    earlier = earlier_facts(small, matrix, kept.entries, kept)
    assert earlier is not None
    assert not earlier.is_complete
    # Two groups can be judged together, whatever the table withholds.
    two = earlier_facts(question("of 246", "visual_score", n=246), matrix, kept.entries, kept)
    assert two is not None
    assert two.is_complete
    few = ((matrix[0][0] + matrix[0][1] - 2, 2, matrix[0][2]), *matrix[1:])
    assert gate.release(small, table(few)) == Refusal(RefusalCode.NESTED_COHORT)
    assert isinstance(gate.release(small, table(matrix)), Release)


# --- the ledger -----------------------------------------------------------------------------


def test_an_answer_that_cannot_be_written_down_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    kept = FileLedger(path)
    gate = Gate(RESEARCH, kept)
    assert isinstance(gate.release(question(), table(WHOLE)), Release)
    before, head = path.read_bytes(), kept.head

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(ledger.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            gate.refuse(question("late"), RefusalCode.REJECTED_BY_SITE)
    # Not half a line is left of it, and the chain goes on.
    assert path.read_bytes() == before
    assert kept.head == head == kept.verify()
    gate.refuse(question("late"), RefusalCode.REJECTED_BY_SITE)
    assert FileLedger(path).entries[-1].analysis == "late"
    assert len(kept.entries) == 2
