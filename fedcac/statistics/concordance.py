"""Harrell's C over the pairs of one stratum, with the sums from which its variance follows."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Concordance",
    "concordance",
    "concordant_pairs",
    "count_smaller_before",
    "ordered_pairs",
]

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Concordance:
    """Pair counts; they add up over strata.

    Attributes
    ----------
    concordant, discordant, tied
        Comparable pairs in which the patient with the earlier event had the higher, the lower, or
        the same predicted risk.
    aa, ab, bb
        Sums over patients of a^2, a b and b^2, where b counts a patient's comparable pairs and a
        the concordant ones among them, ties as one half.
    """

    N_NUMBERS: ClassVar[int] = 6

    concordant: float
    discordant: float
    tied: float
    aa: float
    ab: float
    bb: float

    def numbers(self) -> Vector:
        """Return the six counts and sums in the order of the fields."""
        return np.array(astuple(self), dtype=np.float64)

    @classmethod
    def from_numbers(cls, numbers: Vector) -> Self:
        """Return what `numbers` described, or a sum of such arrays."""
        return cls(*(float(number) for number in numbers))

    @property
    def n_pairs(self) -> float:
        """Number of comparable pairs."""
        return self.concordant + self.discordant + self.tied

    @property
    def c_index(self) -> float | None:
        """(concordant + tied / 2) / pairs; None without a comparable pair."""
        return (self.concordant + self.tied / 2) / self.n_pairs if self.n_pairs else None

    @property
    def standard_error(self) -> float | None:
        """The infinitesimal jackknife's, sqrt(Sum (a - C b)^2) / pairs (survival::concordance)."""
        c = self.c_index
        if c is None:
            return None
        squares = self.aa - 2 * c * self.ab + c**2 * self.bb
        return float(np.sqrt(max(squares, 0.0)) / self.n_pairs)


def concordance(risk: Vector, time: Vector, event: NDArray[np.bool_]) -> Concordance:
    """Count the pairs of one stratum in O(n log n).

    A pair is comparable if the shorter follow-up ended with the event; at equal times, if exactly
    one of the two had the event. Two events at one time are not comparable.

    Parameters
    ----------
    risk
        Predicted risk or linear predictor, shape (n,); higher means an earlier event.
    time, event
        Follow-up and whether the event happened then, shape (n,).
    """
    own = _ordered(risk, time, event)
    rank, event, block, after = own.rank, own.event, own.block, own.after
    lower, equal = own.lower, own.equal
    pairs = np.where(event, len(rank) - after, 0)

    # The same pairs seen by their later member: events at earlier positions.
    events = rank[event]
    n_events_before = np.concatenate([[0], np.cumsum(event)])
    before = n_events_before[np.where(event, block, after)]
    not_higher = count_smaller_before(events, before, rank + 1)
    smaller = count_smaller_before(events, before, rank)
    higher = before - not_higher

    a = lower + equal / 2 + higher + (not_higher - smaller) / 2
    b = (pairs + before).astype(np.float64)
    concordant, tied = float(lower.sum()), float(equal.sum())
    return Concordance(
        concordant=concordant,
        discordant=float(pairs.sum()) - concordant - tied,
        tied=tied,
        aa=float(a @ a),
        ab=float(a @ b),
        bb=float(b @ b),
    )


@dataclass(frozen=True)
class _Ordered:
    """Patients in the order of their times, and each one's pairs as the earlier member.

    `rank` of the risk; `block` the first position at this patient's time, `after` the first one
    behind the events at it; `lower`, `equal` comparable patients behind with less or equal risk.
    """

    rank: Integers
    event: NDArray[np.bool_]
    block: Integers
    after: Integers
    lower: Integers
    equal: Integers


def _ordered(risk: Vector, time: Vector, event: NDArray[np.bool_]) -> _Ordered:
    # Events before the censored at equal times: then a pair's later member comes later here.
    order = np.lexsort((~event, time))
    time, event = time[order], event[order]
    rank = np.unique(risk[order], return_inverse=True)[1].reshape(-1).astype(np.int64)
    n = len(rank)
    # First position after the events at this patient's time, and the first one of them.
    block = np.maximum.accumulate(np.where(np.r_[True, np.diff(time) > 0], np.arange(n), 0))
    n_tied_events = np.bincount(block, weights=event).astype(np.int64)[block]
    after = block + n_tied_events
    least = np.concatenate([[0], np.cumsum(np.bincount(rank))])

    lower_total, equal_total = least[rank], least[rank + 1] - least[rank]
    lower_before = count_smaller_before(rank, after, rank)
    equal_before = count_smaller_before(rank, after, rank + 1) - lower_before
    lower = np.where(event, lower_total - lower_before, 0)
    equal = np.where(event, equal_total - equal_before, 0)
    return _Ordered(rank, event, block, after, lower, equal)


def concordant_pairs(risk: Vector, time: Vector, event: NDArray[np.bool_]) -> tuple[float, float]:
    """Return concordant pairs, ties as one half, and comparable pairs; arguments as `concordance`.

    For a C-index without its variance, at half the work.
    """
    own = _ordered(risk, time, event)
    pairs = np.where(own.event, len(risk) - own.after, 0)
    return float(own.lower.sum()) + float(own.equal.sum()) / 2, float(pairs.sum())


def ordered_pairs(risk: Vector, event: NDArray[np.bool_]) -> float:
    """Return the pairs of one patient with and one without the event that are ordered rightly.

    Ties count one half: divided by the number of such pairs this is the area under the ROC curve.
    """
    rank = np.unique(risk, return_inverse=True)[1].reshape(-1)
    with_event = np.bincount(rank[event], minlength=len(rank))
    without = np.bincount(rank[~event], minlength=len(rank))
    below = np.cumsum(without) - without
    return float(with_event @ (below + without / 2))


def count_smaller_before(ranks: Integers, before: Integers, below: Integers) -> Integers:
    """Return for every query how many of `ranks[:before]` are smaller than `below`.

    A wavelet matrix (Claude and Navarro 2012) answers all queries at once, one bit of
    the ranks after the other, in O((n + q) log n) time and O(n + q) memory.

    Parameters
    ----------
    ranks
        Non-negative integers, shape (n,).
    before, below
        Queries, shape (q,): positions 0 .. n, and the bound on the rank.
    """
    count = np.zeros(len(before), dtype=np.int64)
    if len(ranks) == 0:
        return count
    low, high = np.zeros(len(before), dtype=np.int64), before.astype(np.int64)
    current = ranks
    for bit in reversed(range(int(max(ranks.max(), below.max())).bit_length())):
        is_one = (current >> bit) & 1 == 1
        zeros = np.concatenate([[0], np.cumsum(~is_one)])
        low0, high0 = zeros[low], zeros[high]
        goes_up = (below >> bit) & 1 == 1
        count += np.where(goes_up, high0 - low0, 0)
        low = np.where(goes_up, zeros[-1] + low - low0, low0)
        high = np.where(goes_up, zeros[-1] + high - high0, high0)
        current = np.concatenate([current[~is_one], current[is_one]])
    return count
