"""Exams from a directory of DICOM with a manifest: pair, score, join the clinical table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.aggregate import FlowStage
from fedcac.console import progress
from fedcac.errors import CohortError, DicomError
from fedcac.imaging import (
    LabelMeanings,
    PairingOutcome,
    load_radiograph,
    load_volume,
    pair_manifest,
    parse_labels,
)
from fedcac.models import InferenceEngine, ModelPackage
from fedcac.models.threshold_answers import check_package_fits, check_reference_fits
from fedcac.protocol import ImageCriteria, Protocol
from fedcac.scoring import profile_named
from fedcac.site_table import (
    ClinicalTable,
    ScoredExam,
    assemble_exams,
    read_clinical_table,
    survey_clinical_table,
)
from fedcac.vocabulary import ExclusionReason, Modality
from site_agent.exams.cohort import ExamSource, FrozenCohort, flow_of
from site_agent.exams.exam_answers import scored_exam
from site_agent.exams.exam_pipeline import (
    EXAM_TIME_LIMIT_S,
    ExamPipeline,
    default_limits,
    package_pipeline,
)
from site_agent.exams.header_covariates import with_header_covariates
from site_agent.exams.reference_model import references_by_model
from site_agent.exams.reference_scores import reference_criteria, score_references
from site_agent.exams.review_artefacts import ArtefactPlan, ArtefactWriter, model_identity
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue
from site_agent.state.store import ExamRecord, SiteStore

if TYPE_CHECKING:
    from site_agent.settings import SiteFolder, SiteSettings

__all__ = ["DicomFiles", "DicomSource", "check_cohort"]


# Patients whose exams can be read, but do not make a pair.
_UNPAIRED = (
    ExclusionReason.NO_REFERENCE_EXAM,
    ExclusionReason.NO_INDEX_EXAM,
    ExclusionReason.OUTSIDE_PAIRING_WINDOW,
)


@dataclass(frozen=True)
class DicomFiles:
    """Where a site's exams and clinical data lie, and the secret of its pseudonyms.

    `annotation_labels` is the setting of that name.
    """

    manifest: Path
    clinical_table: Path
    secret: bytes
    annotation_labels: str = ""

    @classmethod
    def of_site(cls, folder: SiteFolder, settings: SiteSettings) -> DicomFiles:
        """Return the files that a site's settings name."""
        return cls(
            manifest=folder.resolve(settings.manifest),
            clinical_table=folder.resolve(settings.clinical_table),
            secret=folder.secret(),
            annotation_labels=settings.annotation_labels,
        )

    @property
    def label_meanings(self) -> LabelMeanings | None:
        """What the labels of NIfTI annotations stand for; UsageError `bad_labels`."""
        return parse_labels(self.annotation_labels) if self.annotation_labels else None

    def pair(self, protocol: Protocol, table: ClinicalTable | None = None) -> PairingOutcome:
        """Return the exam pairs of the manifest under the protocol's window.

        The table tells the day of a reference exam that is not in the manifest.
        """
        window_days = protocol.pairing.window_days if protocol.pairing else None
        return pair_manifest(
            self.manifest,
            window_days=window_days,
            secret=self.secret,
            is_study=protocol.image_criteria.choose_series,
            reference_dates=table.reference_dates if table else None,
        )


class DicomSource(ExamSource):
    """Scores the index exam of every pair with the round's model package."""

    needs_package = True

    def __init__(
        self,
        files: DicomFiles,
        store: SiteStore,
        *,
        device: str = "auto",
        maximum_excluded_share: float = 1.0,
        exam_time_limit_s: float = EXAM_TIME_LIMIT_S,
        artefacts: ArtefactPlan | None = None,
    ) -> None:
        self._files = files
        self._store = store
        self._device = device
        self._maximum_excluded_share = maximum_excluded_share
        self._exam_time_limit_s = exam_time_limit_s
        self._artefacts = artefacts

    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Pair, score what is not scored yet, join the clinical table. See `ExamSource`."""
        if package is None:
            raise CohortError(
                "This round brings no model package, and DICOM exams need one.",
                code="no_package",
                cure="Ask the lead to launch the round with --model.",
            )
        # Package and table first: an error in them should not come after hours of scoring.
        scorer = self._scorer(protocol, package)
        read_by_model = None if reference is None else self._reference_queue(protocol, reference)
        table = read_clinical_table(
            self._files.clinical_table, protocol, is_reference_scored=reference is not None
        )
        pairing = self._files.pair(protocol, table)
        if reference is None:
            folder, meanings = self._files.clinical_table.parent, self._files.label_meanings
            table = score_references(table, folder, pairing, protocol, self._store, meanings).table
        table = with_header_covariates(table, pairing, protocol, self._store)
        queue = ScoringQueue(
            store=self._store,
            package_digest=package.digest,
            profile=protocol.index_test.scoring_profile,
            scorer=scorer,
        )
        records = queue.run(IndexExam(pair.exam_key, pair.index_path) for pair in pairing.pairs)
        failures: Mapping[str, ExclusionReason] = {}
        if read_by_model is not None:
            references = references_by_model(table, pairing, records, read_by_model)
            table, failures = references.table, references.failures
        scored = [
            scored_exam(pair, records[pair.exam_key], protocol, package)
            for pair in pairing.pairs
            if records[pair.exam_key].is_scored
        ]
        cohort = _assemble(pairing, records, scored, table, failures)
        self._check_losses(cohort, _n_listed(pairing))
        return cohort

    def _reference_queue(self, protocol: Protocol, reference: ModelPackage) -> ScoringQueue:
        check_reference_fits(protocol, reference)
        profile = profile_named(protocol.index_test.scoring_profile)
        return ScoringQueue(
            store=self._store,
            package_digest=reference.digest,
            profile=profile.name,
            scorer=package_pipeline(
                reference,
                InferenceEngine(reference, device=self._device),
                reference_criteria(protocol),
                profile,
                default_limits(self._exam_time_limit_s),
            ),
            what="reference exams",
        )

    def _scorer(self, protocol: Protocol, package: ModelPackage) -> ExamPipeline[IndexExam]:
        check_package_fits(protocol, package)
        profile = profile_named(protocol.index_test.scoring_profile)
        pipeline: ExamPipeline[IndexExam] = package_pipeline(
            package,
            InferenceEngine(package, device=self._device),
            protocol.image_criteria,
            profile,
            default_limits(self._exam_time_limit_s),
        )
        if self._artefacts is None or not package.family.is_segmenting:
            # A classifier marks nothing that could be looked at.
            return pipeline
        writer = ArtefactWriter(
            self._artefacts,
            model_identity(package),
            profile,
            protocol.image_criteria,
            protocol.categories,
        )
        return replace(pipeline, review=writer.review)

    def _check_losses(self, cohort: FrozenCohort, n_listed: int) -> None:
        n_analysed = cohort.exams.n
        if n_analysed == 0:
            raise CohortError(
                f"None of {n_listed} patients can be analysed ({_losses(cohort)}).",
                code="empty",
                cure="`fedcac-site cohort check PROTOCOL` says what is wrong with which exam.",
            )
        share = 1 - n_analysed / n_listed
        if share > self._maximum_excluded_share:
            raise CohortError(
                f"{n_listed - n_analysed} of {n_listed} patients are excluded ({share:.0%}; this "
                f"site allows {self._maximum_excluded_share:.0%}): {_losses(cohort)}.",
                code="too_many_excluded",
                cure="Mend the exams (`fedcac-site cohort check PROTOCOL`), or raise "
                "maximum_excluded_share in site.yaml to confirm the loss.",
            )


def _n_listed(pairing: PairingOutcome) -> int:
    return len(pairing.pairs) + sum(pairing.exclusions.values())


def _losses(cohort: FrozenCohort) -> str:
    return ", ".join(f"{reason}: {n}" for reason, n in cohort.flow.exclusions.items()) or "no exam"


def _assemble(
    pairing: PairingOutcome,
    records: Mapping[str, ExamRecord],
    scored: Sequence[ScoredExam],
    table: ClinicalTable,
    failures: Mapping[str, ExclusionReason],
) -> FrozenCohort:
    """Join scored exams and clinical table; `failures` are those of reference exams."""
    exclusions = Counter(pairing.exclusions)
    exclusions.update(
        record.reason or ExclusionReason.INFERENCE_FAILED
        for record in (records[pair.exam_key] for pair in pairing.pairs)
        if not record.is_scored
    )
    exclusions.update(failures.values())
    joined = assemble_exams([exam for exam in scored if exam.exam_key not in failures], table)
    exclusions.update(joined.exclusions)
    n_paired = len(pairing.pairs)
    n_unpaired = sum(pairing.exclusions[reason] for reason in _UNPAIRED)
    counts = {
        FlowStage.LISTED: _n_listed(pairing),
        FlowStage.ELIGIBLE: n_paired + n_unpaired,
        FlowStage.PAIRED: n_paired,
        FlowStage.SCORED: len(scored),
        FlowStage.ANALYSED: joined.exams.n,
    }
    return FrozenCohort(exams=joined.exams, flow=flow_of(counts, exclusions))


def check_cohort(protocol: Protocol, files: DicomFiles) -> tuple[str, dict[str, Any]]:
    """Read table and every exam of the manifest without a model; say what is wrong and the cure.

    The text names paths and is for the site's own people. The counts beside it, of exams and of
    empty cells by column, name nobody; they too stay here, because no gate has seen them.

    Raises
    ------
    CohortError
        If no exam pair can be used (`cohort.empty`).
    """
    table = read_clinical_table(files.clinical_table, protocol)
    pairing = files.pair(protocol, table)
    lines, table_counts = _survey(with_header_covariates(table, pairing, protocol, None))
    references = score_references(
        table, files.clinical_table.parent, pairing, protocol, None, files.label_meanings
    )
    lines += [f"{failure.path}: {failure.error}" for failure in references.failures]
    lines += [f"{loss.path}: {loss.reason}" for loss in pairing.losses]
    counts = Counter(pairing.exclusions)
    is_radiograph = protocol.modality is Modality.CHEST_RADIOGRAPH
    load: Callable[[Path, ImageCriteria], object] = (
        load_radiograph if is_radiograph else load_volume
    )
    n_usable = 0
    with progress("Reading exams", len(pairing.pairs)) as advance:
        for pair in pairing.pairs:
            try:
                load(pair.index_path, protocol.image_criteria)
                n_usable += 1
            except DicomError as error:
                counts[ExclusionReason(error.code.removeprefix("dicom."))] += 1
                lines.append(f"{pair.index_path}: {error}")
            advance()
    lines.append(f"{n_usable} of {n_usable + sum(counts.values())} patients can be scored.")
    if n_usable == 0:
        raise CohortError(
            "No exam pair can be used.\n" + "\n".join(lines),
            code="empty",
            cure="Mend or exclude the exams named above; docs/reference/codes.md explains each.",
        )
    return "\n".join(lines), {
        "counts": {"usable": n_usable, **{str(r): n for r, n in counts.items()}},
        "clinical_table": {**table_counts, "failed_annotations": len(references.failures)},
    }


def _survey(table: ClinicalTable) -> tuple[list[str], dict[str, Any]]:
    survey = survey_clinical_table(table)
    lines = [f"The clinical table has {survey.n_patients} patients. Empty cells by column:"]
    lines += [f"  {name}: {n} of {survey.n_patients}" for name, n in survey.missing.items()]
    if survey.n_annotations:
        lines.append(f"{survey.n_annotations} references are annotations, scored here.")
    if survey.ignored_columns:
        names = ", ".join(survey.ignored_columns)
        lines.append(f"Columns that nothing in the protocol asks for: {names}")
    return lines, {
        "patients": survey.n_patients,
        "missing": dict(survey.missing),
        "annotations": survey.n_annotations,
        "ignored_columns": list(survey.ignored_columns),
    }
