"""Writes a generated exam as a DICOM series that any viewer opens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from fedcac.phantom.grid import PhantomExam

__all__ = ["ExamLabel", "new_uid", "save_instance", "write_series"]

_INTERCEPT_HU = -1024
# The root of UIDs that are made from a number (PS3.5 B.2): no registered organisation is claimed.
_UID_ROOT = "2.25."


@dataclass(frozen=True)
class ExamLabel:
    """Who and what a generated exam is. Every name says that it is generated."""

    patient_id: str
    study_date: date
    is_gated: bool


def new_uid(rng: np.random.Generator) -> str:
    """Return a UID of the generator's own randomness: the same state gives the same one."""
    return _UID_ROOT + str(int.from_bytes(rng.bytes(15), "big"))


def write_series(
    folder: Path, exam: PhantomExam, label: ExamLabel, rng: np.random.Generator
) -> None:
    """Write one series, an instance per slice, in no meaningful order of file names.

    Signed 16-bit pixels with intercept -1024; axial, head first supine; increments along -z.
    """
    folder.mkdir(parents=True, exist_ok=False)
    study_uid, series_uid, frame_uid = new_uid(rng), new_uid(rng), new_uid(rng)
    stored = (exam.hu - _INTERCEPT_HU).astype(np.uint16)
    names = rng.permutation(stored.shape[0])
    for index, pixels in enumerate(stored):
        dataset = _describe(exam, label)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
        dataset.FrameOfReferenceUID = frame_uid
        dataset.SOPInstanceUID = new_uid(rng)
        dataset.InstanceNumber = index + 1
        _place(dataset, exam, index)
        dataset.PixelData = pixels.tobytes()
        save_instance(dataset, folder / f"I{int(names[index]):04d}.dcm")


def save_instance(dataset: Dataset, path: Path) -> None:
    """Write an instance as a DICOM file, uncompressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)


def _place(dataset: Dataset, exam: PhantomExam, index: int) -> None:
    increment, row_mm, column_mm = exam.spacing_mm
    rows, columns = exam.hu.shape[1:]
    x = -(columns - 1) / 2 * column_mm
    y = -(rows - 1) / 2 * row_mm
    dataset.ImagePositionPatient = [f"{x:.6f}", f"{y:.6f}", f"{-index * increment:.6f}"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = f"{-index * increment:.6f}"


def _acquire(dataset: Dataset, label: ExamLabel) -> None:
    """State what tells a gated calcium exam from a routine chest CT (PS3.3 C.8.2.1, C.7.6.18)."""
    if label.is_gated:
        dataset.BodyPartExamined = "HEART"
        dataset.ScanOptions = ["AXIAL", "ECG"]
        dataset.HeartRate, dataset.NominalInterval, dataset.TriggerTime = "64", "937", "656"
        dataset.ConvolutionKernel = "B35f"
    else:
        dataset.BodyPartExamined = "CHEST"
        dataset.ScanOptions = "HELIX"
        dataset.ConvolutionKernel = "B31f"


def _describe(exam: PhantomExam, label: ExamLabel) -> Dataset:
    dataset = Dataset()
    day = f"{label.study_date:%Y%m%d}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "120000"
    dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "fedcac phantom"
    dataset.ManufacturerModelName = "generated"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Generated exam, not a patient"
    dataset.SeriesDescription = "CaSc gated 3.0" if label.is_gated else "Chest routine 5.0"
    dataset.PatientName = f"Phantom^{label.patient_id}"
    dataset.PatientID = label.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    _acquire(dataset, label)
    dataset.SliceThickness = f"{exam.slice_thickness_mm:.3f}"
    dataset.KVP = "120"
    dataset.ReconstructionDiameter = f"{exam.spacing_mm[2] * exam.hu.shape[2]:.1f}"
    dataset.PatientPosition = "HFS"
    dataset.ContentQualification = "RESEARCH"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2 if label.is_gated else 1
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = exam.hu.shape[1:]
    dataset.PixelSpacing = [f"{exam.spacing_mm[1]:.7f}", f"{exam.spacing_mm[2]:.7f}"]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.RescaleIntercept, dataset.RescaleSlope = str(_INTERCEPT_HU), "1"
    dataset.RescaleType = "HU"
    return dataset
