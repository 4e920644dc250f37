"""highdicom's legacy conversion of a single-frame series (PS3.3 A.70, C.7.6.16)."""

from __future__ import annotations

from pathlib import Path

from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.dataset import Dataset

_TYPE_2 = {
    "PatientName": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "AccessionNumber": "",
    "StudyID": "",
    "StudyDate": "20200101",
    "StudyTime": "",
    "ReferringPhysicianName": "",
    "Manufacturer": "",
}


def convert(slices: list[Dataset], folder: Path) -> Path:
    """Write the conversion into a folder; attributes that it asks for and that lack are filled."""
    for dataset in slices:
        for keyword, value in _TYPE_2.items():
            if keyword not in dataset:
                setattr(dataset, keyword, value)
    whole = LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid="2.25.8888881",
        series_number=90,
        sop_instance_uid="2.25.8888882",
        instance_number=1,
    )
    whole.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


def decompressed(dataset: Dataset) -> Dataset:
    """Prepare a slice of the shipped series for the conversion."""
    dataset.decompress(generate_instance_uid=False)
    # The conversion warns of a name without a caret.
    dataset.PatientName = f"{dataset.PatientName}^"
    return dataset
