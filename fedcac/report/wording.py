"""Words and numbers as the report prints them."""

from __future__ import annotations

from collections.abc import Iterable

from fedcac.aggregate import FlowStage
from fedcac.protocol import AnalysisSpec, Protocol
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import (
    BoundaryConvention,
    ExclusionReason,
    IndexTest,
    Measure,
    Modality,
    ReferenceKind,
    RefusalCode,
    Vessel,
)

__all__ = [
    "CONVENTION_WORDS",
    "EXCLUSION_WORDS",
    "INDEX_WORDS",
    "MODALITY_WORDS",
    "PERCENT_MEASURES",
    "REFERENCE_WORDS",
    "REFUSAL_WORDS",
    "STAGE_WORDS",
    "analysis_words",
    "bytes_words",
    "capital",
    "covariate_words",
    "error_words",
    "exclusion_words",
    "measure_words",
    "number_words",
    "p_phrase",
    "p_words",
    "plain_number",
    "reference_note",
    "refusal_words",
    "scope_words",
    "score_words",
    "suppressed_words",
    "term_words",
]

PERCENT_MEASURES = frozenset(
    {
        Measure.SENSITIVITY,
        Measure.SPECIFICITY,
        Measure.PPV,
        Measure.NPV,
        Measure.F1,
        Measure.ACCURACY,
    }
)

_MEASURES = {
    Measure.KAPPA_UNWEIGHTED: "Cohen's kappa",
    Measure.KAPPA_LINEAR: "Linearly weighted kappa",
    Measure.KAPPA_QUADRATIC: "Quadratically weighted kappa",
    Measure.SENSITIVITY: "Sensitivity",
    Measure.SPECIFICITY: "Specificity",
    Measure.PPV: "PPV",
    Measure.NPV: "NPV",
    Measure.F1: "F1 score",
    Measure.ACCURACY: "Accuracy",
    Measure.BIAS: "Bias",
    Measure.LOA_LOW: "Lower limit of agreement",
    Measure.LOA_HIGH: "Upper limit of agreement",
    Measure.LOG_HAZARD_RATIO: "Log hazard ratio",
    Measure.HAZARD_RATIO: "Hazard ratio",
    Measure.LR_CHI2: "Likelihood-ratio chi-square",
    Measure.LR_CHI2_INCREASE: "Increase in likelihood-ratio chi-square",
    Measure.PROPORTIONALITY_CHI2: "Proportional hazards, chi-square",
    Measure.C_INDEX: "C-index",
    Measure.C_INDEX_DIFFERENCE: "Increase in C-index",
    Measure.LOGRANK_CHI2: "Log-rank chi-square",
    Measure.NRI_EVENT: "Event NRI",
    Measure.NRI_NONEVENT: "Non-event NRI",
    Measure.NRI_OVERALL: "Overall NRI",
    Measure.AUC: "AUC",
    Measure.AUC_DIFFERENCE: "Increase in AUC",
    Measure.PEARSON_R: "Pearson's r",
    Measure.ICC: "Intraclass correlation",
    Measure.CCC: "Lin's concordance correlation",
    Measure.KS_D: "Kolmogorov-Smirnov D (bounds)",
    Measure.MEAN_DIFFERENCE: "Mean difference (sign-flip p)",
    Measure.ZIP_LOG_RATE_RATIO: "Log ratio of mean scores, index to reference",
    Measure.ZIP_LOG_ODDS_RATIO: "Log odds ratio of an excess zero",
    Measure.ZIP_LOG_SIGMA: "Log SD of the patients' log means",
    Measure.OE_RATIO: "Observed / expected",
    Measure.STUART_MAXWELL_CHI2: "Equal margins, Stuart-Maxwell chi-square",
    Measure.BHAPKAR_CHI2: "Equal margins, Bhapkar chi-square",
    Measure.Q: "Cochran's Q",
    Measure.TAU2_REML: "τ² (REML)",
    Measure.I2: "I²",
    Measure.TAU2: "τ²",
    Measure.COUNT: "Count",
}

MODALITY_WORDS = {
    Modality.GATED_CT: "ECG-gated cardiac CT",
    Modality.NON_GATED_CT: "non-gated chest CT",
    Modality.CTAC: "CT attenuation-correction scan",
    Modality.CHEST_RADIOGRAPH: "chest radiograph",
}

REFERENCE_WORDS = {
    ReferenceKind.GATED_CT_READER: "Agatston score by a reader on ECG-gated CT",
    ReferenceKind.NON_GATED_READER: "Agatston score by a reader on the non-gated exam itself",
    ReferenceKind.EXPERT_ANNOTATION: "expert annotation",
    ReferenceKind.GATED_CT_MODEL: "Agatston score by a model on ECG-gated CT",
}

INDEX_WORDS = {
    IndexTest.AGATSTON_SCORE: "an Agatston score",
    IndexTest.RISK_CATEGORY: "a risk category",
    IndexTest.CATEGORY_PROBABILITIES: "category probabilities",
}

CONVENTION_WORDS = {
    BoundaryConvention.UPPER_INCLUSIVE: (
        "A score equal to a cut-off belongs to the lower category and is negative at it; "
        "at the cut-off 1, a score of 1 is positive. Scores are not rounded."
    ),
    BoundaryConvention.GUIDELINE_GE: (
        "A score equal to a cut-off belongs to the upper category and is positive at it, "
        "as the ACC/AHA guideline words it. Scores are not rounded."
    ),
    BoundaryConvention.ANY_GT0: (
        "A score equal to a cut-off belongs to the lower category and is negative at it; "
        "at the lowest cut-off any score above 0 is positive. Scores are not rounded."
    ),
    BoundaryConvention.ROUND_FIRST: (
        "Scores are rounded half up to an integer first. A score equal to a cut-off then belongs "
        "to the lower category and is negative at it; at the cut-off 1, a score of 1 is positive."
    ),
}

STAGE_WORDS = {
    FlowStage.LISTED: "Listed",
    FlowStage.ELIGIBLE: "Eligible",
    FlowStage.PAIRED: "Paired with reference standard",
    FlowStage.SCORED: "Scored by the index test",
    FlowStage.ANALYSED: "Analysed",
}

REFUSAL_WORDS = {
    RefusalCode.POLICY_MISSING: "the site has no disclosure policy",
    RefusalCode.POLICY_INVALID: "the site's disclosure policy cannot be read",
    RefusalCode.UNREGISTERED_TYPE: "this kind of aggregate is not allowed to leave",
    RefusalCode.MALFORMED_QUERY: "the query was malformed",
    RefusalCode.UNKNOWN_ANALYSIS: "the protocol does not declare the analysis",
    RefusalCode.TOO_FEW_PATIENTS: "too few patients",
    RefusalCode.TOO_FEW_EVENTS: "too few events",
    RefusalCode.TOO_FEW_PER_CATEGORY: "too few patients in a category",
    RefusalCode.TOO_MANY_PARAMETERS: "too many parameters for the number of patients",
    RefusalCode.TOO_MANY_EXCHANGES: "too many exchanges",
    RefusalCode.PARAMETERS_OUT_OF_BOUNDS: "the query asked at out-of-bounds parameters",
    RefusalCode.BUDGET_SPENT: "the disclosure budget is spent",
    RefusalCode.NESTED_COHORT: "the cohort nearly equals one already released",
    RefusalCode.UNPROTECTABLE: "small cells cannot be protected",
    RefusalCode.NOT_COMPUTABLE: "not computable from the site's exams",
    RefusalCode.REJECTED_BY_SITE: "rejected at the site's review",
    RefusalCode.PROTOCOL_INVALID: "the protocol failed the site's verification",
    RefusalCode.PACKAGE_INVALID: "the model package failed the site's verification",
    RefusalCode.NO_REPLY: "no reply before the round closed",
    RefusalCode.EMPTY_COHORT: "no eligible exam",
    RefusalCode.INTERNAL: "an internal error at the site",
    RefusalCode.TOO_FEW_SITES: "too few sites for a masked sum",
    RefusalCode.SITES_CHANGED: "the sum is over other sites than an earlier one",
}

EXCLUSION_WORDS = {
    ExclusionReason.NO_SUCH_PATH: "Listed path does not exist",
    ExclusionReason.NO_DICOM: "No DICOM found",
    ExclusionReason.UNREADABLE_DICOM: "Unreadable DICOM",
    ExclusionReason.TRUNCATED_DICOM: "Truncated DICOM",
    ExclusionReason.MIXED_SERIES: "Mixed series",
    ExclusionReason.NOT_HOUNSFIELD: "Not in Hounsfield units",
    ExclusionReason.NO_PATIENT_ID: "No patient identifier",
    ExclusionReason.UNSUPPORTED_TRANSFER_SYNTAX: "Unsupported transfer syntax",
    ExclusionReason.SECOND_PAIR_OF_PATIENT: "Second pair of a patient",
    ExclusionReason.PROTOCOL_EXCLUSION: "Excluded by a clinical criterion",
}


def exclusion_words(reason: ExclusionReason) -> str:
    """Return an exclusion reason in words."""
    return EXCLUSION_WORDS.get(reason, reason.value.replace("_", " ").capitalize())


def refusal_words(code: RefusalCode) -> str:
    """Return a refusal code in words."""
    return REFUSAL_WORDS[code]


def measure_words(measure: Measure) -> str:
    """Return a measure as a table prints it."""
    return _MEASURES.get(measure, measure.value.replace("_", " ").capitalize())


def score_words(protocol: Protocol, name: str) -> str:
    """Return what a score's role or column, an endpoint or a covariate is called."""
    roles = {
        "index": "index test",
        "reference": "reference standard",
        "comparator": protocol.comparator.description if protocol.comparator else name,
        "second_reference": (
            protocol.second_reference.description if protocol.second_reference else name
        ),
    }
    if name in roles:
        return roles[name].rstrip(".")
    for role, words in roles.items():
        if role in ("index", "reference") and name == f"{role}_score":
            return capital(words)
    for score in (protocol.comparator, protocol.second_reference):
        if score is not None and name == score.column:
            return score.description.rstrip(".")
    for covariate in protocol.covariates:
        if covariate.name == name:
            return covariate.description.rstrip(".").lower()
    return name


def covariate_words(protocol: Protocol, term: str) -> str:
    """Return a term of a regression in words."""
    name, _, level = term.partition("=")
    declared = {covariate.name: covariate for covariate in protocol.covariates}
    if term in protocol.categories.labels:
        return f"Risk category {term}, against {protocol.categories.labels[0]}"
    if name not in declared:
        column = term.removeprefix("ln(").removesuffix("+1)")
        if column != term:
            return f"ln(score + 1), {score_words(protocol, column)}"
        return term_words(term)
    covariate = declared[name]
    if level == "missing":
        return f"{covariate.description}: missing"
    if covariate.levels:
        return f"{covariate.description}: {level}, against {covariate.levels[0]}"
    if covariate.type == "continuous":
        return f"{covariate.description}, per {covariate.scale:g} {covariate.unit}".rstrip()
    return covariate.description


def analysis_words(protocol: Protocol, spec: AnalysisSpec) -> str:
    """Return an analysis's id, and the subgroup it is confined to."""
    if spec.subgroup is None:
        return spec.id
    return f"{spec.id}: {protocol.subgroup(spec.subgroup).description.rstrip('.')}"


def plain_number(value: float) -> str:
    """Return a number of a characteristic: one place, none from 1,000 up."""
    return _minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}")


def reference_note(protocol: Protocol) -> str:
    """Return what a reader must know of the reference standard wherever patients are counted."""
    if protocol.reference.kind is not ReferenceKind.GATED_CT_MODEL:
        return ""
    return "reference read by a model, not by an expert"


def scope_words(scope: str) -> str:
    """Return `Pooled`, `Meta-analytic` or the site's name."""
    return {POOLED: "Pooled", META: "Meta-analytic"}.get(scope, scope)


def term_words(term: str) -> str:
    """Return a term for a reader: vessels in capitals, `name=level` apart, else as it is."""
    if not term:
        return "Total"
    if term in set(Vessel):
        return term.upper()
    return term.replace("=", ": ", 1) if not term.startswith(("<", ">", "=")) else term


def suppressed_words(minimum_cell: int) -> str:
    """Return what stands in place of a count that may not leave."""
    return f"suppressed (<{minimum_cell})"


def error_words(codes: Iterable[str]) -> str:
    """Return what stands in place of a number that a failure prevented."""
    return f"error ({', '.join(codes)})"


def number_words(row: Estimate) -> str:
    """Return 'estimate (low, high)': percent for proportions, else in the measure's own unit."""
    if row.estimate is None:
        raise ValueError("a row without an estimate has no number to print")
    factor, places = _form(row.measure, row.estimate)
    text = f"{factor * row.estimate:.{places}f}"
    if row.ci_low is None or row.ci_high is None:
        return _minus(text)
    return _minus(f"{text} ({factor * row.ci_low:.{places}f}, {factor * row.ci_high:.{places}f})")


_PERCENT_DIFFERENCES = frozenset(
    {
        Measure.SENSITIVITY_DIFFERENCE,
        Measure.SPECIFICITY_DIFFERENCE,
        Measure.PPV_DIFFERENCE,
        Measure.NPV_DIFFERENCE,
        Measure.F1_DIFFERENCE,
    }
)
_ONE_PLACE = frozenset(
    {
        Measure.BIAS,
        Measure.LOA_LOW,
        Measure.LOA_HIGH,
        Measure.LR_CHI2,
        Measure.LR_CHI2_INCREASE,
        Measure.STUART_MAXWELL_CHI2,
        Measure.BHAPKAR_CHI2,
        Measure.MEAN_DIFFERENCE,
    }
)
_THREE_PLACES = frozenset(
    {
        Measure.AUC,
        Measure.AUC_DIFFERENCE,
        Measure.C_INDEX,
        Measure.C_INDEX_DIFFERENCE,
        Measure.NRI_EVENT,
        Measure.NRI_NONEVENT,
        Measure.NRI_OVERALL,
        Measure.PEARSON_R,
        Measure.ICC,
        Measure.CCC,
        Measure.KS_D,
    }
)


def _form(measure: Measure, estimate: float) -> tuple[float, int]:
    if measure in PERCENT_MEASURES or measure in _PERCENT_DIFFERENCES:
        return 100.0, 1
    if measure.value.startswith("kappa") or measure is Measure.LOG_HAZARD_RATIO:
        return 1.0, 3
    if measure in _ONE_PLACE:
        return 1.0, 1
    if measure in _THREE_PLACES:
        return 1.0, 3
    return 1.0, 2 if abs(estimate) < 100 else 1


def p_words(p_value: float | None) -> str:
    """Return a p-value as a cell of a table: three places, and `<0.001` below that."""
    if p_value is None:
        return "not tested"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def p_phrase(p_value: float | None) -> str:
    """Return what stands after the letter p in a sentence: `= 0.012`, `<0.001`, `not tested`."""
    text = p_words(p_value)
    return f"= {text}" if text[0].isdecimal() else text


def capital(text: str) -> str:
    """Return a text with a capital at its beginning, the rest as it is."""
    return text[:1].upper() + text[1:]


def bytes_words(n_bytes: int) -> str:
    """Return a number of bytes, in kB from 10,000 up."""
    return f"{n_bytes:,} B" if n_bytes < 10_000 else f"{n_bytes / 1000:,.1f} kB"


def _minus(text: str) -> str:
    # A typographic minus keeps '-12.3' from being read as a dash or broken across lines.
    return text.replace("-", "\N{MINUS SIGN}")
