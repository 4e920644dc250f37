"""AUCs of small classes counted pair by pair: on bins, and two of the same patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers
from numpy.typing import NDArray
from scipy import stats

from fedcac.exchange import Query
from fedcac.statistics import QueryError
from fedcac.statistics.delong import (
    LARGEST_BOUND,
    Bins,
    auc_of_bins,
    auc_of_values,
    pair_sums,
    paired_auc,
    placements,
)
from fedcac.statistics.paired_roc import (
    PairOfTests,
    classes_from_query,
    classes_to_values,
    difference_rows,
    has_both_classes,
    site_sums,
)
from fedcac.vocabulary import RowStatus

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]

TERM = "100"
Z95 = stats.norm.ppf(0.975)
WITHIN = Query(step="within")


# --- on bins --------------------------------------------------------------------------------


def kernels(positives: Bins, negatives: Bins) -> tuple[Vector, Vector]:
    """Return for each pair of patients whether it is ordered, and half if nobody knows; and that.

    Bins overlap if neither ends before the other starts.
    """

    def spread(bins: Bins) -> Integers:
        ends = [*bins.starts.tolist()[1:], bins.n_grid]
        limits = np.array(list(zip(bins.starts.tolist(), ends, strict=True)))
        return np.repeat(limits, bins.counts, axis=0)

    p, n = spread(positives)[:, None], spread(negatives)[None, :]
    above, below = p[..., 0] >= n[..., 1], p[..., 1] <= n[..., 0]
    unknown = ~above & ~below
    ordered = above + 0.5 * unknown
    # Both in a first bin that holds a single value: tied for certain.
    tied = (p[..., 1] == 1) & (n[..., 1] == 1) & positives.is_first_single
    return ordered, 0.5 * (unknown & ~tied)


MERGED = {
    "grid": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    "merged": ([0, 2, 5], [0, 1, 4]),
    "first of one": ([0, 1, 4], [0, 3]),
    "first of the other": ([0, 3, 4], [0, 1, 2, 3, 5]),
    "one bin": ([0], [0]),
}


@pytest.mark.parametrize("is_first_single", [True, False])
@pytest.mark.parametrize("name", list(MERGED))
def test_an_auc_on_bins_is_that_of_all_pairs(name: str, is_first_single: bool) -> None:
    rng = np.random.default_rng(len(name))
    positives, negatives = (
        Bins(np.array(starts), rng.integers(1, 5, len(starts)), 6, is_first_single)
        for starts in MERGED[name]
    )
    found = auc_of_bins(positives, negatives)
    ordered, unknown = kernels(positives, negatives)
    assert found is not None
    assert_close(found.estimate, ordered.mean())
    assert_close(found.error_bound, unknown.mean())
    parts = (ordered.mean(axis=1), ordered.mean(axis=0))
    expected = sum(part.var(ddof=1) / len(part) for part in parts)
    assert found.variance == pytest.approx(expected, abs=1e-15)
    assert (found.n_positive, found.n_negative) == ordered.shape


# --- two tests of the same patients ---------------------------------------------------------

N_GRID = 8


def own_tests(seed: int, n: int = 40) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.6
    first, second = (np.clip(rng.integers(0, 6, n) + 2 * positive, 0, 7) for _ in range(2))
    return first, second, positive


def classes_of(*sites: tuple[Integers, Integers, NDArray[np.bool_]]) -> PairOfTests:
    """Return the sites' patients on the grid."""
    first, second, positive = (np.concatenate(column) for column in zip(*sites, strict=True))
    bins = [
        Bins.on_grid(np.bincount(test[own], minlength=N_GRID))
        for test in (first, second)
        for own in (positive, ~positive)
    ]
    return bins[0], bins[1], bins[2], bins[3]


def rows_of(tables: Any, number: int, classes: PairOfTests | None, **how: Any) -> dict[Any, Any]:
    absent = how.get("absent", RowStatus.ERROR)
    rows = difference_rows("x", TERM, ("index", "comparator"), tables, number, classes, absent)
    return {(row.measure.value, row.group): row for row in rows}


def test_sums_of_two_sites_give_delongs_test_of_all_patients() -> None:
    sites = [own_tests(1), own_tests(2, 31)]
    classes = classes_of(*sites)
    tables = [site_sums([site, site], [None, classes])[0] for site in sites]
    first, second, positive = (np.concatenate(column) for column in zip(*sites, strict=True))
    by_positive, by_negative = [], []
    for test in (first, second):
        a, b = test[positive][:, None], test[~positive][None, :]
        kernel = (a > b) + 0.5 * (a == b)
        by_positive.append(kernel.mean(axis=1))
        by_negative.append(kernel.mean(axis=0))
    auc = np.mean(by_positive, axis=1)
    covariance = np.cov(by_positive) / positive.sum() + np.cov(by_negative) / (~positive).sum()
    bounds = [auc_of_bins(*classes[part : part + 2]) for part in (0, 2)]
    # Bins this coarse are too vague to publish an AUC; taken as values they are not.
    exact = paired_auc(np.sum([table[2:] for table in tables], axis=0), (0.0, 0.0))
    assert exact is not None
    assert_close(exact.difference, auc[0] - auc[1])
    se = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    assert exact.se is not None
    assert_close(exact.se, se)
    assert_close(exact.p_value, 2 * stats.norm.sf(abs(exact.difference) / se))
    rows = rows_of(tables, 1, classes)
    for bound, name in zip(bounds, ("index", "comparator"), strict=True):
        assert bound is not None
        assert bound.error_bound > LARGEST_BOUND
        assert rows["auc", name].status is RowStatus.SUPPRESSED
        assert (rows["auc", name].n, rows["auc", name].n_events) == (71, positive.sum())
    assert {row.status for row in rows_of([table[:2] for table in tables], 0, None).values()} == {
        RowStatus.ERROR
    }


def fine_classes(n: int, share: float, is_good: bool) -> tuple[Bins, Bins]:
    """Return classes of which a share of the positives is below all negatives, else above."""
    low = round(n * share)
    counts = np.zeros((2, 200), dtype=np.int64)
    counts[0, 0], counts[0, 199], counts[1, 100] = low, n - low, n
    if not is_good:
        counts[:, 100] += n
    return Bins.on_grid(counts[0]), Bins.on_grid(counts[1])


def sums_of(classes: PairOfTests) -> Any:
    """Return the sums that all patients of these classes give, those of either test by rank."""
    n_positive, n_negative = classes[0].n, classes[1].n
    positive = np.arange(n_positive + n_negative) < n_positive
    placed = []
    for p, n in (classes[:2], classes[2:]):
        bins = np.concatenate([np.repeat(own.starts, own.counts) for own in (p, n)])
        placed.append(placements(bins, positive, p, n))
    return [tuple(tuple(row) for row in pair_sums(placed[0], placed[1], positive).tolist())]


def test_limits_of_an_auc_stay_between_0_and_1() -> None:
    # Of the first test all but a few pairs are ordered; of the second all but a few the other way.
    classes = (*fine_classes(40, 0.05, True), *fine_classes(40, 0.95, True))
    rows = rows_of(sums_of(classes), 0, classes)
    high, low = rows["auc", "index"], rows["auc", "comparator"]
    # Placement values are 0 and 1 alone: the binomial variance with n - 1.
    se = (0.95 * 0.05 / 39) ** 0.5
    assert 0.95 + Z95 * se > 1
    for row, estimate, limits in (
        (high, 0.95, (0.95 - Z95 * se, 1.0)),
        (low, 0.05, (0.0, 0.05 + Z95 * se)),
    ):
        assert_close(row.estimate, estimate)
        assert_close(row.se, se)
        assert (row.ci_low, row.ci_high) == pytest.approx(limits)
        assert (row.n, row.n_events, row.ci_method) == (80, 40, "delong")
        bound = rows["auc_error_bound", row.group]
        assert (bound.estimate, bound.n) == (0, 80)
    row = rows["auc_difference", ""]
    assert_close(row.estimate, 0.9)
    assert (row.n, row.n_events) == (80, 40)
    assert row.ci_low == pytest.approx(0.9 - Z95 * row.se)
    assert row.ci_method == "delong"
    assert row.p_value == pytest.approx(2 * stats.norm.sf(0.9 / row.se))


@pytest.mark.parametrize("vague", [0, 1])
def test_a_difference_from_an_auc_that_bins_leave_vague_is_withheld(vague: int) -> None:
    # Half of both classes share a bin, which may move the AUC by an eighth.
    pairs = [fine_classes(40, 0.2, number != vague) for number in (0, 1)]
    if vague == 0:
        pairs[1] = fine_classes(80, 0.2, True)
    else:
        pairs[0] = fine_classes(80, 0.2, True)
    classes = (*pairs[0], *pairs[1])
    rows = rows_of(sums_of(classes), 0, classes)
    names = ("index", "comparator")
    statuses = [rows["auc", name].status for name in names]
    assert statuses[vague] is RowStatus.SUPPRESSED
    assert statuses[1 - vague] is RowStatus.OK
    bound = rows["auc_error_bound", names[vague]]
    assert (bound.estimate, bound.status) == (None, RowStatus.SUPPRESSED)
    row = rows["auc_difference", ""]
    assert (row.status, numbers(row)) == (RowStatus.SUPPRESSED, (None,) * 5)
    assert (row.n, row.n_events) == (160, 80)


def test_a_bound_of_a_twentieth_is_not_yet_vague() -> None:
    counts = np.zeros((2, 200), dtype=np.int64)
    # Two of ten positives and five of ten negatives share a bin: 10 of 100 pairs, by half.
    counts[0, 100], counts[0, 199], counts[1, 50], counts[1, 100] = 2, 8, 5, 5
    pair = Bins.on_grid(counts[0]), Bins.on_grid(counts[1])
    classes = (*pair, *fine_classes(10, 0.2, True))
    rows = rows_of(sums_of(classes), 0, classes)
    assert {row.status for row in rows.values()} == {RowStatus.OK}
    assert rows["auc_error_bound", "index"].estimate == LARGEST_BOUND


def test_placement_values_are_shares_of_the_other_class() -> None:
    bins, positive = np.array([0, 2, 2, 5, 1, 2, 4]), np.arange(7) < 4
    positives, negatives = (
        Bins.on_grid(np.bincount(bins[own], minlength=6)) for own in (positive, ~positive)
    )
    found = placements(bins, positive, positives, negatives)
    # Of the negatives 1, 2, 4 those below; of the positives 0, 2, 2, 5 those above; a tie is half.
    expected = [0, 1.5 / 3, 1.5 / 3, 1, 3 / 4, (1 + 1) / 4, 1 / 4]
    np.testing.assert_allclose(found, expected)
    exact = auc_of_values(bins.astype(float), positive)
    assert exact is not None
    assert_close(exact.estimate, np.mean(expected[:4]))
    assert exact.error_bound == 0
    for empty in (positive & False, positive | True):
        assert paired_auc(pair_sums(found, found, empty), (0.0, 0.0)) is None


def test_placement_values_that_are_all_the_same_have_no_error() -> None:
    for value in (0.1, 0.3, 0.7, 1 / 3, 0.9):
        v = np.full(29, value)
        found = paired_auc(pair_sums(v, v, np.arange(29) < 12), (0.0, 0.0))
        assert found is not None
        assert found.first.se == pytest.approx(0, abs=1e-7)


def test_a_test_against_itself_shifted_has_no_difference_and_no_error() -> None:
    # Placement values that differ by a constant: the variance of the difference is rounding.
    rng = np.random.default_rng(2)
    for _ in range(20):
        v1 = rng.random(30)
        positive = np.arange(30) < 13
        found = paired_auc(pair_sums(v1, v1 + 0.1, positive), (0.0, 0.0))
        assert found is not None
        assert found.se == pytest.approx(0, abs=1e-7)


def test_pooled_classes_come_back_from_a_query_as_they_were_sent() -> None:
    sent = classes_of(own_tests(3))
    single = (Bins(np.array([0, 4]), np.array([0, 1]), N_GRID), *sent[1:])
    values = classes_to_values([None, sent, single])
    none, *found = classes_from_query(Query(step="placements", values=values), 3, N_GRID)
    assert none is None
    for pair, expected in zip(found, (sent, single), strict=True):
        assert pair is not None
        for bins, own in zip(pair, expected, strict=True):
            assert bins.starts.tolist() == own.starts.tolist()
            assert bins.counts.tolist() == own.counts.tolist()
            assert bins.n_grid == N_GRID


def test_behind_sums_stand_the_fewest_patients_of_a_class_or_a_bin() -> None:
    # 25 positives in bins of 9, 10 and 6; 12 negatives in bins of 5 and 7.
    first = np.repeat([1, 4, 6, 0, 3], [9, 10, 6, 5, 7])
    second = np.repeat([6, 4, 1, 3, 0], [9, 10, 6, 5, 7])
    positive = np.arange(37) < 25
    few = np.arange(37) < 33
    whole = classes_of((first, second, positive))
    tests = [(first, second, own) for own in (positive, few)]
    _, evidence = site_sums(tests, [whole, None])
    assert evidence.row_groups == (5, 5, 4, 4)
    assert evidence.smallest_group == 5
    assert evidence.nested == ((25,), (25,), (33,), (33,))


SOUND = {"starts": (0.0, 2.0, 7.0), "counts": (3.0, 0.0, 1.0)}


@pytest.mark.parametrize(
    "fault",
    [
        {"starts": (), "counts": ()},
        {"counts": (3.0, 1.0)},
        {"starts": (1.0, 2.0, 7.0)},
        {"starts": (0.0, 2.0, 2.0)},
        {"starts": (0.0, 2.0, 8.0)},
        {"starts": (0.0, 2.5, 7.0)},
        {"counts": (3.0, -1.0, 1.0)},
        {"counts": (0.0, 0.0, 0.0)},
        {"counts": (3.0, 0.5, 1.0)},
        {"counts": (0.5, 0.5, 0.5)},
    ],
)
def test_classes_that_are_no_counts_on_the_grid_are_an_error(fault: dict[str, Any]) -> None:
    for broken in ("p1", "n1", "p2", "n2"):
        values = {}
        for name in ("p1", "n1", "p2", "n2"):
            own = {**SOUND, **fault} if name == broken else SOUND
            values |= {f"{key}_0_{name}": numbers for key, numbers in own.items()}
        with pytest.raises(QueryError, match="counts on the grid"):
            classes_from_query(Query(step="placements", values=values), 1, N_GRID)


def test_one_patient_of_a_class_is_enough_to_ask() -> None:
    one = Bins(np.array([0, 4]), np.array([0, 1]), N_GRID)
    none = Bins(np.array([0, 4]), np.array([0, 0]), N_GRID)
    assert has_both_classes((one, one, one, one))
    assert not has_both_classes((one, one, one, none))


def test_classes_that_cannot_hold_the_sites_patients_are_answered_for_nobody() -> None:
    first, second, positive = own_tests(5)
    whole = classes_of((first, second, positive))

    def behind(*classes: Bins) -> int:
        pair = (classes[0], classes[1], classes[2], classes[3])
        return site_sums([(first, second, positive)], [pair])[1].row_groups[0]

    fewest = min(int(bins.counts[bins.counts > 0].min()) for bins in whole)
    assert behind(*whole) == fewest > 0
    for number in range(4):
        fewer = whole[number].counts.copy()
        fewer[np.argmax(fewer)] -= 1
        # A thousand times as many patients as the site has, and one more.
        more = whole[number].counts * 1000
        beyond = more.copy()
        beyond[-1] += 1
        for counts, expected in ((fewer, 0), (more, fewest), (beyond, 0)):
            changed = list(whole)
            changed[number] = Bins.on_grid(counts)
            assert behind(*changed) == expected


def test_a_site_that_withholds_a_class_of_the_sums_is_left_out() -> None:
    classes = (*fine_classes(40, 0.05, True), *fine_classes(40, 0.2, True))
    (given,) = sums_of(classes)
    rows, alone = (rows_of(tables, 0, classes) for tables in ([given, ((), given[1])], [given]))
    assert rows == alone
    assert {row.status for row in rows_of([((), given[1])], 0, classes).values()} == {
        RowStatus.ERROR
    }
