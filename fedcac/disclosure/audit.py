"""Integer-programming audit: what the released counts of a table still leave open.

A table is a vector of atoms, non-negative integer counts. A fact is a released sum over some
atoms. A group is any set of atoms an onlooker may ask about. A group is exposed when its true
count is small and the facts confine it to an interval narrower than k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

__all__ = ["is_any_exposed", "nested_differences"]

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
