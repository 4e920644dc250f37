"""The literature behind a round's methods, as a numbered list for a manuscript."""

from __future__ import annotations

from typing import Final

from fedcac.protocol import Protocol

__all__ = ["REFERENCES_BY_KIND", "references_of"]

_WILSON = "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 1927;22:209-212."  # noqa: E501
_DELONG = "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver operating characteristic curves: a nonparametric approach. Biometrics 1988;44:837-845."  # noqa: E501
_HARRELL = "Harrell FE, Califf RM, Pryor DB, Lee KL, Rosati RA. Evaluating the yield of medical tests. JAMA 1982;247:2543-2546."  # noqa: E501
_COX = "Cox DR. Regression models and life-tables. J R Stat Soc B 1972;34:187-220."
_EFRON = "Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat Assoc 1977;72:557-565."  # noqa: E501
_KAPLAN = "Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. J Am Stat Assoc 1958;53:457-481."  # noqa: E501
_COX_1958 = (
    "Cox DR. Two further applications of a model for binary regression. Biometrika 1958;45:562-565."
)

REFERENCES_BY_KIND: Final[dict[str, tuple[str, ...]]] = {
    "agreement": (
        "Fleiss JL, Cohen J, Everitt BS. Large sample standard errors of kappa and weighted kappa. Psychol Bull 1969;72:323-327.",  # noqa: E501
        "Bangdiwala SI. A graphical test for observer agreement. Proc 45th Int Stat Inst Meeting 1985:307-308.",  # noqa: E501
        "Stuart A. A test for homogeneity of the marginal distributions in a two-way classification. Biometrika 1955;42:412-416.",  # noqa: E501
        "Bhapkar VP. A note on the equivalence of two test criteria for hypotheses in categorical data. J Am Stat Assoc 1966;61:228-235.",  # noqa: E501
    ),
    "accuracy": (
        _WILSON,
        "Reitsma JB, Glas AS, Rutjes AWS, Scholten RJPM, Bossuyt PM, Zwinderman AH. Bivariate analysis of sensitivity and specificity produces informative summary measures in diagnostic reviews. J Clin Epidemiol 2005;58:982-990.",  # noqa: E501
    ),
    "comparison": (
        "Newcombe RG. Improved confidence intervals for the difference between binomial proportions based on paired data. Stat Med 1998;17:2635-2650.",  # noqa: E501
        _DELONG,
    ),
    "bland_altman": (
        "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical measurement. Lancet 1986;327:307-310.",  # noqa: E501
    ),
    "correlation": (
        "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull 1979;86:420-428.",  # noqa: E501
        "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics 1989;45:255-268.",  # noqa: E501
    ),
    "distribution": (
        "Smirnov N. Table for estimating the goodness of fit of empirical distributions. Ann Math Stat 1948;19:279-281.",  # noqa: E501
    ),
    "zero_inflated": (
        "Lambert D. Zero-inflated Poisson regression, with an application to defects in manufacturing. Technometrics 1992;34:1-14.",  # noqa: E501
    ),
    "auc": (_DELONG,),
    "fusion": (_DELONG,),
    "calibration": (_COX_1958,),
    "survival_calibration": (_KAPLAN,),
    "cox": (_COX, _EFRON, _HARRELL),
    "kaplan_meier": (
        _KAPLAN,
        "Mantel N. Evaluation of survival data and two new rank order statistics arising in its consideration. Cancer Chemother Rep 1966;50:163-170.",  # noqa: E501
    ),
    "reclassification": (
        "Pencina MJ, D'Agostino RB Sr, D'Agostino RB Jr, Vasan RS. Evaluating the added predictive ability of a new marker: from area under the ROC curve to reclassification and beyond. Stat Med 2008;27:157-172.",  # noqa: E501
        "Pencina MJ, D'Agostino RB Sr, Steyerberg EW. Extensions of net reclassification improvement calculations to measure usefulness of new biomarkers. Stat Med 2011;30:11-21.",  # noqa: E501
    ),
    "descriptives": (
        "Kruskal WH, Wallis WA. Use of ranks in one-criterion variance analysis. J Am Stat Assoc 1952;47:583-621.",  # noqa: E501
    ),
}
"""What each kind of analysis rests on."""

_BETWEEN_SITES = (
    "DerSimonian R, Laird N. Meta-analysis in clinical trials. Control Clin Trials 1986;7:177-188.",
    "Hartung J, Knapp G. A refined method for the meta-analysis of controlled clinical trials with binary outcome. Stat Med 2001;20:3875-3889.",  # noqa: E501
    "Higgins JPT, Thompson SG. Quantifying heterogeneity in a meta-analysis. Stat Med 2002;21:1539-1558.",  # noqa: E501
    "Higgins JPT, Thompson SG, Spiegelhalter DJ. A re-evaluation of random-effects meta-analysis. J R Stat Soc A 2009;172:137-159.",  # noqa: E501
)
_MASKED = (
    "Bonawitz K, Ivanov V, Kreuter B, et al. Practical secure aggregation for privacy-preserving machine learning. Proc ACM CCS 2017:1175-1191.",  # noqa: E501
)
_COMPARED_BETWEEN_SITES = {"agreement", "accuracy", "bland_altman", "auc"}


def references_of(protocol: Protocol) -> tuple[str, ...]:
    """Return the study that the protocol follows, and the methods' papers in the order of use."""
    found = [f"{protocol.citation.text.rstrip()} doi:{protocol.citation.doi}"]
    for spec in protocol.analyses:
        found += REFERENCES_BY_KIND.get(spec.kind, ())
    has_meta = any(
        (spec.kind in _COMPARED_BETWEEN_SITES or getattr(spec, "by_site", False))
        and not protocol.is_masked(spec.id)
        for spec in protocol.analyses
    )
    found += _BETWEEN_SITES if has_meta else ()
    found += _MASKED if protocol.pooling.mode != "open" else ()
    return tuple(dict.fromkeys(found))
