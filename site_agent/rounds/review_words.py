"""Names for what a held reply holds: its steps, and the rows and columns of its tables.

An aggregate carries numbers alone; what stands where follows from the analysis that asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fedcac.statistics.descriptive_variables import covariate_variable, score_variables
from fedcac.statistics.grids import probability_edges, score_edges
from fedcac.statistics.grouping import group_labels

__all__ = [
    "PAIRED",
    "STEPS",
    "TERMS",
    "TOTALS",
    "axis_names",
    "bin_names",
    "binned_variables",
    "named",
    "packed_names",
]

STEPS = {
    "by_site": "the coefficients of this site's own model",
    "maximum": "sums over patients at the fitted model",
    "measures": "sums behind reclassification, area under the curve and C-index",
    "newton": "a likelihood and its derivatives at the coefficients asked",
    "placements": "sums of ranks behind areas under the ROC curve",
    "refit": "gradients of both models without each group, or on each sample",
    "within": "this site's own area under the ROC curve",
}
_CLASSES = ("reference negative", "reference positive")
_BOTH = ("neither positive", "only second positive", "only first positive", "both positive")
PAIRED = ("patients", "mean index", "mean reference", "M2 index", "M2 reference", "products")
_SUMS = ("patients", "sum 1", "sum 2", "squares 1", "squares 2", "products")
_MOVED = [f"{who}{how}" for who in ("event", "no event") for how in ("", ", up", ", down")]
_PAIRS = ("ordered 1", "ordered 2", "mixed", "concordant 1", "concordant 2", "usable")
# What the rows and columns of sums are: names, or a word that `axis_names` resolves.
TOTALS: dict[str, tuple[str, Sequence[str]]] = {
    "auc_totals": ("cuts", ("positive", "negative", "area", "variance")),
    "calibration_bins": ("cuts bins", ("patients", "positive", "sum of risks")),
    "cox_totals": ("terms", ("log hazard ratio", "its variance")),
    "fusion_placements": ("cuts classes", _SUMS),
    "fusion_sums": ("folds", "terms"),
    "log_rank_totals": ("rank", "groups"),
    "pair_sums": ("cuts classes", _SUMS),
    "reclassification_totals": ("samples", (*_MOVED, *(f"pairs, {name}" for name in _PAIRS))),
    "risk_bins": ("all bins", ("patients", "sum of risks", "n S(t)", "n^2 Var S(t)")),
    "zip_start": ("all", ("scores", "zeros", "sum of scores")),
}
_ZERO_INFLATED = ("log mean", "log rate ratio", "logit of zero", "log odds ratio", "log sigma")
TERMS = {"calibration_terms": "cuts parts", "difference_moments": "differences"}
TERMS |= {"characteristic_moments": "continuous", "zip_terms": "zip", "slope_terms": "slope"}


def named(names: Sequence[Any], n: int, word: str) -> list[str]:
    """Return n names: those given if they are as many, else the word with its number."""
    return list(names) if len(names) == n else [f"{word} {i + 1}" for i in range(n)]


def axis_names(word: str, own: Any) -> list[str]:
    """Return the names that a word of `TOTALS` or `TERMS` stands for in this analysis."""
    spec, groups = own.spec, group_labels(getattr(own.spec, "by", "all"), own.protocol)
    asked = getattr(own, "cut_offs", None) or [getattr(spec, "cut_off", 0)]
    cuts, bins = [f"cut-off {cut:g}" for cut in asked], getattr(own, "bin_labels", ())
    parts = ("intercept at slope 1", "intercept", "slope")
    names: dict[str, Any] = {
        "all": ["all patients"],
        "all bins": [*(f"risk {label}" for label in bins), "all patients"],
        "cuts": cuts,
        "cuts bins": [f"{cut}, risk {label}" for cut in cuts for label in bins],
        "cuts classes": [f"{cut}, {word}" for cut in cuts for word in ("positive", "negative")],
        "cuts parts": [f"{cut}, {part}" for cut in cuts for part in parts],
        "continuous": [f"{v.name}, {g}" for v in _listed(own) if v.is_continuous for g in groups],
        "differences": [f"difference, {term or 'total'}" for term in getattr(own, "terms", [""])],
        "samples": [f"sample {i + 1}" for i in range(getattr(spec, "replicates", 0))],
        "folds": [f"without fold {i + 1}" for i in range(getattr(spec, "folds", 0))],
        "groups": groups,
        "rank": ["observed", "expected", *(f"variance, {group}" for group in groups)],
        "slope": ["slope"],
        "terms": own.design.terms if hasattr(own, "design") else (),
        "zip": _ZERO_INFLATED[: getattr(own, "n_parameters", 0)],
    }
    return list(names.get(word, ()))


def packed_names(own: Any) -> list[str]:
    """Return what stands where in the sums that `CoxPacking` lays in one row."""
    terms, spec, time = own.design.terms, own.spec, ("", "time x ", "time^2 x ")
    pairs = [f"{a} x {b}" for i, a in enumerate(terms) for b in terms[i:]]
    names = [f"residuals {pair}" for pair in pairs if spec.robust]
    if spec.proportionality:
        names += [f"{word}score {term}" for word in time[:2] for term in terms]
        names += [f"{word}variance {pair}" for word in time for pair in pairs]
    return names + ["concordant", "discordant", "tied", "aa", "ab", "bb"] * spec.concordance


def _listed(own: Any) -> list[Any]:
    spec, protocol = own.spec, own.protocol
    scores = [v for role in getattr(spec, "scores", ()) for v in score_variables(role, protocol)]
    names = spec.covariates if spec.kind == "descriptives" else ()
    return [*scores, *(covariate_variable(protocol.covariate(name)) for name in names)]


def binned_variables(kind: str, own: Any) -> Iterator[tuple[str, Sequence[str], Any]]:
    """Yield title, groups and bins of every variable: inner edges, or a tuple of names."""
    spec, cuts = own.spec, axis_names("cuts", own)
    is_risk = kind == "fusion_histogram" or getattr(spec, "value", "") == "probability"
    edges = (probability_edges if is_risk else score_edges)(getattr(spec, "bins", 400))
    if kind == "class_histogram":
        yield from ((f"{spec.value}, {cut}", _CLASSES, edges) for cut in cuts)
    elif kind == "paired_cells":
        shared = "reference" if spec.compare == "index_tests" else "index"
        yield from ((cut, (f"{shared} negative", f"{shared} positive"), _BOTH) for cut in cuts)
    elif kind == "pair_histogram":
        both = ("index", "comparator")
        yield from ((f"{t}, {cut}", _CLASSES, edges) for cut in cuts for t in both)
    elif kind == "fusion_histogram":
        yield from ((f"risk, {t}", _CLASSES, edges) for t in ("clinical factors", "image alone"))
    elif kind == "score_histogram":
        yield from ((f"{role} score", ("all",), edges) for role in ("index", "reference"))
    elif kind == "characteristic_counts":
        groups = group_labels(spec.by, own.protocol)
        yield f"by {spec.by}", ("all",), tuple(groups)
        for v in _listed(own):
            terms = tuple(term for _, term in v.level_terms)
            levels = terms if len(terms) > 1 else (f"{v.name}=0", f"{v.name}=1")
            yield v.name, groups, v.edges if v.is_continuous else levels


def bin_names(levels: Any, firsts: Sequence[int]) -> list[str]:
    """Return what is in every bin given: `firsts` are their first bins on the whole grid."""
    if isinstance(levels, tuple):
        return [" or ".join(levels[a:b]) for a, b in zip(firsts, (*firsts[1:], None), strict=True)]
    # The first edge may be the next number after the smallest value, which has that bin alone.
    edges = [round(float(edge), 9) for edge in levels]
    word = "above" if edges and 0 < levels[0] - edges[0] < 1e-12 else "from"
    names = ["the lowest", *(f"from {edge:.6g}" for edge in edges)]
    return [f"{word} {edges[0]:.6g}" if first == 1 else names[first] for first in firsts]
