"""Review artefacts on disk: one private folder per exam, complete or not there."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedcac import __version__
from fedcac.errors import UsageError
from fedcac.imaging.review_artefacts.content import (
    ModelIdentity,
    ReviewedScore,
    check_pseudonym,
    territories_of,
)
from fedcac.imaging.review_artefacts.overlay import render_overlay
from fedcac.imaging.review_artefacts.seg import build_segmentation
from fedcac.imaging.review_artefacts.sources import anonymous_instances
from fedcac.imaging.review_artefacts.sr import build_report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedcac.imaging.series import Series
    from fedcac.imaging.volume import Volume

__all__ = ["OVERLAY_FILE", "REPORT_FILE", "SEGMENTATION_FILE", "write_review_artefacts"]

SEGMENTATION_FILE = "segmentation.dcm"
REPORT_FILE = "report.dcm"
OVERLAY_FILE = "overlay.html"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_review_artefacts(
    folder: Path,
    series: Series,
    volume: Volume,
    vessel_map: NDArray[np.uint8],
    score: ReviewedScore,
    model: ModelIdentity,
    *,
    pseudonym: str,
    kinds: Literal["overlay", "all"] = "all",
) -> tuple[Path, ...]:
    """Write what a physician at the site reviews of one exam, and return the paths.

    The folder is made with mode 0700 and its files with 0600: the segmentation and the report
    carry the patient's own identifiers, so that the hospital's archive files them with the series.
    `overlay.html` carries the pseudonym alone. All is built before anything is written, so a
    failure leaves the folder's former files as they were.

    Parameters
    ----------
    folder
        The exam's own folder. It is made if it does not exist.
    series
        What `read_series` returned.
    volume
        What `build_volume` made of the series.
    vessel_map
        uint8 of the volume's shape: 0 none, 1 to 4 LM, LAD, LCX, RCA, 5 coronary calcium of no
        told vessel.
    kinds
        `overlay` writes the page alone.

    Raises
    ------
    UsageError
        `folder_not_private` if the folder is a link or open to others; `burned_in_annotation` if
        the header says that the pixels hold text, which the page would show.
    ValueError
        If the map, the volume and the series do not belong together.
    """
    check_pseudonym(pseudonym)
    _check_pixels(series)
    territories = territories_of(vessel_map, score)
    page = render_overlay(volume, vessel_map, score, model, pseudonym)
    segmentation = report = None
    if kinds == "all":
        instances = anonymous_instances(series)
        segmentation = build_segmentation(
            instances, series, volume, vessel_map, territories, model, __version__
        )
        report = build_report(
            instances, series, segmentation, territories, score, model, __version__
        )
    _make_private(folder)
    # A folder inside has the same file system, so every replacement is one step.
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as place:
        partial = Path(place)
        (partial / OVERLAY_FILE).write_text(page, encoding="utf-8")
        for name, dataset in ((SEGMENTATION_FILE, segmentation), (REPORT_FILE, report)):
            if dataset is not None:
                dataset.save_as(partial / name, enforce_file_format=True)
        written = sorted(partial.iterdir())
        for path in written:
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            os.replace(path, folder / path.name)
    return tuple(folder / path.name for path in written)


def _check_pixels(series: Series) -> None:
    if any(dataset.get("BurnedInAnnotation") == "YES" for dataset in series.datasets):
        raise UsageError(
            "The header says that text is burned into the pixels, and a page would show it.",
            code="burned_in_annotation",
            cure="Review this exam in the hospital's own viewer.",
        )


def _make_private(folder: Path) -> None:
    for parent in reversed([parent for parent in folder.parents if not parent.exists()]):
        parent.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    try:
        folder.mkdir(mode=stat.S_IRWXU)
    except FileExistsError:
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_mode & _OTHERS:
            raise UsageError(
                "The folder for review artefacts is a link, no folder, or open to others.",
                code="folder_not_private",
                cure="Give a new folder, or close it with `chmod 700`.",
            ) from None
