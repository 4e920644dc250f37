"""Reference scores read by a model: the reference exam of every pair, scored with its own package.

So a model of non-gated exams is compared with one of gated exams where no expert has read the
gated ones. The protocol says so (`gated_ct_model`), the offer names the package, and scores are
kept under its digest; nobody can take them for an expert's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fedcac.exams import vessel_columns
from fedcac.vocabulary import ExclusionReason, Vessel
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue

if TYPE_CHECKING:
    from fedcac.imaging import ExamPair, PairingOutcome
    from fedcac.site_table import ClinicalTable
    from site_agent.state.records import ExamRecord

__all__ = ["ModelReferences", "reference_key", "references_by_model"]

_REFERENCE = "reference_score"


@dataclass(frozen=True, eq=False)
class ModelReferences:
    """A clinical table whose reference scores are the model's, and the exams that have none.

    `failures` gives the reason by exam key.
    """

    table: ClinicalTable = field(repr=False)
    failures: Mapping[str, ExclusionReason] = field(repr=False)


def reference_key(exam_key: str) -> str:
    """Return the pseudonym under which a patient's reference exam is scored.

    It is not that of the index exam: one package may read both.
    """
    return hashlib.sha256(f"reference {exam_key}".encode()).hexdigest()[: len(exam_key)]


def references_by_model(
    table: ClinicalTable,
    pairing: PairingOutcome,
    records: Mapping[str, ExamRecord],
    queue: ScoringQueue,
) -> ModelReferences:
    """Score the reference exam of every pair and put the scores into the table. Resumable.

    Only pairs whose index exam was scored, and whose patient is in the table and not excluded,
    are read: nothing else could be analysed. What the table says of the reference is replaced, also
    where the model has no answer: an expert's score in its place would mix two reference standards.

    Parameters
    ----------
    records
        Of the index exams, by exam key.
    queue
        Scores with the reference package, in the protocol's profile.
    """
    wanted: dict[str, ExamPair] = {
        pair.exam_key: pair
        for pair in pairing.pairs
        if records[pair.exam_key].is_scored
        and pair.patient_id in table.rows
        and pair.patient_id not in table.excluded
    }
    found = queue.run(
        IndexExam(reference_key(key), pair.reference_path)
        for key, pair in wanted.items()
        if pair.reference_path is not None
    )
    scores: dict[str, ExamRecord] = {}
    failures: dict[str, ExclusionReason] = {}
    for key, pair in wanted.items():
        record = found.get(reference_key(key))
        if record is None:
            failures[key] = ExclusionReason.NO_REFERENCE_EXAM
        elif record.total is None:
            failures[key] = record.reason or ExclusionReason.INFERENCE_FAILED
        else:
            scores[pair.patient_id] = record
    return ModelReferences(_with_scores(table, scores), failures)


def _with_scores(table: ClinicalTable, scores: Mapping[str, ExamRecord]) -> ClinicalTable:
    names = {vessel: vessel_columns(vessel)[1] for vessel in Vessel}
    rows = {}
    for patient, row in table.rows.items():
        record = scores.get(patient)
        vessels = record.vessels if record else {}
        rows[patient] = {
            **row,
            _REFERENCE: record.total if record and record.total is not None else math.nan,
            **{name: vessels.get(vessel, math.nan) for vessel, name in names.items()},
        }
    new = tuple(name for name in (_REFERENCE, *names.values()) if name not in table.columns)
    # An annotation is a person's reading, which this round does not ask for.
    return replace(table, rows=rows, columns=(*table.columns, *new), annotations={})
