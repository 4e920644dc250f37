"""What was told of a cohort before, as linear facts over the cells of a table now asked for.

Patients of one cohort differ in two ways here: by the part they belong to (patients in the same
groups that answers were about) and, within a part, by their categories of two scores. The cells of
every pair of scores, part by part, are the atoms. Tables that share a score share its margins.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import CrossTable
from fedcac.disclosure.audit import Facts, Mask, nested_differences
from fedcac.disclosure.cross_table import Matrix, rectangles
from fedcac.disclosure.differences import score_pair, shape_is
from fedcac.disclosure.ledger import Ledger, LedgerEntry
from fedcac.disclosure.margins import Payload, Sums, margin_sums, table_sums
from fedcac.disclosure.question import Question

__all__ = ["Earlier", "earlier_facts"]

MAXIMUM_ATOMS = 400
MAXIMUM_FACTS = 2000
MAXIMUM_PARTS = 4
"""Beyond these the program is not set up, and tables are compared in pairs."""


@dataclass(frozen=True)
class Earlier:
    """What is known beside a new table.

    Attributes
    ----------
    facts
        Over all atoms.
    own
        Places of the new table's cells among the atoms, by part, shape (n_parts, n_cells).
    own_sums
        Known sums of the new table's own cells, shape (n_sums, n_cells).
    others
        Groups of atoms to be audited beside those of the new table, shape (n_groups, n_atoms).
    n_patients
        Of the largest group that was told of.
    is_complete
        Whether everything that the answers tell together was looked at. Otherwise tables of other
        scores or patients have to be whole.
    """

    facts: Facts
    own: NDArray[np.int64]
    own_sums: Mask
    others: Mask
    n_patients: int
    is_complete: bool

    def on_atoms(self, cells: Mask) -> Mask:
        """Return sums over the new table's cells, (n, n_cells), as sums over atoms."""
        atoms = np.zeros((len(cells), self.facts.coefficients.shape[1]), dtype=np.bool_)
        for places in self.own:
            atoms[:, places] = cells
        return atoms


@dataclass(frozen=True, eq=False)
class _Table:
    """An earlier table: its two scores (rows, columns), its patients, and what it told."""

    scores: tuple[str, str]
    group: str
    n_patients: int
    sums: Sums


def earlier_facts(
    question: Question, matrix: Matrix, past: Sequence[LedgerEntry], ledger: Ledger
) -> Earlier | None:
    """Return what earlier answers about the same patients tell of a table's cells.

    Parameters
    ----------
    matrix
        The table's true counts, rows = reference.
    past
        Every release of the site that counts, oldest first.

    Returns
    -------
    Earlier | None
        None if it cannot be judged: the scores, cut-offs or groups of an earlier table are not
        known, tables share scores in a circle, or there are too many of them.

    Notes
    -----
    Two tables that share one score agree in its margins and in nothing else: whatever two tables
    agree so are those of some patients. That holds for a chain of tables, and not for a circle.
    """
    about = [entry for entry in past if entry.cohort_digest == question.cohort_digest]
    scores = score_pair(question.columns, question.scores_digest)
    tables = _tables(question, len(matrix), about, ledger)
    if scores is None or tables is None:
        return None
    own = _Table((scores[1], scores[0]), question.group, sum(map(sum, matrix)), [])
    own.sums.extend(_margins(own, matrix, about, ledger))
    told = [own, *_linked(own, tables)]
    parts = _parts(told, question.cohort_size)
    if parts is None or _is_circular(told) or not _do_agree(told, matrix):
        return None
    frame = _Frame(len(matrix), told, parts)
    if frame.n_atoms > MAXIMUM_ATOMS:
        return None
    earlier = frame.earlier()
    return earlier if len(earlier.facts.values) <= MAXIMUM_FACTS else None


def _tables(
    question: Question, size: int, about: Sequence[LedgerEntry], ledger: Ledger
) -> list[_Table] | None:
    tables = []
    for entry in about:
        payload: Payload = entry.payload or {}
        if not shape_is(payload, CrossTable):
            continue
        scores = score_pair(entry.columns, entry.scores_digest)
        is_cut_alike = entry.categories_digest == question.categories_digest
        if scores is None or not is_cut_alike or len(payload["matrix"]) != size:
            return None
        group = _group(entry, ledger)
        if group is None:
            return None
        table = _Table((scores[1], scores[0]), group, payload["n_patients"], table_sums(payload))
        tables.append(table)
    return tables


def _group(entry: LedgerEntry, ledger: Ledger) -> str | None:
    return "" if entry.group is None else ledger.groups.get(entry.group)


def _margins(
    own: _Table, matrix: Matrix, about: Sequence[LedgerEntry], ledger: Ledger
) -> Iterator[tuple[Mask, int]]:
    # Of the very same patients only: of others it is not known what the numbers would be.
    for entry in about:
        payload: Payload = entry.payload or {}
        is_same = payload["n_patients"] == own.n_patients and _group(entry, ledger) == own.group
        if is_same and not shape_is(payload, CrossTable):
            yield from margin_sums(payload, entry.columns, own.scores, matrix)


def _linked(own: _Table, tables: Sequence[_Table]) -> list[_Table]:
    """Return the tables that share a score with the new one, or with another that does."""
    columns = set(own.scores)
    while not columns >= (
        more := columns.union(*(t.scores for t in tables if columns & {*t.scores}))
    ):
        columns = more
    return [table for table in tables if columns & set(table.scores)]


def _is_circular(tables: Sequence[_Table]) -> bool:
    # The linked pairs of scores are connected, so that they are a tree or have a circle.
    pairs = {frozenset(table.scores) for table in tables}
    return len(pairs) >= len(frozenset[str]().union(*pairs))


def _do_agree(tables: Sequence[_Table], matrix: Matrix) -> bool:
    """Say whether earlier numbers about the new table's own cells are its own."""
    own, counts = tables[0], np.array(matrix)
    for table in tables:
        if table.group == own.group and set(table.scores) == set(own.scores):
            true = (counts if table.scores == own.scores else counts.T).reshape(-1)
            if any(int(true[cells].sum()) != count for cells, count in table.sums):
                return False
    return True


def _parts(tables: Sequence[_Table], cohort_size: int) -> dict[str, list[int]] | None:
    """Return the parts that each group consists of: patients who are in the same groups."""
    groups = sorted({table.group for table in tables})
    if "" in groups:
        # Whom the answers are about is not known: the same patients, if it is as many.
        is_same = len(groups) == 1 and len({table.n_patients for table in tables}) == 1
        return {"": [0]} if is_same else None
    members = np.stack(
        [
            np.unpackbits(np.frombuffer(base64.b64decode(group), np.uint8), count=cohort_size)
            for group in groups
        ]
    )
    parts = np.unique(members[:, members.any(axis=0)], axis=1)
    if parts.shape[1] > MAXIMUM_PARTS:
        return None
    return {
        group: [int(i) for i in np.flatnonzero(row)]
        for group, row in zip(groups, parts, strict=True)
    }


class _Frame:
    """The atoms: pair of scores by pair, part by part, the cells row by row."""

    def __init__(self, size: int, tables: Sequence[_Table], parts: dict[str, list[int]]) -> None:
        self._size, self._tables, self._parts = size, tables, parts
        self._n_parts = 1 + max(part for own in parts.values() for part in own)
        self._pairs = list(dict.fromkeys(_pair(table) for table in tables))
        self.n_atoms = len(self._pairs) * self._n_parts * size**2

    def earlier(self) -> Earlier:
        """Return everything known, and what is to be audited."""
        own = self._tables[0]
        rows, values = zip(*self._told(), strict=True)
        sums = [cells for table in self._tables for cells in self._own_cells(table)]
        size = self._size**2
        return Earlier(
            facts=Facts(np.array(rows, dtype=np.int64), np.array(values, dtype=np.int64)),
            own=np.stack([self._places(own, part) for part in self._parts[own.group]]),
            own_sums=np.array(sums, dtype=np.bool_).reshape(-1, size),
            others=np.array(list(self._others()), dtype=np.bool_).reshape(-1, self.n_atoms),
            n_patients=max(table.n_patients for table in self._tables),
            is_complete=self._n_parts <= 2,
        )

    def _places(self, table: _Table, part: int) -> NDArray[np.int64]:
        """Return where a table's cells are among the atoms, in the table's own order."""
        first = (self._pairs.index(_pair(table)) * self._n_parts + part) * self._size**2
        cells = np.arange(self._size**2).reshape(self._size, self._size)
        return first + (cells if table.scores == _pair(table) else cells.T).reshape(-1)

    def _atoms(self, table: _Table, parts: Sequence[int], cells: Mask) -> NDArray[np.int64]:
        atoms = np.zeros(self.n_atoms, dtype=np.int64)
        for part in parts:
            atoms[self._places(table, part)[cells]] = 1
        return atoms

    def _own_cells(self, table: _Table) -> Iterator[Mask]:
        own = self._tables[0]
        if table.group == own.group and _pair(table) == _pair(own):
            for cells, _ in table.sums:
                shape = (self._size, self._size)
                yield cells if table.scores == own.scores else cells.reshape(shape).T.reshape(-1)

    def _told(self) -> Iterator[tuple[NDArray[np.int64], int]]:
        every = np.ones(self._size**2, dtype=np.bool_)
        one_of = [next(t for t in self._tables if _pair(t) == pair) for pair in self._pairs]
        sizes = {table.group: table.n_patients for table in self._tables}
        for (group, n), table in product(sizes.items(), one_of):
            yield self._atoms(table, self._parts[group], every), n
        for table in self._tables:
            for cells, count in table.sums:
                yield self._atoms(table, self._parts[table.group], cells), count
        for first, second in combinations(one_of, 2):
            for column in set(first.scores) & set(second.scores):
                for part, category in product(range(self._n_parts), range(self._size)):
                    sides = [
                        self._atoms(table, [part], self._margin(table, column, category))
                        for table in (first, second)
                    ]
                    yield sides[0] - sides[1], 0

    def _margin(self, table: _Table, column: str, category: int) -> Mask:
        cells = np.zeros((self._size, self._size), dtype=np.bool_)
        axis = table.scores.index(column)
        cells[(category, slice(None)) if axis == 0 else (slice(None), category)] = True
        return cells.reshape(-1)

    def _others(self) -> Iterator[NDArray[np.int64]]:
        own = self._tables[0]
        cells = rectangles(self._size)
        if self._n_parts > 2:
            # Tables of so many groups have to be whole, and the cells of whole tables know
            # nothing of one another: where a rectangle is confined, so is a cell of it.
            cells = np.eye(self._size**2, dtype=np.bool_)
        one_of = [next(t for t in self._tables if _pair(t) == pair) for pair in self._pairs]
        for table, union in product(one_of, _unions(self._n_parts)):
            if _pair(table) == _pair(own) and union == self._parts[own.group]:
                continue
            told = [
                known
                for other in self._tables
                if _pair(other) == _pair(table) and self._parts[other.group] == union
                for known, _ in other.sums
            ]
            groups = np.vstack([cells, nested_differences(np.stack(told))]) if told else cells
            for group in np.unique(groups, axis=0):
                yield self._atoms(table, union, group)


def _pair(table: _Table) -> tuple[str, str]:
    first, second = sorted(table.scores)
    return first, second


def _unions(n_parts: int) -> Iterator[list[int]]:
    for size in range(1, n_parts + 1):
        yield from (list(union) for union in combinations(range(n_parts), size))
