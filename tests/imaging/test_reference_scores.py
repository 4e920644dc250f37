"""Reference scores from annotations: the score of the mask itself, however it was drawn."""

from __future__ import annotations

import logging
import plistlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from fedcac.errors import FedcacError
from fedcac.imaging import ExamPair, PairingOutcome, Volume, build_volume, read_series
from fedcac.imaging.review_artefacts import (
    SEGMENTATION_FILE,
    ModelIdentity,
    write_review_artefacts,
)
from fedcac.imaging.structure_set import map_of_contours, read_structure_set
from fedcac.phantom import generate_pair
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.protocol import ImageCriteria, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.scoring import CalciumScore, profile_named, score_volume
from fedcac.site_table import ClinicalTable, read_clinical_table
from fedcac.vocabulary import ExclusionReason, ReferenceKind, Vessel
from site_agent.exams.dicom_source import DicomFiles, DicomSource, check_cohort
from site_agent.exams.reference_scores import reference_score_from_annotation, score_references
from site_agent.exams.review_artefacts import reviewed_score
from site_agent.state.store import SiteStore

PROFILE = profile_named("agatston1990")
MODEL = ModelIdentity("some-model", "1.2.3", "sha256:" + "0f" * 32, is_demonstration=False)
XML_NAMES = {
    Vessel.LM: "Left Coronary Artery",
    Vessel.LAD: "Left Anterior Descending Artery",
    Vessel.LCX: "Left Circumflex Artery",
    Vessel.RCA: "Right Coronary Artery",
}
Mask = NDArray[np.uint8]
# A run of pixels: vessel, slice, row, first column, and the column after the last.
Run = tuple[Vessel, int, int, int, int]


class Exam:
    """A generated gated exam of a few slices, and the mask by which it was made."""

    def __init__(self, folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        gated = generate_pair(rng, 600.0).gated
        part = slice(6, 14)
        few = replace(gated, hu=gated.hu[part], vessel_map=gated.vessel_map[part])
        self.path = folder / "series"
        write_series(self.path, few, ExamLabel(f"P{seed}", date(2020, 1, 1), True), rng)
        self.series = read_series(self.path, ImageCriteria(min_slices=1))
        self.volume = build_volume(self.series)
        self.mask: Mask = few.vessel_map

    @property
    def frame_uid(self) -> str:
        return str(self.series.datasets[0].FrameOfReferenceUID)

    def score(self, mask: Mask | None = None) -> CalciumScore:
        mask = self.mask if mask is None else mask
        return score_volume(self.volume.hu, mask, self.volume.spacing_mm, PROFILE)

    def runs(self) -> list[Run]:
        """The mask as runs of pixels along rows."""
        found: list[Run] = []
        for number, row in np.argwhere(self.mask.any(axis=2)):
            line = self.mask[number, row]
            edges = np.flatnonzero(np.diff(line, prepend=0, append=0))
            for first, last in pairwise(edges):
                if line[first]:
                    vessel = tuple(Vessel)[line[first] - 1]
                    found.append((vessel, int(number), int(row), int(first), int(last)))
        return found


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    made = Exam(tmp_path_factory.mktemp("exam"), 8)
    assert sum(score > 0 for score in made.score().vessels.values()) >= 2
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    """Another patient on the very same grid."""
    return Exam(tmp_path_factory.mktemp("other"), 9)


def segmentation(folder: Path, exam: Exam, mask: Mask) -> Path:
    score = exam.score(mask)
    write_review_artefacts(
        folder,
        exam.series,
        exam.volume,
        mask,
        reviewed_score(score, score.vessels, PROFILE.name),
        MODEL,
        pseudonym="k0123456789abcdef",
    )
    return folder / SEGMENTATION_FILE


def corner(run: Run) -> tuple[int, list[tuple[float, float]]]:
    """Slice and corners (x, y) in pixels, pixel (0, 0) reaching from (0, 0) to (1, 1)."""
    _, number, row, first, last = run
    return number, [(first, row), (last, row), (last, row + 1), (first, row + 1)]


def structure_set(
    path: Path,
    exam: Exam,
    outlines: Sequence[tuple[str, int, Sequence[tuple[float, float]]]],
    *,
    geometry: str = "CLOSED_PLANAR",
    frame_uid: str | None = None,
    shift_mm: float = 0.0,
) -> Path:
    """Write (name, slice, corners in pixels) as an RT Structure Set, one region per name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        RTStructureSetStorage,
        ExplicitVRLittleEndian,
    )
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.Modality = RTStructureSetStorage, "RTSTRUCT"
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = "2.25.1"
    names = list(dict.fromkeys(name for name, _, _ in outlines))
    regions, contours = [], []
    for number, name in enumerate(names, 1):
        region, contour_set = Dataset(), Dataset()
        region.ROINumber = contour_set.ReferencedROINumber = number
        region.ROIName = name
        region.ReferencedFrameOfReferenceUID = frame_uid or exam.frame_uid
        contour_set.ContourSequence = [
            contour_of(exam.volume, z, corners, geometry, shift_mm)
            for own, z, corners in outlines
            if own == name
        ]
        regions.append(region)
        contours.append(contour_set)
    dataset.StructureSetROISequence, dataset.ROIContourSequence = regions, contours
    dataset.save_as(path, enforce_file_format=True)
    return path


def contour_of(
    volume: Volume,
    number: int,
    corners: Sequence[tuple[float, float]],
    geometry: str,
    shift_mm: float,
) -> Dataset:
    increment, row_mm, column_mm = volume.spacing_mm
    x, y, z = volume.origin_lps_mm
    values: list[str] = []
    for column, row in corners:
        place = (
            x + (column - 0.5) * column_mm,
            y + (row - 0.5) * row_mm,
            z - number * increment + shift_mm,
        )
        values += [f"{value:.6f}" for value in place]
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = geometry, len(corners)
    contour.ContourData = values
    return contour


def horos(
    path: Path, exam: Exam, runs: Sequence[Run], *, is_measured: bool, is_downwards: bool = False
) -> Path:
    n_slices = exam.volume.hu.shape[0]
    images: dict[int, list[dict[str, Any]]] = {}
    for run in runs:
        number, corners = corner(run)
        region: dict[str, Any] = {
            "Name": XML_NAMES[run[0]],
            "Point_px": [f"({x:.3f}, {y:.3f})" for x, y in corners],
        }
        if is_measured:
            values = exam.volume.hu[number, run[2], run[3] : run[4]]
            region["Max"] = float(values.max())
        index = number if is_downwards else n_slices - 1 - number
        images.setdefault(index, []).append(region)
    document = {"Images": [{"ImageIndex": i, "ROIs": rois} for i, rois in images.items()]}
    path.write_bytes(plistlib.dumps(document))
    return path


def named(runs: Sequence[Run]) -> list[tuple[str, int, list[tuple[float, float]]]]:
    return [(run[0].value.upper(), *corner(run)) for run in runs]


# --- every format gives the mask's own score ------------------------------------------------------

DRAW: dict[str, Callable[[Path, Exam], Path]] = {
    "SEG": lambda folder, exam: segmentation(folder / "private", exam, exam.mask),
    "RTSTRUCT": lambda folder, exam: structure_set(folder / "rt.dcm", exam, named(exam.runs())),
    "XML upwards": lambda folder, exam: horos(
        folder / "a.xml", exam, exam.runs(), is_measured=True
    ),
    "XML downwards": lambda folder, exam: horos(
        folder / "a.xml", exam, exam.runs(), is_measured=True, is_downwards=True
    ),
}


@pytest.mark.parametrize("kind", sorted(DRAW))
def test_the_score_is_that_of_the_mask_itself(tmp_path: Path, exam: Exam, kind: str) -> None:
    score = reference_score_from_annotation(exam.path, DRAW[kind](tmp_path, exam), PROFILE)
    expected = exam.score()
    assert expected.total > 0
    assert score.total == pytest.approx(expected.total, rel=1e-12)
    assert score.vessels == pytest.approx(dict(expected.vessels), rel=1e-12)


def test_an_empty_segmentation_is_a_reading_of_no_calcium(tmp_path: Path, exam: Exam) -> None:
    path = segmentation(tmp_path / "private", exam, np.zeros_like(exam.mask))
    score = reference_score_from_annotation(exam.path, path, PROFILE)
    assert score.total == 0
    assert set(score.vessels.values()) == {0.0}


def test_the_profile_decides_which_voxels_count(tmp_path: Path, exam: Exam) -> None:
    path = DRAW["RTSTRUCT"](tmp_path, exam)
    for name in ("eng2021", "canon"):
        profile = profile_named(name)
        expected = score_volume(exam.volume.hu, exam.mask, exam.volume.spacing_mm, profile)
        score = reference_score_from_annotation(exam.path, path, profile)
        assert score.total == pytest.approx(expected.total, rel=1e-12)


def test_a_drawn_disc_and_ring_are_their_pixels(tmp_path: Path, exam: Exam) -> None:
    """Circles as polygons of 400 corners against distances from the centre."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    centre = np.array([60.3, 45.8])

    def circle(radius: float) -> list[tuple[float, float]]:
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return [(float(x), float(y)) for x, y in points]

    rows, columns = np.mgrid[: exam.volume.hu.shape[1], : exam.volume.hu.shape[2]] + 0.5
    distance = np.hypot(columns - centre[0], rows - centre[1])
    outlines = [("RCA", 3, circle(20.0)), ("RCA", 3, circle(9.0))]
    # A chord runs within a hair's breadth of its circle: pixels there are not compared.
    is_clear = (np.abs(distance - 20) > 0.01) & (np.abs(distance - 9) > 0.01)
    for geometry, expected in (
        ("CLOSED_PLANAR", distance < 20),
        ("CLOSEDPLANAR_XOR", (distance < 20) & (distance > 9)),
    ):
        path = structure_set(tmp_path / "rt.dcm", exam, outlines, geometry=geometry)
        drawn = map_of_contours(read_structure_set(path), exam.volume)
        assert set(np.unique(drawn)) == {0, 1 + tuple(Vessel).index(Vessel.RCA)}
        assert np.flatnonzero(drawn.any(axis=(1, 2))).tolist() == [3]
        assert np.array_equal((drawn[3] > 0)[is_clear], expected[is_clear])


# --- failures -------------------------------------------------------------------------------------


def rt(folder: Path, exam: Exam, **options: Any) -> Path:
    return structure_set(folder / "rt.dcm", exam, named(exam.runs()), **options)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "annotation"
    path.write_bytes(content)
    return path


def renamed(folder: Path, exam: Exam) -> Path:
    return structure_set(folder / "rt.dcm", exam, [("SECRET", *corner(exam.runs()[0]))])


def outside(folder: Path, exam: Exam) -> Path:
    return structure_set(folder / "rt.dcm", exam, [("LAD", 0, [(-3, 1), (4, 1), (4, 5)])])


def beyond(folder: Path, exam: Exam) -> Path:
    n_slices = exam.volume.hu.shape[0]
    return structure_set(folder / "rt.dcm", exam, [("LAD", n_slices, [(1, 1), (4, 1), (4, 5)])])


def cut(folder: Path, exam: Exam) -> Path:
    path = rt(folder, exam)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def unmeasured(folder: Path, exam: Exam) -> Path:
    return horos(folder / "a.xml", exam, exam.runs(), is_measured=False)


def fractional(folder: Path, exam: Exam) -> Path:
    path = segmentation(folder / "private", exam, exam.mask)
    dataset = pydicom.dcmread(path)
    dataset.SegmentationType = "FRACTIONAL"
    dataset.save_as(path)
    return path


FAULTS: dict[str, tuple[Callable[[Path, Exam], Path], str]] = {
    "no file": (lambda folder, _: folder / "absent", "cohort.no_such_annotation"),
    "a folder": (lambda folder, _: folder, "cohort.no_such_annotation"),
    "no format of these": (lambda f, _: written(f, b"SECRET"), "cohort.unknown_annotation"),
    "an image": (
        lambda _, exam: next(exam.path.iterdir()),
        "cohort.unknown_annotation",
    ),
    "other XML": (lambda f, _: written(f, b"<html>SECRET</html>"), "cohort.bad_annotation"),
    "no region": (
        lambda f, _: written(f, plistlib.dumps({"Images": []})),
        "cohort.empty_annotation",
    ),
    "no contour": (lambda f, e: structure_set(f / "rt.dcm", e, []), "cohort.empty_annotation"),
    "open contour": (lambda f, e: rt(f, e, geometry="OPEN_PLANAR"), "cohort.bad_annotation"),
    "fractional": (fractional, "cohort.bad_annotation"),
    "cut off": (cut, "cohort.bad_annotation"),
    "other vessel": (renamed, "cohort.unknown_vessel"),
    "another frame": (lambda f, e: rt(f, e, frame_uid="2.25.99"), "cohort.other_series"),
    "between planes": (lambda f, e: rt(f, e, shift_mm=1.0), "cohort.other_series"),
    "beyond the slices": (beyond, "cohort.other_series"),
    "outside the image": (outside, "cohort.other_series"),
    "order not told": (unmeasured, "cohort.slice_order_unclear"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_failure_has_a_code_and_a_cure(tmp_path: Path, exam: Exam, fault: str) -> None:
    make, code = FAULTS[fault]
    with pytest.raises(FedcacError) as caught:
        reference_score_from_annotation(exam.path, make(tmp_path, exam), PROFILE)
    assert caught.value.code == code
    assert caught.value.cure
    assert "SECRET" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_another_patient_on_the_same_grid_is_refused(
    tmp_path: Path, exam: Exam, other: Exam
) -> None:
    assert other.volume.origin_lps_mm == exam.volume.origin_lps_mm
    assert other.volume.spacing_mm == exam.volume.spacing_mm
    for path in (segmentation(tmp_path / "private", exam, exam.mask), rt(tmp_path, exam)):
        with pytest.raises(FedcacError) as caught:
            reference_score_from_annotation(other.path, path, PROFILE)
        assert caught.value.code == "cohort.other_series"


def test_the_series_itself_must_be_eligible(tmp_path: Path, exam: Exam) -> None:
    with pytest.raises(FedcacError) as caught:
        reference_score_from_annotation(
            exam.path, rt(tmp_path, exam), PROFILE, ImageCriteria(min_slices=15)
        )
    assert caught.value.code == "dicom.too_few_slices"


# --- in the clinical table ------------------------------------------------------------------------

HEADER = "patient_id,reference_score,reference_annotation,age,sex,follow_up_days,event"
REST = "60,male,100,1"


def protocol() -> Protocol:
    made = load_shipped("demo-nongated")
    criteria = made.image_criteria.model_copy(update={"min_slices": 1})
    return made.model_copy(update={"image_criteria": criteria})


def table(folder: Path, *rows: str) -> ClinicalTable:
    path = folder / "clinical.csv"
    path.write_text("\n".join([HEADER, *(f"{row},{REST}" for row in rows)]), encoding="utf-8")
    return read_clinical_table(path, protocol())


def pairing(exam: Exam, *patients: str) -> PairingOutcome:
    pairs = [ExamPair(f"key-{p}", exam.path, exam.path, 0, p) for p in patients]
    return PairingOutcome(tuple(pairs), Counter(), ())


def test_annotations_become_scores_and_failures_stay_at_the_site(
    tmp_path: Path, exam: Exam, caplog: pytest.LogCaptureFixture
) -> None:
    rt(tmp_path, exam)
    made = table(tmp_path, "A,,rt.dcm", "B,,absent.dcm", "C,7,", "D,,", "E,,../E.dcm", "F,,rt.dcm")
    with caplog.at_level(logging.INFO):
        outcome = score_references(made, tmp_path, pairing(exam, *"ABCDE"), protocol(), None)
    rows, expected = outcome.table.rows, exam.score()
    assert rows["A"]["reference_score"] == pytest.approx(expected.total)
    assert rows["A"]["reference_lad"] == pytest.approx(expected.vessels[Vessel.LAD])
    assert rows["A"]["age"] == 60
    assert rows["C"]["reference_score"] == 7
    assert np.isnan(rows["C"]["reference_lad"])
    # F has no pair, so there is no exam on which it could have been drawn.
    assert all(np.isnan(rows[patient]["reference_score"]) for patient in "BDEF")
    assert all(set(row) == set(outcome.table.columns) for row in rows.values())
    codes = [failure.error.code for failure in outcome.failures]
    assert codes == ["cohort.no_such_annotation", "table.path_escapes"]
    assert outcome.n_scored == 1
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == codes
    assert str(tmp_path) not in caplog.text
    assert "absent" not in caplog.text


def test_a_score_is_made_once_and_again_when_the_annotation_changes(
    tmp_path: Path, exam: Exam
) -> None:
    moved = Exam.__new__(Exam)
    moved.__dict__ = {**exam.__dict__, "path": tmp_path / "copy"}
    shutil.copytree(exam.path, moved.path)
    rt(tmp_path, exam)
    made, pairs = table(tmp_path, "A,,rt.dcm"), pairing(moved, "A")
    store = SiteStore(tmp_path / "state.sqlite")
    first = score_references(made, tmp_path, pairs, protocol(), store)
    shutil.rmtree(moved.path)
    # The series is gone, so what comes now was kept.
    again = score_references(made, tmp_path, pairs, protocol(), store)
    assert again.table.rows == first.table.rows
    assert again.n_scored == 1
    store.close()
    store = SiteStore(tmp_path / "state.sqlite")
    structure_set(tmp_path / "rt.dcm", exam, named(exam.runs()[:1]))
    changed = score_references(made, tmp_path, pairs, protocol(), store)
    assert [failure.error.code for failure in changed.failures] == ["dicom.no_such_path"]
    store.close()


def by_hand(path: Path) -> Path:
    """Let a segmentation say that a reader drew it."""
    dataset = pydicom.dcmread(path)
    for segment in dataset.SegmentSequence:
        segment.SegmentAlgorithmType = "MANUAL"
    dataset.save_as(path)
    return path


def test_a_mask_that_an_algorithm_drew_is_no_readers_reference(tmp_path: Path, exam: Exam) -> None:
    path = segmentation(tmp_path / "private", exam, exam.mask)
    made, pairs = table(tmp_path, f"A,,{path}"), pairing(exam, "A")
    outcome = score_references(made, tmp_path, pairs, protocol(), None)
    assert [failure.error.code for failure in outcome.failures] == ["cohort.automatic_annotation"]
    reference = protocol().reference.model_copy(update={"kind": ReferenceKind.GATED_CT_MODEL})
    by_model = protocol().model_copy(update={"reference": reference})
    assert score_references(made, tmp_path, pairs, by_model, None).n_scored == 1
    by_hand(path)
    assert score_references(made, tmp_path, pairs, protocol(), None).n_scored == 1


def test_a_damaged_segmentation_costs_one_patient_and_not_the_round(
    tmp_path: Path, exam: Exam
) -> None:
    path = by_hand(segmentation(tmp_path / "private", exam, exam.mask))
    rt(tmp_path, exam)
    damaged = pydicom.dcmread(path)
    for segment in damaged.SegmentSequence:
        del segment.SegmentedPropertyTypeCodeSequence
        del segment.SegmentAlgorithmType
    damaged.save_as(path)
    made = table(tmp_path, f"A,,{path}", "B,,rt.dcm")
    outcome = score_references(made, tmp_path, pairing(exam, "A", "B"), protocol(), None)
    assert outcome.n_scored == 1
    (failure,) = outcome.failures
    assert failure.error.code in ("cohort.bad_annotation", "usage.bad_mask")
    assert failure.error.cure


class Scored(DicomSource):
    """A source whose index exams were scored before, so that no model runs."""

    def _scorer(self, protocol: Protocol, package: Any) -> Any:
        return None


def test_a_round_analyses_patients_whose_reference_is_an_annotation(
    tmp_path: Path, exam: Exam, other: Exam
) -> None:
    by_hand(segmentation(tmp_path / "private", exam, exam.mask))
    table(tmp_path, f"P8,,private/{SEGMENTATION_FILE}", "P9,,gone.xml")
    files, plan = listed(tmp_path, exam, other)
    store = SiteStore(tmp_path / "state.sqlite")
    for pair in files.pair(plan).pairs:
        key = (pair.exam_key, "sha256:model", plan.index_test.scoring_profile)
        store.begin_exam(*key)
        store.finish_exam(*key, seconds=1.0, total=11.0, vessels=dict.fromkeys(Vessel, 2.75))
    package: Any = SimpleNamespace(digest="sha256:model")
    cohort = Scored(files, store).collect(plan, package)
    store.close()
    expected = exam.score()
    assert cohort.exams.column("index_score").tolist() == [11.0]
    assert cohort.exams.column("reference_score").tolist() == [pytest.approx(expected.total)]
    assert cohort.exams.column("reference_lad").tolist() == [
        pytest.approx(expected.vessels[Vessel.LAD])
    ]
    assert cohort.flow.exclusions == {ExclusionReason.NO_REFERENCE_SCORE: 1}


def listed(folder: Path, *exams: Exam) -> tuple[DicomFiles, Protocol]:
    """A manifest of index exams, and a protocol that pairs none."""
    lines = ["path,role", *(f"{exam.path},index" for exam in exams)]
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    criteria = protocol().image_criteria.model_copy(update={"acquisition": "any"})
    plan = protocol().model_copy(update={"pairing": None, "image_criteria": criteria})
    return DicomFiles(folder / "manifest.csv", folder / "clinical.csv", b"s" * 32), plan


def test_cohort_check_counts_gaps_and_names_annotations(
    tmp_path: Path, exam: Exam, other: Exam
) -> None:
    by_hand(segmentation(tmp_path / "private", exam, exam.mask))
    table(tmp_path, f"P8,,private/{SEGMENTATION_FILE}", "P9,,gone.xml", "P10,,")
    files, plan = listed(tmp_path, exam, other)
    text, content = check_cohort(plan, files)
    assert "reference_score: 1 of 3" in text
    assert "age: 0 of 3" in text
    assert "gone.xml" in text
    assert "no_such_annotation" in text
    assert "2 of 2 patients can be scored" in text
    assert content["counts"] == {"usable": 2}
    assert content["clinical_table"]["missing"]["reference_score"] == 1
    assert content["clinical_table"]["failed_annotations"] == 1
    assert "P9" not in str(content)
