"""The overlay page: self-contained, faithful to the mask, and told apart by every reader."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fedcac.imaging import Volume
from fedcac.imaging.review_artefacts import (
    RESEARCH_USE,
    ModelIdentity,
    ReviewedLesion,
    ReviewedScore,
)
from fedcac.imaging.review_artefacts.content import TERRITORIES
from fedcac.imaging.review_artefacts.drawing import crop_around, outline, picture
from fedcac.imaging.review_artefacts.overlay import render_overlay
from fedcac.vocabulary import Vessel

Array = np.ndarray[Any, Any]
MODEL = ModelIdentity("some-model", "1.2.3", "sha256:" + "0f" * 32, is_demonstration=False)


class Page(HTMLParser):
    """Every tag of a page, with its attributes, and every text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def volume(n_slices: int = 6, size: int = 400) -> Volume:
    hu = np.full((n_slices, size, size), 40, dtype=np.float32)
    return Volume(hu, (3.0, 0.5, 0.5), 3.0, (0.0, 0.0, 90.0), 120.0)


def score(lesions: tuple[ReviewedLesion, ...] = (), **changes: Any) -> ReviewedScore:
    values: dict[str, Any] = {
        "total": 61.25,
        "vessels": dict.fromkeys(Vessel, 0.0) | {Vessel.LAD: 61.25},
        "volume_mm3": 50.0,
        "mass_mg": None,
        "lesions": lesions,
        "profile": "agatston1990",
        "category": "11-100",
    }
    return ReviewedScore(**(values | changes))


def marked() -> tuple[Volume, Array]:
    exam = volume()
    vessel_map = np.zeros(exam.hu.shape, dtype=np.uint8)
    vessel_map[2, 200:204, 190:196] = 2
    vessel_map[4, 150:152, 300:302] = 4
    exam.hu[vessel_map > 0] = 400
    return exam, vessel_map


def test_the_page_needs_nothing_from_anywhere() -> None:
    html = render_overlay(*marked(), score(), MODEL, "k1")
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,"))
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[^\"]+", "", html))


def test_every_picture_has_words_and_every_reference_a_target() -> None:
    page = Page(render_overlay(*marked(), score(), MODEL, "k1"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    # Bare, outlined and one close-up for each of two slices.
    assert len(pictures) == 6
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "use"}
    assert targets == {f"#{name}" for name in ids}


def test_the_page_says_whose_it_is_what_made_it_and_what_it_is_not_for() -> None:
    lesion = ReviewedLesion(2, Vessel.LAD, 6.0, 400.0, 4, 61.25)
    page = Page(render_overlay(*marked(), score((lesion,)), MODEL, "k1"))
    text = " ".join(page.texts)
    assert text.count(RESEARCH_USE) == 2
    for expected in ("Exam k1", "61.2", "11-100", MODEL.digest, "agatston1990", "Slice 3 of 6"):
        assert expected in text
    assert "Mass not known: no calibration" in text
    assert "nothing counts here" in text  # the other slice is marked, and has no counted lesion
    assert "Demonstration" not in text


def test_words_of_a_package_are_text_and_nothing_else() -> None:
    hostile = ModelIdentity("<script>x</script>", '"><b>', "sha256:'&", is_demonstration=True)
    html = render_overlay(*marked(), score(), hostile, "k1")
    assert "<script" not in html
    assert "<b>" not in html
    assert "Demonstration model" in html


def test_a_mask_of_a_thousand_specks_is_still_a_page() -> None:
    exam = volume()
    vessel_map = np.zeros(exam.hu.shape, dtype=np.uint8)
    vessel_map[1, ::4, ::4] = 3
    lesions = tuple(ReviewedLesion(1, Vessel.LCX, 1.0, 150.0, 1, 1.0) for _ in range(40))
    page = Page(render_overlay(exam, vessel_map, score(lesions), MODEL, "k1"))
    text = " ".join(page.texts)
    assert "and 28 smaller lesions" in text
    assert "the 4 largest of 10000 marks" in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 6


def test_an_unmarked_exam_shows_whole_slices_from_top_to_bottom() -> None:
    exam = volume(n_slices=30, size=20)
    page = Page(render_overlay(exam, np.zeros((30, 20, 20), np.uint8), score(), MODEL, "k1"))
    numbers = [int(n) for n in re.findall(r"Slice (\d+) of 30", " ".join(page.texts))]
    assert len(numbers) == 12
    assert numbers == sorted(numbers)
    assert max(np.diff(numbers)) - min(np.diff(numbers)) <= 1
    few = render_overlay(volume(3, 20), np.zeros((3, 20, 20), np.uint8), score(), MODEL, "k1")
    assert few.count("<figure>") == 3


def test_the_window_is_that_of_soft_tissue() -> None:
    hu = np.array([[-1024, -160, -60, 40, 140, 240, 3000]], dtype=np.float32)
    content = base64.b64decode(picture(hu).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "L"
        assert image.info == {}
        assert np.asarray(image).tolist() == [[0, 0, 64, 128, 191, 255, 255]]


def test_the_crop_holds_every_mark_with_tissue_around_it() -> None:
    vessel_map = np.zeros((3, 512, 400), dtype=np.uint8)
    vessel_map[0, 300, 200] = vessel_map[2, 310, 5] = 1
    crop = crop_around(vessel_map, (3.0, 0.5, 1.0))
    assert crop.left == 0
    assert crop.right >= 200 + 30
    assert crop.top <= 300 - 2 * 30
    assert crop.bottom >= 311 + 2 * 30
    assert crop.height_mm >= 130
    assert (crop.of(vessel_map[0]) > 0).sum() == 1


@given(arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
@settings(max_examples=60, deadline=None)
def test_an_outline_encloses_exactly_its_mask(mask: Array) -> None:
    # The oracle: a point is inside where a ray to its left crosses an odd number of upright edges.
    row_mm, column_mm = 2.0, 0.5
    edges = [
        (float(x), float(y), float(length))
        for x, y, length in re.findall(
            r"M([\d.]+) ([\d.]+)v([\d.]+)", outline(mask, row_mm, column_mm)
        )
    ]
    for (row, column), is_inside in np.ndenumerate(mask):
        x, y = (column + 0.5) * column_mm, (row + 0.5) * row_mm
        crossed = sum(edge < x and top < y < top + length for edge, top, length in edges)
        assert crossed % 2 == is_inside
    level = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", outline(mask, row_mm, column_mm))
    padded = np.pad(mask, 1).astype(int)
    n_level = np.abs(np.diff(padded, axis=0)).sum()
    assert sum(float(length) for *_, length in level) == pytest.approx(n_level * column_mm)


# Simulated at full severity: Machado, Oliveira and Fernandes 2009, 10.1109/TVCG.2009.113.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab_of(colour: str, vision: Array) -> Array:
    encoded = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(vision @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION.values(), ids=VISION.keys())
def test_colour_blind_readers_tell_vessels_apart(vision: Array) -> None:
    # A difference of about 2 is just visible; 20 is another colour.
    seen = {t.abbreviation: lab_of(t.colour, vision) for t in TERRITORIES}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)
