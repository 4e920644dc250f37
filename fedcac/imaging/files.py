"""DICOM files on disk: which files of a folder are instances, read without trusting their names."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from fedcac.errors import DicomError
from fedcac.imaging.coding import coded, exclusion
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = [
    "MOST_BYTES",
    "find_instances",
    "locate_series",
    "read_dataset",
    "read_datasets",
    "read_located",
]

_PREAMBLE_LENGTH = 128
_MAGIC = b"DICM"
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

# The file meta information: preamble, magic, then its group length (PS3.10 7.1).
_META_START = 144
_META_LENGTH = 1024
_CHUNK = 2**20

MOST_BYTES = 2**31
"""A file that is longer is no exam: `MOST_VOXELS` of 16 bits."""

MOST_INFLATED_BYTES = 2**29
"""Most that one deflated file may inflate to: 1024 slices of 512 x 512."""

# A UID (PS3.5 9.1). A shorter name of that form is rather the version of something.
_UID = re.compile(r"(?=.{10,64}$)[0-2](\.(0|[1-9][0-9]*)){2,}")


def locate_series(path: Path) -> tuple[Path, str | None]:
    """Return the folder or file at a path, and the series that the path names within it, if any.

    A path may end in the SeriesInstanceUID of one of the series that lie below it in one folder:
    `STUDY/1.2.840.113619.2.55.3` where there is no such file. So a manifest names a series that
    has no folder of its own.

    Raises
    ------
    DicomError
        `unreadable_dicom` if no file can have such a path.
    """
    is_uid = _UID.fullmatch(path.name) is not None
    with coded(ExclusionReason.UNREADABLE_DICOM, "The path cannot be read"):
        if is_uid and not os.path.lexists(path) and path.parent.is_dir():
            return path.parent, path.name
    return path, None


def find_instances(path: Path) -> tuple[tuple[Path, ...], int]:
    """Return the DICOM files at a path, searched recursively, and how many others were ignored.

    A file is DICOM when it has the PS3.10 magic, or a DICOM suffix (then reading it may fail, but
    not silently); so is, beside instances without a suffix, a file of the same kind that is empty
    or begins with zeros only. DICOMDIR is ignored. Symbolic links are followed, each folder once.

    Raises
    ------
    DicomError
        `no_such_path`, `no_dicom` or `unreadable_dicom` (permissions, input/output errors, and
        what is no file but is called like an instance: a broken link, a pipe).
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The path cannot be read"):
        if path.is_file():
            candidates = [path]
        elif path.is_dir():
            candidates = _files_below(path)
        else:
            raise exclusion(ExclusionReason.NO_SUCH_PATH, "There is no file or folder here.")
        instances = _instances_among(candidates)
    if not instances:
        raise exclusion(
            ExclusionReason.NO_DICOM, f"None of {len(candidates)} files here is a DICOM file."
        )
    return instances, len(candidates) - len(instances)


def _files_below(folder: Path) -> list[Path]:
    found = []
    visited = set()
    for parent, subfolders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                found.append(path)
            elif _has_dicom_suffix(path):
                raise exclusion(
                    ExclusionReason.UNREADABLE_DICOM, "A DICOM file is a broken link or no file."
                )
    return sorted(found)


def _raise(error: OSError) -> None:
    # os.walk passes over what it cannot read: its slices would be missing without a word.
    raise error


def _instances_among(candidates: Sequence[Path]) -> tuple[Path, ...]:
    heads = {path: _head(path) for path in candidates if not _has_dicom_suffix(path)}
    instances = {path for path in candidates if _is_dicom(path, heads.get(path, b""))}
    if any(not path.suffix for path in instances):
        # Where instances have no suffix, what is cut or overwritten with zeros was one of them.
        instances.update(
            path
            for path, head in heads.items()
            if not path.suffix and not path.name.startswith(".") and not head.strip(b"\0")
        )
    return tuple(path for path in candidates if path in instances)


def _has_dicom_suffix(path: Path) -> bool:
    return path.suffix.lower() in _DICOM_SUFFIXES


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_PREAMBLE_LENGTH + len(_MAGIC))


def _is_dicom(path: Path, head: bytes) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    return _has_dicom_suffix(path) or head[_PREAMBLE_LENGTH:] == _MAGIC


def read_located(path: Path, *, stop_before_pixels: bool = False) -> list[FileDataset]:
    """Read the instances at a path, or those of the one series that it names (`locate_series`).

    Raises
    ------
    DicomError
        As `find_instances` and `read_datasets`; `series_not_found` if the named series is not
        there.
    """
    folder, series_uid = locate_series(path)
    paths, _ = find_instances(folder)
    datasets = read_datasets(paths, stop_before_pixels=stop_before_pixels)
    if series_uid is None:
        return datasets
    named = [dataset for dataset in datasets if dataset.SeriesInstanceUID == series_uid]
    if not named:
        raise exclusion(ExclusionReason.SERIES_NOT_FOUND, "The series named is not here.")
    return named


def read_datasets(paths: Sequence[Path], *, stop_before_pixels: bool = False) -> list[FileDataset]:
    """Read instances in the order of their files; a media directory among them is left out.

    Raises
    ------
    DicomError
        `no_dicom` if there is nothing else; as `read_dataset`.
    """
    read = [read_dataset(path, stop_before_pixels=stop_before_pixels) for path in paths]
    datasets = [dataset for dataset in read if dataset is not None]
    if not datasets:
        raise exclusion(ExclusionReason.NO_DICOM, "There is only a media directory here.")
    return datasets


def read_dataset(path: Path, *, stop_before_pixels: bool = False) -> FileDataset | None:
    """Read one instance; None for a media directory under another name.

    Raises
    ------
    DicomError
        `truncated_dicom` if the file ends inside an element, `too_large` if it is or inflates
        to more than an exam, `unreadable_dicom` if it is no DICOM file or cannot be parsed.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "A file cannot be read as DICOM"):
        _check_bytes(path)
        dataset = _parse(path, stop_before_pixels)
        if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        if not dataset.get("SOPClassUID") or not dataset.get("SeriesInstanceUID"):
            raise exclusion(
                ExclusionReason.UNREADABLE_DICOM,
                "A DICOM file has no SOP class or series: it is damaged or cut in its header.",
            )
        return dataset


def _check_bytes(path: Path) -> None:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_META_LENGTH)
        if DeflatedExplicitVRLittleEndian.encode() in head:
            # A deflated data set is inflated whole before its first element is read.
            stream.seek(_META_START + int.from_bytes(head[_META_START - 4 : _META_START], "little"))
            if _inflated_size(stream) > MOST_INFLATED_BYTES:
                size = MOST_BYTES + 1
    if size > MOST_BYTES:
        raise exclusion(ExclusionReason.TOO_LARGE, "A file is larger than an exam can be.")


def _inflated_size(stream: BinaryIO) -> int:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, pending = 0, stream.read(_CHUNK)
    while pending and size <= MOST_INFLATED_BYTES:
        size += len(inflater.decompress(pending, _CHUNK))
        pending = inflater.unconsumed_tail or stream.read(_CHUNK)
    return size


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
