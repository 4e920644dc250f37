"""Columns of a design by hand, and what the gate is told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close
from plans import draw_exams, plan

from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.protocol import CoxSpec
from fedcac.statistics.design import Design, design_evidence, design_of


def designed(*covariates: str, **changes: Any) -> Design:
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=covariates, **changes)
    return design_of(spec, plan((spec,)))


def test_every_kind_of_column_by_hand() -> None:
    exams = draw_exams(
        1,
        6,
        age=np.array([40.0, 50, 60, 70, 80, 90]),
        sex=np.array([0.0, 1, 1, 0, 1, 0]),
        vendor=np.array([0.0, 1, 2, 0, 1, 2]),
        index_score=np.array([0.0, 1, 10, 100, 400, 401]),
    )
    design = designed("age", "sex", "vendor", risk_category="index", log_score="index")
    assert design.terms == (
        *("age", "sex", "vendor=b", "vendor=c"),
        *("1-10", "11-100", "101-400", ">400", "ln(index_score+1)"),
    )
    columns = [
        [4, 5, 6, 7, 8, 9],
        [0, 1, 1, 0, 1, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
        np.log([1, 2, 11, 101, 401, 402]),
    ]
    np.testing.assert_allclose(design.matrix(exams), np.transpose(columns))
    assert [column.is_indicator for column in design.columns] == [False, *[True] * 7, False]
    assert [list(range(9))[model] for model in design.models()] == [list(range(9))]


def test_a_series_has_a_model_per_covariate() -> None:
    design = designed("age", "vendor", risk_category="index", log_score="index", univariable=True)
    models = [list(range(8))[model] for model in design.models()]
    assert models == [[0], [1, 2], [3, 4, 5, 6], [7]]


def test_gaps_are_a_column_of_their_own() -> None:
    gap = np.nan
    exams = draw_exams(
        1,
        5,
        age=np.array([40.0, gap, 60, gap, 80]),
        vendor=np.array([gap, 1, 2, 0, gap]),
        sex=np.array([0.0, 1, 1, 0, 0]),
    )
    design = designed("age", "vendor", "sex", missing="indicator")
    assert design.terms == (
        *("age", "age=missing", "vendor=b", "vendor=c", "vendor=missing"),
        *("sex", "sex=missing"),
    )
    columns = [
        [4, 0, 6, 0, 8],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 0, 0, 0, 1],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    x = design.matrix(exams)
    np.testing.assert_array_equal(x, np.transpose(columns))
    # One patient has vendor b; that nobody's sex is missing is said of nobody.
    assert design.evidence(x, np.zeros(7)).smallest_group == 1
    assert [column.is_gap for column in design.columns] == [
        *(False, True, False, False, True, False, True)
    ]
    # A vendor whom nobody has is a group of nobody all the same.
    assert design.evidence(np.delete(x, 1, axis=0), np.zeros(7)).smallest_group == 0
    # A single gap is somebody's.
    one = designed("age", "sex", missing="indicator")
    rows = one.matrix(exams.with_column("age", np.array([40.0, 50, 60, gap, 80])))
    assert one.evidence(rows, np.zeros(4)).smallest_group == 1
    none = one.matrix(exams.with_column("age", np.array([40.0, 50, 60, 70, 80])))
    assert one.evidence(none, np.zeros(4)).smallest_group == 2


def test_a_covariate_that_a_site_lacks_is_missing_for_all() -> None:
    exams = draw_exams(1, 4)
    columns = {name: exams.column(name) for name in exams.columns if name != "vendor"}
    lacking = Exams(columns=columns, keys=exams.keys)
    x = designed("vendor", missing="indicator").matrix(lacking)
    np.testing.assert_array_equal(x, [[0, 0, 1]] * 4)


@pytest.mark.parametrize(
    ("name", "value"), [("sex", 2.0), ("sex", 0.5), ("sex", -1.0), ("vendor", 3.0)]
)
def test_a_code_that_is_none_of_the_levels(name: str, value: float) -> None:
    exams = draw_exams(1, 5, **{name: np.array([0.0, 1, 0, value, 1])})
    with pytest.raises(TableError) as caught:
        designed(name).matrix(exams)
    assert caught.value.code == "table.unknown_level"


def test_the_smaller_side_of_the_smallest_indicator() -> None:
    x = np.array([[1.0, 1, 1], [1, 1, 3], [1, 0, 5], [0, 0, 7], [1, 0, 9]])
    evidence = design_evidence(x, np.array([2.0, -3.0, 0.5]), np.array([True, True, False]))
    assert (evidence.smallest_group, evidence.n_parameters) == (1, 3)
    # Standard deviations 0.4, 0.6^(1/2) 0.4^(1/2) and 8^(1/2).
    assert_close(evidence.parameter_norm, 3 * 0.24**0.5)
    flags = np.array([False, True, False])
    assert design_evidence(x, np.zeros(3), flags).smallest_group == 2
    assert design_evidence(x, np.zeros(3), ~flags & False).smallest_group is None
