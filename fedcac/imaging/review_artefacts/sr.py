"""The scores as a DICOM Structured Report (PS3.16 TID 1500, Comprehensive 3D SR, PS3.3 A.35.13)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import highdicom as hd
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from fedcac.imaging.review_artefacts.content import (
    RESEARCH_USE,
    ModelIdentity,
    ReviewedScore,
    Territory,
)
from fedcac.imaging.review_artefacts.seg import CALCIFICATION, MANUFACTURER
from fedcac.imaging.review_artefacts.sources import give_identity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from fedcac.imaging.series import Series

__all__ = ["AGATSTON_UNIT", "NATIVE_SCORE", "RISK_CATEGORY", "SCHEME", "build_report"]

SCHEME = "99FEDCAC"
"""Private coding scheme (PS3.16 8.2) for what no standard scheme has a code for."""

AGATSTON_UNIT = Code("{Agatston}", "UCUM", "Agatston unit")
"""Neither UCUM nor PS3.16 has a unit for it: UCUM's annotated unity, as for other scores."""

RISK_CATEGORY = Code("risk_category", SCHEME, "Calcium score risk category")
NATIVE_SCORE = Code("native_score", SCHEME, "Calcium score stated by the model itself")

_CUBIC_MM = Code("mm3", "UCUM", "cubic millimeter")
_MILLIGRAM = Code("mg", "UCUM", "milligram")
_CORONARY_ARTERY = Code("41801008", "SCT", "Coronary artery")
_COMMENT = Code("121106", "DCM", "Comment")
_SERIES_NUMBER = 9802


def build_report(
    instances: Sequence[Dataset],
    series: Series,
    segmentation: hd.seg.Segmentation,
    territories: Sequence[Territory],
    score: ReviewedScore,
    model: ModelIdentity,
    release: str,
) -> sr.Comprehensive3DSR:
    """Return the measurement report of one exam: a group for all vessels, then one per vessel.

    A mass is only there where it is known; a vessel without calcium has the score 0. The report is
    complete, preliminary and unverified (PS3.3 C.17.2): no physician stands behind it.

    Parameters
    ----------
    instances
        `sources.anonymous_instances` of the series, of which the evidence is listed.
    segmentation
        The mask of `seg.build_segmentation`, which the groups refer to.
    territories
        Those of the segmentation, in its order.
    release
        Version of this software.
    """
    algorithm = sr.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[
            f"package digest {model.digest}",
            f"scoring profile {score.profile}",
            f"fedcac {release}",
            RESEARCH_USE,
        ],
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
    report = sr.MeasurementReport(
        observation_context=_observer(model),
        procedure_reported=codes.cid3757.CardiacCTForCalciumScoring,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[
            _total_group(instances, score, algorithm),
            *_vessel_groups(
                segmentation, instances[0].SeriesInstanceUID, territories, score, algorithm
            ),
        ],
    )
    report[0].ContentSequence.append(
        sr.TextContentItem(_COMMENT, _caution(model), sr.RelationshipTypeValues.CONTAINS)
    )
    document = sr.Comprehensive3DSR(
        evidence=[*instances, segmentation],
        content=report,
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=[f"fedcac {release}", f"{model.name} {model.version}"],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"Coronary calcium scores, {model.name}. {RESEARCH_USE}"[:64],
        content_qualification="RESEARCH",
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=SCHEME, name="fedcac", responsible_organization="fedcac"
            )
        ],
    )
    give_identity(document, series)
    return document


def _observer(model: ModelIdentity) -> sr.ObservationContext:
    # The same package is the same observer everywhere; 2.25 claims no registered root (PS3.5 B.2).
    number = int.from_bytes(hashlib.sha256(model.digest.encode()).digest()[:15], "big")
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=f"2.25.{number}", name=model.name, manufacturer_name=MANUFACTURER
            ),
        )
    )


def _caution(model: ModelIdentity) -> str:
    if model.is_demonstration:
        return f"{RESEARCH_USE} Demonstration model, trained on generated data."
    return RESEARCH_USE


def _total_group(
    instances: Sequence[Dataset], score: ReviewedScore, algorithm: sr.AlgorithmIdentification
) -> sr.MeasurementsAndQualitativeEvaluations:
    measurements = [
        _agatston(score.total),
        sr.Measurement(codes.DCM.CalciumVolume, score.volume_mm3, unit=_CUBIC_MM),
    ]
    if score.mass_mg is not None:
        measurements.append(sr.Measurement(codes.DCM.CalciumMass, score.mass_mg, unit=_MILLIGRAM))
    if score.native_score is not None:
        measurements.append(sr.Measurement(NATIVE_SCORE, score.native_score, unit=AGATSTON_UNIT))
    category = []
    if score.category is not None:
        value = Code(score.category, SCHEME, f"Agatston score {score.category}")
        category.append(sr.QualitativeEvaluation(RISK_CATEGORY, value))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(hd.UID(), "Coronary calcium, all vessels"),
        finding_type=CALCIFICATION,
        finding_sites=[sr.FindingSite(_CORONARY_ARTERY)],
        algorithm_id=algorithm,
        measurements=measurements,
        qualitative_evaluations=category or None,
        source_images=[
            sr.SourceImageForMeasurementGroup.from_source_image(instance) for instance in instances
        ],
    )


def _vessel_groups(
    segmentation: hd.seg.Segmentation,
    series_uid: str,
    territories: Sequence[Territory],
    score: ReviewedScore,
    algorithm: sr.AlgorithmIdentification,
) -> Iterator[
    sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations
]:
    drawn = _drawn_segments(segmentation)
    for number, territory in enumerate(territories, 1):
        value = score.total if territory.vessel is None else score.vessels.get(territory.vessel)
        if value is None:
            continue
        shared = {
            "tracking_identifier": sr.TrackingIdentifier(
                hd.UID(), f"Coronary calcium, {territory.abbreviation}"
            ),
            "finding_type": CALCIFICATION,
            "finding_sites": [sr.FindingSite(Code(territory.snomed_code, "SCT", territory.name))],
            "algorithm_id": algorithm,
            "measurements": [_agatston(value)],
        }
        if number in drawn:
            yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=sr.ReferencedSegment(
                    segmentation.SOPClassUID,
                    segmentation.SOPInstanceUID,
                    number,
                    source_series=sr.SourceSeriesForSegmentation(series_uid),
                ),
                **shared,
            )
        else:
            yield sr.MeasurementsAndQualitativeEvaluations(**shared)


def _drawn_segments(segmentation: hd.seg.Segmentation) -> set[int]:
    # An exam without calcium has blank frames; they are no region that could be measured.
    if not any(segmentation.PixelData):
        return set()
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    # One segment alone is named once for all frames (PS3.3 C.7.6.16).
    is_shared = "SegmentIdentificationSequence" in shared
    groups = [shared] if is_shared else segmentation.PerFrameFunctionalGroupsSequence
    return {int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for group in groups}


def _agatston(value: float) -> sr.Measurement:
    return sr.Measurement(
        codes.DCM.CalciumScore,
        value,
        unit=AGATSTON_UNIT,
        method=codes.DCM.AgatstonScoringMethod,
    )
