"""The second stage's features against a flood fill that knows one pixel at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcac.models.second_stage_features import FEATURE_NAMES, N_SLICES, summarise_exam

SPACING_MM = (5.0, 0.5, 0.75)
PIXEL_MM2 = 0.375


def lesions_of(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the 8-connected groups of a slice's pixels, by flood fill."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    groups = []
    while left:
        waiting, group = [left.pop()], []
        while waiting:
            row, column = waiting.pop()
            group.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            waiting.extend(near)
        groups.append(group)
    return groups


def slow_features(hu: NDArray[np.float32], vessel_map: NDArray[np.uint8]) -> list[float]:
    rows = []
    for image, labels in zip(hu, vessel_map, strict=True):
        lesions = lesions_of(labels > 0)
        peaks = [max(float(image[pixel]) for pixel in lesion) for lesion in lesions]
        areas = [len(lesion) * PIXEL_MM2 for lesion in lesions]
        if lesions:
            weighted = sum(area * peak for area, peak in zip(areas, peaks, strict=True))
            rows.append((sum(areas), weighted, max(peaks), float(len(lesions))))
    rows.sort(reverse=True)
    rows += [(0.0, 0.0, 0.0, 0.0)] * N_SLICES
    return [
        value
        for area, weighted, peak, count in rows[:N_SLICES]
        for value in (area, peak, weighted, count)
    ]


def random_exam(
    seed: int, density: float, n_slices: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    hu = np.rint(rng.normal(150, 120, (n_slices, 14, 11))).astype(np.float32)
    share = rng.random(n_slices)[:, None, None] * density
    labels = rng.integers(1, 5, hu.shape) * (rng.random(hu.shape) < share)
    return hu, labels.astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.005, 0.05, 0.4, 1.0]),
    n_slices=st.integers(1, 9),
)
def test_features_are_those_of_a_flood_fill(seed: int, density: float, n_slices: int) -> None:
    hu, vessel_map = random_exam(seed, density, n_slices)
    found = summarise_exam(hu, vessel_map, SPACING_MM)
    assert found.shape == (len(FEATURE_NAMES),) == (20,)
    np.testing.assert_allclose(found, slow_features(hu, vessel_map), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shift=st.tuples(st.integers(-6, 6), st.integers(-7, 7), st.integers(-7, 7)),
)
def test_neither_whole_voxel_shifts_nor_the_slice_order_nor_the_vessel_matter(
    seed: int, shift: tuple[int, int, int]
) -> None:
    hu, vessel_map = (np.pad(array, 8) for array in random_exam(seed, 0.2))
    features = summarise_exam(hu, vessel_map, SPACING_MM)
    moved = (np.roll(array, shift, axis=(0, 1, 2)) for array in (hu, vessel_map))
    np.testing.assert_allclose(summarise_exam(*moved, SPACING_MM), features, rtol=1e-12)
    reversed_ = (np.ascontiguousarray(array[::-1]) for array in (hu, vessel_map))
    np.testing.assert_allclose(summarise_exam(*reversed_, SPACING_MM), features, rtol=1e-12)
    one_vessel = (vessel_map > 0).astype(np.uint8)
    np.testing.assert_array_equal(summarise_exam(hu, one_vessel, SPACING_MM), features)


def test_a_written_out_exam() -> None:
    hu = np.zeros((3, 10, 10), dtype=np.float32)
    vessel_map = np.zeros(hu.shape, dtype=np.uint8)
    # A diagonal pair is one lesion; a second lesion lies apart; the third slice has most area.
    for index, row, column, value in [(0, 1, 1, 200), (0, 2, 2, 300), (0, 7, 7, 150)]:
        hu[index, row, column], vessel_map[index, row, column] = value, 2
    hu[2, 3:5, 3:5], vessel_map[2, 3:5, 3:5] = 500, 4
    hu[1, 9, 9] = 3000
    features = dict(
        zip(FEATURE_NAMES, summarise_exam(hu, vessel_map, (5.0, 1.0, 0.5)), strict=True)
    )
    assert [features[f"slice_1_{name}"] for name in ("area_mm2", "peak_hu")] == [2.0, 500.0]
    assert features["slice_1_weighted_area_mm2_hu"] == 1000.0
    assert features["slice_1_n_lesions"] == 1
    assert [features[f"slice_2_{name}"] for name in ("area_mm2", "peak_hu")] == [1.5, 300.0]
    assert features["slice_2_weighted_area_mm2_hu"] == 1.0 * 300 + 0.5 * 150
    assert features["slice_2_n_lesions"] == 2
    assert all(value == 0 for name, value in features.items() if name[6] in "345")


def test_an_exam_without_calcium_is_zeros_even_where_voxels_are_dense() -> None:
    hu = np.full((6, 8, 8), 900, dtype=np.float32)
    features = summarise_exam(hu, np.zeros(hu.shape, dtype=np.uint8), SPACING_MM)
    np.testing.assert_array_equal(features, np.zeros(20))


def test_what_cannot_be_summed_up_is_refused() -> None:
    hu = np.zeros((2, 4, 4), dtype=np.float32)
    vessel_map = np.ones(hu.shape, dtype=np.uint8)
    with pytest.raises(ValueError, match="3-D"):
        summarise_exam(hu, vessel_map[:1], SPACING_MM)
    with pytest.raises(ValueError, match="positive"):
        summarise_exam(hu, vessel_map, (5.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="0 to 4"):
        summarise_exam(hu, vessel_map * 5, SPACING_MM)
    hu[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        summarise_exam(hu, vessel_map, SPACING_MM)
    vessel_map[1, 2, 3] = 0
    assert np.isfinite(summarise_exam(hu, vessel_map, SPACING_MM)).all()
