"""From a path to one eligible CT series: the only one there, the one named, or the preferred."""

from __future__ import annotations

from pathlib import Path

from fedcac.imaging.coding import coded
from fedcac.imaging.files import find_instances, locate_series
from fedcac.imaging.instances import Series, read_instances
from fedcac.imaging.selection import select_series
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

__all__ = ["Series", "read_series"]


def read_series(path: Path, criteria: ImageCriteria) -> Series:
    """Return the one eligible series at a folder or file.

    Neither names nor order of the files matter. Folders are searched recursively; files that are
    not DICOM are ignored and counted. A path that ends in a SeriesInstanceUID names one of
    several series (`locate_series`); without that the criteria say whether a folder may hold a
    whole study, of which one series is chosen.

    Raises
    ------
    DicomError
        Its code is the ExclusionReason, as `select_series` and `read_instances`.
    """
    folder, series_uid = locate_series(path)
    if series_uid is not None or criteria.choose_series:
        selection = select_series(folder, criteria, series_uid)
        paths, n_ignored = selection.chosen.paths, selection.n_ignored
    else:
        with coded(ExclusionReason.UNREADABLE_DICOM, "The series cannot be interpreted"):
            paths, n_ignored = find_instances(path)
    return read_instances(paths, criteria, n_ignored=n_ignored)
