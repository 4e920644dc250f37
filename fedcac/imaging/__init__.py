"""DICOM to volumes in Hounsfield units, series selection and pairing."""

from __future__ import annotations

from fedcac.imaging.acquisition import Acquisition, AcquisitionVerdict, Evidence
from fedcac.imaging.coding import reason_of
from fedcac.imaging.header import ExamHeader, read_header
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.imaging.label_map import is_label_map, read_label_map
from fedcac.imaging.label_meanings import LabelMeanings, parse_labels
from fedcac.imaging.loading import PADDING_HU, build_volume, load_volume
from fedcac.imaging.manifest import ManifestEntry, Role, read_manifest
from fedcac.imaging.pairing import (
    ExamLoss,
    ExamPair,
    ListedExam,
    PairingOutcome,
    exam_key,
    pair_exams,
    pair_manifest,
)
from fedcac.imaging.radiograph import Radiograph, load_radiograph
from fedcac.imaging.segmentation import VESSEL_CODES, read_vessel_map
from fedcac.imaging.selection import Candidate, Selection, select_series, survey_series
from fedcac.imaging.series import Series, read_series
from fedcac.imaging.volume import Volume

__all__ = [
    "PADDING_HU",
    "VESSEL_CODES",
    "Acquisition",
    "AcquisitionVerdict",
    "Candidate",
    "Evidence",
    "ExamHeader",
    "ExamLoss",
    "ExamPair",
    "LabelMeanings",
    "ListedExam",
    "ManifestEntry",
    "PairingOutcome",
    "Radiograph",
    "Role",
    "Selection",
    "Series",
    "Volume",
    "build_volume",
    "exam_key",
    "is_label_map",
    "is_sharp_kernel",
    "load_radiograph",
    "load_volume",
    "pair_exams",
    "pair_manifest",
    "parse_labels",
    "read_header",
    "read_label_map",
    "read_manifest",
    "read_series",
    "read_vessel_map",
    "reason_of",
    "select_series",
    "survey_series",
]
