"""COCA's gated exams with their annotations, and the scores of its non-gated ones.

'Coronary Calcium and chest CTs' (Stanford AIMI). Its research licence forbids passing it on; this
reads a copy that the user obtained. Layout as published, found at any depth:
`patient/<id>/.../*.dcm` with `calcium_xml/<id>.xml`, and `<id>/.../*.dcm` with `scores.xlsx`.

No patient is dropped in silence: whoever cannot be used, and whatever was odd but used, is in a
list of problems, each with a code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import CohortError, UsageError
from fedcac.imaging import load_volume
from fedcac.imaging.roi_annotation import RoiAnnotation, rasterise_polygon, read_annotation
from fedcac.imaging.roi_slices import check_regions, is_counted_down, slice_of
from fedcac.imaging.volume import Volume
from fedcac.models.blocks import THRESHOLD_HU
from fedcac.protocol import ImageCriteria
from fedcac.training.checkpoint import write_atomically
from fedcac.training.exams import TrainingExam
from fedcac.vocabulary import VESSEL_LABELS

__all__ = ["CRITERIA", "CocaProblem", "GatedExams", "vessel_map_of"]

CRITERIA = ImageCriteria(
    min_slices=1, max_slice_thickness_mm=10.0, allow_contrast=True, allow_sharp_kernel=True
)
"""What an exam of COCA must be: its readers have chosen the series already."""


@dataclass(frozen=True)
class CocaProblem:
    """What is wrong with a patient's data.

    Attributes
    ----------
    patient
        The folder's name; stays on the machine.
    code
        Left out: `no_annotation` (unknown, which is not zero calcium), `no_images`, `two_copies`
        (of the folder or the annotation), `bad_annotation`, `unknown_vessel`, `index_outside` (an
        ImageIndex beyond the slices), `point_outside` (a point beyond the image),
        `slice_order_unclear`, `other_matrix` (than the first exam's), or the exclusion reason of
        the DICOM. Used nevertheless: `empty_region`, `region_without_calcium` (no voxel of
        130 HU), `overlapping_regions` (the later one counts), `reversed_slices`.
    is_left_out
        Whether the patient is not used.
    """

    patient: str
    code: str
    is_left_out: bool


@dataclass(eq=False)
class GatedExams:
    """The gated part of a copy of COCA. Make one with `of`.

    `patients` have images and an annotation file; `problems` grows as exams are read.
    """

    patients: tuple[str, ...]
    problems: list[CocaProblem]
    _images: dict[str, Path] = field(repr=False)
    _annotations: dict[str, Path] = field(repr=False)
    _matrix: tuple[int, ...] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, root: Path) -> Self:
        """List the patients of a copy.

        Raises
        ------
        UsageError
            `no_coca` if there is no folder `patient` or no folder `calcium_xml` under `root`.
        """
        images = _by_name(
            (folder.name, folder)
            for parent in _folders(root, "patient")
            for folder in parent.iterdir()
            if folder.is_dir() and not folder.name.startswith(".")
        )
        annotations = _by_name(
            (file.stem, file)
            for parent in _folders(root, "calcium_xml")
            for file in parent.iterdir()
            if file.suffix.lower() in (".xml", ".plist") and not file.name.startswith(".")
        )
        if not images or not annotations:
            raise UsageError(
                "There is no COCA here: folders 'patient' and 'calcium_xml' are missing or empty.",
                code="no_coca",
                cure="Give the folder that holds Gated_release_final.",
            )
        problems = [CocaProblem(p, "no_annotation", True) for p in images.keys() - annotations]
        problems += [CocaProblem(p, "no_images", True) for p in annotations.keys() - images]
        both = images.keys() & annotations.keys()
        twice = {p for p in both if len(images[p]) > 1 or len(annotations[p]) > 1}
        problems += [CocaProblem(p, "two_copies", True) for p in twice]
        return cls(
            patients=tuple(sorted(both - twice)),
            problems=sorted(problems, key=lambda problem: problem.patient),
            _images={p: images[p][0] for p in both - twice},
            _annotations={p: annotations[p][0] for p in both - twice},
        )

    def exams(self, patients: Iterable[str]) -> Iterator[TrainingExam]:
        """Yield the exams of patients that can be used, in the order given.

        A patient that cannot is in `problems` when the next one is yielded, or the stream ends.
        """
        for patient in patients:
            try:
                volume = load_volume(self._images[patient], CRITERIA)
                annotation = read_annotation(_content(self._annotations[patient]))
                vessel_map, remarks = vessel_map_of(annotation, volume)
                self._check_matrix(volume)
            except CohortError as error:
                self.problems.append(CocaProblem(patient, error.code.partition(".")[2], True))
                continue
            self.problems += [CocaProblem(patient, remark, False) for remark in remarks]
            yield TrainingExam(volume.hu, vessel_map, volume.spacing_mm)

    def _check_matrix(self, volume: Volume) -> None:
        matrix = volume.hu.shape[1:]
        self._matrix = self._matrix or matrix
        if matrix != self._matrix:
            raise _refused("other_matrix", "The exam has more or fewer pixels than the others.")

    def write_problems(self, path: Path) -> None:
        """Write the problems as CSV: patient, code, is_left_out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("patient", "code", "is_left_out"))
        writer.writerows((p.patient, p.code, str(p.is_left_out).lower()) for p in self.problems)
        write_atomically(path, text.getvalue().encode())


def vessel_map_of(
    annotation: RoiAnnotation, volume: Volume
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return the vessel map of an annotated volume, and codes of what was odd.

    The map is uint8 of the volume's shape: 1 to 4 for LM, LAD, LCX, RCA where a region holds a
    voxel of at least 130 HU, else 0.

    Slices are matched as in `fedcac.imaging.roi_slices`. COCA's numbers count them from the lowest
    one up; where the measured values do not tell, that order is taken, unchecked.

    Raises
    ------
    CohortError
        `index_outside`, `point_outside` or `slice_order_unclear`.
    """
    n_slices, rows, columns = volume.hu.shape
    check_regions(annotation, volume)
    # Where nothing tells, upwards.
    is_reversed = is_counted_down(annotation, volume) or False
    remarks = dict.fromkeys(["reversed_slices"] if is_reversed else [])
    if annotation.n_empty:
        remarks["empty_region"] = None
    vessel_map = np.zeros(volume.hu.shape, dtype=np.uint8)
    for polygon in annotation.polygons:
        number = slice_of(polygon, n_slices, is_reversed=is_reversed)
        inside = rasterise_polygon(polygon.points_px, (rows, columns))
        inside &= volume.hu[number] >= THRESHOLD_HU
        label = VESSEL_LABELS[polygon.vessel]
        if not inside.any():
            remarks["region_without_calcium"] = None
        if np.any((vessel_map[number][inside] > 0) & (vessel_map[number][inside] != label)):
            remarks["overlapping_regions"] = None
        vessel_map[number][inside] = label
    return vessel_map, tuple(remarks)


def _folders(root: Path, name: str) -> list[Path]:
    found = [path for path in root.rglob(name) if path.is_dir()]
    # An archive made on a Mac holds every folder again, full of files that are none.
    found = [path for path in found if "__MACOSX" not in path.relative_to(root).parts]
    return sorted([root, *found] if root.name == name else found)


def _by_name(entries: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name, path in entries:
        found.setdefault(name, []).append(path)
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused("bad_annotation", "The annotation cannot be read.") from error


def _refused(code: str, message: str) -> CohortError:
    return CohortError(message, code=code, cure="Compare annotation and series in a viewer.")
