"""Reference scores from an expert's annotation, scored here by the platform and kept.

Annotations, scores and everything said about a single one of them stay at the site; a log learns
codes alone.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedcac.canonical import digest_of, sha256_hex
from fedcac.console import progress
from fedcac.errors import CohortError, FedcacError, TableError
from fedcac.exams import vessel_columns
from fedcac.imaging import build_volume, read_series
from fedcac.imaging.annotation_files import (
    AnnotationFormat,
    annotated_map,
    annotation_content,
    empty_annotation,
    no_such_annotation,
    read_annotation_header,
)
from fedcac.imaging.roi_annotation import RoiAnnotation, rasterise_polygon, read_annotation
from fedcac.imaging.roi_slices import check_regions, is_counted_down, slice_of
from fedcac.protocol import ImageCriteria, Protocol
from fedcac.scoring import profile_named, score_volume
from fedcac.vocabulary import VESSEL_LABELS, Modality, ReferenceKind, Vessel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedcac.imaging import ExamPair, PairingOutcome, Series, Volume
    from fedcac.imaging.label_meanings import LabelMeanings
    from fedcac.scoring import ScoringProfile
    from fedcac.site_table import ClinicalTable
    from site_agent.state.store import SiteStore

__all__ = [
    "AnnotationFailure",
    "ReferenceScore",
    "ScoredReferences",
    "reference_criteria",
    "reference_score_from_annotation",
    "score_references",
]

_LOG = logging.getLogger(__name__)
_KIND = "reference_score"
# What the series of a reference exam must not clearly contradict.
_ACQUISITIONS = {
    Modality.GATED_CT: "gated",
    Modality.NON_GATED_CT: "non_gated",
    Modality.CTAC: "attenuation_correction",
}


@dataclass(frozen=True)
class ReferenceScore:
    """The Agatston score of an annotated exam, in total and per vessel.

    No vessel has a score where the annotation does not tell the vessel of some calcium.
    """

    total: float
    vessels: Mapping[Vessel, float]


class AnnotationFailure(NamedTuple):
    """An annotation that gave no score, and why. For the site's own people."""

    path: Path
    error: FedcacError


@dataclass(frozen=True, eq=False)
class ScoredReferences:
    """A clinical table whose annotations are scores, and what could not be scored."""

    table: ClinicalTable
    n_scored: int
    failures: tuple[AnnotationFailure, ...] = field(repr=False)


def reference_score_from_annotation(
    series_path: Path,
    annotation_path: Path,
    profile: ScoringProfile,
    criteria: ImageCriteria | None = None,
    meanings: LabelMeanings | None = None,
) -> ReferenceScore:
    """Return the platform's score of a series under an expert's annotation.

    The annotation is a binary DICOM SEG, a DICOM RT Structure Set, a NIfTI label map, or the XML
    property list of Horos or OsiriX. It says where calcium is; which voxels of it count, the
    profile says, as for the index test.

    A SEG or structure set must share the series' frame of reference, a label map its voxels. A
    property list names slices by a number alone: their order is the one in which the values that
    Horos measured are found, and where that leaves two readings open, the annotation is refused.

    Parameters
    ----------
    series_path
        As `read_series`; the series on which the annotation was drawn.
    criteria
        Eligibility of the series; by default any non-contrast series with a soft kernel.
    meanings
        What the labels of a NIfTI label map stand for.

    Raises
    ------
    CohortError
        `no_such_annotation`, `unknown_annotation` (no format of these), `bad_annotation`,
        `unknown_vessel`, `empty_annotation`, `other_series`, `index_outside`, `point_outside`,
        `slice_order_unclear`, `unstated_labels` or `unknown_label`.
    DicomError
        The series' exclusion reason.
    UsageError
        `bad_mask` for a SEG that cannot be used, `unknown_kvp` from the profile.
    """
    series = read_series(series_path, criteria or ImageCriteria(min_slices=1))
    volume = build_volume(series)
    vessel_map = _annotated_map(annotation_path, series, volume, meanings)
    score = score_volume(volume.hu, vessel_map, volume.spacing_mm, profile, kvp=volume.kvp)
    return ReferenceScore(score.total, dict(score.vessels))


def score_references(
    table: ClinicalTable,
    folder: Path,
    pairing: PairingOutcome,
    protocol: Protocol,
    store: SiteStore | None,
    meanings: LabelMeanings | None = None,
) -> ScoredReferences:
    """Return the table with a reference score for every annotation of a paired patient.

    The reference exam of the pair is scored, or the index exam where the protocol pairs none,
    with the protocol's scoring profile. A score is kept in the store under the annotation's own
    digest, so that it is made once and again when the annotation changes. A patient whose
    annotation fails has no reference score; so has one whose SEG says that an algorithm drew it
    (`automatic_annotation`), unless the protocol's reference is a model: judged by its own mask, a
    model would agree with itself.

    Parameters
    ----------
    folder
        The clinical table's; relative paths are below it.
    store
        Where scores are kept; None scores anew and keeps nothing.
    meanings
        What the labels of this site's NIfTI label maps stand for.
    """
    wanted = [
        pair
        for pair in pairing.pairs
        if pair.patient_id in table.annotations and pair.patient_id not in table.excluded
    ]
    if not wanted:
        return ScoredReferences(table, 0, ())
    scores: dict[str, ReferenceScore] = {}
    failures = []
    with progress("Scoring references", len(wanted)) as advance:
        for pair in wanted:
            text = table.annotations[pair.patient_id]
            try:
                with _coded():
                    path = _resolve(text, folder)
                    kept = _kept_or_scored(pair, path, protocol, store, meanings)
                    scores[pair.patient_id] = kept
            except FedcacError as error:
                _LOG.warning("a reference annotation was not scored: %s", error.code)
                failures.append(AnnotationFailure(folder / text, error))
            advance()
    return ScoredReferences(_with_scores(table, scores), len(scores), tuple(failures))


@contextmanager
def _coded() -> Iterator[None]:
    """Give what a damaged file makes a library raise a code: it costs one patient, not a round."""
    try:
        yield
    except FedcacError:
        raise
    except Exception as error:
        raise CohortError(
            f"The annotation cannot be used ({type(error).__name__}).",
            code="bad_annotation",
            cure="Export it again; look at it in a viewer beside the series.",
        ) from error


def _with_scores(table: ClinicalTable, scores: Mapping[str, ReferenceScore]) -> ClinicalTable:
    names = {vessel: vessel_columns(vessel)[1] for vessel in Vessel}
    new = tuple(name for name in names.values() if name not in table.columns)
    rows = {}
    for patient, row in table.rows.items():
        rows[patient] = dict.fromkeys(new, math.nan) | row
        if score := scores.get(patient):
            vessels = {names[vessel]: value for vessel, value in score.vessels.items()}
            rows[patient] |= {"reference_score": score.total} | vessels
    return replace(table, rows=rows, columns=(*table.columns, *new))


def _kept_or_scored(
    pair: ExamPair,
    path: Path,
    protocol: Protocol,
    store: SiteStore | None,
    meanings: LabelMeanings | None,
) -> ReferenceScore:
    if protocol.reference.kind is not ReferenceKind.GATED_CT_MODEL:
        _check_author(path)
    profile = profile_named(protocol.index_test.scoring_profile)
    criteria, series_path = protocol.image_criteria, pair.index_path
    if pair.reference_path is not None:
        criteria, series_path = reference_criteria(protocol), pair.reference_path
    elif pair.days is not None:
        raise CohortError(
            "The annotation's exam is known by its day alone.",
            code="no_reference_series",
            cure="List the exam on which it was drawn in the manifest, as a reference.",
        )
    name = digest_of(
        {
            "exam_key": pair.exam_key,
            "series": str(series_path),
            "annotation": sha256_hex(annotation_content(path)),
            "profile": profile.model_dump(mode="json"),
            "criteria": criteria.model_dump(mode="json"),
            "labels": None if meanings is None else meanings.document(),
        }
    )
    kept = None if store is None else store.document(_KIND, name)
    if kept is not None:
        document = json.loads(kept)
        vessels = {Vessel(vessel): value for vessel, value in document["vessels"].items()}
        return ReferenceScore(document["total"], vessels)
    score = reference_score_from_annotation(series_path, path, profile, criteria, meanings)
    if store is not None:
        vessels_by_name = {vessel.value: value for vessel, value in score.vessels.items()}
        payload = json.dumps({"total": score.total, "vessels": vessels_by_name}).encode()
        store.keep_documents({(_KIND, name): payload})
    return score


def reference_criteria(protocol: Protocol) -> ImageCriteria:
    """Return the eligibility of reference exams.

    The protocol's acquisition and length are those of index exams.
    """
    acquisition = _ACQUISITIONS.get(protocol.reference.modality, "any")
    return protocol.image_criteria.model_copy(update={"min_slices": 1, "acquisition": acquisition})


def _resolve(text: str, folder: Path) -> Path:
    if "\0" in text:
        raise no_such_annotation()
    if Path(text).is_absolute():
        return Path(os.path.normpath(text))
    # Lexically, as in the manifest: a symbolic link is the site's own decision.
    root = Path(os.path.abspath(folder))
    path = Path(os.path.normpath(root / text))
    if not path.is_relative_to(root):
        raise TableError(
            "A relative path of an annotation leaves the clinical table's folder.",
            code="path_escapes",
            cure="Write an absolute path, or one below the table.",
        )
    return path


def _annotated_map(
    path: Path, series: Series, volume: Volume, meanings: LabelMeanings | None
) -> NDArray[np.uint8]:
    header = read_annotation_header(path)
    if header.format is AnnotationFormat.REGIONS:
        return _map_of_regions(read_annotation(annotation_content(path)), volume)
    return annotated_map(path, header, series, volume, meanings)


def _check_author(path: Path) -> None:
    if read_annotation_header(path).is_automatic:
        raise CohortError(
            "The annotation says that an algorithm drew it, and the protocol's reference is a "
            "person's reading.",
            code="automatic_annotation",
            cure="Give the reader's own segmentation. One that a reader corrected says so in "
            "Segment Algorithm Type.",
        )


def _map_of_regions(annotation: RoiAnnotation, volume: Volume) -> NDArray[np.uint8]:
    if not annotation.polygons:
        raise empty_annotation()
    check_regions(annotation, volume)
    is_reversed = is_counted_down(annotation, volume)
    vessel_map = _drawn(annotation, volume, is_reversed=is_reversed or False)
    if is_reversed is None and not np.array_equal(
        vessel_map, _drawn(annotation, volume, is_reversed=True)
    ):
        raise CohortError(
            "Both orders of the slices agree equally well with the annotation.",
            code="slice_order_unclear",
            cure="Export the regions with their measured values, or as DICOM SEG or RT Structure "
            "Set.",
        )
    return vessel_map


def _drawn(annotation: RoiAnnotation, volume: Volume, *, is_reversed: bool) -> NDArray[np.uint8]:
    n_slices, rows, columns = volume.hu.shape
    vessel_map = np.zeros(volume.hu.shape, dtype=np.uint8)
    for polygon in annotation.polygons:
        number = slice_of(polygon, n_slices, is_reversed=is_reversed)
        inside = rasterise_polygon(polygon.points_px, (rows, columns))
        vessel_map[number][inside] = VESSEL_LABELS[polygon.vessel]
    return vessel_map
