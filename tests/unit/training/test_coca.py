"""COCA-shaped folders: regions become vessel maps, and nobody drops out in silence."""

from __future__ import annotations

import plistlib
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest

from fedcac.errors import CohortError, TableError, UsageError
from fedcac.imaging.roi_annotation import read_annotation
from fedcac.imaging.volume import Volume
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.phantom.grid import PhantomExam
from fedcac.training.coca import CocaProblem, GatedExams, vessel_map_of
from fedcac.training.coca_scores import NonGatedExams, read_scores
from fedcac.vocabulary import Vessel

N, SIZE = 6, 32
NAMES = {
    1: "Left Coronary Artery",
    2: "Left Anterior Descending Artery",
    3: "Left Circumflex Artery",
    4: "Right Coronary Artery",
}
Box = tuple[int, int, int, int, int]
"""Slice from the top, first row, row after the last, first column, column after the last."""

LESIONS: dict[int, Box] = {2: (1, 8, 12, 6, 9), 4: (4, 20, 23, 20, 26), 1: (5, 4, 6, 4, 6)}


def volume_with_lesions(seed: int) -> np.ndarray:
    """Soft tissue; every lesion has a peak of its own and a pixel under the threshold."""
    hu = np.random.default_rng(seed).normal(40, 8, (N, SIZE, SIZE)).round().astype(np.float32)
    for label, (s, top, bottom, left, right) in LESIONS.items():
        hu[s, top:bottom, left:right] = 200 + 10 * label
        hu[s, top, left] = 129
        hu[s, bottom - 1, right - 1] = 400 + label
    return hu


def truth_of(hu: np.ndarray) -> np.ndarray:
    truth = np.zeros(hu.shape, dtype=np.uint8)
    for label, (s, top, bottom, left, right) in LESIONS.items():
        truth[s, top:bottom, left:right] = label
        truth[s, top, left] = 0
    return truth


def region(label: int, box: Box, **changes: Any) -> dict[str, Any]:
    _, top, bottom, left, right = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    whole = {
        "Name": NAMES.get(label, "Aorta"),
        "NumberOfPoints": 4,
        "Point_px": [f"({x:f}, {y:f})" for x, y in corners],
        "Max": 400.0 + label,
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def annotation(
    lesions: Mapping[int, Box] = LESIONS, *, is_reversed: bool = False, **changes: Any
) -> bytes:
    images = [
        {
            "ImageIndex": box[0] if is_reversed else N - 1 - box[0],
            "NumberOfROIs": 2,
            "ROIs": [region(label, box, **changes), {"Name": "", "Point_px": []}],
        }
        for label, box in lesions.items()
    ]
    return plistlib.dumps({"Images": images})


def write_exam(folder: Path, hu: np.ndarray, seed: int = 0) -> None:
    exam = PhantomExam(hu, np.zeros(hu.shape, np.uint8), (3.0, 0.7, 0.7), 3.0)
    label = ExamLabel(folder.name, date(1900, 1, 1), is_gated=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_series(folder, exam, label, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def coca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients 0 and 7 are good, 3 has no calcium; every other one has a fault of its own."""
    root = tmp_path_factory.mktemp("coca") / "download" / "Gated_release_final"
    xml = root / "calcium_xml"
    xml.mkdir(parents=True)
    hu = volume_with_lesions(1)
    for patient in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11):
        write_exam(root / "patient" / str(patient) / "Pro_Gated_CS_3.0_I30f", hu, patient)
    good = annotation()
    contents = {
        0: good,
        2: b"<plist><dict>",
        3: plistlib.dumps({"Images": []}),
        4: annotation({0: LESIONS[2]}),
        5: annotation({2: (-94, *LESIONS[2][1:])}),
        6: annotation({2: (1, 8, 40, 6, 9)}),
        7: annotation(is_reversed=True),
        8: annotation(Max=999.0),
        9: good,
        10: good,
        11: plistlib.dumps({"Images": [{"ImageIndex": 0, "ROIs": 5}]}),
    }
    for number, content in contents.items():
        (xml / f"{number}.xml").write_bytes(content)
    broken = next((root / "patient" / "9").rglob("*.dcm"))
    broken.write_bytes(broken.read_bytes()[:-100])
    return root


def test_regions_become_vessel_maps_and_every_patient_is_accounted_for(coca: Path) -> None:
    gated = GatedExams.of(coca.parent)
    assert gated.patients == ("0", "11", "2", "3", "4", "5", "6", "7", "8", "9")
    assert gated.problems == [
        CocaProblem("1", "no_annotation", True),
        CocaProblem("10", "no_images", True),
    ]
    exams = list(gated.exams(gated.patients))
    truth = truth_of(volume_with_lesions(1))
    assert [int(exam.vessel_map.sum()) for exam in exams] == [truth.sum(), 0, truth.sum()]
    for exam in (exams[0], exams[2]):
        np.testing.assert_array_equal(exam.vessel_map, truth)
        assert exam.vessel_map.dtype == np.uint8
        np.testing.assert_array_equal(exam.hu, volume_with_lesions(1))
        assert exam.spacing_mm == (3.0, 0.7, 0.7)
        assert exam.heart_map is None
    codes = {(p.patient, p.code): p.is_left_out for p in gated.problems}
    assert codes == {
        ("0", "empty_region"): False,
        ("1", "no_annotation"): True,
        ("10", "no_images"): True,
        ("11", "bad_annotation"): True,
        ("2", "bad_annotation"): True,
        ("4", "unknown_vessel"): True,
        ("5", "index_outside"): True,
        ("6", "point_outside"): True,
        ("7", "reversed_slices"): False,
        ("7", "empty_region"): False,
        ("8", "slice_order_unclear"): True,
        ("9", "truncated_dicom"): True,
    }
    # Everyone is either used or has a code that says why not.
    left_out = {patient for (patient, _), is_left_out in codes.items() if is_left_out}
    assert left_out | {"0", "3", "7"} == {str(number) for number in range(12)}


def test_the_list_of_problems_is_written(coca: Path, tmp_path: Path) -> None:
    gated = GatedExams.of(coca)
    assert list(gated.exams(["2", "11"])) == []
    gated.write_problems(tmp_path / "problems.csv")
    assert (tmp_path / "problems.csv").read_text().splitlines() == [
        "patient,code,is_left_out",
        "1,no_annotation,true",
        "10,no_images,true",
        "2,bad_annotation,true",
        "11,bad_annotation,true",
    ]


def test_copies_other_sizes_and_leftovers_of_an_archive(coca: Path, tmp_path: Path) -> None:
    hu = volume_with_lesions(1)
    for patient in ("0", "1", "2"):
        write_exam(tmp_path / "a" / "patient" / patient, hu if patient != "2" else hu[:, :30])
    write_exam(tmp_path / "b" / "patient" / "1", hu)
    (tmp_path / "__MACOSX" / "patient" / "0").mkdir(parents=True)
    xml = tmp_path / "calcium_xml"
    xml.mkdir()
    for patient in ("0", "1", "2"):
        (xml / f"{patient}.xml").write_bytes(annotation())
        (xml / f"._{patient}.xml").write_bytes(b"leftover")
    (xml / "3.xml").mkdir()
    write_exam(tmp_path / "a" / "patient" / "3", hu)
    gated = GatedExams.of(tmp_path)
    assert gated.patients == ("0", "2", "3")
    assert len(list(gated.exams(gated.patients))) == 1
    assert [(p.patient, p.code) for p in gated.problems if p.is_left_out] == [
        ("1", "two_copies"),
        ("2", "other_matrix"),
        ("3", "bad_annotation"),
    ]


def test_a_folder_that_is_no_coca(tmp_path: Path) -> None:
    (tmp_path / "patient" / "0").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        GatedExams.of(tmp_path)
    assert caught.value.code == "usage.no_coca"


def mapped(content: bytes, hu: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    volume = Volume(hu, (3.0, 0.7, 0.7), 3.0, (0.0, 0.0, 0.0))
    return vessel_map_of(read_annotation(content), volume)


def test_without_measured_values_indices_count_upwards_unchecked() -> None:
    hu = volume_with_lesions(2)
    found, _ = mapped(annotation(Max=...), hu)
    np.testing.assert_array_equal(found, truth_of(hu))
    downwards, remarks = mapped(annotation(is_reversed=True, Max=...), hu)
    assert not np.array_equal(downwards, truth_of(hu))
    assert "region_without_calcium" in remarks


def test_a_few_odd_measurements_do_not_turn_the_order() -> None:
    hu = volume_with_lesions(2)
    images = plistlib.loads(annotation())
    images["Images"][0]["ROIs"][0]["Max"] = 999.0
    found, remarks = mapped(plistlib.dumps(images), hu)
    np.testing.assert_array_equal(found, truth_of(hu))
    assert remarks == ("empty_region",)


def test_two_vessels_in_one_voxel_are_told() -> None:
    hu = volume_with_lesions(2)
    box = LESIONS[2]
    both = {
        "Images": [
            {
                "ImageIndex": N - 1 - box[0],
                "ROIs": [region(2, box), region(3, (*box[:4], box[4] - 1), Max=230.0)],
            }
        ]
    }
    # The second region's own maximum is not in it, the first one's is.
    both["Images"][0]["ROIs"][1]["Max"] = 220.0  # type: ignore[index]
    found, remarks = mapped(plistlib.dumps(both), hu)
    assert remarks == ("overlapping_regions",)
    assert set(np.unique(found)) == {0, 2, 3}


def test_nothing_of_a_patient_is_in_the_text_of_an_error() -> None:
    hu = volume_with_lesions(2)
    for content in (annotation({2: (-94, *LESIONS[2][1:])}), annotation({2: (1, 8, 40, 6, 9)})):
        with pytest.raises(CohortError) as caught:
            mapped(content, hu)
        assert not any(character.isdigit() for character in caught.value.message)


# --- scores of the non-gated exams ------------------------------------------------------------

HEADER = ["filename ", "LCA", "LAD", "LCX", "RCA", "total"]
ROWS: list[list[Any]] = [
    ["0A", 0, 12.5, 0, 3.5, 16],
    ["1A", 1, 1, 1, 1, 5],
    ["2A", 0, 0, 0, 0, 0],
    ["3A", 0, "x", 0, 0, 0],
    ["4A", 0, -1, 0, 0, -1],
    ["5A", 0, 1, 0, 0, 1],
    ["5A", 0, 2, 0, 0, 2],
    ["6A", "nan", 0, 0, 0, 0],
    ["7A", 7, 0, 0, 0, 7],
]
EXPECTED_CODES = {
    "1": "total_differs",
    "3": "bad_score",
    "4": "bad_score",
    "5": "two_rows",
    "6": "bad_score",
}


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    path.write_text("\n".join(",".join(str(cell) for cell in row) for row in rows))


def write_workbook(path: Path, rows: Sequence[Sequence[Any]], doctype: str = "") -> None:
    """Text as shared strings, every other row's as inline strings; numbers as they are."""
    shared: list[str] = []
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for letter, value in zip("ABCDEF", row, strict=True):
            place = f'r="{letter}{number}"'
            if not isinstance(value, str):
                cells.append(f"<c {place}><v>{value}</v></c>")
            elif number % 2:
                shared.append(
                    f"<si><r><t>{escape(value[:1])}</t></r><r><t>{value[1:]}</t></r></si>"
                )
                cells.append(f'<c {place} t="s"><v>{len(shared) - 1}</v></c>')
            else:
                cells.append(f'<c {place} t="inlineStr"><is><t>{escape(value)}</t></is></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/sharedStrings.xml", f"<sst>{''.join(shared)}</sst>")
        book.writestr(
            "xl/worksheets/sheet1.xml",
            f"{doctype}<worksheet><sheetData>{''.join(lines)}</sheetData></worksheet>",
        )


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_scores_are_read_and_odd_rows_listed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"scores.{kind}"
    {"csv": write_csv, "xlsx": write_workbook}[kind](path, [HEADER, *ROWS])
    scores, problems = read_scores(path)
    assert set(scores) == {"0", "2", "7"}
    assert scores["0"].total == 16
    assert scores["0"].vessels == {
        Vessel.LM: 0.0,
        Vessel.LAD: 12.5,
        Vessel.LCX: 0.0,
        Vessel.RCA: 3.5,
    }
    assert {problem.patient: problem.code for problem in problems} == EXPECTED_CODES
    assert all(problem.is_left_out for problem in problems)


def test_hostile_sheets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.xlsx"
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    write_workbook(path, [HEADER, *ROWS], doctype=bomb)
    sheets = [path.read_bytes()]
    write_workbook(path, [HEADER[::-1], *ROWS])
    sheets.append(path.read_bytes())
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", '<worksheet><c r="ZZZ1"><v>1</v></c></worksheet>')
    sheets += [path.read_bytes(), path.read_bytes()[:-30], b"", b"no zip"]
    for content in sheets:
        path.write_bytes(content)
        with pytest.raises(TableError) as caught:
            read_scores(path)
        assert caught.value.code == "table.bad_sheet"
    write_workbook(path, [HEADER, *ROWS])
    assert read_scores(path)[0]
    monkeypatch.setattr("fedcac.training.coca_scores._MAXIMUM_BYTES", 200)
    with pytest.raises(TableError):
        read_scores(path)


def test_non_gated_exams_come_with_their_scores(tmp_path: Path) -> None:
    root = tmp_path / "deidentified_nongated"
    for patient in ("0", "2", "9"):
        write_exam(root / patient / patient, volume_with_lesions(3))
    write_workbook(root / "scores.xlsx", [HEADER, *ROWS])
    next((root / "2").rglob("*.dcm")).write_bytes(b"\0" * 500)
    exams = NonGatedExams.of(tmp_path)
    assert exams.patients == ("0", "2")
    found = list(exams.exams(exams.patients))
    assert [score.total for _, score in found] == [16]
    assert found[0][0].hu.shape == (N, SIZE, SIZE)
    codes = {problem.patient: problem.code for problem in exams.problems}
    unreadable = codes.pop("2")
    assert unreadable == "unreadable_dicom"
    assert codes == {**EXPECTED_CODES, "7": "no_images", "9": "no_score"}
    with pytest.raises(UsageError) as caught:
        NonGatedExams.of(root / "9")
    assert caught.value.code == "usage.no_coca"
