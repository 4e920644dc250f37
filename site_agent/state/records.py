"""What a site's database says of a round, an exam and an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fedcac.vocabulary import ExclusionReason, Vessel

__all__ = ["ExamRecord", "ExchangeState", "RoundRecord", "RoundState"]


class RoundState(StrEnum):
    """Where a round stands at this site."""

    OFFERED = "offered"
    APPROVED = "approved"
    REFUSED = "refused"
    ANSWERING = "answering"
    CLOSED = "closed"


class ExchangeState(StrEnum):
    """Where the reply to one exchange stands."""

    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True)
class RoundRecord:
    """One round as the site knows it."""

    round_id: str
    state: RoundState
    offer_digest: str
    protocol_digest: str
    package_digest: str | None
    refusal: str | None


@dataclass(frozen=True)
class ExamRecord:
    """What a model made of one index exam, or the coded reason why it made nothing.

    Attributes
    ----------
    total, vessels
        The Agatston score and that of each vessel; None and empty of a model that makes no mask.
    native_score, native_category
        The model's own score and the name of its own category, where its package gives them.
    probabilities
        The model's probability of a score above each threshold, where it is a classifier.
    """

    exam_key: str
    attempts: int
    completions: int
    reason: ExclusionReason | None
    total: float | None
    vessels: dict[Vessel, float]
    native_score: float | None = None
    native_category: str | None = None
    probabilities: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_scored(self) -> bool:
        """Say whether the model answered: with a score, or with probabilities."""
        return self.total is not None or bool(self.probabilities)

    @property
    def is_finished(self) -> bool:
        """Say whether the exam was scored or excluded; an interrupted attempt is neither."""
        return self.is_scored or self.reason is not None
