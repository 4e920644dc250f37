"""How each analysis was computed, in paragraphs for the methods section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    AnalysisSpec,
    AucSpec,
    BlandAltmanSpec,
    CalibrationSpec,
    ComparisonSpec,
    CorrelationSpec,
    CoxSpec,
    DescriptivesSpec,
    DistributionSpec,
    Endpoint,
    FusionSpec,
    KaplanMeierSpec,
    Protocol,
    ReclassificationSpec,
    SurvivalCalibrationSpec,
    ZeroInflatedSpec,
)
from fedcac.report.wording import capital
from fedcac.vocabulary import (
    Interval,
    ReclassificationType,
    Resampling,
    RiskEstimator,
    ScoreRole,
    TieMethod,
)

__all__ = ["describe_analyses", "describe_analysis"]

_INTERVALS = {
    Interval.WILSON: "Wilson's score method",
    Interval.CLOPPER_PEARSON: "the exact method of Clopper and Pearson",
    Interval.ENG2021: "the normal approximation with the total number of patients as denominator, "
    "as in Eng et al. 2021",
}

_ESTIMATORS = {
    RiskEstimator.BINARY: "events at any time were counted as they were observed",
    RiskEstimator.KM: "events by the horizon were estimated with each site's Kaplan-Meier curves "
    "of all, up- and down-classified patients (Pencina et al. 2011)",
    RiskEstimator.IPW: "patients were weighted by the inverse probability of being uncensored at "
    "their site (Uno et al. 2013)",
}

_RESAMPLING = {
    Resampling.JACKKNIFE: "a delete-a-group jackknife of {n} groups, dealt in secret at each site, "
    "with both models refitted without each group (t interval)",
    Resampling.BOOTSTRAP: "{n} bootstrap samples, drawn in secret inside each site, with both "
    "models refitted on each",
    Resampling.NONE: "no resampling, so there is none",
}


def describe_analyses(protocol: Protocol) -> tuple[str, ...]:
    """Return a paragraph per analysis; Cox models that are fitted alike share one."""
    groups: dict[tuple[str, ...], list[AnalysisSpec]] = {}
    for spec in protocol.analyses:
        key = (spec.kind, spec.ties, spec.missing) if isinstance(spec, CoxSpec) else (spec.id,)
        groups.setdefault(key, []).append(spec)
    return tuple(
        describe_analysis(specs[0], protocol)
        if len(specs) == 1
        else _describe_cox_models([one for one in specs if isinstance(one, CoxSpec)], protocol)
        for specs in groups.values()
    )


def describe_analysis(spec: AnalysisSpec, protocol: Protocol) -> str:
    """Return what was estimated and how, in sentences."""
    text = _describe_survival(spec, protocol) or _describe_scores(spec, protocol)
    if spec.subgroup is None:
        return text
    subgroup = protocol.subgroup(spec.subgroup)
    return f"{text} Confined to the subgroup: {subgroup.description.rstrip('.')}."


def _role(role: str, protocol: Protocol) -> str:
    if role == ScoreRole.COMPARATOR and protocol.comparator is not None:
        return protocol.comparator.description.rstrip(".")
    if role == ScoreRole.SECOND_REFERENCE and protocol.second_reference is not None:
        return protocol.second_reference.description.rstrip(".")
    return {"index": "the index test", "reference": "the reference standard"}.get(role, role)


def _pair(spec: AgreementSpec | AccuracySpec | BlandAltmanSpec | AucSpec, p: Protocol) -> str:
    if (spec.index, spec.reference) == ("index", "reference"):
        return ""
    return f" The scores are those of {_role(spec.index, p)} against {_role(spec.reference, p)}."


def _describe_scores(spec: AnalysisSpec, protocol: Protocol) -> str:
    match spec:
        case AgreementSpec():
            weights = ", ".join(weight.value for weight in spec.weights)
            return (
                f"Agreement ({spec.id}). Confusion matrices of "
                f"{protocol.categories.n_categories} risk categories, reference standard in rows, "
                f"were summed over sites. Cohen's kappa ({weights}) has the large-sample interval "
                "of Fleiss, Cohen and Everitt (1969); Stuart and Maxwell's and Bhapkar's tests ask "
                f"whether both give the categories equally often.{_pair(spec, protocol)}"
            )
        case AccuracySpec():
            return (
                f"Diagnostic accuracy ({spec.id}). The 2x2 table at each cut-off was summed over "
                f"sites; 95% confidence intervals of proportions follow "
                f"{_INTERVALS[spec.interval]}. The interval of F1 transforms that of the Jaccard "
                "index. Random-effects summaries combine logits by REML with Hartung and Knapp's "
                "interval; the bivariate summary is Reitsma's and is given from ten sites on."
                f"{_pair(spec, protocol)}"
            )
        case BlandAltmanSpec():
            vessels = ", also for each coronary vessel" if spec.per_vessel else ""
            return (
                f"Bland-Altman analysis ({spec.id}). Numbers of patients, means and sums of "
                f"squared deviations of index minus reference score were merged over sites"
                f"{vessels}. Limits of agreement are the bias ± 1.96 standard deviations; they are "
                f"not a confidence interval of the bias.{_pair(spec, protocol)}"
            )
        case CorrelationSpec():
            scale = "ln(score + 1)" if spec.scale == "log" else "the score"
            return (
                f"Correlation ({spec.id}). Pearson's r (Fisher's interval), intraclass correlation "
                "of single measurements (one-way random, two-way random, two-way mixed) and Lin's "
                f"concordance correlation of {scale} follow from moments merged over sites."
            )
        case DistributionSpec():
            return (
                f"Distribution ({spec.id}). The Kolmogorov-Smirnov distance was computed on a "
                "public grid, with bounds of the exact distance; its p-value treats the two "
                "samples as independent, which paired scores are not. The sign-flip test of the "
                "mean difference respects the pairs."
            )
        case ZeroInflatedSpec():
            effect = (
                f" A normal intercept per patient was integrated out with {spec.n_nodes} adaptive "
                "Gauss-Hermite nodes."
                if spec.patient_effect
                else " The two scores of a patient count as independent."
            )
            return (
                f"Zero-inflated Poisson regression ({spec.id}) of the rounded score on who scored "
                f"it, by Newton's method on the summed likelihood terms.{effect}"
            )
        case _:
            return _describe_probabilities(spec, protocol)


def _describe_probabilities(spec: AnalysisSpec, protocol: Protocol) -> str:
    match spec:
        case AucSpec():
            value = "probability" if spec.value == "probability" else "score"
            return (
                f"Discrimination ({spec.id}). The area under the ROC curve of the {value} has "
                "DeLong's interval. The pooled area compares patients across sites from class "
                f"histograms on a public grid of {spec.bins} bins, and states how far the binning "
                f"can have moved it.{_pair(spec, protocol)}"
            )
        case ComparisonSpec():
            others = (
                ("index", "comparator")
                if spec.compare == "index_tests"
                else ("reference", "second_reference")
            )
            names = " with ".join(_role(role, protocol) for role in others)
            return (
                f"Comparison ({spec.id}) of {names} on the same patients: differences of paired "
                "proportions with Newcombe's interval and McNemar's exact test, of ratios with "
                "different denominators by the delta method, of areas under the ROC curve by "
                "DeLong's paired test."
            )
        case CalibrationSpec():
            return (
                f"Calibration ({spec.id}). Observed and expected positives by predicted "
                "probability; intercept and slope by federated logistic regression on the logit of "
                "the prediction."
            )
        case FusionSpec():
            return (
                f"Clinical factors ({spec.id}). A logistic model of the cut-off "
                f"{spec.cut_off:g} on the image model's logit and "
                f"{', '.join(spec.covariates)} was fitted to all sites by "
                f"Newton's method; {spec.folds}-fold cross-validation inside the sites refitted "
                "it without each fold. The areas under the ROC curve with and without clinical "
                "factors are compared by DeLong's paired test."
            )
        case DescriptivesSpec():
            return (
                f"Characteristics ({spec.id}) by {spec.by}. Counts and moments were summed over "
                "sites; medians and quartiles are read from summed histograms. Groups are compared "
                "by Pearson's chi-square or Kruskal and Wallis's test (with two groups Mann and "
                "Whitney's)."
            )
        case _:
            raise TypeError(f"no words for an analysis of kind '{spec.kind}'")


def _describe_survival(spec: AnalysisSpec, protocol: Protocol) -> str:
    match spec:
        case CoxSpec():
            return _describe_cox(spec, protocol)
        case KaplanMeierSpec():
            return (
                f"Survival curves ({spec.id}) for {_endpoint(protocol.endpoint(spec.endpoint))} by "
                f"{spec.by}, from life tables in bins of {spec.bin_days} days summed over sites, "
                "with log-log intervals; the log-rank test is stratified by site and exact."
            )
        case ReclassificationSpec():
            how = {
                ReclassificationType.CATEGORY_FREE: "Any change of risk counts",
                ReclassificationType.CATEGORICAL: "Changes across the risks "
                f"{', '.join(f'{cut:g}' for cut in spec.cuts)} count",
                ReclassificationType.DIFFERENCE: f"Changes of risk above {spec.delta:g} count",
            }[spec.type]
            interval = _RESAMPLING[spec.uncertainty].format(n=spec.replicates)
            return (
                f"Reclassification ({spec.id}). Net reclassification improvement of model "
                f"{spec.full} over model {spec.base} at {spec.horizon_days} days. {how}; "
                f"{_ESTIMATORS[spec.estimator]}. Risks use each site's own baseline hazard. "
                "Increases of the area under the ROC curve and of the C-index compare patients of "
                f"one site. Uncertainty: {interval}."
            )
        case SurvivalCalibrationSpec():
            return (
                f"Calibration of {spec.prediction} ({spec.id}) for "
                f"{_endpoint(protocol.endpoint(spec.endpoint))} at {spec.horizon_days} days: "
                "observed risk by each site's Kaplan-Meier curve, weighted by its patients, "
                "against the mean prediction; slope of a Cox model stratified by site."
            )
        case _:
            return ""


def _endpoint(endpoint: Endpoint) -> str:
    text = f"{endpoint.name} ({endpoint.definition.rstrip('.')})"
    if endpoint.exclusion is not None:
        text += f", {endpoint.exclusion.statement.rstrip('.')}"
    if endpoint.landmark_days:
        text += f", from a landmark at {endpoint.landmark_days} days"
    return text


def _describe_cox(spec: CoxSpec, protocol: Protocol) -> str:
    models, were = (
        ("Cox models with one covariate each, stratified by site,", "were")
        if spec.univariable
        else ("A Cox model stratified by site", "was")
    )
    features = "; ".join(_cox_features(spec))
    return (
        f"Survival ({spec.id}). {models} for {_endpoint(protocol.endpoint(spec.endpoint))} {were} "
        f"{_cox_fit(spec)}" + (f" {capital(features)}." if features else "")
    )


def _describe_cox_models(specs: Sequence[CoxSpec], protocol: Protocol) -> str:
    by_endpoint: dict[str, list[str]] = {}
    by_feature: dict[str, list[str]] = {}
    for spec in specs:
        endpoint = _endpoint(protocol.endpoint(spec.endpoint))
        by_endpoint.setdefault(endpoint, []).append(_model_words(spec, protocol))
        for feature in _cox_features(spec):
            by_feature.setdefault(feature, []).append(spec.id)
    models = "; ".join(f"for {one}: {', '.join(names)}" for one, names in by_endpoint.items())
    return (
        f"Survival ({len(specs)} analyses). Cox models stratified by site were "
        f"{_cox_fit(specs[0])} The models are, {models}."
        + "".join(f" {capital(one)} ({', '.join(names)})." for one, names in by_feature.items())
    )


def _model_words(spec: CoxSpec, protocol: Protocol) -> str:
    notes = ["each covariate by itself"] if spec.univariable else []
    if spec.subgroup is not None:
        notes.append(f"subgroup: {protocol.subgroup(spec.subgroup).description.rstrip('.')}")
    return f"{spec.id} ({'; '.join(notes)})" if notes else spec.id


def _cox_fit(spec: CoxSpec) -> str:
    ties = "Efron" if spec.ties is TieMethod.EFRON else "Breslow"
    gaps = (
        "A missing covariate has a coefficient of its own"
        if spec.missing == "indicator"
        else "Patients with a missing covariate were left out"
    )
    return (
        "fitted by Newton's method on the sum of the sites' log-likelihoods, gradients and "
        "information matrices, which gives the same estimate as pooling the patients; ties follow "
        f"{ties}. Intervals and p-values are Wald's; a model's test is the likelihood-ratio test. "
        f"{gaps}."
    )


def _cox_features(spec: CoxSpec) -> Iterator[str]:
    if spec.robust:
        yield "standard errors are Lin and Wei's sandwich"
    if spec.proportionality:
        yield "proportional hazards were tested against a coefficient linear in time"
    if spec.concordance:
        yield "Harrell's C counts pairs of patients of one site"
    if spec.by_site:
        yield "every site's own model enters a random-effects summary of log hazard ratios"
