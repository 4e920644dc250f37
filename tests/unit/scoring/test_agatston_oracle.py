"""Every profile against a plain oracle: per slice, flood fill by flood fill, areas as fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcac.scoring import CalciumScore, ScoringProfile, profiles, score_volume
from fedcac.vocabulary import Vessel

# Values at, just below and just above every edge of the threshold and of the density factor.
EDGES_HU = np.array(
    [-1024, 0, 119, 130, 147, 177, 199, 200, 207, 299, 300, 399, 400, 1500], dtype=np.float32
)
HU = np.concatenate([EDGES_HU, np.nextafter(EDGES_HU, -2000), np.nextafter(EDGES_HU, 2000)])
KVP = (70.0, 80.0, 100.0, 120.0, 135.0)

Pixel = tuple[int, int]
PlainLesion = tuple[int, Vessel, int, float, int]


def lesions_in(is_over: NDArray[np.bool_], connectivity: int) -> list[list[Pixel]]:
    """Flood fill one slice, four or eight ways."""
    waiting = {(int(row), int(column)) for row, column in zip(*np.nonzero(is_over), strict=True)}
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if connectivity == 8 or abs(y + x) == 1]
    lesions = []
    while waiting:
        front = [waiting.pop()]
        pixels = []
        while front:
            row, column = front.pop()
            pixels.append((row, column))
            near = {(row + y, column + x) for y, x in steps} & waiting
            waiting -= near
            front += near
        lesions.append(pixels)
    return lesions


def plain_lesions(
    hu: NDArray[np.float32],
    vessel_map: NDArray[np.uint8],
    pixel_mm2: Fraction,
    profile: ScoringProfile,
    threshold_hu: float,
) -> list[PlainLesion]:
    """Return (slice, vessel, pixels, peak, factor) of every lesion that counts."""
    found = []
    for index, (plane, vessels) in enumerate(zip(hu, vessel_map, strict=True)):
        is_over = plane >= threshold_hu if profile.is_inclusive else plane > threshold_hu
        for pixels in lesions_in(is_over & (vessels > 0), profile.connectivity):
            n_pixels = len(pixels)
            if n_pixels < profile.minimum_pixels:
                continue
            if n_pixels * pixel_mm2 < Fraction(profile.minimum_area_mm2):
                continue
            peak = max(float(plane[pixel]) for pixel in pixels)
            votes = [sum(vessels[pixel] == number for pixel in pixels) for number in (1, 2, 3, 4)]
            # The threshold moves the edges of the factor in proportion.
            edges = [Fraction(edge) * Fraction(threshold_hu) / 130 for edge in (200, 300, 400)]
            factor = 1 + sum(Fraction(peak) >= edge for edge in edges)
            vessel = tuple(Vessel)[votes.index(max(votes))]
            found.append((index, vessel, n_pixels, peak, factor))
    return sorted(found)


def agrees_with_the_oracle(
    hu: NDArray[np.float32],
    vessel_map: NDArray[np.uint8],
    spacing: tuple[str, str, str],
    profile: ScoringProfile,
    kvp: float,
) -> CalciumScore:
    """Compare every number of a score; the spacing is decimal text, as DICOM writes it."""
    increment, row, column = (Fraction(value) for value in spacing)
    expected = plain_lesions(hu, vessel_map, row * column, profile, profile.threshold_at(kvp))
    before = hu.copy(), vessel_map.copy()
    scored = score_volume(
        hu,
        vessel_map,
        (float(increment), float(row), float(column)),
        profile,
        kvp=kvp,
        calibration_mg_per_hu_mm3=0.0008,
    )
    pixel_mm2 = float(row) * float(column)
    scale = float(increment) / 3.0 if profile.is_thickness_scaled else 1.0
    assert sorted(
        (one.slice_index, one.vessel, one.area_mm2, one.peak_hu, one.factor, one.score)
        for one in scored.lesions
    ) == sorted(
        (index, vessel, n * pixel_mm2, peak, factor, n * pixel_mm2 * factor * scale)
        for index, vessel, n, peak, factor in expected
    )
    for vessel in Vessel:
        of_vessel = [
            n * row * column * factor * Fraction(scale)
            for _, found, n, _, factor in expected
            if found is vessel
        ]
        assert scored.vessels[vessel] == pytest.approx(float(sum(of_vessel)), rel=1e-12)
    assert scored.total == sum(scored.vessels.values())
    voxel_mm3 = row * column * increment
    n_counted = sum(n for _, _, n, _, _ in expected)
    assert scored.volume_mm3 == pytest.approx(float(n_counted * voxel_mm3), rel=1e-12)
    assert np.array_equal(hu, before[0])
    assert np.array_equal(vessel_map, before[1])
    return scored


@st.composite
def volumes(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw noise of edge values under a map whose vessels touch each other and the borders."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 11), st.integers(1, 11)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.05, 0.3, 0.55, 1.0]))
    hu = np.where(rng.random(shape) < share, rng.choice(HU, shape), np.float32(40))
    vessel_map = rng.integers(1, 5, shape).astype(np.uint8)
    vessel_map[rng.random(shape) > draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))] = 0
    if draw(st.booleans()):
        vessel_map[:, : shape[1] // 2] = 0
    return hu.astype(np.float32), vessel_map


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
@settings(max_examples=60, deadline=None)
@given(
    volume=volumes(),
    # Pixels of which a whole number makes 0.5 and 1 mm2, to the last bit or not quite.
    pixel=st.sampled_from(
        [("0.5", "0.5"), ("0.1", "0.5"), ("0.2", "0.2"), ("0.7", "0.7"), ("1", "1"), ("0.25", "1")]
    ),
    increment=st.sampled_from(["0.6", "1.5", "2.5", "3", "5"]),
    kvp=st.sampled_from(KVP),
)
def test_every_profile_agrees_with_the_plain_oracle(
    profile: ScoringProfile,
    volume: tuple[NDArray[np.float32], NDArray[np.uint8]],
    pixel: tuple[str, str],
    increment: str,
    kvp: float,
) -> None:
    agrees_with_the_oracle(*volume, (increment, *pixel), profile, kvp)


def drawn(*rows: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return one slice of 250 HU where a digit names its vessel, and 0 HU elsewhere."""
    vessel_map = np.array([[[int(digit) for digit in row] for row in rows]], dtype=np.uint8)
    return np.where(vessel_map > 0, np.float32(250), np.float32(0)), vessel_map


SHAPES = {
    "corners": drawn("1003", "0000", "2004"),
    "border": drawn("2222", "2002", "2222"),
    "diagonals": drawn("10010", "02100", "00200"),
    "touching": drawn("1122", "1133", "0044"),
    "comb": drawn("20202", "20202", "22222"),
    "spiral": drawn("33333", "00003", "33303", "30003", "33333"),
    "whole": drawn("4444", "4444"),
}


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("name", SHAPES)
def test_awkward_shapes(name: str, profile: ScoringProfile) -> None:
    scored = agrees_with_the_oracle(*SHAPES[name], ("3", "1", "1"), profile, 120.0)
    assert scored.n_lesions > 0 or (name == "corners" and profile.name == "canon")


@pytest.mark.parametrize(
    ("name", "pixel", "n_pixels"),
    [("ge", "0.1", 100), ("ge", "0.2", 25), ("philips", "0.1", 50), ("canon", "1", 3)],
)
def test_a_lesion_of_exactly_the_minimum_counts_and_one_pixel_less_does_not(
    name: str, pixel: str, n_pixels: int
) -> None:
    (profile,) = (profile for profile in profiles() if profile.name == name)
    for missing, n_lesions in ((0, 1), (1, 0)):
        hu, vessel_map = drawn("2" * (n_pixels - missing) + "0")
        scored = agrees_with_the_oracle(hu, vessel_map, ("3", pixel, pixel), profile, 120.0)
        assert scored.n_lesions == n_lesions


def test_rounding_of_the_spacing_does_not_cost_a_lesion() -> None:
    assert 49 * ((1 / 7) * (1 / 7)) < 1
    (profile,) = (profile for profile in profiles() if profile.name == "agatston1990")
    for n_pixels, n_lesions in ((49, 1), (48, 0)):
        hu, vessel_map = drawn("2" * n_pixels + "0")
        assert score_volume(hu, vessel_map, (3.0, 1 / 7, 1 / 7), profile).n_lesions == n_lesions


@pytest.mark.parametrize("order", ["F", "strided", "reversed"])
def test_memory_layout_changes_nothing(order: str) -> None:
    rng = np.random.default_rng(5)
    hu = rng.choice(HU, (4, 9, 10)).astype(np.float32)
    vessel_map = rng.integers(0, 5, hu.shape).astype(np.uint8)

    def laid_out(array: NDArray[Any]) -> NDArray[Any]:
        if order == "F":
            return np.asfortranarray(array)
        wide = np.repeat(array, 2, axis=2)
        return wide[:, :, ::2] if order == "strided" else array[::-1].copy()[::-1]

    (profile,) = (profile for profile in profiles() if profile.name == "agatston1990")
    plain = score_volume(hu, vessel_map, (3.0, 1.0, 1.0), profile)
    assert score_volume(laid_out(hu), laid_out(vessel_map), (3.0, 1.0, 1.0), profile) == plain


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_an_empty_volume_scores_zero(shape: tuple[int, int, int]) -> None:
    hu, vessel_map = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    scored = score_volume(
        hu, vessel_map, (3.0, 1.0, 1.0), profiles()[0], calibration_mg_per_hu_mm3=0.0008
    )
    assert (scored.total, scored.n_lesions, scored.mass_mg) == (0, 0, 0)


def test_mass_is_the_sum_over_counted_voxels() -> None:
    rng = np.random.default_rng(8)
    hu = rng.uniform(0, 800, (3, 12, 12)).astype(np.float32)
    vessel_map = np.full(hu.shape, 3, np.uint8)
    (profile,) = (profile for profile in profiles() if profile.name == "siemens")
    scored = score_volume(
        hu, vessel_map, (3.0, 0.5, 0.5), profile, calibration_mg_per_hu_mm3=0.0008
    )
    expected = 0.0008 * 0.75 * math.fsum(float(value) for value in hu[hu >= 130])
    assert scored.mass_mg == pytest.approx(expected, rel=1e-12)


def test_a_vessel_out_of_range_is_refused_wherever_it_lies() -> None:
    hu, vessel_map = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)
    vessel_map[2, 3, 3] = 6
    with pytest.raises(ValueError, match="0 to 5"):
        score_volume(hu, vessel_map, (3.0, 1.0, 1.0), profiles()[0])
