"""What was asked and how it was computed, in sentences generated from the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from fedcac.protocol import CategoryScheme, Protocol
from fedcac.report.analysis_methods import describe_analyses
from fedcac.report.wording import (
    CONVENTION_WORDS,
    INDEX_WORDS,
    MODALITY_WORDS,
    REFERENCE_WORDS,
    capital,
    reference_note,
)
from fedcac.vocabulary import BoundaryConvention, Modality

__all__ = ["category_bands", "describe_question", "write_methods"]


def describe_question(
    protocol: Protocol, editions: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Return the protocol's question as pairs of a term and its description.

    `editions` says of each later edition of the round which sites it added.
    """
    index, reference = protocol.index_test, protocol.reference
    pairing = (
        f"study dates at most {protocol.pairing.window_days} days apart"
        if protocol.pairing
        else "index test and reference standard read on the same exam"
    )
    cut_offs = ", ".join(f"{cut:g}" for cut in protocol.categories.cut_offs)
    return (
        (
            "Index test",
            f"Model of the family {index.model_family} on {MODALITY_WORDS[protocol.modality]}, "
            f"which answers with {INDEX_WORDS[index.kind]} (scoring profile "
            f"{index.scoring_profile})",
        ),
        (
            "Reference standard",
            f"{capital(REFERENCE_WORDS[reference.kind])}, read on "
            f"{MODALITY_WORDS[reference.modality]}"
            + (f" ({note})" if (note := reference_note(protocol)) else ""),
        ),
        ("Exam pairs", capital(pairing)),
        ("Cut-offs", f"{cut_offs} (Agatston score)"),
        ("Risk categories", "; ".join(f"{a}: {b}" for a, b in category_bands(protocol.categories))),
        ("Boundary convention", CONVENTION_WORDS[protocol.categories.convention]),
        *_pooling_term(protocol),
        *_amendments_term(protocol),
        ("Inclusion", " ".join(_stop(text) for text in protocol.inclusion)),
        ("Exclusion", _exclusions(protocol)),
        *((("Editions", " ".join(_stop(capital(text)) for text in editions)),) if editions else ()),
    )


def category_bands(scheme: CategoryScheme) -> tuple[tuple[str, str], ...]:
    """Return each category's label with the scores s that fall into it."""
    bands = []
    last = len(scheme.labels) - 1
    for i, label in enumerate(scheme.labels):
        low = "" if i == 0 else _edge(scheme, i - 1, is_lower=True)
        high = "" if i == last else _edge(scheme, i, is_lower=False)
        bands.append((label, f"{low}s{high}"))
    return tuple(bands)


def write_methods(protocol: Protocol) -> tuple[str, ...]:
    """Return the paragraphs of the methods section."""
    paragraphs = [
        f"Each site scored its own exams with local inference and compared them with the "
        f"reference standard under protocol {protocol.id}, version {protocol.version}. No image "
        "and no patient row left a site: only aggregates that had passed the site's own disclosure "
        "gate did. The policy in force was, cell by cell, the stricter of the site's and the "
        f"protocol's (at least {protocol.disclosure.minimum_patients} patients, no cell "
        f"of fewer than {protocol.disclosure.minimum_cell} patients).",
        f"{_eligibility(protocol)} Every patient counts once.",
        *_model_reference(protocol),
        *describe_analyses(protocol),
        *_pooling(protocol),
        "Where a site's counts could not leave, the site is absent from that pooled value, and "
        "the disclosure section states how many patients this cost. A value that is suppressed is "
        "not zero and was not imputed.",
    ]
    return tuple(paragraphs)


def _eligibility(protocol: Protocol) -> str:
    image = protocol.image_criteria
    if protocol.modality is Modality.CHEST_RADIOGRAPH:
        return (
            "Index exams were frontal chest radiographs for presentation, postero-anterior before "
            "antero-posterior where a study had both; lateral views, raw detector images and "
            "images made from other images were excluded."
        )
    return (
        f"Index exams needed at least {image.min_slices} slices of at most "
        f"{image.max_slice_thickness_mm:g} mm; contrast-enhanced series were "
        f"{'allowed' if image.allow_contrast else 'excluded'}, series with a sharp kernel "
        f"{'allowed' if image.allow_sharp_kernel else 'excluded'}."
    )


def _model_reference(protocol: Protocol) -> tuple[str, ...]:
    if not reference_note(protocol):
        return ()
    return (
        "The reference score of every patient was read by a model on the reference exam, not by "
        "an expert. Agreement with it is agreement of two models: errors that both make are not "
        "seen, and where they differ either may be wrong.",
    )


def _amendments_term(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    if not protocol.amends:
        return ()
    reasons = " ".join(
        f"Version {one.version} was amended: {_stop(one.reason)}" for one in protocol.amends
    )
    return (("Amendments", reasons),)


def _pooling_term(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    if protocol.pooling.mode == "open":
        return ()
    words = f"Sums over at least {protocol.pooling.least_sites} sites; no site's own answer is seen"
    return (("Pooling", words),)


def _pooling(protocol: Protocol) -> tuple[str, ...]:
    pooling = protocol.pooling
    if pooling.mode == "open":
        return ()
    apart = f", except to {', '.join(pooling.per_site)}" if pooling.per_site else ""
    return (
        f"Answers were added up under masks (secure aggregation after Bonawitz et al., CCS 2017): "
        f"the coordinator learned sums over at least {pooling.least_sites} sites and no site's own "
        f"answer{apart}. Small counts of a site could therefore enter the sums; a pooled count may "
        "be small.",
    )


def _edge(scheme: CategoryScheme, i: int, *, is_lower: bool) -> str:
    cut_off, convention = scheme.cut_offs[i], scheme.convention
    at_zero = convention is BoundaryConvention.ANY_GT0 and cut_off <= 1
    belongs_above = convention is BoundaryConvention.GUIDELINE_GE or (cut_off <= 1 and not at_zero)
    number = "0" if at_zero else f"{cut_off:g}"
    if is_lower:
        return f"{number} {'≤' if belongs_above else '<'} "
    return f" {'<' if belongs_above else '≤'} {number}"


def _exclusions(protocol: Protocol) -> str:
    sentences = [*protocol.exclusion, *(c.statement for c in protocol.clinical_criteria)]
    return " ".join(_stop(text) for text in sentences) or "None declared."


def _stop(text: str) -> str:
    return text if text.endswith(".") else text + "."
