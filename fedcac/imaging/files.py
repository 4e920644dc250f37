"""DICOM files on disk: which files of a folder are instances, read without trusting their names."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from fedcac.errors import DicomError
from fedcac.imaging.coding import coded, exclusion
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = ["find_instances", "read_dataset"]

_PREAMBLE_LENGTH = 128
_MAGIC = b"DICM"
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})


def find_instances(path: Path) -> tuple[tuple[Path, ...], int]:
    """Return the DICOM files at a path, searched recursively, and how many others were ignored.

    A file is DICOM when it has the PS3.10 magic, or a DICOM suffix (then reading it may fail, but
    not silently). DICOMDIR is ignored. A file given directly is never ignored.

    Raises
    ------
    DicomError
        `no_such_path`, `no_dicom` or `unreadable_dicom` (permissions, input/output errors).
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The path cannot be read"):
        if path.is_file():
            candidates = [path]
        elif path.is_dir():
            candidates = [found for found in sorted(path.rglob("*")) if found.is_file()]
        else:
            raise exclusion(ExclusionReason.NO_SUCH_PATH, "There is no file or folder here.")
        instances = tuple(found for found in candidates if _is_dicom(found))
    if not instances:
        raise exclusion(
            ExclusionReason.NO_DICOM, f"None of {len(candidates)} files here is a DICOM file."
        )
    return instances, len(candidates) - len(instances)


def _is_dicom(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in _DICOM_SUFFIXES:
        return True
    with path.open("rb") as stream:
        head = stream.read(_PREAMBLE_LENGTH + len(_MAGIC))
    return head[_PREAMBLE_LENGTH:] == _MAGIC


def read_dataset(path: Path, *, stop_before_pixels: bool = False) -> FileDataset | None:
    """Read one instance; None for a media directory under another name.

    Raises
    ------
    DicomError
        `truncated_dicom` if the file ends inside an element, `unreadable_dicom` if it is no
        DICOM file or cannot be parsed.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "A file cannot be read as DICOM"):
        dataset = _parse(path, stop_before_pixels)
        if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        if not dataset.get("SOPClassUID") or not dataset.get("SeriesInstanceUID"):
            raise exclusion(
                ExclusionReason.UNREADABLE_DICOM,
                "A DICOM file has no SOP class or series: it is damaged or cut in its header.",
            )
        return dataset


def _parse(path: Path, stop_before_pixels: bool) -> FileDataset:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
        except (EOFError, struct.error) as error:
            raise _truncated() from error
        except OSError as error:
            # pydicom raises a bare OSError at an unexpected end; the system's have a number.
            if error.errno is None:
                raise _truncated() from error
            raise
    if any("End of file reached" in str(warning.message) for warning in caught):
        raise _truncated()
    return dataset


def _truncated() -> DicomError:
    return exclusion(ExclusionReason.TRUNCATED_DICOM, "A DICOM file ends inside an element.")
