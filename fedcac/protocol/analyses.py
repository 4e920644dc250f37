"""The analyses a protocol may declare: one frozen model per estimator kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcac.vocabulary import Interval, KappaWeights, TieMethod

__all__ = ["AccuracySpec", "AgreementSpec", "AnalysisSpec", "BlandAltmanSpec", "CoxSpec"]

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Identifier


class AgreementSpec(_Spec):
    """Confusion matrix of risk categories and Cohen's kappa (Eng 2021 Fig. 6)."""

    kind: Literal["agreement"]
    weights: Annotated[tuple[KappaWeights, ...], Field(min_length=1)] = tuple(KappaWeights)


class AccuracySpec(_Spec):
    """Sensitivity, specificity, PPV, NPV, F1 and accuracy at every cut-off (Eng 2021 Table 3)."""

    kind: Literal["accuracy"]
    interval: Interval = Interval.WILSON


class BlandAltmanSpec(_Spec):
    """Bias and limits of agreement of index minus reference score (Eng 2021 Fig. 1).

    `per_vessel` adds LM, LAD, LCX and RCA where the site has both scores of the vessel.
    """

    kind: Literal["bland_altman"]
    per_vessel: bool = False


class CoxSpec(_Spec):
    """Site-stratified Cox model (Miller 2023 Table 2).

    `covariates` are names of the protocol's covariates. `risk_category` adds the category of the
    index or reference score as indicators against the lowest category.
    """

    kind: Literal["cox"]
    endpoint: Identifier
    covariates: tuple[Identifier, ...] = ()
    risk_category: Literal["index", "reference", "none"] = "none"
    ties: TieMethod = TieMethod.EFRON


AnalysisSpec = Annotated[
    AgreementSpec | AccuracySpec | BlandAltmanSpec | CoxSpec, Field(discriminator="kind")
]
