"""The folder of one series in the cache: whole instances only, whatever ends the process."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

from fedcac.errors import DicomError
from fedcac.imaging.files import read_dataset
from site_agent.pacs.faults import PacsError, PacsFault

__all__ = ["PARSING", "InstanceFolder", "name_of_uid", "sync_folder"]

PARSING = threading.Lock()
"""Held while DICOM is parsed: warnings are silenced meanwhile, for the whole process."""

_NAME_LENGTH = 32
_SUFFIX = ".dcm"
_PART = ".part"


def name_of_uid(uid: str) -> str:
    """Return the name under which something with a UID is stored: no path shows a UID."""
    return sha256(uid.encode("ascii", "replace")).hexdigest()[:_NAME_LENGTH]


def sync_folder(path: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class InstanceFolder:
    """The instances of one series. A file that has its final name is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in path.glob(f"*{_PART}"):
            leftover.unlink()

    @staticmethod
    def name_of(sop_uid: str) -> str:
        """Return the name of an instance's file."""
        return name_of_uid(sop_uid) + _SUFFIX

    def held(self) -> frozenset[str]:
        """Return the names of the instances that lie here."""
        return frozenset(path.name for path in self.path.glob(f"*{_SUFFIX}"))

    def keep(self, content: bytes, study_uid: str, series_uid: str) -> bool:
        """Store one DICOM file; False if the instance lies here already.

        Raises
        ------
        PacsError
            `pacs_other_object` if it is of another study or series or no DICOM file,
            `pacs_not_written` if the disk does not take it.
        """
        try:
            return self._write(content, study_uid, series_uid)
        except OSError as error:
            raise PacsError(PacsFault.NOT_WRITTEN) from error

    def _write(self, content: bytes, study_uid: str, series_uid: str) -> bool:
        part = self.path / f"{os.getpid()}-{threading.get_ident()}{_PART}"
        try:
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            target = self.path / self.name_of(_identify(part, study_uid, series_uid))
            if target.exists():
                return False
            part.rename(target)
            sync_folder(self.path)
        finally:
            part.unlink(missing_ok=True)
        return True


def _identify(path: Path, study_uid: str, series_uid: str) -> str:
    """Return the SOP instance UID of a file that belongs to a series."""
    try:
        with PARSING:
            dataset = read_dataset(path, stop_before_pixels=True)
    except DicomError as error:
        raise PacsError(PacsFault.OTHER_OBJECT) from error
    uid = "" if dataset is None else str(dataset.get("SOPInstanceUID", ""))
    if (
        dataset is None
        or not uid
        or str(dataset.get("StudyInstanceUID", "")) != study_uid
        or str(dataset.SeriesInstanceUID) != series_uid
    ):
        raise PacsError(PacsFault.OTHER_OBJECT)
    return uid
