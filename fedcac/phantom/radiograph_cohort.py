"""Generated sites with radiographs in DICOM, as a hospital has them, and their clinical tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

from fedcac.errors import UsageError
from fedcac.phantom.dicom import new_uid, save_instance
from fedcac.phantom.radiographs import clinical_rows, draw_radiograph
from fedcac.phantom.site_folders import check_new_folder, write_csv

__all__ = ["RadiographLabel", "write_radiograph", "write_radiograph_cohort"]

_FIRST_DAY = date(2021, 1, 1)
_MOST_DAYS = 170
_PIXEL_MM = 2.4
_WHITE = 4095


@dataclass(frozen=True)
class RadiographLabel:
    """Who and what a generated radiograph is. Every name says that it is generated."""

    patient_id: str
    study_date: date
    study_uid: str
    view: str = "PA"
    is_cr: bool = False
    is_inverted: bool = False


def write_radiograph(
    path: Path, stored: NDArray[np.uint16], label: RadiographLabel, rng: np.random.Generator
) -> None:
    """Write one radiograph (rows, columns) of 12 bits, in which bone is bright, as CR or DX.

    An inverted one is stored as MONOCHROME1: the reader sees the same.
    """
    dataset = _describe(label)
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = new_uid(rng), new_uid(rng)
    pixels = _WHITE - stored if label.is_inverted else stored
    dataset.PhotometricInterpretation = "MONOCHROME1" if label.is_inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if label.is_inverted else "IDENTITY"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.ImagerPixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_instance(dataset, path)


def write_radiograph_cohort(
    out: Path, *, n_sites: int, n_patients: int, seed: int
) -> tuple[str, ...]:
    """Write generated sites with radiographs below `out` and return their names.

    Each site's folder holds `dicom/`, `manifest.csv` (path, role) and `clinical.csv`, with the
    reference score and its day, covariates and follow-up. A study is a folder; every third one has
    a lateral view beside the frontal one, CR and DX take turns, and so do MONOCHROME1 and 2. Every
    fifth patient has a second, later study. The same seed writes the same files.

    Raises
    ------
    UsageError
        If `out` is not empty, or a number does not make sense.
    """
    if n_sites < 1 or n_patients < 1:
        raise UsageError(
            "A cohort needs at least one site and one patient.",
            code="bad_cohort",
            cure="Give other numbers.",
        )
    check_new_folder(out)
    names = tuple(f"site-{number + 1}" for number in range(n_sites))
    for site, name in enumerate(names):
        rng = np.random.default_rng((seed, site))
        patients = clinical_rows(rng, name, n_patients)
        manifest = []
        for number, patient in enumerate(patients):
            manifest += _write_patient(out / name, number, patient, rng)
        write_csv(out / name / "clinical.csv", list(patients[0]), patients)
        write_csv(out / name / "manifest.csv", ["path", "role"], manifest)
    return names


def _write_patient(
    folder: Path, number: int, patient: dict[str, str], rng: np.random.Generator
) -> list[dict[str, str]]:
    day = _FIRST_DAY + timedelta(days=int(rng.integers(0, 900)))
    read = day + timedelta(days=int(rng.integers(-_MOST_DAYS, _MOST_DAYS)))
    patient["reference_date"] = read.isoformat()
    stored = draw_radiograph(rng, float(patient["reference_score"]))
    studies = [(day, number % 3 == 0)]
    if number % 5 == 0:
        # Farther from the reference than the first, on its other side.
        later = day + timedelta(days=400) if read <= day else day - timedelta(days=400)
        studies.append((later, False))
    lines = []
    for when, has_lateral in studies:
        study = f"dicom/{rng.bytes(6).hex()}"
        label = RadiographLabel(
            patient["patient_id"], when, new_uid(rng), "PA", number % 2 == 1, number % 4 > 1
        )
        image = stored if when == day else draw_radiograph(rng, 0.0)
        write_radiograph(folder / study / "frontal.dcm", image, label, rng)
        if has_lateral:
            lateral = RadiographLabel(label.patient_id, when, label.study_uid, "LL", label.is_cr)
            write_radiograph(folder / study / "lateral.dcm", image[:, ::-1], lateral, rng)
        lines.append({"path": study, "role": "index"})
    return lines


def _describe(label: RadiographLabel) -> Dataset:
    dataset = Dataset()
    day = f"{label.study_date:%Y%m%d}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SOPClassUID = (
        ComputedRadiographyImageStorage if label.is_cr else DigitalXRayImageStorageForPresentation
    )
    dataset.StudyInstanceUID = label.study_uid
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CR" if label.is_cr else "DX"
    if not label.is_cr:
        dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = "fedcac phantom"
    dataset.ManufacturerModelName = "generated"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Generated exam, not a patient"
    dataset.SeriesDescription = "Chest LAT" if label.view == "LL" else "Chest PA"
    dataset.PatientName = f"Phantom^{label.patient_id}"
    dataset.PatientID = label.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = label.view
    dataset.PatientOrientation = ["A", "F"] if label.view == "LL" else ["L", "F"]
    dataset.StudyID = "1"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.BurnedInAnnotation = "NO"
    return dataset
