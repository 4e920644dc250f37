"""Risk categories at their boundaries, under each convention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcac.protocol import CategoryScheme
from fedcac.protocol.categories import category_scores
from fedcac.vocabulary import BoundaryConvention

SCORES = (0.0, 0.5, 1.0, 10.0, 10.4, 10.6, 100.0, 100.4, 400.0, 400.6)


def scheme(convention: BoundaryConvention) -> CategoryScheme:
    return CategoryScheme(
        cut_offs=(1.0, 10.0, 100.0, 400.0),
        convention=convention,
        labels=("0", "1-10", "11-100", "101-400", ">400"),
    )


@pytest.mark.parametrize(
    ("convention", "categories"),
    [
        ("upper_inclusive", (0, 0, 1, 1, 2, 2, 2, 3, 3, 4)),
        ("guideline_ge", (0, 0, 1, 2, 2, 2, 3, 3, 4, 4)),
        ("any_gt0", (0, 1, 1, 1, 2, 2, 2, 3, 3, 4)),
        ("round_first", (0, 1, 1, 1, 1, 2, 2, 2, 3, 4)),
    ],
)
def test_scores_at_boundaries(convention: str, categories: tuple[int, ...]) -> None:
    found = scheme(BoundaryConvention(convention)).categorise(np.array(SCORES))
    assert tuple(found) == categories


@pytest.mark.parametrize("convention", list(BoundaryConvention))
def test_the_score_that_stands_for_a_category_lies_in_it(convention: BoundaryConvention) -> None:
    bands = scheme(convention)
    scores = category_scores(bands)
    assert list(scores) == list(bands.labels)
    found = bands.categorise(np.array(list(scores.values())))
    assert found.tolist() == list(range(bands.n_categories))


@given(
    st.lists(st.floats(0, 5000), min_size=2, max_size=30), st.sampled_from(list(BoundaryConvention))
)
def test_a_higher_score_is_never_in_a_lower_category(
    scores: list[float], convention: BoundaryConvention
) -> None:
    ordered = np.sort(np.array(scores))
    assert np.all(np.diff(scheme(convention).categorise(ordered)) >= 0)


@pytest.mark.parametrize("score", [-1.0, float("nan"), float("inf")])
def test_a_score_without_category_is_an_error(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        scheme(BoundaryConvention.UPPER_INCLUSIVE).categorise(np.array([score]))


@pytest.mark.parametrize(
    ("cut_offs", "labels"),
    [
        ((10.0, 1.0), ("0", "1", "2")),
        ((1.0, 1.0), ("0", "1", "2")),
        ((0.0, 1.0), ("0", "1", "2")),
        ((1.0, 10.0), ("0", "1")),
        ((1.0, 10.0), ("0", "0", "1")),
    ],
)
def test_schemes_that_make_no_sense(cut_offs: tuple[float, ...], labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"cut_offs|labels|cut-offs"):
        CategoryScheme(cut_offs=cut_offs, labels=labels)
