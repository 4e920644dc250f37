"""What the integers of a label map stand for, as whoever made it states: the file does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import CohortError, UsageError
from fedcac.vocabulary import VESSEL_LABELS, VESSEL_UNKNOWN

__all__ = ["LabelMeanings", "parse_labels", "vessel_map_of"]

_CALCIUM, _OTHER = "calcium", "other"
_VALUES = {vessel.value: label for vessel, label in VESSEL_LABELS.items()} | {
    _CALCIUM: VESSEL_UNKNOWN,
    _OTHER: 0,
}
_HIGHEST_LABEL = 65_535
_PAIR = re.compile(r"(\d{1,5})=([a-z]+)")
_CURE = (
    "Write `calcium` if every label is coronary calcium, or pairs such as `1=lm 2=lad 3=lcx 4=rca "
    "5=other`; `calcium` stands for a vessel that is not told, `other` for what is not coronary."
)


@dataclass(frozen=True)
class LabelMeanings:
    """The meaning of each label.

    Attributes
    ----------
    values
        Label to value in a vessel map: 1 to 4 for LM, LAD, LCX, RCA, 5 for coronary calcium of no
        told vessel, 0 for what is not coronary.
    unnamed
        Value of every other label; None if there must be no other.
    """

    values: Mapping[int, int]
    unnamed: int | None = None

    def value_of(self, label: int) -> int:
        """Return a label's value in a vessel map; CohortError `unknown_label` if it has none."""
        value = self.values.get(label, self.unnamed)
        if value is None:
            raise _unknown(label)
        return value

    def document(self) -> dict[str, object]:
        """Return the meanings as JSON values, for a digest."""
        pairs = [[label, value] for label, value in sorted(self.values.items())]
        return {"values": pairs, "unnamed": self.unnamed}


def parse_labels(text: str) -> LabelMeanings:
    """Return the meanings that a text states: `calcium`, or pairs such as `1=lm 2=lad 3=other`.

    Raises
    ------
    UsageError
        `bad_labels`.
    """
    if text.strip().lower() == _CALCIUM:
        return LabelMeanings({}, unnamed=VESSEL_UNKNOWN)
    values: dict[int, int] = {}
    for part in re.split(r"[ ,]+", text.strip().lower()):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[2] not in _VALUES or not 0 < int(pair[1]) <= _HIGHEST_LABEL:
            raise _bad(f"'{part}' is not the meaning of a label")
        if int(pair[1]) in values:
            raise _bad(f"label {pair[1]} has two meanings")
        values[int(pair[1])] = _VALUES[pair[2]]
    return LabelMeanings(values)


def vessel_map_of(labels: NDArray[np.integer], meanings: LabelMeanings | None) -> NDArray[np.uint8]:
    """Return the vessel map, uint8 of the same shape, of a label map of non-negative integers.

    Raises
    ------
    CohortError
        `unstated_labels` without meanings; `unknown_label` for a label of no stated meaning.
    """
    if meanings is None:
        raise CohortError(
            "What the labels of the label map stand for is not stated.",
            code="unstated_labels",
            cure=f"State it: `annotation_labels` in site.yaml, or --labels. {_CURE}",
        )
    highest = int(labels.max(initial=0))
    if highest > _HIGHEST_LABEL:
        raise _unknown(highest)
    labels = labels.astype(np.uint16, copy=False)
    table = np.zeros(highest + 1, dtype=np.uint8)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    for label in (int(number) for number in present if number):
        table[label] = meanings.value_of(label)
    vessel_map: NDArray[np.uint8] = table[labels]
    return vessel_map


def _bad(what: str) -> UsageError:
    return UsageError(f"In the meanings of labels, {what}.", code="bad_labels", cure=_CURE)


def _unknown(label: int) -> CohortError:
    return CohortError(
        f"Label {label} of the mask has no stated meaning.",
        code="unknown_label",
        cure=f"State the meaning of every label that the mask holds. {_CURE}",
    )
