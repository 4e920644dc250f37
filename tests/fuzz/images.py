"""Parsers of images and of what physicians draw on them: DICOM, NIfTI, the XML of Horos."""

from __future__ import annotations

import io
import plistlib
import random
import re
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from fuzz.engine import CANARY, Parser, register
from fuzz.mutations import damage_bytes, damage_dicom, damage_numbers, damage_text, within
from imaging.conversion import convert
from imaging.generated import make_series, uid, write_series
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
)

from fedcac.errors import CohortError
from fedcac.imaging import Volume, build_volume, load_volume, parse_labels, read_series
from fedcac.imaging.acquisition_covariates import read_acquisition
from fedcac.imaging.annotation_files import annotated_map, read_annotation_header
from fedcac.imaging.header import read_header
from fedcac.imaging.instances import Series
from fedcac.imaging.label_map import read_label_map
from fedcac.imaging.radiograph import load_radiograph
from fedcac.imaging.review_artefacts import (
    SEGMENTATION_FILE,
    ModelIdentity,
    write_review_artefacts,
)
from fedcac.imaging.roi_annotation import rasterise_polygon, read_annotation
from fedcac.imaging.roi_slices import check_regions, is_counted_down
from fedcac.imaging.selection import select_series
from fedcac.imaging.structure_set import map_of_contours, read_structure_set
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume
from fedcac.vocabulary import VESSEL_UNKNOWN
from site_agent.exams.review_artefacts import reviewed_score

PROFILE = profile_named("agatston1990")
LAX = ImageCriteria(min_slices=1, allow_contrast=True, allow_sharp_kernel=True)
CHOOSING = LAX.model_copy(update={"choose_series": True})


class Exam:
    """One small series, its volume and its mask; the same every time."""

    def __init__(self) -> None:
        self.root = Path(_KEPT.name)
        slices = make_series(np.random.default_rng(3), CANARY)
        self.folder = write_series(self.root / "series", slices)
        self.paths = sorted(self.folder.iterdir())
        self.series: Series = read_series(self.folder, LAX)
        self.volume: Volume = build_volume(self.series)
        self.mask: NDArray[np.uint8] = np.zeros(self.volume.hu.shape, dtype=np.uint8)
        self.mask[3:5, 10:13, 9:14] = 2


_KEPT = TemporaryDirectory(prefix="fuzz-exam-")


@cache
def exam() -> Exam:
    return Exam()


# series of a CT


def _read_volume(folder: Path) -> None:
    volume = load_volume(folder, LAX)
    assert volume.hu.dtype == np.float32
    assert np.isfinite(volume.hu).all()
    assert min(volume.spacing_mm) > 0
    assert CANARY not in repr(volume)
    header = read_header(folder)
    assert CANARY not in repr(header)


def _series_slice(payload: bytes, folder: Path) -> None:
    """The file is one slice of a series whose other slices are sound."""
    target = folder / "series"
    if not target.exists():
        target.mkdir()
        for path in exam().paths[:4] + exam().paths[5:9]:
            (target / path.name).write_bytes(path.read_bytes())
    (target / "04.dcm").write_bytes(payload)
    try:
        _read_volume(target)
    finally:
        _or_nothing(lambda: read_acquisition(target, LAX))
        _or_nothing(lambda: select_series(target, CHOOSING))


def _or_nothing(read: Callable[[], object]) -> None:
    """Read something else of the same files; a code is an answer."""
    try:
        read()
    except CohortError:
        return


_DICOM = (damage_dicom, damage_dicom, damage_dicom, damage_bytes, within(0, 600, damage_bytes))

register(
    Parser(
        name="ct-slice",
        writer="a scanner, a PACS, or who exported from one",
        entry="fedcac.imaging.load_volume",
        promise="finite HU on a grid with positive spacing; no repr names the patient",
        seeds=lambda: [exam().paths[4].read_bytes()],
        parse=_series_slice,
        mutators=_DICOM,
        n_cases=60,
    )
)


def _single_file(payload: bytes, folder: Path) -> None:
    path = folder / "one.dcm"
    path.write_bytes(payload)
    _read_volume(path)


@cache
def _enhanced() -> bytes:
    slices = make_series(np.random.default_rng(4), CANARY)[:6]
    return _steady(pydicom.dcmread(convert(slices, exam().root)))


register(
    Parser(
        name="enhanced-ct",
        writer="a scanner, a PACS, or who exported from one",
        entry="fedcac.imaging.load_volume",
        promise="finite HU on a grid with positive spacing; no repr names the patient",
        seeds=lambda: [_enhanced()],
        parse=_single_file,
        mutators=_DICOM,
        n_cases=60,
    )
)


@cache
def _radiograph() -> bytes:
    rng = np.random.default_rng(6)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = uid(rng)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(rng), uid(rng)
    dataset.PatientID, dataset.PatientName = CANARY, f"Name^{CANARY}"
    dataset.StudyDate, dataset.Modality, dataset.BodyPartExamined = "20200102", "DX", "CHEST"
    dataset.ViewPosition, dataset.ImageType = "PA", ["ORIGINAL", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientOrientation = ["L", "F"]
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [0.5, 0.5]
    dataset.Rows, dataset.Columns = 40, 32
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2000, 3000
    dataset.PixelData = rng.integers(0, 4096, (40, 32), dtype=np.uint16).tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _load_radiograph(payload: bytes, folder: Path) -> None:
    path = folder / "one.dcm"
    path.write_bytes(payload)
    found = load_radiograph(path, LAX)
    assert np.isfinite(found.intensity).all()
    assert 0 <= found.intensity.min() <= found.intensity.max() <= 1
    assert CANARY not in repr(found)


register(
    Parser(
        name="radiograph",
        writer="an X-ray system, a PACS, or who exported from one",
        entry="fedcac.imaging.radiograph.load_radiograph",
        promise="intensities from 0 to 1; no repr names the patient",
        seeds=lambda: [_radiograph()],
        parse=_load_radiograph,
        mutators=_DICOM,
        n_cases=150,
    )
)


# annotations


@cache
def _segmentation() -> bytes:
    made = exam()
    score = score_volume(made.volume.hu, made.mask, made.volume.spacing_mm, PROFILE)
    model = ModelIdentity("some-model", "1.2.3", "sha256:" + "0f" * 32, is_demonstration=False)
    write_review_artefacts(
        made.root / "artefacts",
        made.series,
        made.volume,
        made.mask,
        reviewed_score(score, score.vessels, PROFILE.name),
        model,
        pseudonym="k0123456789abcdef",
    )
    return _steady(pydicom.dcmread(made.root / "artefacts" / SEGMENTATION_FILE))


def _steady(dataset: Dataset) -> bytes:
    """Return a data set's file with every UID and moment that was drawn or read off a clock fixed.

    The UIDs of the series keep their values: the two belong together.
    """
    own = {str(one.SOPInstanceUID) for one in exam().series.datasets}
    first = exam().series.datasets[0]
    own |= {str(first[name].value) for name in _SERIES_UIDS}
    fixed: dict[str, str] = {}

    def settle(_: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and isinstance(element.value, str):
            text = str(element.value)
            if text not in own and not text.startswith("1.2.840.10008."):
                element.value = fixed.setdefault(text, f"2.25.1{len(fixed):030d}")
        elif element.VR in ("DA", "TM", "DT") and element.value:
            element.value = {"DA": "20260101", "TM": "120000", "DT": "20260101120000"}[element.VR]

    dataset.walk(settle)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


_SERIES_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


@cache
def _structure_set() -> bytes:
    made = exam()
    template = made.series.datasets[0]
    x, y, z = made.volume.origin_lps_mm
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, "2.25.1"
    dataset.PatientID = CANARY
    dataset.FrameOfReferenceUID = template.FrameOfReferenceUID
    region = Dataset()
    region.ROINumber, region.ROIName = 1, "LAD"
    region.ReferencedFrameOfReferenceUID = template.FrameOfReferenceUID
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    corners = [(4.0, 4.0), (7.0, 4.0), (7.0, 8.0)]
    contour.ContourData = [
        round(value, 3) for dx, dy in corners for value in (x + dx, y + dy, z - 9.0)
    ]
    contour.NumberOfContourPoints = 3
    drawn = Dataset()
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, [contour]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [region], [drawn]
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _annotated(name: str, meanings: str | None = None) -> Callable[[bytes, Path], None]:
    def parse(payload: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(payload)
        header = read_annotation_header(path)
        assert CANARY not in repr(header)
        labels = None if meanings is None else parse_labels(meanings)
        found = annotated_map(path, header, exam().series, exam().volume, labels)
        assert found.shape == exam().volume.hu.shape
        assert found.dtype == np.uint8
        assert found.max() <= VESSEL_UNKNOWN

    return parse


def _read_structures(payload: bytes, folder: Path) -> None:
    _annotated("drawn.dcm")(payload, folder)
    found = map_of_contours(read_structure_set(folder / "drawn.dcm"), exam().volume)
    assert found.any() or not found.any()


_DRAWN = "a physician's viewer or planning system"
register(
    Parser(
        name="segmentation",
        writer=_DRAWN,
        entry="fedcac.imaging.annotation_files.annotated_map",
        promise="a vessel map of the volume's shape, values up to 5",
        seeds=lambda: [_segmentation()],
        parse=_annotated("drawn.dcm"),
        mutators=_DICOM,
        n_cases=60,
    )
)
register(
    Parser(
        name="structure-set",
        writer=_DRAWN,
        entry="fedcac.imaging.structure_set.read_structure_set",
        promise="a vessel map of the volume's shape, values up to 5",
        seeds=lambda: [_structure_set()],
        parse=_read_structures,
        mutators=_DICOM,
        n_cases=150,
    )
)


def _label_maps() -> list[bytes]:
    made = exam()
    increment, row_mm, column_mm = made.volume.spacing_mm
    x, y, z = made.volume.origin_lps_mm
    affine = np.array(
        [[-column_mm, 0, 0, -x], [0, -row_mm, 0, -y], [0, 0, -increment, z], [0, 0, 0, 1]]
    )
    seeds = []
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        image = kind(made.mask.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        seeds.append(image.to_bytes())
    return seeds


def _header_number(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Put an odd number into one field of a NIfTI header."""
    damaged = bytearray(payload)
    kind = rng.choice(("<h", "<i", "<f", "<q", "<d", ">h"))
    width = struct.calcsize(kind)
    at = rng.randrange(0, min(540, len(damaged)) - width, 2)
    if kind[1] in "fd":
        number: Any = rng.choice((float("nan"), float("inf"), 0.0, -1.0, 1e30, 1e-30))
    else:
        limit = 1 << (8 * width - 1)
        number = rng.choice((0, 1, -1, 2, 7, limit - 1, -limit, 348, 540))
    struct.pack_into(kind, damaged, at, number)
    return bytes(damaged)


def _read_label_map(payload: bytes, folder: Path) -> None:
    path = folder / "mask.nii"
    path.write_bytes(payload)
    found = read_label_map(path, exam().volume, parse_labels("1=lm, 2=lad 3=lcx,4=rca"))
    assert found.shape == exam().volume.hu.shape
    assert found.max() <= VESSEL_UNKNOWN


register(
    Parser(
        name="label-map",
        writer=_DRAWN,
        entry="fedcac.imaging.label_map.read_label_map",
        promise="a vessel map of the volume's shape, values up to 5",
        seeds=_label_maps,
        parse=_read_label_map,
        mutators=(_header_number, _header_number, damage_bytes, within(0, 352, damage_bytes)),
        n_cases=150,
    )
)


def _regions() -> list[bytes]:
    region = {"Name": "Left Main", "Max": 250.5, "Point_px": ["(9.0, 10.0)", "(13, 10)", "(13,14)"]}
    empty = {"Name": "Right Coronary Artery", "Point_px": []}
    document = {"Images": [{"ImageIndex": 3, "NumberOfROIs": 1, "ROIs": [region, empty]}]}
    whole = {**region, "Max": 250}
    other = {"Images": [{"ImageIndex": 5, "ROIs": [whole, {**whole, "Name": "left main"}]}]}
    return [plistlib.dumps(document), plistlib.dumps(other)]


_XML = (
    "<integer>" + "9" * 400 + "</integer>",
    "<integer>-1</integer>",
    "<integer>0x10</integer>",
    "<integer></integer>",
    "<real>nan</real>",
    "<real>1e999</real>",
    "<string>(1e999, 2)</string>",
    "<string>(1, 2, 3)</string>",
    "<string>(" + "1" * 39 + "," + " " * 5000 + "2)</string>",
    "<date>2020-99-99T00:00:00Z</date>",
    "<data>????</data>",
    "<true/>",
    "<array/>",
    "<dict/>",
    "<dict><key>a</key></dict>",
    "<array>" * 2000,
    "<!DOCTYPE a [<!ENTITY b 'c'>]>",
    "&nobody;",
    "<key>x</key>",
)


def _xml(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Put an odd element in the place of one."""
    text = payload.decode("utf-8", "replace")
    found = list(re.finditer(r"<(\w+)>[^<]*</\1>|<\w+/>", text))
    if not found:
        return damage_bytes(rng, payload, seeds)
    match = rng.choice(found)
    return (text[: match.start()] + rng.choice(_XML) + text[match.end() :]).encode()


def _read_regions(payload: bytes, folder: Path) -> None:
    annotation = read_annotation(payload)
    volume = exam().volume
    for polygon in annotation.polygons:
        assert np.isfinite(polygon.points_px).all()
        assert rasterise_polygon(polygon.points_px, (24, 24)).shape == (24, 24)
    check_regions(annotation, volume)
    try:
        is_counted_down(annotation, volume)
    except CohortError as error:
        # Whether a made-up maximum is found says nothing about the file's form.
        if error.code != "cohort.slice_order_unclear":
            raise


register(
    Parser(
        name="regions",
        writer="Horos or OsiriX, by way of a physician",
        entry="fedcac.imaging.roi_annotation.read_annotation",
        promise="finite polygons on slices that are there",
        seeds=_regions,
        parse=_read_regions,
        mutators=(_xml, _xml, damage_text, damage_numbers, damage_bytes),
        n_cases=300,
    )
)
