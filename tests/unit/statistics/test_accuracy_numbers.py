"""Accuracy from 2x2 tables written out: who counts, what a withheld cell hides, F1's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from plans import draw_exams
from scipy import special
from statsmodels.stats.proportion import proportion_confint

from fedcac.exams import Exams
from fedcac.protocol import AccuracySpec, CategoryScheme
from fedcac.statistics.reitsma import Fallback
from fedcac.vocabulary import BoundaryConvention, CellStatus, Interval, RefusalCode, RowStatus

Table = tuple[int, int, int, int]

TERM = "100"
ONE = CategoryScheme(
    cut_offs=(100.0,), convention=BoundaryConvention.UPPER_INCLUSIVE, labels=("<=100", ">100")
)
THREE: dict[str, Table] = {"a": (30, 9, 7, 44), "b": (21, 4, 15, 61), "c": (17, 8, 5, 23)}


def exams_of(table: Table, seed: int = 1) -> Exams:
    """Return patients whose 2x2 table (tp, fn, fp, tn) at the cut-off of 100 is this one."""
    tp, fn, fp, tn = table
    reference = np.repeat([150.0, 20.0], [tp + fn, fp + tn])
    index = np.repeat([150.0, 20.0, 150.0, 20.0], [tp, fn, fp, tn])
    columns = {"reference_score": reference, "index_score": index}
    return draw_exams(seed, len(index), f"{seed}-", **columns)


def accuracy(tables: dict[str, Table], **how: Any) -> Rows:
    interval = how.pop("interval", Interval.WILSON)
    parts: dict[str, Exams | RefusalCode] = {
        site: exams_of(table, number) for number, (site, table) in enumerate(tables.items())
    }
    parts = {**how.pop("refused", {}), **parts}
    return pool(
        AccuracySpec(id="x", kind="accuracy", interval=interval), parts, categories=ONE, **how
    )


@pytest.mark.parametrize(
    ("interval", "method"), [(Interval.WILSON, "wilson"), (Interval.CLOPPER_PEARSON, "beta")]
)
def test_f1_has_the_interval_of_the_jaccard_index(interval: Interval, method: str) -> None:
    tp, fn, fp, tn = THREE["a"]
    rows = accuracy({"a": THREE["a"]}, interval=interval)
    row = rows["a", "f1", "", TERM]
    j, n = tp / (tp + fn + fp), tp + fn + fp
    limits = proportion_confint(tp, n, method=method)
    assert_close(row.estimate, 2 * tp / (2 * tp + fn + fp))
    assert_close(row.ci_low, 2 * limits[0] / (1 + limits[0]))
    assert_close(row.ci_high, 2 * limits[1] / (1 + limits[1]))
    # d F1 / d J = 2 / (1 + J)^2.
    assert_close(row.se, 2 / (1 + j) ** 2 * (j * (1 - j) / n) ** 0.5)
    assert (row.n, row.ci_method) == (n, interval.value)
    assert rows["a", "accuracy", "", TERM].n == tp + fn + fp + tn


def test_under_engs_interval_f1_is_a_proportion_of_all_patients() -> None:
    tp, fn, fp, tn = THREE["a"]
    row = accuracy({"a": THREE["a"]}, interval=Interval.ENG2021)["a", "f1", "", TERM]
    f1, n = 2 * tp / (2 * tp + fn + fp), tp + fn + fp + tn
    half = 1.96 * (f1 * (1 - f1) / n) ** 0.5
    assert_close(row.ci_low, f1 - half)
    assert_close(row.ci_high, f1 + half)


@pytest.mark.parametrize("hidden", range(4))
def test_a_fraction_is_given_where_all_its_cells_are(hidden: int) -> None:
    def gate(site: str, _: Any, answer: Any) -> Any:
        if site != "b":
            return answer
        cells = tuple(
            tuple(CellStatus.SUPPRESSED if i == hidden else cell for i, cell in enumerate(own))
            for own in answer.two_by_two
        )
        return answer.model_copy(update={"two_by_two": cells})

    rows = accuracy(THREE, change=gate)
    # Of tp, fn, fp, tn: successes, and out of what.
    needed = {
        "sensitivity": ((0,), (0, 1)),
        "specificity": ((3,), (2, 3)),
        "ppv": ((0,), (0, 2)),
        "npv": ((3,), (1, 3)),
        "accuracy": ((0, 3), (0, 1, 2, 3)),
    }
    for measure, (top, bottom) in needed.items():
        row = rows["b", measure, "", TERM]
        sites = "ac" if hidden in bottom else "abc"
        assert row.status is (RowStatus.SUPPRESSED if hidden in bottom else RowStatus.OK)
        pooled = rows["pooled", measure, "", TERM]
        k, n = (sum(THREE[site][cell] for site in sites for cell in own) for own in (top, bottom))
        assert (pooled.n, pooled.status) == (n, RowStatus.OK)
        assert_close(pooled.estimate, k / n)
    for number, cell in enumerate(("tp", "fn", "fp", "tn")):
        row = rows["b", "count", cell, TERM]
        assert row.status is (RowStatus.SUPPRESSED if number == hidden else RowStatus.OK)
        assert row.estimate == (None if number == hidden else THREE["b"][number])


def test_a_site_that_refuses_first_leaves_the_others_their_rows() -> None:
    rows = accuracy(THREE, refused={"z": RefusalCode.TOO_FEW_PATIENTS})
    assert rows["z", "sensitivity", "", TERM].status is RowStatus.SUPPRESSED
    for site, (tp, fn, _, _) in THREE.items():
        assert_close(rows[site, "sensitivity", "", TERM].estimate, tp / (tp + fn))
    assert rows["pooled", "sensitivity", "", TERM].n == sum(t[0] + t[1] for t in THREE.values())


def test_where_every_site_refuses_the_pooled_row_has_the_gravest_status() -> None:
    codes = {"y": RefusalCode.EMPTY_COHORT, "z": RefusalCode.TOO_FEW_PATIENTS}
    rows = accuracy({}, refused=codes)
    assert rows["pooled", "ppv", "", TERM].status is RowStatus.SUPPRESSED
    assert rows["pooled", "count", "tp", TERM].status is RowStatus.SUPPRESSED


def test_a_site_of_one_diseased_patient_is_a_site_and_one_of_none_is_not() -> None:
    tables = {**THREE, "one": (1, 0, 6, 20), "none": (0, 0, 3, 25)}
    rows = accuracy(tables)
    n = sum(t[0] + t[1] for t in tables.values())
    assert rows["meta", "sensitivity", "", TERM].n == n
    assert rows["pooled", "sensitivity", "without one", TERM].n == n - 1
    assert ("pooled", "sensitivity", "without none", TERM) not in rows
    assert ("pooled", "specificity", "without none", TERM) in rows
    row = rows["none", "sensitivity", "", TERM]
    assert (row.status, row.n, numbers(row)) == (RowStatus.NOT_ESTIMABLE, 0, (None,) * 5)
    # Q of the logits, half a patient added where a cell is empty.
    y, v = [], []
    for tp, fn, _, _ in list(tables.values())[:-1]:
        add = 0.5 if 0 in (tp, fn) else 0.0
        y.append(float(np.log((tp + add) / (fn + add))))
        v.append(1 / (tp + add) + 1 / (fn + add))
    w = 1 / np.array(v)
    q = float(w @ (np.array(y) - np.average(y, weights=w)) ** 2)
    row = rows["meta", "q", "sensitivity", TERM]
    assert_close(row.estimate, q)
    assert_close(row.p_value, float(special.chdtrc(3, q)))


def test_the_bivariate_rows_count_patients_of_sites_with_both_classes() -> None:
    rng = np.random.default_rng(3)
    tables: dict[str, Table] = {}
    for number in range(6):
        diseased, healthy = 60 + number, 90 + 2 * number
        tp, tn = int(rng.integers(30, 55)), int(rng.integers(50, 85))
        tables[f"s{number}"] = (tp, diseased - tp, healthy - tn, tn)
    tables |= {"few": (1, 0, 10, 40), "other": (33, 12, 0, 1)}
    tables |= {"missed": (0, 3, 5, 20), "alarms": (25, 6, 2, 0)}
    n = sum(map(sum, tables.values()))
    lacking: dict[str, Table] = {"no": (0, 0, 7, 50), "all": (40, 12, 0, 0)}
    row = accuracy({**tables, **lacking})["meta", "sensitivity", "bivariate", TERM]
    assert (row.n, row.ci_method in ("wald_logit", "singular")) == (n, True)
    without = {site: table for site, table in tables.items() if site != "few"}
    rows = accuracy({**without, **lacking})
    for measure in ("sensitivity", "specificity", "correlation"):
        row = rows["meta", measure, "bivariate", TERM]
        assert (row.ci_method, row.status) == ("few_sites", RowStatus.NOT_ESTIMABLE)


def test_a_bivariate_model_that_did_not_converge_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No data are known that defeat the search.
    monkeypatch.setattr("fedcac.statistics.accuracy.reitsma", lambda _: Fallback.NOT_CONVERGED)
    rows = accuracy(THREE)
    for measure in ("sensitivity", "specificity", "correlation"):
        row = rows["meta", measure, "bivariate", TERM]
        assert (row.status, row.ci_method) == (RowStatus.ERROR, "not_converged")
        assert numbers(row) == (None,) * 5


def test_between_sites_there_is_something_to_say_from_three_sites_on() -> None:
    two = {site: THREE[site] for site in "ab"}
    assert {scope for scope, *_ in accuracy(two)} == {"a", "b", "pooled"}
    three = accuracy(THREE)
    assert {group for scope, measure, group, _ in three if scope == "meta" and measure == "q"} == {
        "sensitivity",
        "specificity",
    }
    left_out = {group for scope, _, group, _ in three if scope == "pooled" and " " in group}
    assert left_out == {"without a", "without b", "without c"}
    row = three["pooled", "specificity", "without b", TERM]
    assert_close(row.estimate, (44 + 23) / (7 + 44 + 5 + 23))
    # Of three sites two have diseased patients: nothing is left out of those.
    rows = accuracy({**two, "none": (0, 0, 6, 30)})
    left_out = {group for _, measure, group, _ in rows if measure == "sensitivity" and group}
    assert left_out == {"bivariate"}


def test_the_mean_of_sites_that_are_all_alike_is_what_they_have() -> None:
    rows = accuracy(dict.fromkeys("abc", (30, 10, 20, 80)))
    assert_close(rows["meta", "sensitivity", "", TERM].estimate, 0.75)
    assert_close(rows["meta", "specificity", "", TERM].estimate, 0.8)
