"""Outlined regions: hostile property lists are refused, and polygons become the right pixels."""

from __future__ import annotations

import math
import plistlib
from typing import Any

import numpy as np
import pytest

from fedcac.errors import CohortError
from fedcac.imaging.roi_annotation import rasterise_polygon, read_annotation
from fedcac.vocabulary import Vessel

SQUARE = ["(2.0, 3.0)", "(5.0, 3.0)", "(5.0, 7.0)", "(2.0, 7.0)"]


def region(**changes: Any) -> dict[str, Any]:
    whole = {
        "Area": 0.12,
        "Max": 512.0,
        "Name": "Left Anterior Descending Artery",
        "NumberOfPoints": 4,
        "Point_px": SQUARE,
        "Type": 11,
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def annotation(*regions: dict[str, Any], index: Any = 4) -> bytes:
    image = {"ImageIndex": index, "NumberOfROIs": len(regions), "ROIs": list(regions)}
    return plistlib.dumps({"Images": [image]})


def winds_around(points: np.ndarray, x: float, y: float) -> bool:
    """The angle under which the outline is seen adds up to a full turn inside, to none outside."""
    angles = np.arctan2(points[:, 1] - y, points[:, 0] - x)
    steps = np.diff(np.append(angles, angles[0]))
    steps = (steps + math.pi) % (2 * math.pi) - math.pi
    return abs(float(steps.sum())) > math.pi


@pytest.mark.parametrize("seed", range(12))
def test_pixels_are_those_whose_centre_the_outline_winds_around(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 14))
    angles = np.sort(rng.uniform(0, 2 * math.pi, n))
    radii = rng.uniform(1.5, 14, n)
    centre = rng.uniform(-2, 22, 2)
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = rasterise_polygon(points, (18, 21))
    expected = [[winds_around(points, c + 0.5, r + 0.5) for c in range(21)] for r in range(18)]
    np.testing.assert_array_equal(found, expected)
    # The outline has no direction and no first corner.
    np.testing.assert_array_equal(found, rasterise_polygon(points[::-1], (18, 21)))
    np.testing.assert_array_equal(found, rasterise_polygon(np.roll(points, 2, axis=0), (18, 21)))


def test_a_pixel_reaches_from_its_index_to_the_next() -> None:
    points = np.array([[2, 3], [5, 3], [5, 7], [2, 7]], dtype=float)
    found = rasterise_polygon(points, (10, 10))
    expected = np.zeros((10, 10), dtype=bool)
    expected[3:7, 2:5] = True
    np.testing.assert_array_equal(found, expected)
    nudged = rasterise_polygon(points + 0.49, (10, 10))
    np.testing.assert_array_equal(nudged, expected)
    assert not np.array_equal(rasterise_polygon(points + 0.51, (10, 10)), expected)


@pytest.mark.parametrize("seed", range(6))
def test_neighbours_share_no_pixel_and_leave_none_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Fans of triangles in a square, with corners on pixel centres: edges go through many of them.
    middle = rng.integers(2, 10, 2) + 0.5
    corners = np.array([[0.5, 0.5], [12.5, 0.5], [12.5, 12.5], [0.5, 12.5]])
    covered = np.zeros((14, 14), dtype=int)
    for index in range(4):
        triangle = np.array([corners[index], corners[(index + 1) % 4], middle])
        covered += rasterise_polygon(triangle, (14, 14))
    np.testing.assert_array_equal(covered, rasterise_polygon(corners, (14, 14)).astype(int))
    assert covered.sum() == 144


def test_what_has_no_area_or_lies_beyond_the_image_is_empty() -> None:
    assert not rasterise_polygon(np.zeros((0, 2)), (8, 8)).any()
    assert not rasterise_polygon(np.array([[1.0, 1.0], [6.0, 6.0]]), (8, 8)).any()
    far = np.array([[20.0, 20.0], [30.0, 20.0], [30.0, 30.0]])
    assert not rasterise_polygon(far, (8, 8)).any()
    around = np.array([[-5.0, -5.0], [50.0, -5.0], [50.0, 50.0], [-5.0, 50.0]])
    assert rasterise_polygon(around, (8, 8)).all()
    with pytest.raises(ValueError, match="finite"):
        rasterise_polygon(np.array([[0.0, 0.0], [math.nan, 1.0], [2.0, 2.0]]), (8, 8))


def test_regions_are_read_and_empty_ones_counted() -> None:
    other = region(Name=" right coronary artery ", Max=..., Point_px=["(1,2)", "(3e0, 2)", "(2,4)"])
    found = read_annotation(annotation(region(), region(Point_px=[]), other))
    assert found.n_empty == 1
    first, second = found.polygons
    assert (first.image_index, first.vessel, first.maximum) == (4, Vessel.LAD, 512.0)
    assert first.points_px.tolist() == [[2, 3], [5, 3], [5, 7], [2, 7]]
    assert (second.vessel, second.maximum) == (Vessel.RCA, None)
    assert second.points_px.tolist() == [[1, 2], [3, 2], [2, 4]]
    assert read_annotation(plistlib.dumps({"Images": []})).polygons == ()


def test_names_of_the_four_vessels() -> None:
    names = {
        "Left Coronary Artery": Vessel.LM,
        "Left Anterior Descending Artery": Vessel.LAD,
        "Left Circumflex Artery": Vessel.LCX,
        "Right Coronary Artery": Vessel.RCA,
    }
    for name, vessel in names.items():
        assert read_annotation(annotation(region(Name=name))).polygons[0].vessel is vessel


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<plist version="1.0"><dict><key>Images</key><string>&c;</string></dict></plist>"""

THEFT = b"""<?xml version="1.0"?>
<!DOCTYPE plist [<!ENTITY file SYSTEM "file:///etc/hostname">]>
<plist version="1.0"><dict><key>Images</key><string>&file;</string></dict></plist>"""


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        THEFT,
        b"",
        b"not xml",
        b"<plist><dict><key>Images</key></dict></plist>",
        b"<plist></plist>",
        b"<plist><integer>" + b"9" * 5000 + b"</integer></plist>",
        b"<plist><date>yesterday</date></plist>",
        b"<plist>" + b"<array>" * 3000,
        b'<?xml version="1.0" encoding="nonsense"?><plist><dict/></plist>',
        plistlib.dumps({"Images": []}, fmt=plistlib.FMT_BINARY),
        plistlib.dumps([1, 2]),
        plistlib.dumps({"Images": {"ROIs": []}}),
        plistlib.dumps({"Images": ["text"]}),
        plistlib.dumps({"Images": [{"ImageIndex": 1}]}),
        annotation(region(), index="4"),
        annotation(region(), index=True),
        annotation(region(), index=-1),
        annotation(region(), index=1.5),
        annotation(region(Point_px="(1, 2)")),
        annotation(region(Point_px=[1, 2, 3])),
        annotation(region(Point_px=["(1, 2)", "(nan, 2)", "(2, 3)"])),
        annotation(region(Point_px=["(1, 2)", "(inf, 2)", "(2, 3)"])),
        annotation(region(Point_px=["(1, 2)", "(1, 2, 3)", "(2, 3)"])),
        annotation(region(Point_px=["(1, 2)", "__import__('os')", "(2, 3)"])),
        annotation(region(Point_px=["(1, 2)"] * 100_001)),
        annotation(region(Max=math.nan)),
        annotation(region(Max="512")),
        annotation(region(Max=True)),
    ],
)
def test_what_is_no_annotation_is_refused_with_one_code(content: bytes) -> None:
    with pytest.raises(CohortError) as caught:
        read_annotation(content)
    assert caught.value.code == "cohort.bad_annotation"
    assert "hostname" not in str(caught.value)


def test_another_name_is_not_a_vessel() -> None:
    for name in ("Aorta", "", 3, ...):
        with pytest.raises(CohortError) as caught:
            read_annotation(annotation(region(Name=name)))
        assert caught.value.code == "cohort.unknown_vessel"
    # A region that encloses nothing needs no name.
    assert read_annotation(annotation(region(Name="?", Point_px=[]))).n_empty == 1


def test_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcac.imaging.roi_annotation._MAXIMUM_BYTES", 100)
    with pytest.raises(CohortError, match="larger"):
        read_annotation(annotation(region()))
