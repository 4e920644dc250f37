"""What a classifier's probabilities at thresholds of the calcium score say of an exam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fedcac.errors import PackageError
from fedcac.protocol.columns import ColumnKind, columns_of, threshold_of
from fedcac.vocabulary import Modality, ReferenceKind

if TYPE_CHECKING:
    from fedcac.models.package import ModelPackage
    from fedcac.protocol import Protocol

__all__ = ["category_index", "category_labels", "check_package_fits", "check_reference_fits"]


def category_labels(thresholds: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the categories that thresholds 0, a, b, ... make, from the lowest up.

    A score is above 0 at the first threshold and reaches each of the others, so 0, 100 and 400
    make `0`, `1-99`, `100-399` and `>=400` (Hong et al. 2025, abstract).
    """
    edges = [1, *thresholds[1:]]
    between = [f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return ("0", *between, f">={edges[-1]}")


def category_index(
    probabilities: Mapping[int, float], thresholds: Sequence[int], decision: float
) -> int:
    """Return how many of the thresholds an exam passes: those whose probability is >= `decision`.

    Separate networks need not agree with one another: one may deny a score above 0 where another
    finds 100. Counting takes each at its word; the order of the categories is kept, and no
    network's answer is thrown away. The paper's abstract does not say how it is done.

    Raises
    ------
    KeyError
        If there is no probability for a threshold.
    """
    return sum(probabilities[threshold] >= decision for threshold in thresholds)


def check_package_fits(protocol: Protocol, package: ModelPackage) -> None:
    """Check that a package reads the protocol's exams and answers what its analyses ask.

    Raises
    ------
    PackageError
        `wrong_modality` if it reads other exams, `wrong_thresholds` if a classifier knows none at
        one of the protocol's cut-offs, `no_probabilities` if an analysis needs probabilities and
        the package gives a mask.
    """
    family = package.family
    is_radiograph = protocol.modality is Modality.CHEST_RADIOGRAPH
    if family.is_segmenting == is_radiograph:
        read = "CT volumes" if family.is_segmenting else "chest radiographs"
        raise PackageError(
            f"The package reads {read}, and the protocol's index exams are others "
            f"({protocol.modality}).",
            code="wrong_modality",
            cure="Launch the round with a package for the protocol's modality.",
        )
    if family.is_segmenting:
        _check_no_probabilities(protocol)
        return
    cut_offs = protocol.categories.cut_offs
    unknown = [cut for cut in cut_offs if threshold_of(cut) not in family.thresholds]
    if unknown:
        raise PackageError(
            f"The package says nothing about the cut-offs {', '.join(f'{c:g}' for c in unknown)}: "
            f"its thresholds are {', '.join(map(str, family.thresholds))}.",
            code="wrong_thresholds",
            cure="Give the protocol the categories that the package tells apart, or launch "
            "another package.",
        )


def check_reference_fits(protocol: Protocol, package: ModelPackage) -> None:
    """Check that a package can read the protocol's reference exams.

    Raises
    ------
    PackageError
        `wrong_modality` if it does not read CT volumes, or the reference exams are none;
        `unmarked_reference` if the protocol does not say that a model reads them.
    """
    is_ct = protocol.reference.modality is not Modality.CHEST_RADIOGRAPH
    if not package.family.is_segmenting or not is_ct:
        raise PackageError(
            "A reference package reads CT volumes, and scores their calcium.",
            code="wrong_modality",
            cure="Launch the round with a package that segments the reference exams.",
        )
    if protocol.reference.kind is not ReferenceKind.GATED_CT_MODEL:
        raise PackageError(
            "The protocol does not say that a model reads its reference exams.",
            code="unmarked_reference",
            cure="Give a protocol with reference.kind gated_ct_model.",
        )


def _check_no_probabilities(protocol: Protocol) -> None:
    for spec in protocol.analyses:
        if ColumnKind.PROBABILITY in columns_of(spec, protocol).needed.values():
            raise PackageError(
                f"Analysis '{spec.id}' needs the index test's probabilities, and the package "
                "gives a mask, which is scored.",
                code="no_probabilities",
                cure="Leave the analysis out, or launch the round with a classifier.",
            )
