"""Small generated CT series, sound in every respect, for the corruptor and the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

N_SLICES = 16
SIZE = 24
INCREMENT_MM = 3.0
PIXEL_MM = 0.7


def body_hu(rng: np.random.Generator) -> NDArray[np.int16]:
    """A round body in air with two calcified lesions, HU, shape (slices, rows, columns)."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    body = rows**2 + columns**2 < (0.45 * SIZE) ** 2
    hu = np.where(body, 40, -1000) + rng.normal(0, 10, (N_SLICES, SIZE, SIZE))
    for _ in range(2):
        z, row, column = rng.integers([3, 8, 8], [N_SLICES - 3, SIZE - 9, SIZE - 9])
        hu[z : z + 2, row : row + 2, column : column + 3] = rng.integers(200, 900)
    return np.asarray(np.maximum(hu, -1024).round(), dtype=np.int16)


def uid(rng: np.random.Generator) -> str:
    return "2.25." + str(int.from_bytes(rng.bytes(15), "big"))


def make_series(
    rng: np.random.Generator, patient_id: str = "P", hu: NDArray[np.int16] | None = None
) -> list[Dataset]:
    """The slices of one series, from inferior to superior: 12 bits unsigned or 16 bits signed."""
    hu = body_hu(rng) if hu is None else hu
    study, series, frame = uid(rng), uid(rng), uid(rng)
    is_signed = bool(rng.integers(2))
    slices = []
    for number, plane in enumerate(hu):
        dataset = make_slice(plane, is_signed=is_signed)
        dataset.PatientID, dataset.PatientName = patient_id, f"Name^{patient_id}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(rng)
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [-8.0, -8.0, round(-20 + INCREMENT_MM * number, 3)]
        slices.append(dataset)
    return slices


def make_slice(hu: NDArray[np.int16], *, is_signed: bool = False) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.Modality = CTImageStorage, "CT"
    dataset.StudyDate = "20200102"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [PIXEL_MM, PIXEL_MM]
    dataset.SliceThickness, dataset.KVP, dataset.ConvolutionKernel = 3, 120, "B"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.PixelRepresentation = int(is_signed)
    dataset.BitsStored = 16 if is_signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0 if is_signed else -1024
    stored = hu if is_signed else (hu + 1024).astype(np.uint16)
    dataset.PixelData = stored.tobytes()
    return dataset


def write_series(folder: Path, slices: list[Dataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(slices):
        dataset.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)
    return folder
