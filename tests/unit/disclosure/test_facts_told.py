"""What was told before, as facts over a table's cells: against patients drawn and counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcac.canonical import digest_of
from fedcac.disclosure import LedgerEntry, MemoryLedger, Question, facts
from fedcac.disclosure.cross_table import Matrix, rectangles, two_by_two_tables
from fedcac.disclosure.facts import Earlier, earlier_facts
from fedcac.disclosure.groups import group_of
from fedcac.statistics.agreement import ConfusionCounts
from fedcac.statistics.kaplan_meier import KaplanMeierTable

N, SIZE = 120, 3
PATIENTS = tuple(f"p{i:03}" for i in range(N))
RNG = np.random.default_rng(5)
COLUMNS = {
    name: np.clip(np.arange(N) % SIZE + RNG.integers(-1, 2, N), 0, SIZE - 1)
    for name in ("index", "other", "reader", "reference", "visual")
}
ALL = np.ones(N, dtype=np.bool_)
WOMEN = np.arange(N) < 80
OLD = np.arange(N) >= 50

Members = NDArray[np.bool_]
Pair = tuple[str, str]


def group(members: Members) -> str:
    return group_of([p for p, is_in in zip(PATIENTS, members, strict=True) if is_in], PATIENTS)


def counted(rows: str, columns: str, members: Members = ALL) -> NDArray[np.int64]:
    counts = np.zeros((SIZE, SIZE), dtype=np.int64)
    np.add.at(counts, (COLUMNS[rows][members], COLUMNS[columns][members]), 1)
    return counts


def matrix_of(pair: Pair, members: Members = ALL) -> Matrix:
    """Return the table of an index and a reference, rows = reference."""
    index, reference = pair
    return tuple(map(tuple, counted(reference, index, members).tolist()))


class Site:
    """What a site told, and what that tells of a table asked for now."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.entries: list[LedgerEntry] = []

    def tell(
        self, payload: dict[str, Any], pair: Pair, group_text: str, cohort: str = "cohort"
    ) -> None:
        entry = LedgerEntry.model_construct(
            payload=payload,
            columns=tuple(sorted(pair)),
            scores_digest=digest_of(list(pair)),
            categories_digest=digest_of("categories"),
            cohort_digest=digest_of(cohort),
            group=self.ledger.groups.remember(group_text) if group_text else None,
        )
        self.entries.append(entry)

    def tell_table(
        self,
        pair: Pair,
        members: Members = ALL,
        group_text: str | None = None,
        matrix: Matrix | None = None,
        cohort: str = "cohort",
    ) -> None:
        counts = matrix or matrix_of(pair, members)
        payload = {
            "kind": ConfusionCounts.kind,
            "n_patients": sum(map(sum, counts)),
            "matrix": [list(row) for row in counts],
            "two_by_two": [list(four) for four in two_by_two_tables(counts)],
            "kept_cut_offs": [],
            "collapsed": [],
        }
        self.tell(payload, pair, group(members) if group_text is None else group_text, cohort)

    def asked(
        self, pair: Pair, members: Members = ALL, group_text: str | None = None
    ) -> Earlier | None:
        question = Question(
            round_id="round-1",
            protocol_digest=digest_of("protocol"),
            exchange=1,
            analysis="table",
            analysis_digest=digest_of("table"),
            query_digest=digest_of("query"),
            cohort_digest=digest_of("cohort"),
            scores_digest=digest_of(list(pair)),
            categories_digest=digest_of("categories"),
            columns=tuple(sorted(pair)),
            group=group(members) if group_text is None else group_text,
            cohort_size=N,
        )
        return earlier_facts(question, matrix_of(pair, members), self.entries, self.ledger)


def truth(earlier: Earlier, pairs: Sequence[Pair], groups: Sequence[Members]) -> NDArray[np.int64]:
    """Return the true count of every atom, in the one order of parts that the facts fit."""
    flags = np.array([*groups])
    parts = [
        np.all(flags == part[:, None], axis=0)
        for part in np.unique(flags[:, flags.any(axis=0)], axis=1).T
    ]
    fitting = []
    for order in permutations(parts):
        counts = [counted(*sorted(pair), part).reshape(-1) for pair in pairs for part in order]
        atoms = np.concatenate(counts)
        if np.array_equal(earlier.facts.coefficients @ atoms, earlier.facts.values):
            fitting.append(atoms)
    assert len(fitting) == 1
    return fitting[0]


def is_known(earlier: Earlier, atoms: Sequence[int]) -> bool:
    """Say whether the number of patients in these atoms follows from the facts as equations."""
    row = np.zeros(earlier.facts.coefficients.shape[1])
    row[list(atoms)] = 1.0
    known = earlier.facts.coefficients.astype(float)
    return bool(np.linalg.matrix_rank(np.vstack([known, row])) == np.linalg.matrix_rank(known))


def known_sums(earlier: Earlier) -> list[bool]:
    """Say of the table asked for: all patients; each row, column and cell."""
    cells = np.arange(SIZE**2).reshape(SIZE, SIZE)
    sums = [cells.reshape(-1), *cells, *cells.T, *cells.reshape(-1, 1)]
    return [is_known(earlier, earlier.own[:, places].reshape(-1)) for places in sums]


def expected(rows: bool = False, columns: bool = False, cells: bool = False) -> list[bool]:
    return [True, *[rows] * SIZE, *[columns] * SIZE, *[cells] * SIZE**2]


ASKED = ("index", "reference")
NOTHING, ROWS_ALONE, EVERYTHING = expected(), expected(rows=True), expected(True, True, True)


def test_of_nothing_told_only_the_number_of_patients_is_known() -> None:
    earlier = Site().asked(ASKED)
    assert earlier is not None
    atoms = truth(earlier, [ASKED], [ALL])
    assert known_sums(earlier) == NOTHING
    own = np.array(matrix_of(ASKED)).reshape(-1)
    assert np.array_equal(atoms[earlier.own].sum(axis=0), own)
    assert earlier.own_sums.shape == (0, SIZE**2)
    assert earlier.others.shape == (0, SIZE**2)
    assert earlier.n_patients == N
    assert earlier.is_complete


@pytest.mark.parametrize(
    ("told", "pairs", "known"),
    [
        ([ASKED], [ASKED], EVERYTHING),
        ([("reference", "index")], [ASKED], EVERYTHING),
        # A table of one score in common tells that score's categories.
        ([("visual", "reference")], [ASKED, ("visual", "reference")], ROWS_ALONE),
        ([("reference", "visual")], [ASKED, ("visual", "reference")], ROWS_ALONE),
        ([("index", "visual")], [ASKED, ("index", "visual")], expected(columns=True)),
        (
            [("index", "other"), ("visual", "reference")],
            [ASKED, ("index", "other"), ("visual", "reference")],
            expected(rows=True, columns=True),
        ),
        # Two tables of other scores tell of this one through a third.
        (
            [("reader", "other"), ("visual", "other"), ("visual", "reference")],
            [ASKED, ("reader", "other"), ("visual", "other"), ("visual", "reference")],
            ROWS_ALONE,
        ),
        # Linked to nothing.
        ([("visual", "other")], [ASKED], NOTHING),
        ([("reader", "other"), ("visual", "other")], [ASKED], NOTHING),
    ],
)
def test_what_tables_of_the_same_patients_tell(
    told: list[Pair], pairs: list[Pair], known: list[bool]
) -> None:
    site = Site()
    for pair in told:
        site.tell_table(pair)
    for asked in (ASKED, ASKED[::-1]):
        earlier = site.asked(asked)
        assert earlier is not None
        atoms = truth(earlier, pairs, [ALL])
        own = np.array(matrix_of(asked)).reshape(-1)
        assert np.array_equal(atoms[earlier.own].sum(axis=0), own)
        rows, columns = known[1 : 1 + SIZE], known[1 + SIZE : 1 + 2 * SIZE]
        turned = [known[0], *columns, *rows, *known[1 + 2 * SIZE :]]
        assert known_sums(earlier) == (known if asked == ASKED else turned)
        # Every cell that was told is known, whatever table it was in.
        is_told = np.ones(len(atoms), dtype=np.bool_)
        if not {ASKED, ASKED[::-1]} & {*told}:
            is_told[earlier.own] = False
        assert all(is_known(earlier, [int(atom)]) for atom in np.flatnonzero(is_told))
        assert earlier.is_complete


def test_sums_of_the_tables_own_cells() -> None:
    site = Site()
    site.tell_table(("visual", "reference"))
    site.tell_table(("reference", "index"))
    earlier = site.asked(ASKED)
    assert earlier is not None
    # Nine cells, and two 2x2 tables of four numbers each, in the order of the table asked for.
    numbers = earlier.own_sums @ np.array(matrix_of(ASKED)).reshape(-1)
    told = matrix_of(("reference", "index"))
    assert numbers.tolist() == [
        n for part in (told, two_by_two_tables(told)) for row in part for n in row
    ]
    # A row of the table asked for is one of all its parts.
    atoms = earlier.on_atoms(earlier.own_sums)
    assert np.array_equal(atoms[:, earlier.own[0]], earlier.own_sums)
    assert atoms.sum() == earlier.own_sums.sum()
    assert atoms.dtype == np.bool_


def test_a_table_behind_another_answer_counts() -> None:
    site = Site()
    site.tell(curves([40, 40, 40]), ("age", "sex"), group(ALL))
    site.tell_table(ASKED)
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert known_sums(earlier) == EVERYTHING


def test_cells_of_other_patients_are_not_the_tables_own() -> None:
    site = Site()
    site.tell_table(ASKED, WOMEN)
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert len(earlier.own_sums) == 0
    site.tell_table(ASKED)
    both = site.asked(ASKED)
    assert both is not None
    assert len(both.own_sums) == SIZE**2 + 4 * (SIZE - 1)


@pytest.mark.parametrize("is_other_asked", [False, True])
def test_women_and_all_patients(is_other_asked: bool) -> None:
    site = Site()
    members = [WOMEN, ALL] if is_other_asked else [ALL, WOMEN]
    pair = ("visual", "reference")
    site.tell_table(pair, members[1])
    earlier = site.asked(ASKED, members[0])
    assert earlier is not None
    atoms = truth(earlier, [ASKED, pair], [ALL, WOMEN])
    own = np.array(matrix_of(ASKED, members[0])).reshape(-1)
    assert np.array_equal(atoms[earlier.own].sum(axis=0), own)
    assert len(earlier.own) == (1 if is_other_asked else 2)
    assert len(earlier.own_sums) == 0
    assert earlier.n_patients == N
    assert earlier.is_complete
    # The number of women is known, and of which categories those told of are.
    assert known_sums(earlier) == NOTHING
    for places in earlier.own:
        is_women = int(atoms[places].sum()) == 80
        assert is_known(earlier, places[:SIZE]) is (is_women and not is_other_asked)


def test_three_kinds_of_patients_are_not_judged_completely() -> None:
    site = Site()
    pair = ("visual", "reference")
    site.tell_table(pair, WOMEN)
    site.tell_table(pair, OLD)
    earlier = site.asked(ASKED, WOMEN)
    assert earlier is not None
    truth(earlier, [ASKED, pair], [WOMEN, OLD])
    assert not earlier.is_complete
    assert len(earlier.own) == 2
    assert known_sums(earlier) == ROWS_ALONE
    assert earlier.n_patients == 80


def test_what_is_audited_beside_the_table() -> None:
    site = Site()
    pair = ("visual", "reference")
    site.tell_table(pair)
    earlier = site.asked(ASKED)
    assert earlier is not None
    others = {row.tobytes() for row in earlier.others}
    assert len(others) == len(earlier.others)
    nothing = np.zeros((1, SIZE**2), dtype=np.bool_)
    for rectangle in rectangles(SIZE):
        assert np.concatenate([nothing[0], rectangle]).tobytes() in others
    assert not earlier.others[:, : SIZE**2].any()
    # What is left of a told sum when another is taken off: a corner without its own corner.
    corner = np.zeros((SIZE, SIZE), dtype=np.bool_)
    corner[:2, :2], corner[0, 0] = True, False
    assert np.concatenate([nothing[0], corner.reshape(-1)]).tobytes() in others
    # Of the table asked for itself there is nothing beside.
    site = Site()
    site.tell_table(ASKED)
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert len(earlier.others) == 0


@pytest.mark.parametrize("groups", [[ALL, WOMEN], [WOMEN, OLD]])
def test_cells_of_every_union_of_patients_are_audited(groups: list[Members]) -> None:
    site = Site()
    site.tell_table(ASKED, groups[1])
    earlier = site.asked(ASKED, groups[0])
    assert earlier is not None
    n_parts = earlier.others.shape[1] // SIZE**2
    assert n_parts == len(np.unique(np.array(groups).astype(int).T, axis=0))
    own = {int(places[0]) // SIZE**2 for places in earlier.own}
    others = {row.tobytes() for row in earlier.others}
    for bits in range(1, 2**n_parts):
        union = {part for part in range(n_parts) if bits >> part & 1}
        for cell in range(SIZE**2):
            atoms = np.zeros((n_parts, SIZE**2), dtype=np.bool_)
            atoms[sorted(union), cell] = True
            assert (atoms.tobytes() in others) is (union != own)
        # A rectangle of more than a cell only where tables of these groups may be in parts.
        atoms = np.zeros((n_parts, SIZE, SIZE), dtype=np.bool_)
        atoms[sorted(union), :2, 1:] = True
        assert (atoms.tobytes() in others) is (union != own and n_parts == 2)


# --- what is not about this table -----------------------------------------------------------


def curves(sizes: list[int]) -> dict[str, Any]:
    return {
        "kind": KaplanMeierTable.kind,
        "n_patients": sum(sizes),
        "edges": [[0, 1] for _ in sizes],
        "at_risk": [[size, 10] for size in sizes],
        "events": [[1] for _ in sizes],
        "censored": [[1] for _ in sizes],
        "n_events": 3,
    }


def test_other_cohorts_tell_nothing() -> None:
    site = Site()
    site.tell_table(ASKED, cohort="elsewhere")
    site.tell(curves([40, 40, 40]), ("age", "reference"), group(ALL), cohort="elsewhere")
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert known_sums(earlier) == NOTHING
    assert len(earlier.own_sums) == 0


@pytest.mark.parametrize(
    ("members", "asked", "known"),
    [
        (ALL, ALL, ROWS_ALONE),
        (WOMEN, WOMEN, ROWS_ALONE),
        # Of other patients it is not known what the numbers would be.
        (WOMEN, ALL, NOTHING),
        # As many, but others.
        (WOMEN, np.roll(WOMEN, 30), NOTHING),
    ],
)
def test_curves_by_category_tell_of_the_very_same_patients(
    members: Members, asked: Members, known: list[bool]
) -> None:
    site = Site()
    # The sizes are those of the patients asked about, in case the gate should take them.
    sizes = counted("reference", "index", asked).sum(axis=1).tolist()
    payload = {**curves(sizes), "n_patients": int(members.sum())}
    site.tell(payload, ("age", "reference"), group(members))
    earlier = site.asked(ASKED, asked)
    assert earlier is not None
    assert known_sums(earlier) == known
    # The table's own cells are those of whom the numbers are.
    own = np.array(matrix_of(ASKED, asked)).reshape(-1)
    assert (earlier.own_sums @ own).tolist() == (sizes if known == ROWS_ALONE else [])


def test_of_another_number_of_patients_curves_tell_nothing() -> None:
    site = Site()
    sizes = counted("reference", "index").sum(axis=1).tolist()
    site.tell({**curves(sizes), "n_patients": N - 1}, ("age", "reference"), group(ALL))
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert known_sums(earlier) == NOTHING


# --- what cannot be judged ------------------------------------------------------------------


def test_numbers_that_are_not_the_tables_own() -> None:
    (first, *rest), pair = matrix_of(ASKED), ("reference", "index")
    moved: Matrix = ((first[0] + 1, first[1] - 1, *first[2:]), *rest)
    turned: Matrix = tuple(zip(*moved, strict=True))
    for told, matrix, is_judged in (
        (ASKED, matrix_of(ASKED), True),
        (ASKED, moved, False),
        (pair, matrix_of(pair), True),
        (pair, turned, False),
    ):
        site = Site()
        site.tell_table(told, matrix=matrix)
        assert (site.asked(ASKED) is not None) is is_judged
    # A table of other patients, or of other scores, has other numbers.
    site = Site()
    site.tell_table(ASKED, WOMEN)
    site.tell_table(("visual", "reference"))
    assert site.asked(ASKED) is not None
    # What disagrees is found behind what agrees.
    site.tell_table(ASKED, matrix=moved)
    assert site.asked(ASKED) is None


def test_patients_that_are_not_known() -> None:
    pair = ("visual", "reference")
    for told, n_told, asked, is_judged in (
        ("", N, "", True),
        ("", 80, "", False),
        ("", N, None, False),
        (None, N, "", False),
        (None, N, None, True),
    ):
        site = Site()
        site.tell_table(pair, ALL if n_told == N else WOMEN, told)
        earlier = site.asked(ASKED, ALL, asked)
        assert (earlier is not None) is is_judged
        if earlier is not None:
            truth(earlier, [ASKED, pair], [ALL])
            assert known_sums(earlier) == ROWS_ALONE
    # The file of groups has gone.
    site = Site()
    site.tell_table(pair, WOMEN)
    site.ledger = MemoryLedger()
    assert site.asked(ASKED) is None


def test_tables_in_a_circle() -> None:
    site = Site()
    site.tell_table(("visual", "reference"))
    site.tell_table(("visual", "other"))
    assert site.asked(ASKED) is not None
    site.tell_table(("index", "other"))
    assert site.asked(ASKED) is None
    # A circle that the table has nothing to do with.
    assert site.asked(("index", "reference")) is None
    apart = Site()
    for pair in (("visual", "other"), ("visual", "reader"), ("other", "reader")):
        apart.tell_table(pair)
    assert apart.asked(ASKED) is not None


def test_other_numbers_of_categories_are_not_judged() -> None:
    site = Site()
    site.tell_table(("visual", "reference"), matrix=((60, 10), (10, 40)))
    assert site.asked(ASKED) is None


def test_at_the_limits_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    site.tell_table(("visual", "reference"), WOMEN)
    earlier = site.asked(ASKED)
    assert earlier is not None
    n_facts, n_atoms = earlier.facts.coefficients.shape
    # Two pairs of scores, the women and the others; of each group its number in either table, the
    # numbers told, and of each part the categories that both tables tell.
    assert n_atoms == 2 * 2 * SIZE**2
    assert n_facts == 4 + SIZE**2 + 4 * (SIZE - 1) + 2 * SIZE
    limits = {"MAXIMUM_ATOMS": n_atoms, "MAXIMUM_FACTS": n_facts, "MAXIMUM_PARTS": 2}
    for limit, least in limits.items():
        with monkeypatch.context() as patch:
            patch.setattr(facts, limit, least)
            assert site.asked(ASKED) is not None
            patch.setattr(facts, limit, least - 1)
            assert site.asked(ASKED) is None


@pytest.mark.parametrize(("n_groups", "is_judged"), [(3, True), (4, True), (5, False)])
def test_groups_in_one_another(n_groups: int, is_judged: bool) -> None:
    site = Site()
    for size in (100, 80, 60, 40)[: n_groups - 1]:
        site.tell_table(ASKED, np.arange(N) < size)
    earlier = site.asked(ASKED)
    assert (earlier is not None) is is_judged
    if earlier is not None:
        assert len(earlier.own) == n_groups


def test_groups_that_cross_one_another() -> None:
    # Of two groups there are three parts at most, of three groups up to seven.
    place = np.arange(N)
    site = Site()
    site.tell_table(ASKED, WOMEN)
    site.tell_table(ASKED, OLD)
    earlier = site.asked(ASKED)
    assert earlier is not None
    assert len(earlier.own) == 3
    site.tell_table(ASKED, place % 2 == 0)
    assert site.asked(ASKED) is None
    # Some of the parts have nobody: four are left of five groups.
    site = Site()
    for members in (place < 30, place < 60, (place >= 60) & (place < 90), place >= 30):
        site.tell_table(ASKED, members)
    assert site.asked(ASKED) is not None
    site.tell_table(ASKED, place < 100)
    assert site.asked(ASKED) is None


def test_sums_of_one_table_are_not_subtracted_in_another() -> None:
    alone, beside = Site(), Site()
    for site in (alone, beside):
        site.tell_table(("visual", "reference"))
    sizes = counted("reference", "index").sum(axis=1).tolist()
    beside.tell(curves(sizes), ("age", "reference"), group(ALL))
    first, second = alone.asked(ASKED), beside.asked(ASKED)
    assert first is not None
    assert second is not None
    assert len(second.own_sums) == SIZE
    assert np.array_equal(first.others, second.others)


def test_sums_over_all_patients_are_not_subtracted_among_the_women() -> None:
    alone, beside = Site(), Site()
    for site in (alone, beside):
        site.tell_table(("visual", "reference"), WOMEN)
    beside.tell_table(ASKED)
    first, second = alone.asked(ASKED), beside.asked(ASKED)
    assert first is not None
    assert second is not None
    assert len(second.own_sums) == SIZE**2 + 4 * (SIZE - 1)
    assert np.array_equal(first.others, second.others)
