"""Writes reference/dicom-data.md: what becomes of real DICOM from public collections.

`python docs/dicom_data.py FOLDER`, where FOLDER holds the collections (`_SOURCES` names them); a
test compares what is committed with what it would write wherever they are beside the checkout.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from fedcac.errors import DicomError
from fedcac.imaging import (
    Acquisition,
    load_radiograph,
    load_volume,
    reason_of,
    select_series,
)
from fedcac.protocol import ImageCriteria

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent / "reference" / "dicom-data.md"

_STRICT = ImageCriteria()
_LENIENT = ImageCriteria(min_slices=1, allow_contrast=True, allow_sharp_kernel=True)
_SURVEY = _LENIENT.model_copy(update={"choose_series": True})

_RADIOGRAPHS = "cxr"

_HEAD = """# Real DICOM, and what becomes of it

<!-- Made by `python docs/dicom_data.py FOLDER` from the data; do not edit. -->

Every series and every file of the public collections that the imaging code is tested on gives
either a volume or a [documented code](codes.md). *Default criteria* are those of a protocol that
states none; *lenient criteria* also take a single slice, contrast and sharp kernels. Size is
slices x rows x columns, spacing the same in mm; the digest is the start of the SHA-256 of the
Hounsfield units (little-endian float32, from superior to inferior). `=` repeats the default's
volume. *Acquisition* is the verdict on the header with its points for gating and for attenuation
correction. A folder of several series is followed by its files.

A test makes this page again and compares it, where the collections lie beside the checkout. They
are not shipped.

## How a series is chosen

A manifest's path is one of three things: the folder (or file) of one series; the folder of a study
followed by the SeriesInstanceUID of one of its series, `STUDY/1.2.840.113619.2.55`, whatever its
files are called; or, where the protocol says `choose_series`, the folder of a whole study.

Of a study everything is rejected that the protocol does not read, each with its code: scouts,
derived images and projections, dose reports, contrast (by attribute or by description), slices
that are not axial, too few or too thick, kernels that are not allowed. Of the rest, in this order:
a series of the `acquisition` asked for before one whose header leaves it open; a soft kernel
before a sharp one; the first of `preferred_kernels`; the thickness nearest to
`preferred_thickness_mm`; the most slices; the lowest series number. Naming the series overrides
this order and nothing else.

Gated, non-gated and attenuation-correction CT are told apart by points, because real gated series
often carry no cardiac attribute. For gating: synchronisation technique, trigger time, R-R interval
and cardiac phase (5 or 6), heart rate and intervals (1 or 2), scan options (2 for cine, -1 for
helical), reconstruction diameter (1 up to 260 mm, -2 from 300 mm), slice thickness, Siemens'
sequence or spiral, scoring kernels, body part, and what series and protocol are called in fifteen
languages (3 and 2). From 3 points a series is gated, to -2 non-gated. For attenuation correction:
the description (4), a SPECT/CT or PET/CT scanner (3), NM or PT in the study (2), a whole-body
diameter, low exposure and current, one of Siemens' smoothest kernels (1 each), and -3 for a
diagnostic current, because hybrid scanners make diagnostic scans too; from 4. A protocol that
states an `acquisition` excludes only a series that clearly is another. Where it asks for
attenuation correction, a series that seems non-gated stays, because many are not labelled. No
attenuation-correction CT is among the collections below: its rules follow the makers' naming
and are tested on made headers alone.

Every exam carries what its header says as covariates, where a protocol names them: see
[fill in the clinical table](../how-to/fill-in-the-clinical-table.md).

Of a series with several cardiac phases or acquisitions at the same positions the phase nearest to
`preferred_phase_percent` is read; without that rule it is excluded as `several_phases`.

## What becomes of the files
"""

_SOURCES = """
## Sources

| folder | collection | licence |
|---|---|---|
| `chest_ct` | TCIA Lung-PET-CT-Dx, doi:10.7937/TCIA.2020.NNC20461 | CC BY 4.0 |
| `chest_ct_substack` | TCIA LIDC-IDRI, doi:10.7937/K9/TCIA.2015.LO9QL9SX | CC BY 3.0 |
| `transfer_syntax` | test images of cornerstoneWADOImageLoader: one CT in sixteen syntaxes | MIT |
| `odd` | dcmqi; pydicom-data | BSD-3 style; MIT |
| `broken_geometry` | test data of icometrix dicom2nifti | MIT |
| `gated_headers` | test files of pydicom: GE SmartScore headers with pixels of 16 x 16 | MIT |
| `cxr` | pydicom-data | MIT |
"""


def page(folder: Path) -> str:
    """Return the text of the page for the collections in a folder."""
    rows = [
        "| series or file | default criteria | lenient criteria | acquisition |",
        "|---|---|---|---|",
    ]
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if name.startswith(_RADIOGRAPHS):
            rows.append(f"| `{name}` | {_radiograph(path)} | | |")
            continue
        strict = _volume(path, _STRICT)
        # What the default takes, the lenient criteria take too.
        lenient = _volume(path, _LENIENT) if strict.startswith("`") else strict
        rows.append(
            f"| `{name}` | {strict} | {'=' if lenient == strict else lenient} | {_verdict(path)} |"
        )
    return _HEAD + "\n" + "\n".join(rows) + "\n" + _SOURCES


def _entries(folder: Path) -> Iterator[Path]:
    """Yield every folder that holds files, and the files of those with several series."""
    for parent in sorted(path for path in folder.rglob("*") if path.is_dir()):
        files = sorted(path for path in parent.iterdir() if path.is_file())
        if not any(_is_series_file(path) for path in files):
            continue
        yield parent
        if _volume(parent, _LENIENT) == "`mixed_series`":
            yield from files


def _is_series_file(path: Path) -> bool:
    return path.name.split(".")[0] != "LICENSE"


@cache
def _volume(path: Path, criteria: ImageCriteria) -> str:
    try:
        volume = load_volume(path, criteria)
    except DicomError as error:
        return f"`{reason_of(error).value}`"
    size = " x ".join(str(side) for side in volume.hu.shape)
    spacing = " x ".join(f"{side:g}" for side in volume.spacing_mm)
    digest = hashlib.sha256(volume.hu.astype("<f4").tobytes()).hexdigest()[:16]
    low, high = float(volume.hu.min()), float(volume.hu.max())
    return f"{size}; {spacing} mm; {low:g} to {high:g} HU; `{digest}`"


def _radiograph(path: Path) -> str:
    try:
        radiograph = load_radiograph(path, _STRICT)
    except DicomError as error:
        return f"`{reason_of(error).value}`"
    rows, columns = radiograph.intensity.shape
    # To 8 bits: a lossy codestream may decode a little otherwise elsewhere.
    grey = np.round(radiograph.intensity * 255).astype(np.uint8)
    spacing = "unknown" if radiograph.pixel_spacing_mm is None else radiograph.pixel_spacing_mm
    return (
        f"radiograph {rows} x {columns}; view {radiograph.view or 'unknown'}; pixel {spacing} mm; "
        f"`{hashlib.sha256(grey.tobytes()).hexdigest()[:16]}`"
    )


def _verdict(path: Path) -> str:
    try:
        verdict = select_series(path, _SURVEY).chosen.verdict
    except DicomError:
        return ""
    if verdict is None:
        return ""
    gated = verdict.points(Acquisition.GATED)
    attenuation = verdict.points(Acquisition.ATTENUATION_CORRECTION)
    return f"{verdict.acquisition or 'open'} ({gated:+d}, {attenuation:+d})"


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])), encoding="utf-8")
