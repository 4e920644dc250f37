"""The analyses a protocol may declare: one frozen model per estimator kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcac.vocabulary import (
    Interval,
    KappaWeights,
    ReclassificationType,
    Resampling,
    RiskEstimator,
    ScoreRole,
    TieMethod,
)

__all__ = [
    "AccuracySpec",
    "AgreementSpec",
    "AnalysisSpec",
    "AucSpec",
    "BlandAltmanSpec",
    "CalibrationSpec",
    "ComparisonSpec",
    "CorrelationSpec",
    "CoxSpec",
    "DescriptivesSpec",
    "DistributionSpec",
    "FusionSpec",
    "KaplanMeierSpec",
    "ReclassificationSpec",
    "SurvivalCalibrationSpec",
    "ZeroInflatedSpec",
]

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
CutOffs = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field()]
Share = Annotated[float, Field(gt=0, lt=1)]
IndexRole = Literal["index", "comparator"]
ReferenceRole = Literal["reference", "second_reference"]
RoleOrNone = Literal["index", "reference", "comparator", "second_reference", "none"]


class _Spec(BaseModel):
    """What every analysis has: its id, and the subgroup it is confined to, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: Identifier
    subgroup: Identifier | None = None


class _TwoScores(_Spec):
    """An analysis of one index test's score against one reference standard's."""

    index: IndexRole = "index"
    reference: ReferenceRole = "reference"


# --- agreement and accuracy -----------------------------------------------------------------


class AgreementSpec(_TwoScores):
    """Confusion matrix of risk categories, Cohen's kappa and a test of equal margins.

    Eng 2021 Fig. 6; Miller 2023 Fig. 3.
    """

    kind: Literal["agreement"]
    weights: Annotated[tuple[KappaWeights, ...], Field(min_length=1)] = tuple(KappaWeights)


class AccuracySpec(_TwoScores):
    """Sensitivity, specificity, PPV, NPV, F1 and accuracy at every cut-off (Eng 2021 Table 3)."""

    kind: Literal["accuracy"]
    interval: Interval = Interval.WILSON


class BlandAltmanSpec(_TwoScores):
    """Bias and limits of agreement of index minus reference score (Eng 2021 Fig. 1).

    `per_vessel` adds LM, LAD, LCX and RCA where the site has both scores of the vessel.
    """

    kind: Literal["bland_altman"]
    per_vessel: bool = False


class CorrelationSpec(_TwoScores):
    """Pearson's r, intraclass and concordance correlation of the two scores.

    `scale: log` correlates ln(score + 1) instead of the score.
    """

    kind: Literal["correlation"]
    scale: Literal["score", "log"] = "score"


class DistributionSpec(_TwoScores):
    """Whether two scores of the same patients are distributed alike (Eng 2021).

    Kolmogorov-Smirnov on a public grid, as the paper, and the sign-flip test that fits paired
    data.
    """

    kind: Literal["distribution"]


class ZeroInflatedSpec(_TwoScores):
    """Zero-inflated Poisson regression of the score on who scored it (Eng 2021, prospective).

    `patient_effect` adds a normal random intercept per patient, integrated with `n_nodes`
    adaptive Gauss-Hermite nodes (1 is the Laplace approximation).
    """

    kind: Literal["zero_inflated"]
    patient_effect: bool = False
    n_nodes: Annotated[int, Field(ge=1, le=41)] = 15


class AucSpec(_TwoScores):
    """Area under the ROC curve for the reference's cut-offs, with DeLong's interval.

    `value` is what ranks the patients: the index score, or the probability column that the index
    test gives for a cut-off. `cut_offs` default to all of the protocol's. `bins` is the number of
    bins of the public grid.
    """

    kind: Literal["auc"]
    value: Literal["score", "probability"] = "score"
    cut_offs: CutOffs = ()
    bins: Annotated[int, Field(ge=10, le=2000)] = 400


class ComparisonSpec(_Spec):
    """Two index tests against one reference, or one index test against two references.

    Eng 2021 Table 4 compares two references of the same model; `index_tests` compares the index
    test with the protocol's comparator on the same patients.
    """

    kind: Literal["comparison"]
    compare: Literal["index_tests", "references"]
    cut_offs: CutOffs = ()
    bins: Annotated[int, Field(ge=10, le=2000)] = 400


class CalibrationSpec(_Spec):
    """Calibration of the probability that the index test gives for a cut-off.

    Observed against expected by bins of predicted risk, calibration intercept and slope.
    """

    kind: Literal["calibration"]
    cut_offs: CutOffs = ()
    risk_bins: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.25, 0.5, 0.75)


class FusionSpec(_Spec):
    """Logistic regression of a cut-off on the index probability and clinical factors (Hong 2025).

    Fitted over all sites, evaluated by `folds`-fold cross-validation inside the sites; AUC with
    and without the clinical factors.
    """

    kind: Literal["fusion"]
    covariates: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    cut_off: Annotated[float, Field(gt=0)]
    folds: Annotated[int, Field(ge=2, le=20)] = 10
    bins: Annotated[int, Field(ge=10, le=2000)] = 1000


class DescriptivesSpec(_Spec):
    """Characteristics of patients by group (Miller 2023 Tables 1 and S4).

    `by` is a score's role (`index`: by its risk category), an endpoint (by event), a categorical
    or binary covariate, or `all`. `scores` adds the distribution of scores and of their risk
    categories.
    """

    kind: Literal["descriptives"]
    covariates: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    by: Identifier
    scores: tuple[ScoreRole, ...] = ()


# --- survival -------------------------------------------------------------------------------


class CoxSpec(_Spec):
    """Site-stratified Cox model (Miller 2023 Table 2).

    `covariates` are names of the protocol's covariates. `risk_category` adds the category of a
    score as indicators against the lowest category, `log_score` its ln(score + 1). `univariable`
    fits every covariate and the risk category in a model of its own, on the same patients.
    `robust` adds sandwich standard errors, `proportionality` the test of proportional hazards,
    `concordance` the C-index, `by_site` every site's own model and how they differ.
    `missing: indicator` keeps patients with a missing covariate and
    gives the gap a coefficient; the default leaves them out.
    """

    kind: Literal["cox"]
    endpoint: Identifier
    covariates: tuple[Identifier, ...] = ()
    risk_category: RoleOrNone = "none"
    log_score: RoleOrNone = "none"
    ties: TieMethod = TieMethod.EFRON
    univariable: bool = False
    robust: bool = False
    proportionality: bool = False
    concordance: bool = False
    by_site: bool = False
    missing: Literal["complete_case", "indicator"] = "complete_case"


class KaplanMeierSpec(_Spec):
    """Kaplan-Meier curves by group, and the log-rank test stratified by site (Miller 2023 Fig. 4).

    `by` is a score's role, for its risk category, or a categorical or binary covariate. Times are
    cut into bins of `bin_days`; events and censorings inside a bin are treated as in a life table,
    so bins of one day are exact for follow-up in whole days.
    """

    kind: Literal["kaplan_meier"]
    endpoint: Identifier
    by: Identifier = "index"
    bin_days: Annotated[int, Field(ge=1, le=1000)] = 91
    horizon_days: Annotated[int, Field(ge=1, le=20000)]


class ReclassificationSpec(_Spec):
    """What the model `full` adds to the model `base`: NRI, AUC, C-index, likelihood ratio.

    Miller 2023 Fig. 5 and Supplemental Table 6. `base` and `full` are ids of Cox analyses with
    one endpoint; risks are those at `horizon_days`, with the site's own baseline hazard. `cuts`
    belong to the categorical type, `delta` to the difference type. Uncertainty includes the
    refitting of both models: delete-a-group jackknife or secret-weight bootstrap of
    `replicates` groups or samples.
    """

    kind: Literal["reclassification"]
    base: Identifier
    full: Identifier
    horizon_days: Annotated[int, Field(ge=1, le=20000)]
    type: ReclassificationType = ReclassificationType.CATEGORY_FREE
    estimator: RiskEstimator = RiskEstimator.KM
    cuts: tuple[Share, ...] = ()
    delta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    uncertainty: Resampling = Resampling.JACKKNIFE
    replicates: Annotated[int, Field(ge=5, le=1000)] = 20


class SurvivalCalibrationSpec(_Spec):
    """Calibration of a predicted risk at a horizon, a column of the site table between 0 and 1.

    Observed risk by Kaplan-Meier against the mean prediction by `risk_bins`, O/E, and the slope
    of a site-stratified Cox model on the complementary log-log of the prediction.
    """

    kind: Literal["survival_calibration"]
    endpoint: Identifier
    prediction: Identifier
    horizon_days: Annotated[int, Field(ge=1, le=20000)]
    risk_bins: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.05, 0.1, 0.2)


AnalysisSpec = Annotated[
    AgreementSpec
    | AccuracySpec
    | BlandAltmanSpec
    | CorrelationSpec
    | DistributionSpec
    | ZeroInflatedSpec
    | AucSpec
    | ComparisonSpec
    | CalibrationSpec
    | FusionSpec
    | DescriptivesSpec
    | CoxSpec
    | KaplanMeierSpec
    | ReclassificationSpec
    | SurvivalCalibrationSpec,
    Field(discriminator="kind"),
]
