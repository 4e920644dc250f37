"""Segmentation, report and page of a scored exam, read back by other means than made them."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from egress.canaries import Canaries, listening

from fedcac.cli import main
from fedcac.errors import UsageError
from fedcac.imaging import build_volume, read_series, read_vessel_map
from fedcac.imaging.review_artefacts import (
    OVERLAY_FILE,
    REPORT_FILE,
    RESEARCH_USE,
    SEGMENTATION_FILE,
    ModelIdentity,
    ReviewedScore,
    write_review_artefacts,
)
from fedcac.imaging.review_artefacts.content import TERRITORIES
from fedcac.imaging.review_artefacts.sr import RISK_CATEGORY
from fedcac.phantom import chest_ct_folder, generate_pair
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.protocol import CategoryScheme, ImageCriteria
from fedcac.scoring import CalciumScore, profile_named, score_volume
from fedcac.vocabulary import VESSEL_UNKNOWN, Vessel
from site_agent.exams.exam_pipeline import ExamScore
from site_agent.exams.review_artefacts import ArtefactPlan, ArtefactWriter, reviewed_score
from site_agent.exams.scoring_queue import IndexExam

MODEL = ModelIdentity("some-model", "1.2.3", "sha256:" + "0f" * 32, is_demonstration=False)
PROFILE = "agatston1990"
SCHEME = CategoryScheme(
    cut_offs=(1.0, 10.0, 100.0, 400.0), labels=("0", "1-10", "11-100", "101-400", ">400")
)
NAME = "k0123456789abcdef"
FILES = (OVERLAY_FILE, REPORT_FILE, SEGMENTATION_FILE)
Array = np.ndarray[Any, Any]


class Exam:
    """One exam with its mask and score, and its artefacts where they are asked for."""

    def __init__(self, source: Path, vessel_map: Array | None = None) -> None:
        self.source = source
        self.series = read_series(source, ImageCriteria(min_slices=1))
        self.volume = build_volume(self.series)
        self.vessel_map = self._over_threshold() if vessel_map is None else vessel_map

    def _over_threshold(self) -> Array:
        """Mark real voxels over 130 HU in a box, each quarter of it another vessel."""
        vessel_map = np.zeros(self.volume.hu.shape, dtype=np.uint8)
        box = vessel_map[30:44, 170:300, 200:340]
        box[:, :65, :70], box[:, :65, 70:], box[:, 65:, :70], box[:, 65:, 70:] = 1, 2, 4, 3
        vessel_map[self.volume.hu < 130] = 0
        return vessel_map

    def score(self, *, calibration: float | None = None) -> CalciumScore:
        return score_volume(
            self.volume.hu,
            (self.vessel_map > 0).astype(np.uint8) if self.is_untold else self.vessel_map,
            self.volume.spacing_mm,
            profile_named(PROFILE),
            calibration_mg_per_hu_mm3=calibration,
        )

    @property
    def is_untold(self) -> bool:
        return bool((self.vessel_map == VESSEL_UNKNOWN).any())

    def reviewed(self, **changes: Any) -> ReviewedScore:
        score = self.score(calibration=changes.pop("calibration", None))
        vessels = {} if self.is_untold else score.vessels
        return reviewed_score(score, vessels, PROFILE, categories=SCHEME, **changes)

    def write(self, folder: Path, **options: Any) -> Path:
        reviewed = options.pop("reviewed", None) or self.reviewed()
        write_review_artefacts(
            folder,
            self.series,
            self.volume,
            self.vessel_map,
            reviewed,
            MODEL,
            pseudonym=options.pop("pseudonym", NAME),
            **options,
        )
        return folder


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    rng = np.random.default_rng(8)
    pair = generate_pair(rng, 600.0)
    # Eight slices with calcium in each vessel are enough, and quick.
    part = slice(6, 14)
    few = replace(pair.gated, hu=pair.gated.hu[part], vessel_map=pair.gated.vessel_map[part])
    folder = tmp_path_factory.mktemp("exam") / "series"
    write_series(folder, few, ExamLabel("P1", date(2020, 1, 1), True), rng)
    return Exam(folder, few.vessel_map)


@pytest.fixture(scope="module")
def real() -> Exam:
    return Exam(chest_ct_folder())


@pytest.fixture(scope="module", params=["real", "generated"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Exam, Path]:
    exam: Exam = request.getfixturevalue(request.param)
    return exam, exam.write(tmp_path_factory.mktemp("artefacts") / NAME)


def with_map(exam: Exam, vessel_map: Array) -> Exam:
    other = object.__new__(Exam)
    other.__dict__ = {**exam.__dict__, "vessel_map": vessel_map}
    return other


def groups_of(report: Path) -> dict[str, Any]:
    """Return the measurement groups of a report by their tracking identifiers."""
    content = hd.sr.srread(report).content
    return {
        group.tracking_identifier: group for group in content.get_image_measurement_groups()
    } | {
        group.tracking_identifier: group
        for group in content.get_volumetric_roi_measurement_groups()
    }


# --- the segmentation


def test_rescoring_from_the_segmentation_gives_the_same_score(
    written: tuple[Exam, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    exam, folder = written
    score = exam.score()
    assert score.total > 100
    command = ["agatston", str(exam.source), "--mask", str(folder / SEGMENTATION_FILE)]
    assert main([*command, "--format", "json"]) == 0
    rescored = json.loads(capsys.readouterr().out)["data"]
    assert rescored["agatston"] == score.total
    assert rescored["vessels"] == {vessel.value: n for vessel, n in score.vessels.items()}
    assert rescored["volume_mm3"] == score.volume_mm3
    assert rescored["n_lesions"] == score.n_lesions


def test_each_frame_lies_on_the_instance_that_it_names(written: tuple[Exam, Path]) -> None:
    # By pydicom alone, without the geometry of highdicom: frame by frame, through the reference.
    exam, folder = written
    seg = pydicom.dcmread(folder / SEGMENTATION_FILE)
    assert (seg.SegmentationType, seg.Modality) == ("BINARY", "SEG")
    n_slices = len(exam.series.datasets)
    instances = {d.SOPInstanceUID: n_slices - 1 - n for n, d in enumerate(exam.series.datasets)}
    left = exam.vessel_map.copy()
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, item in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        (derivation,) = item.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        label = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        plane = instances[source.ReferencedSOPInstanceUID]
        assert np.array_equal(frame > 0, exam.vessel_map[plane] == label)
        left[plane][frame > 0] = 0
    assert not left.any()
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == exam.series.datasets[0].SeriesInstanceUID


def test_segments_say_what_and_where_and_by_whom(written: tuple[Exam, Path]) -> None:
    _, folder = written
    seg = hd.seg.segread(folder / SEGMENTATION_FILE)
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [d.anatomic_regions[0].value for d in described] == [
        "3227004",
        "59438005",
        "57396003",
        "13647002",
    ]
    for description in described:
        assert description.segmented_property_type.value == "18115005"
        assert description.segmented_property_category.value == "49755003"
        assert description.algorithm_type is hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        algorithm = description.algorithm_identification
        assert (algorithm.name, algorithm.version) == (MODEL.name, MODEL.version)
        assert MODEL.digest in algorithm.parameters["package digest"]
    assert RESEARCH_USE == seg.ContentDescription
    assert seg.ContentQualification == "RESEARCH"


def put(**values: object) -> Callable[[pydicom.Dataset], object]:
    return lambda dataset: [setattr(dataset, key, value) for key, value in values.items()]


ORIENTATIONS = {
    "supine": [1, 0, 0, 0, 1, 0],
    "prone": [-1, 0, 0, 0, -1, 0],
    "mirrored": [-1, 0, 0, 0, 1, 0],
    "on the side": [0, 1, 0, -1, 0, 0],
    "transposed": [0, 1, 0, 1, 0, 0],
}


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_marks_stay_on_their_pixels_however_the_images_are_turned(
    orientation: list[int], generated: Exam, tmp_path: Path
) -> None:
    # The oracle are the stored pixels: a voxel is marked exactly where its own is over 200 HU.
    folder = tmp_path / "series"
    folder.mkdir()
    for number, path in enumerate(sorted(generated.source.iterdir())[:6]):
        dataset = pydicom.dcmread(path)
        pixels = np.random.default_rng(number).integers(0, 2048, (7, 5), dtype=np.uint16)
        dataset.Rows, dataset.Columns, dataset.PixelData = 7, 5, pixels.tobytes()
        dataset.ImageOrientationPatient = orientation
        dataset.ImagePositionPatient = [3.5, -8.0, 3.0 * number]
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.save_as(folder / path.name)
    exam = Exam(folder, np.zeros((6, 5, 5), dtype=np.uint8))
    marked = with_map(exam, np.where(exam.volume.hu > 200, 3, 0).astype(np.uint8))
    seg = pydicom.dcmread(marked.write(tmp_path / NAME) / SEGMENTATION_FILE)
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in exam.series.datasets}
    assert int(seg.NumberOfFrames) == 6
    for frame, item in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.array_equal(frame > 0, by_uid[source].pixel_array > 200 + 1024)
    back = read_vessel_map(tmp_path / NAME / SEGMENTATION_FILE, exam.volume)
    assert np.array_equal(back, marked.vessel_map)


def test_an_exam_without_calcium_is_a_finding_too(generated: Exam, tmp_path: Path) -> None:
    exam = with_map(generated, np.zeros_like(generated.vessel_map))
    exam.write(tmp_path / NAME)
    seg = pydicom.dcmread(tmp_path / NAME / SEGMENTATION_FILE)
    assert len(seg.SegmentSequence) == 4
    assert not seg.pixel_array.any()
    assert not read_vessel_map(tmp_path / NAME / SEGMENTATION_FILE, exam.volume).any()
    # Every instance was looked at, also those that no blank frame lies on.
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(referenced) == len(exam.series.datasets)
    groups = groups_of(tmp_path / NAME / REPORT_FILE)
    assert len(groups) == 5
    for group in groups.values():
        (agatston,) = group.get_measurements(name=pydicom.sr.codedict.codes.DCM.CalciumScore)
        assert agatston.value == 0
    assert "marked no coronary calcium" in (tmp_path / NAME / OVERLAY_FILE).read_text("utf-8")


def test_one_voxel_in_one_vessel(generated: Exam, tmp_path: Path) -> None:
    vessel_map = np.zeros_like(generated.vessel_map)
    vessel_map[-1, -1, 0] = 4
    exam = with_map(generated, vessel_map)
    exam.write(tmp_path / NAME)
    seg = tmp_path / NAME / SEGMENTATION_FILE
    assert pydicom.dcmread(seg).NumberOfFrames == 1
    assert np.array_equal(read_vessel_map(seg, exam.volume), vessel_map)


def test_calcium_of_no_told_vessel(generated: Exam, tmp_path: Path) -> None:
    told = generated.score()
    exam = with_map(generated, np.where(generated.vessel_map > 0, 5, 0).astype(np.uint8))
    exam.write(tmp_path / NAME)
    seg = hd.seg.segread(tmp_path / NAME / SEGMENTATION_FILE)
    (number,) = seg.segment_numbers
    assert seg.get_segment_description(number).anatomic_regions[0].value == "41801008"
    groups = groups_of(tmp_path / NAME / REPORT_FILE)
    assert list(groups) == ["Coronary calcium, all vessels", "Coronary calcium, Coronary"]
    for group in groups.values():
        (score,) = group.get_measurements(name=pydicom.sr.codedict.codes.DCM.CalciumScore)
        assert score.value == pytest.approx(told.total, rel=1e-12)
    page = (tmp_path / NAME / OVERLAY_FILE).read_text("utf-8")
    assert "does not tell vessels apart" in page
    assert "Left main" not in page


@pytest.mark.parametrize("is_empty", [False, True])
def test_an_enhanced_series(is_empty: bool, generated: Exam, tmp_path: Path) -> None:
    slices = list(generated.series.datasets[:5])
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        slices, hd.UID(), series_number=7, sop_instance_uid=hd.UID(), instance_number=1
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    exam = Exam(tmp_path / "enhanced.dcm", np.zeros((5, 256, 256), dtype=np.uint8))
    if not is_empty:
        exam.vessel_map[:] = np.random.default_rng(3).integers(0, 5, exam.vessel_map.shape)
    exam.write(tmp_path / NAME)
    back = read_vessel_map(tmp_path / NAME / SEGMENTATION_FILE, exam.volume)
    assert np.array_equal(back, exam.vessel_map)


# --- the report


def test_the_report_holds_every_score_with_its_unit(written: tuple[Exam, Path]) -> None:
    exam, folder = written
    score = exam.score()
    groups = groups_of(folder / REPORT_FILE)
    codes = pydicom.sr.codedict.codes
    values = {}
    for name, group in groups.items():
        (agatston,) = group.get_measurements(name=codes.DCM.CalciumScore)
        assert agatston.unit.value == "{Agatston}"
        assert agatston.unit.scheme_designator == "UCUM"
        assert agatston.method == codes.DCM.AgatstonScoringMethod
        values[name.removeprefix("Coronary calcium, ")] = agatston.value
    expected = {"all vessels": score.total, **{v.name: n for v, n in score.vessels.items()}}
    assert values == pytest.approx(expected, rel=1e-12)
    total = groups["Coronary calcium, all vessels"]
    (volume,) = total.get_measurements(name=codes.DCM.CalciumVolume)
    assert (volume.value, volume.unit.value) == (pytest.approx(score.volume_mm3), "mm3")
    assert total.get_measurements(name=codes.DCM.CalciumMass) == []
    (category,) = total.get_qualitative_evaluations(name=RISK_CATEGORY)
    assert category.value.value == ("101-400" if 100 < score.total <= 400 else ">400")


def test_a_mass_is_there_where_it_is_known(generated: Exam, tmp_path: Path) -> None:
    reviewed = generated.reviewed(calibration=0.001, native_score=123.5)
    generated.write(tmp_path / NAME, reviewed=reviewed)
    total = groups_of(tmp_path / NAME / REPORT_FILE)["Coronary calcium, all vessels"]
    (mass,) = total.get_measurements(name=pydicom.sr.codedict.codes.DCM.CalciumMass)
    assert reviewed.mass_mg is not None
    assert (mass.value, mass.unit.value) == (pytest.approx(reviewed.mass_mg), "mg")
    values = [measurement.value for measurement in total.get_measurements()]
    assert 123.5 in values
    assert f"Mass {reviewed.mass_mg:.1f} mg" in (tmp_path / NAME / OVERLAY_FILE).read_text("utf-8")


def texts_of(content: Any) -> Iterator[tuple[str, str]]:
    for item in content:
        if item.ValueType == "TEXT":
            yield item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue
        yield from texts_of(item.get("ContentSequence", ()))


def test_the_report_names_the_package_and_its_use(written: tuple[Exam, Path]) -> None:
    exam, folder = written
    report = pydicom.dcmread(folder / REPORT_FILE)
    texts = list(texts_of(report.ContentSequence))
    for expected in (
        ("Algorithm Name", MODEL.name),
        ("Algorithm Version", MODEL.version),
        ("Algorithm Parameters", f"package digest {MODEL.digest}"),
        ("Algorithm Parameters", f"scoring profile {PROFILE}"),
        ("Comment", RESEARCH_USE),
    ):
        assert expected in texts
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99FEDCAC"
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    seg = pydicom.dcmread(folder / SEGMENTATION_FILE, stop_before_pixels=True)
    assert seg.SOPInstanceUID in evidence
    assert {dataset.SOPInstanceUID for dataset in exam.series.datasets} <= evidence


def test_another_toolkit_reads_them_without_complaint(written: tuple[Exam, Path]) -> None:
    dsrdump, dcmdump = shutil.which("dsrdump"), shutil.which("dcmdump")
    if dsrdump is None or dcmdump is None:
        pytest.skip("DCMTK is not installed")
    _, folder = written
    for command in ([dsrdump, folder / REPORT_FILE], [dcmdump, "+fo", folder / SEGMENTATION_FILE]):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0
        assert not [line for line in finished.stderr.splitlines() if line[:2] in ("E:", "W:")]


# --- who the patient is

SECRETS = {
    "PatientName": "Zzcanary^Käthe",
    "PatientID": "ZZ-CANARY-4711",
    "PatientBirthDate": "19330703",
    "AccessionNumber": "ACC-CANARY-99",
    "StudyDescription": "CANARY STUDY OF WARD 7",
    "ReferringPhysicianName": "Doctorcanary",
    "InstitutionName": "Canary General Hospital",
    "StationName": "CANARYSTATION",
    "SeriesDescription": "canary series words",
    "ProtocolName": "canary protocol",
    "ImageComments": "canary comments",
    "StudyDate": "20010917",
    "OtherPatientIDs": "CANARY-OTHER-1",
    "IssuerOfPatientID": "CANARY-ISSUER",
}


def identified(generated: Exam, folder: Path, **changes: Any) -> Exam:
    folder.mkdir()
    for path in generated.source.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        for keyword, value in {**SECRETS, **changes}.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / path.name)
    return Exam(folder, generated.vessel_map)


CANARIES = Canaries(words=tuple(SECRETS.values()))


def test_dicom_goes_back_to_the_patient_and_the_page_names_nobody(
    generated: Exam, tmp_path: Path
) -> None:
    exam = identified(generated, tmp_path / "series-of-canary")
    with listening() as heard:
        exam.write(tmp_path / NAME)
    source = exam.series.datasets[0]
    for name in (SEGMENTATION_FILE, REPORT_FILE):
        made = pydicom.dcmread(tmp_path / NAME / name)
        for keyword in (
            "PatientName",
            "PatientID",
            "IssuerOfPatientID",
            "PatientBirthDate",
            "StudyDate",
            "AccessionNumber",
            "ReferringPhysicianName",
            "StudyInstanceUID",
        ):
            assert made[keyword].value == source[keyword].value, keyword
        assert str(made.PatientName) == "Zzcanary^Käthe"
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
    page = (tmp_path / NAME / OVERLAY_FILE).read_bytes()
    assert CANARIES.found_in(page) == []
    for dataset in exam.series.datasets:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            assert dataset[keyword].value.encode() not in page
    assert str(tmp_path).encode() not in page
    # highdicom warns of unusual names by quoting them; none of that may reach a log.
    assert CANARIES.found_in(heard.logged + heard.printed) == []


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Ελένη^Ζωή"),
        ("ISO_IR 100", "O'Zzcanary"),
    ],
)
def test_names_keep_their_letters(
    charset: str | list[str], name: str, generated: Exam, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for path in generated.source.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name
        dataset.save_as(folder / path.name)
    Exam(folder, generated.vessel_map).write(tmp_path / NAME)
    for file in (SEGMENTATION_FILE, REPORT_FILE):
        assert str(pydicom.dcmread(tmp_path / NAME / file).PatientName) == name


def test_what_deidentification_dropped_stays_empty(generated: Exam, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    dropped = ("PatientName", "PatientBirthDate", "StudyDate", "StudyID", "AccessionNumber")
    for path in generated.source.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword in (*dropped, "SpecificCharacterSet", "StudyTime"):
            delattr(dataset, keyword)
        dataset.save_as(folder / path.name)
    Exam(folder, generated.vessel_map).write(tmp_path / NAME)
    for file in (SEGMENTATION_FILE, REPORT_FILE):
        made = pydicom.dcmread(tmp_path / NAME / file)
        for keyword in dropped:
            assert keyword in made
            assert not made[keyword].value


# --- on disk


def modes_below(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_folder_and_files_are_the_owners_alone(written: tuple[Exam, Path]) -> None:
    _, folder = written
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert modes_below(folder) == {0o600}


def test_only_the_page_where_only_the_page_is_asked_for(generated: Exam, tmp_path: Path) -> None:
    generated.write(tmp_path / NAME, kinds="overlay")
    assert [path.name for path in (tmp_path / NAME).iterdir()] == [OVERLAY_FILE]


def test_a_folder_open_to_others_is_refused(generated: Exam, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o750)
    link = tmp_path / "link"
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link.symlink_to(private)
    for place in (folder, link):
        with pytest.raises(UsageError) as caught:
            generated.write(place, kinds="overlay")
        assert caught.value.code == "usage.folder_not_private"
        assert list(place.iterdir()) == []
    generated.write(private, kinds="overlay")


def test_a_failure_leaves_the_former_files(generated: Exam, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / NAME)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    wrong = with_map(generated, generated.vessel_map)
    wrong.volume = replace(generated.volume, origin_lps_mm=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="does not lie where"):
        wrong.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_text_burned_into_the_pixels_is_not_shown(generated: Exam, tmp_path: Path) -> None:
    exam = identified(generated, tmp_path / "series", BurnedInAnnotation="YES")
    with pytest.raises(UsageError) as caught:
        exam.write(tmp_path / NAME)
    assert caught.value.code == "usage.burned_in_annotation"
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("pseudonym", ["", "../up", "a b", "a/b", "<b>", "x" * 65, "å"])
def test_what_is_no_pseudonym(pseudonym: str, generated: Exam, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pseudonym"):
        generated.write(tmp_path / NAME, pseudonym=pseudonym)
    assert not (tmp_path / NAME).exists()


def test_labels_that_contradict_the_score(generated: Exam, tmp_path: Path) -> None:
    told = generated.reviewed()
    untold = with_map(generated, np.where(generated.vessel_map > 0, 5, 0).astype(np.uint8))
    unknown = with_map(generated, np.where(generated.vessel_map > 0, 6, 0).astype(np.uint8))
    with pytest.raises(ValueError, match="no told vessel"):
        untold.write(tmp_path / NAME, reviewed=told)
    with pytest.raises(ValueError, match="0 to 5"):
        unknown.write(tmp_path / NAME, reviewed=told)
    assert [territory.vessel for territory in TERRITORIES] == [*Vessel, None]


# --- at a site


def test_a_site_goes_on_when_artefacts_fail_and_its_log_learns_a_code(
    generated: Exam, tmp_path: Path
) -> None:
    exam = identified(generated, tmp_path / "Zzcanary")
    profile = profile_named(PROFILE)
    criteria = ImageCriteria(min_slices=1)
    writer = ArtefactWriter(
        ArtefactPlan(tmp_path / "artefacts", "all"), MODEL, profile, criteria, SCHEME
    )
    scored = ExamScore(exam.score().total, exam.score().vessels)
    prediction: Any = SimpleNamespace(vessel_map=exam.vessel_map)
    assert writer.folder == tmp_path / "artefacts" / f"some-model-1.2.3-0f0f0f0f-{PROFILE}"
    with listening() as heard:
        writer.review(IndexExam(NAME, exam.source), exam.volume, prediction, scored)
    assert heard.records == []
    folder = writer.folder / NAME
    for place in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    total = groups_of(folder / REPORT_FILE)["Coronary calcium, all vessels"]
    (agatston,) = total.get_measurements(name=pydicom.sr.codedict.codes.DCM.CalciumScore)
    assert agatston.value == pytest.approx(scored.total, rel=1e-12)
    (writer.folder / "a-file").write_bytes(b"")
    moved = replace(exam.volume, origin_lps_mm=(0.0, 0.0, 0.0))
    with listening() as heard:
        missing = IndexExam("gone", tmp_path / "ZZ-CANARY-4711")
        writer.review(missing, exam.volume, prediction, scored)
        writer.review(IndexExam("a-file", exam.source), exam.volume, prediction, scored)
        writer.review(IndexExam("moved", exam.source), moved, prediction, scored)
    said = heard.logged.decode()
    for code in ("dicom.no_such_path", "usage.folder_not_private", "ValueError"):
        assert code in said
    assert CANARIES.found_in(heard.logged + heard.printed) == []
    assert str(tmp_path).encode() not in heard.logged + heard.printed


def test_the_verb_writes_them_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(8)
    exam = generate_pair(rng, 600.0).gated
    few = replace(exam, hu=exam.hu[6:22], vessel_map=exam.vessel_map[6:22])
    source = tmp_path / "series"
    write_series(source, few, ExamLabel("P-CANARY", date(2020, 1, 1), True), rng)
    command = ["score", str(source), "--artefacts", str(tmp_path / NAME)]
    assert main([*command, "--pseudonym", "a b", "--format", "json"]) == 2
    assert json.loads(capsys.readouterr().out)["data"]["code"] == "usage.bad_pseudonym"
    assert not (tmp_path / NAME).exists()
    assert main([*command, "--pseudonym", "p-17", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [Path(path).name for path in data["artefacts"]] == sorted(FILES)
    page = (tmp_path / NAME / OVERLAY_FILE).read_text("utf-8")
    assert "Exam p-17" in page
    assert "Demonstration model" in page
    assert "CANARY" not in page
    mask = str(tmp_path / NAME / SEGMENTATION_FILE)
    assert main(["agatston", command[1], "--mask", mask, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["agatston"] == data["agatston"]
