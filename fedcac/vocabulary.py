"""The field's words as closed sets. What is not listed here cannot be said on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

__all__ = [
    "VESSEL_LABELS",
    "VESSEL_UNKNOWN",
    "AnalysisId",
    "BoundaryConvention",
    "CellStatus",
    "ExclusionReason",
    "IndexTest",
    "Interval",
    "KappaWeights",
    "Measure",
    "Modality",
    "ReclassificationType",
    "ReferenceKind",
    "RefusalCode",
    "Resampling",
    "RiskEstimator",
    "RowStatus",
    "ScoreRole",
    "SiteName",
    "TieMethod",
    "Vessel",
]

SiteName = NewType("SiteName", str)
AnalysisId = NewType("AnalysisId", str)


class Modality(StrEnum):
    """What kind of exam the index test reads."""

    GATED_CT = "gated_ct"
    NON_GATED_CT = "non_gated_ct"
    CTAC = "ctac"
    CHEST_RADIOGRAPH = "chest_radiograph"


class ReferenceKind(StrEnum):
    """What the index test is judged against; it dominates the figures (Eng 2021, Table 4)."""

    GATED_CT_READER = "gated_ct_reader"
    NON_GATED_READER = "non_gated_reader"
    EXPERT_ANNOTATION = "expert_annotation"
    GATED_CT_MODEL = "gated_ct_model"


class IndexTest(StrEnum):
    """What the index test answers with."""

    AGATSTON_SCORE = "agatston_score"
    RISK_CATEGORY = "risk_category"
    CATEGORY_PROBABILITIES = "category_probabilities"


class BoundaryConvention(StrEnum):
    """On which side of a cut-off a score equal to it falls.

    upper_inclusive: category (lower, cut], positive at cut c > 1 means s > c, at 1 s >= 1
        (Eng 2021 as published in its 2x2 tables).
    guideline_ge: category [cut, upper), positive means s >= cut (Hong 2025; ACC/AHA 2018).
    any_gt0: as upper_inclusive, but the first category is s == 0, so any s > 0 is positive at 1.
    round_first: s is rounded half up to an integer, then upper_inclusive.
    """

    UPPER_INCLUSIVE = "upper_inclusive"
    GUIDELINE_GE = "guideline_ge"
    ANY_GT0 = "any_gt0"
    ROUND_FIRST = "round_first"


class KappaWeights(StrEnum):
    """Weights of Cohen's kappa."""

    UNWEIGHTED = "unweighted"
    LINEAR = "linear"
    QUADRATIC = "quadratic"


class Interval(StrEnum):
    """Confidence intervals of a proportion."""

    WILSON = "wilson"
    CLOPPER_PEARSON = "clopper_pearson"
    ENG2021 = "eng2021"


class TieMethod(StrEnum):
    """Treatment of tied event times in the Cox partial likelihood."""

    EFRON = "efron"
    BRESLOW = "breslow"


class ScoreRole(StrEnum):
    """Which score of a patient is meant.

    `comparator` is a second index test (a visual estimate, say), `second_reference` a second
    reference standard; a protocol declares their columns.
    """

    INDEX = "index"
    REFERENCE = "reference"
    COMPARATOR = "comparator"
    SECOND_REFERENCE = "second_reference"


class ReclassificationType(StrEnum):
    """When a new model's risk counts as higher or lower than the old model's."""

    CATEGORY_FREE = "category_free"
    CATEGORICAL = "categorical"
    DIFFERENCE = "difference"


class RiskEstimator(StrEnum):
    """How events up to a horizon are counted when follow-up is censored."""

    BINARY = "binary"
    KM = "km"
    IPW = "ipw"


class Resampling(StrEnum):
    """How the uncertainty of a refitted statistic is estimated."""

    JACKKNIFE = "jackknife"
    BOOTSTRAP = "bootstrap"
    NONE = "none"


class Vessel(StrEnum):
    """Coronary vessels as the site table spells them."""

    LM = "lm"
    LAD = "lad"
    LCX = "lcx"
    RCA = "rca"


VESSEL_LABELS: Final = {vessel: label for label, vessel in enumerate(Vessel, 1)}
"""Label of each vessel in a vessel map, 1 to 4; 0 is no coronary calcium."""

VESSEL_UNKNOWN: Final = 5
"""Label in a vessel map of coronary calcium whose vessel is not told."""


class CellStatus(StrEnum):
    """What stands in a released cell instead of a number."""

    SUPPRESSED = "suppressed"
    NOT_APPLICABLE = "not_applicable"


class RowStatus(StrEnum):
    """Status of one row of estimates.csv. Documented in docs/reference/estimates.md.

    ok: the row has its number. suppressed: disclosure control, or a person at a site, withheld it.
    not_applicable: it is not defined for this row by design, whatever the patients. not_estimable:
    all answers are there, and the patients do not determine it. error: something failed, and a
    repetition may give it.
    """

    OK = "ok"
    SUPPRESSED = "suppressed"
    NOT_APPLICABLE = "not_applicable"
    NOT_ESTIMABLE = "not_estimable"
    ERROR = "error"


class Measure(StrEnum):
    """The measures that estimates.csv may hold."""

    KAPPA_UNWEIGHTED = "kappa_unweighted"
    KAPPA_LINEAR = "kappa_linear"
    KAPPA_QUADRATIC = "kappa_quadratic"
    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"
    PPV = "ppv"
    NPV = "npv"
    F1 = "f1"
    ACCURACY = "accuracy"
    BIAS = "bias"
    LOA_LOW = "loa_low"
    LOA_HIGH = "loa_high"
    LOG_HAZARD_RATIO = "log_hazard_ratio"
    HAZARD_RATIO = "hazard_ratio"
    LR_CHI2 = "lr_chi2"
    LR_CHI2_INCREASE = "lr_chi2_increase"
    PROPORTIONALITY_CHI2 = "proportionality_chi2"
    C_INDEX = "c_index"
    C_INDEX_DIFFERENCE = "c_index_difference"
    LOGRANK_CHI2 = "logrank_chi2"
    SURVIVAL = "survival"
    AT_RISK = "at_risk"
    NRI_EVENT = "nri_event"
    NRI_NONEVENT = "nri_nonevent"
    NRI_OVERALL = "nri_overall"
    AUC = "auc"
    AUC_DIFFERENCE = "auc_difference"
    AUC_ERROR_BOUND = "auc_error_bound"
    SENSITIVITY_DIFFERENCE = "sensitivity_difference"
    SPECIFICITY_DIFFERENCE = "specificity_difference"
    PPV_DIFFERENCE = "ppv_difference"
    NPV_DIFFERENCE = "npv_difference"
    F1_DIFFERENCE = "f1_difference"
    PEARSON_R = "pearson_r"
    ICC = "icc"
    CCC = "ccc"
    KS_D = "ks_d"
    MEAN_DIFFERENCE = "mean_difference"
    STUART_MAXWELL_CHI2 = "stuart_maxwell_chi2"
    BHAPKAR_CHI2 = "bhapkar_chi2"
    ZIP_LOG_RATE_RATIO = "zip_log_rate_ratio"
    ZIP_LOG_ODDS_RATIO = "zip_log_odds_ratio"
    ZIP_LOG_SIGMA = "zip_log_sigma"
    LOG_ODDS_RATIO = "log_odds_ratio"
    CALIBRATION_SLOPE = "calibration_slope"
    CALIBRATION_INTERCEPT = "calibration_intercept"
    OE_RATIO = "oe_ratio"
    OBSERVED_RISK = "observed_risk"
    EXPECTED_RISK = "expected_risk"
    MEAN = "mean"
    SD = "sd"
    MEDIAN = "median"
    QUARTILE_LOW = "quartile_low"
    QUARTILE_HIGH = "quartile_high"
    PROPORTION = "proportion"
    DIFFERENCE_TEST = "difference_test"
    Q = "q"
    I2 = "i2"
    TAU2 = "tau2"
    TAU2_REML = "tau2_reml"
    PREDICTION_INTERVAL = "prediction_interval"
    CORRELATION = "correlation"
    COUNT = "count"


class ExclusionReason(StrEnum):
    """Why an exam or a patient is not in the cohort. Documented in docs/reference/codes.md."""

    NO_SUCH_PATH = "no_such_path"
    NO_DICOM = "no_dicom"
    UNREADABLE_DICOM = "unreadable_dicom"
    TRUNCATED_DICOM = "truncated_dicom"
    MIXED_SERIES = "mixed_series"
    SERIES_NOT_FOUND = "series_not_found"
    DUPLICATE_INSTANCE = "duplicate_instance"
    TOO_LARGE = "too_large"
    WRONG_MODALITY = "wrong_modality"
    WRONG_BODY_PART = "wrong_body_part"
    WRONG_VIEW = "wrong_view"
    NOT_FOR_PRESENTATION = "not_for_presentation"
    LOCALIZER = "localizer"
    DERIVED_IMAGE = "derived_image"
    CONTRAST_ENHANCED = "contrast_enhanced"
    NOT_AXIAL = "not_axial"
    TOO_FEW_SLICES = "too_few_slices"
    SHARP_KERNEL = "sharp_kernel"
    WRONG_ACQUISITION = "wrong_acquisition"
    GANTRY_TILT = "gantry_tilt"
    MISSING_SLICE = "missing_slice"
    DUPLICATE_POSITION = "duplicate_position"
    SEVERAL_PHASES = "several_phases"
    IRREGULAR_SPACING = "irregular_spacing"
    MISSING_GEOMETRY = "missing_geometry"
    INCONSISTENT_GEOMETRY = "inconsistent_geometry"
    NOT_HOUNSFIELD = "not_hounsfield"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    CORRUPT_PIXELS = "corrupt_pixels"
    SLICE_TOO_THICK = "slice_too_thick"
    NO_PATIENT_ID = "no_patient_id"
    NO_STUDY_DATE = "no_study_date"
    NO_REFERENCE_EXAM = "no_reference_exam"
    NO_INDEX_EXAM = "no_index_exam"
    OUTSIDE_PAIRING_WINDOW = "outside_pairing_window"
    SECOND_PAIR_OF_PATIENT = "second_pair_of_patient"
    NO_REFERENCE_SCORE = "no_reference_score"
    PROTOCOL_EXCLUSION = "protocol_exclusion"
    INFERENCE_FAILED = "inference_failed"


class RefusalCode(StrEnum):
    """All that a coordinator learns when a site does not answer. Documented in the same place."""

    POLICY_MISSING = "policy_missing"
    POLICY_INVALID = "policy_invalid"
    UNREGISTERED_TYPE = "unregistered_type"
    MALFORMED_QUERY = "malformed_query"
    UNKNOWN_ANALYSIS = "unknown_analysis"
    TOO_FEW_PATIENTS = "too_few_patients"
    TOO_FEW_EVENTS = "too_few_events"
    TOO_FEW_PER_CATEGORY = "too_few_per_category"
    TOO_MANY_PARAMETERS = "too_many_parameters"
    TOO_MANY_EXCHANGES = "too_many_exchanges"
    PARAMETERS_OUT_OF_BOUNDS = "parameters_out_of_bounds"
    BUDGET_SPENT = "budget_spent"
    NESTED_COHORT = "nested_cohort"
    UNPROTECTABLE = "unprotectable"
    TOO_FEW_SITES = "too_few_sites"
    SITES_CHANGED = "sites_changed"
    NOT_COMPUTABLE = "not_computable"
    REJECTED_BY_SITE = "rejected_by_site"
    PROTOCOL_INVALID = "protocol_invalid"
    PACKAGE_INVALID = "package_invalid"
    NO_REPLY = "no_reply"
    EMPTY_COHORT = "empty_cohort"
    INTERNAL = "internal"
