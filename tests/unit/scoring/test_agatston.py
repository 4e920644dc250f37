"""Agatston scoring: the unit cases on which implementations differ, and a plain reference loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from fedcac.errors import UsageError
from fedcac.scoring import ScoringProfile, profile_named, score_volume
from fedcac.vocabulary import Vessel

AGATSTON = profile_named("agatston1990")
LAD = 2


def volume_with(*lesions: tuple[int, int, int, int, float]) -> NDArray[np.float32]:
    """Return an 8 x 32 x 32 volume of 0 HU with square lesions (slice, row, column, size, HU)."""
    hu = np.zeros((8, 32, 32), dtype=np.float32)
    for index, row, column, size, value in lesions:
        hu[index, row : row + size, column : column + size] = value
    return hu


def score(
    hu: NDArray[np.float32],
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    profile: ScoringProfile = AGATSTON,
    vessel_map: NDArray[np.uint8] | None = None,
) -> float:
    mask = np.full(hu.shape, LAD, dtype=np.uint8) if vessel_map is None else vessel_map
    return score_volume(hu, mask, spacing_mm, profile).total


@pytest.mark.parametrize(
    ("peak_hu", "factor"),
    [(129.9, 0), (130, 1), (199, 1), (200, 2), (299, 2), (300, 3), (399, 3), (400, 4), (1500, 4)],
)
def test_density_factor_at_its_edges(peak_hu: float, factor: int) -> None:
    assert score(volume_with((2, 4, 4, 2, peak_hu))) == 4 * factor


def test_threshold_is_exclusive_in_the_eng_profile() -> None:
    hu = volume_with((2, 4, 4, 2, 130.0))
    assert score(hu, profile=profile_named("eng2021")) == 0
    assert score(hu + 0.1, profile=profile_named("eng2021")) == 4


def test_lesion_under_one_square_millimetre_is_dropped_and_exactly_one_is_kept() -> None:
    one_pixel = volume_with((2, 4, 4, 1, 250.0))
    four_pixels = volume_with((2, 4, 4, 2, 250.0))
    assert score(one_pixel, (3.0, 0.5, 0.5)) == 0
    assert score(four_pixels, (3.0, 0.5, 0.5)) == pytest.approx(2.0)
    assert score(one_pixel, (3.0, 0.5, 0.5), profile_named("siemens")) == pytest.approx(0.5)


def test_minimum_pixels_of_the_canon_profile() -> None:
    hu = volume_with((2, 4, 4, 1, 250.0), (2, 20, 20, 2, 250.0))
    assert score(hu, profile=profile_named("canon")) == 8


def test_diagonal_pixels_are_one_lesion_with_eight_neighbours_and_two_with_four() -> None:
    hu = volume_with((2, 4, 4, 1, 450.0), (2, 5, 5, 1, 150.0))
    eight = score_volume(hu, np.full(hu.shape, LAD, np.uint8), (3.0, 1.0, 1.0), AGATSTON)
    four = score_volume(hu, np.full(hu.shape, LAD, np.uint8), (3.0, 1.0, 1.0), profile_named("ge"))
    assert (eight.n_lesions, eight.total) == (1, 8)
    assert (four.n_lesions, four.total) == (2, 5)


@pytest.mark.parametrize("increment_mm", [1.5, 2.5, 3.0, 5.0])
def test_score_scales_with_the_slice_increment(increment_mm: float) -> None:
    hu = volume_with((2, 4, 4, 3, 250.0))
    assert score(hu, (increment_mm, 1.0, 1.0)) == pytest.approx(18 * increment_mm / 3)
    assert score(hu, (increment_mm, 1.0, 1.0), profile_named("eng2021")) == pytest.approx(18)


def test_each_slice_of_a_lesion_has_its_own_peak() -> None:
    hu = volume_with((2, 4, 4, 2, 150.0), (3, 4, 4, 2, 450.0))
    assert score(hu) == 4 * 1 + 4 * 4


def test_a_lesion_across_two_vessels_belongs_to_the_one_with_most_voxels() -> None:
    hu = volume_with((2, 4, 4, 4, 250.0))
    mask = np.zeros(hu.shape, dtype=np.uint8)
    mask[:, :, :5], mask[:, :, 5:] = 1, 3
    scored = score_volume(hu, mask, (3.0, 1.0, 1.0), AGATSTON)
    assert scored.vessels == {
        Vessel.LM: 0,
        Vessel.LAD: 0,
        Vessel.LCX: 32,
        Vessel.RCA: 0,
    }
    assert scored.total == 32


def test_order_of_slices_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    hu = rng.normal(100, 80, (8, 32, 32)).astype(np.float32)
    assert score(hu) == pytest.approx(score(hu[::-1].copy()))


def test_mass_is_none_without_a_calibration_and_never_zero() -> None:
    hu = volume_with((2, 4, 4, 2, 250.0))
    mask = np.full(hu.shape, LAD, dtype=np.uint8)
    assert score_volume(hu, mask, (3.0, 1.0, 1.0), AGATSTON).mass_mg is None
    calibrated = score_volume(hu, mask, (3.0, 1.0, 1.0), AGATSTON, calibration_mg_per_hu_mm3=0.0008)
    assert calibrated.mass_mg == pytest.approx(0.0008 * 250 * 12)
    assert calibrated.volume_mm3 == pytest.approx(12)


def test_threshold_follows_the_tube_voltage_only_where_the_profile_says_so() -> None:
    hu = volume_with((2, 4, 4, 2, 140.0))
    mask = np.full(hu.shape, LAD, dtype=np.uint8)
    adapted = profile_named("agatston_kvp")
    assert score_volume(hu, mask, (3.0, 1.0, 1.0), adapted, kvp=120).total == 4
    assert score_volume(hu, mask, (3.0, 1.0, 1.0), adapted, kvp=100).total == 0
    assert score_volume(hu, mask, (3.0, 1.0, 1.0), AGATSTON, kvp=100).total == 4
    with pytest.raises(UsageError, match="unknown_kvp"):
        score_volume(hu, mask, (3.0, 1.0, 1.0), adapted, kvp=None)


def test_empty_mask_scores_zero() -> None:
    scored = score_volume(
        volume_with((2, 4, 4, 2, 400.0)), np.zeros((8, 32, 32), np.uint8), (3, 1, 1), AGATSTON
    )
    assert (scored.total, scored.n_lesions, scored.volume_mm3) == (0, 0, 0)


def test_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="agatston1990"):
        profile_named("agatson")


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="3-D"):
        score_volume(
            np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 5), np.uint8), (3, 1, 1), AGATSTON
        )


def plain_score(
    hu: NDArray[np.float32], mask: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> float:
    """Score slice by slice and lesion by lesion, as the textbook says."""
    total = 0.0
    for index in range(hu.shape[0]):
        labels, count = ndimage.label((hu[index] >= 130) & (mask[index] > 0), np.ones((3, 3)))
        for lesion in range(1, count + 1):
            pixels = labels == lesion
            area = float(pixels.sum()) * spacing[1] * spacing[2]
            peak = float(hu[index][pixels].max())
            if area >= 1.0:
                total += area * (1 + (peak >= 200) + (peak >= 300) + (peak >= 400)) * spacing[0] / 3
    return total


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), increment=st.sampled_from([0.6, 1.5, 3.0, 5.0]))
def test_agrees_with_a_plain_loop(seed: int, increment: float) -> None:
    rng = np.random.default_rng(seed)
    hu = rng.normal(90, 110, (4, 20, 24)).astype(np.float32)
    mask = (rng.integers(0, 5, hu.shape) * (rng.random(hu.shape) < 0.7)).astype(np.uint8)
    spacing = (increment, 0.7, 0.7)
    assert score(hu, spacing, vessel_map=mask) == pytest.approx(plain_score(hu, mask, spacing))


def test_qrm_cardiac_insert_scores_as_simulated() -> None:
    """Nine cylinders of 5 / 3 / 1 mm x 800 / 400 / 200 mgHA/cm3 on a 3 mm grid.

    Simulated Agatston score of the insert at 3 mm / 3 mm: 633; the
    position of a cylinder relative to the slices moves it, hence the tolerance.
    """
    pixel, scores = 0.5, []
    for shift in (0.0, 0.75, 1.5, 2.25):
        grid = np.zeros((12 * 6, 128, 256), dtype=np.float32)
        z, y, x = np.mgrid[0 : 12 * 6, 0:128, 0:256]
        for row, density in enumerate((800, 400, 200)):
            for column, diameter in enumerate((5.0, 3.0, 1.0)):
                radius = np.hypot((y - 30 - 30 * row) * pixel, (x - 50 - 60 * column) * pixel)
                is_inside = (radius <= diameter / 2) & (
                    np.abs(z * 0.5 - 18 - shift) <= diameter / 2
                )
                grid[is_inside] = 1.25 * density
        blurred = ndimage.gaussian_filter(grid, (0, 1.2, 1.2))
        hu = 40 + blurred.reshape(12, 6, 128, 256).mean(axis=1)
        scores.append(score(hu.astype(np.float32), (3.0, pixel, pixel)))
    assert np.mean(scores) == pytest.approx(633, rel=0.15)
