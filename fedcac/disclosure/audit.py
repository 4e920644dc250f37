"""Integer-programming audit: what the released counts of a table still leave open.

A table is a vector of atoms, non-negative integer counts. A fact is a released sum over some
atoms. A group is any set of atoms an onlooker may ask about. A group is exposed when its true
count is small and the facts confine it to an interval narrower than k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

__all__ = [
    "Facts",
    "Possible",
    "is_any_exposed",
    "is_any_narrowed",
    "nested_differences",
]

TOLERANCE = 1e-6
"""Of sums of counts by floating-point numbers; they are whole, or nothing follows."""

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


def nested_differences(sums: Mask) -> Mask:
    """Return every non-empty difference f - g of two known sums with g inside f.

    Parameters
    ----------
    sums
        Atoms of each known sum, shape (n_sums, n_atoms).

    Returns
    -------
    Mask
        Shape (n_differences, n_atoms), without repetitions.
    """
    outer, inner = sums[:, None, :], sums[None, :, :]
    is_inside = np.all(outer | ~inner, axis=2)
    differences = (outer & ~inner)[is_inside]
    return np.unique(differences[differences.any(axis=1)], axis=0)


def is_any_exposed(counts: Counts, facts: Mask, groups: Mask, k: int, *, zero: bool) -> bool:
    """Say whether some small group is confined by the facts to an interval narrower than k.

    Parameters
    ----------
    counts
        True counts, shape (n_atoms,).
    facts
        Atoms of each released sum, shape (n_facts, n_atoms); the total belongs among them.
    groups
        Atoms of each audited group, shape (n_groups, n_atoms).
    k
        Smallest count that may be shown, and the least width of an interval.
    zero
        Whether a count of zero is small.

    Notes
    -----
    Atoms in exactly the same facts can stand in for one another, so the facts determine only the
    totals of such classes. The largest count of a group is then the largest sum of the classes it
    touches, the smallest that of the classes it contains: two integer programs over few
    variables. Matrices met on the way are kept as witnesses, and most groups need no program.
    """
    true = groups.astype(np.int64) @ counts
    is_small = (true < k) & (zero | (true > 0))
    classes, inverse = np.unique(facts, axis=1, return_inverse=True)
    member = np.eye(classes.shape[1], dtype=np.int64)[inverse.reshape(-1)]
    held = groups[is_small].astype(np.int64) @ member
    touched, contained = held > 0, held == member.sum(axis=0)
    totals = counts @ member
    released = (classes @ totals).astype(np.float64)
    known = LinearConstraint(classes.astype(np.float64), released, released)
    bounds = Bounds(0, int(counts.sum()))
    is_integer = np.ones(len(totals), dtype=np.int64)
    witnesses = [totals]
    for pair in np.unique(np.hstack([touched, contained]), axis=0):
        high, low = pair[: len(totals)], pair[len(totals) :]
        if _width(witnesses, high, low) >= k:
            continue
        for objective in (-high.astype(np.float64), low.astype(np.float64)):
            found = milp(objective, constraints=known, bounds=bounds, integrality=is_integer)
            if found.x is None or found.status != 0:
                return True  # an unsolved program proves nothing, so the audit fails closed
            witnesses.append(np.rint(found.x).astype(np.int64))
        if _width(witnesses, high, low) < k:
            return True
    return False


def _width(witnesses: list[Counts], high: Mask, low: Mask) -> int:
    seen = np.stack(witnesses)
    return int((seen @ high).max() - (seen @ low).min())


@dataclass(frozen=True)
class Facts:
    """Linear facts over atoms: coefficients (n_facts, n_atoms) times counts are the values."""

    coefficients: Counts
    values: Counts

    def joined(self, coefficients: NDArray[np.generic], values: NDArray[np.int64]) -> Facts:
        """Return these facts and others over the same atoms."""
        rows = np.asarray(coefficients, dtype=np.int64).reshape(-1, self.coefficients.shape[1])
        return Facts(np.vstack([self.coefficients, rows]), np.r_[self.values, values])


class Possible:
    """The counts that agree with facts, and how many patients a group can have in them.

    Parameters
    ----------
    facts
        Over atoms of non-negative integer counts.
    most
        No atom holds more patients.
    n_programs
        So many integer programs are solved at most, so that time is bounded by the question and
        not by the machine.
    """

    def __init__(self, facts: Facts, most: int, n_programs: int) -> None:
        # As above: only the totals of atoms that stand in the same facts are determined.
        classes, place = np.unique(facts.coefficients, axis=1, return_inverse=True)
        self._member = np.eye(classes.shape[1], dtype=np.int64)[place.reshape(-1)]
        self._sizes = self._member.sum(axis=0)
        values = facts.values.astype(np.float64)
        self._known = LinearConstraint(classes.astype(np.float64), values, values)
        self._bounds = Bounds(0, most)
        inverse = np.linalg.pinv(classes.astype(np.float64))
        self._projection: NDArray[np.float64] = inverse @ classes
        self._solution: NDArray[np.float64] = inverse @ values
        self._is_solvable = bool(np.allclose(classes @ self._solution, values, atol=TOLERANCE))
        self._witnesses: list[Counts] = []
        self._intervals: dict[bytes, tuple[int, int] | None] = {}
        self._left = n_programs

    def has_shown(self, group: Mask, width: int) -> bool:
        """Say whether numbers of a group that are so far apart were met already."""
        return bool(self._witnesses) and _width(self._witnesses, *self._ends(group)) >= width

    def interval(self, group: Mask) -> tuple[int, int] | None:
        """Return the least and the greatest number of patients of a group.

        None if a program has no solution, is not solved within its limit, or is one too many.
        """
        high, low = self._ends(group)
        key = np.packbits(np.r_[high, low]).tobytes()
        if key not in self._intervals and (combined := self._sum_of(high, low)) is not None:
            self._intervals[key] = (combined, combined)
        if key not in self._intervals:
            least, most = self._least(low.astype(np.float64)), self._least(-high.astype(np.float64))
            self._intervals[key] = None if least is None or most is None else (least, -most)
        return self._intervals[key]

    def _ends(self, group: Mask) -> tuple[Mask, Mask]:
        held = group.astype(np.int64) @ self._member
        return held > 0, held == self._sizes

    def _sum_of(self, high: Mask, low: Mask) -> int | None:
        """Return a group's number if it is a combination of the facts: that takes no program."""
        is_combined = np.array_equal(high, low) and np.allclose(
            high @ self._projection, high, rtol=0.0, atol=TOLERANCE
        )
        return round(float(high @ self._solution)) if is_combined and self._is_solvable else None

    def _least(self, objective: NDArray[np.float64]) -> int | None:
        self._left -= 1
        if self._left < 0:
            return None
        found = milp(
            objective,
            constraints=self._known,
            bounds=self._bounds,
            integrality=np.ones(len(objective), dtype=np.int64),
            # Nodes, not seconds: the answer may not depend on how busy the machine is.
            options={"node_limit": 2000, "mip_rel_gap": 0.0},
        )
        if found.x is None or found.status != 0:
            return None
        witness = np.rint(found.x).astype(np.int64)
        self._witnesses.append(witness)
        return int(np.rint(objective).astype(np.int64) @ witness)


def is_any_narrowed(
    before: Possible, after: Possible, groups: Mask, small: Mask | None, k: int, *, zero: bool
) -> bool:
    """Say whether further facts confine a small group to an interval narrower than k.

    Parameters
    ----------
    before, after
        What was possible without and with the further facts.
    groups
        Atoms of each audited group, shape (n_groups, n_atoms).
    small
        Whether each group's true count is small, shape (n_groups,). None if the counts are not
        known: then a group counts as small where the interval allows it.
    k, zero
        As in `is_any_exposed`.

    Notes
    -----
    A group as narrow before is not exposed by the further facts. What is not solved counts as
    exposed.
    """
    is_small = small is not None
    audited = groups if small is None else groups[small]
    return any(_is_narrowed(before, after, group, is_small, k, zero) for group in audited)


def _is_narrowed(
    before: Possible, after: Possible, group: Mask, is_small: bool, k: int, zero: bool
) -> bool:
    if after.has_shown(group, k):
        return False
    now = after.interval(group)
    if now is None:
        return True
    low, high = now
    may_be_small = is_small or (low < k and (zero or high > 0))
    return high - low < k and may_be_small and before.interval(group) != now
