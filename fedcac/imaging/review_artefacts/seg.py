"""The model's mask as a DICOM Segmentation on the source series (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from fedcac.imaging.review_artefacts.content import (
    RESEARCH_USE,
    ModelIdentity,
    Territory,
)
from fedcac.imaging.review_artefacts.sources import give_identity, labels_on_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from fedcac.imaging.series import Series
    from fedcac.imaging.volume import Volume

__all__ = ["CALCIFICATION", "MANUFACTURER", "build_segmentation"]

MANUFACTURER = "fedcac"
CALCIFICATION = Code("18115005", "SCT", "Pathologic calcification, calcified structure")
"""Segmented property type; its category is a morphologic abnormality (PS3.16 CID 7150)."""

_ABNORMALITY = codes.cid7150.MorphologicallyAbnormalStructure
_SERIES_NUMBER = 9801


def build_segmentation(
    instances: Sequence[Dataset],
    series: Series,
    volume: Volume,
    vessel_map: NDArray[np.uint8],
    territories: Sequence[Territory],
    model: ModelIdentity,
    release: str,
) -> hd.seg.Segmentation:
    """Return the mask as a binary segmentation, one segment per territory that was looked for.

    A segment without calcium is described and has no frame. An exam without any calcium has blank
    frames on its first instances, because a segmentation may not be without pixels (PS3.3
    C.7.6.3). Patient and study are those of the source series, as DICOM demands.

    Parameters
    ----------
    instances
        `sources.anonymous_instances` of the series.
    vessel_map
        uint8 of the volume's shape; it is kept as it is, voxel by voxel.
    release
        Version of this software.

    Raises
    ------
    ValueError
        If the map does not lie on the series.
    """
    labels = labels_on_frames(series, volume, vessel_map)
    sources, further = list(instances), None
    is_empty = not labels.any()
    if is_empty and not series.is_multi_frame:
        # Two planes, because a reader cannot tell the slice increment from one.
        sources, labels, further = sources[:2], labels[:2], sources[2:] or None
    numbers = np.array([territory.label for territory in territories], dtype=np.uint8)
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=(labels[..., None] == numbers).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, territory, model) for number, territory in enumerate(territories, 1)
        ],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=[f"fedcac {release}", f"{model.name} {model.version}"],
        device_serial_number=model.digest.removeprefix("sha256:"),
        content_label="CORONARY_CALCIUM",
        content_description=RESEARCH_USE,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(mm) for mm in series.frames[0].pixel_spacing_mm],
            slice_thickness=volume.slice_thickness_mm,
            spacing_between_slices=volume.spacing_mm[0],
        ),
        further_source_images=further,
        omit_empty_frames=not is_empty,
        series_description=f"Coronary calcium, {model.name}. {RESEARCH_USE}"[:64],
        content_qualification="RESEARCH",
    )
    give_identity(segmentation, series)
    return segmentation


def _describe(number: int, territory: Territory, model: ModelIdentity) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{territory.abbreviation} calcium",
        segmented_property_category=_ABNORMALITY,
        segmented_property_type=CALCIFICATION,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.DCM.ArtificialIntelligence,
            version=model.version,
            parameters={"package digest": model.digest},
        ),
        anatomic_regions=[Code(territory.snomed_code, "SCT", territory.name)],
        display_color=hd.color.CIELabColor.from_string(territory.colour),
    )
    description.SegmentDescription = RESEARCH_USE
    return description
