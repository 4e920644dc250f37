"""Risk categories: which band a score falls into, and what 'positive at a cut-off' means."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedcac.vocabulary import BoundaryConvention

__all__ = ["CategoryScheme", "category_scores"]


class CategoryScheme(BaseModel):
    """Ordered cut-offs on the Agatston score, and the side on which equality falls.

    `k` cut-offs make `k + 1` categories; `labels` name them from the lowest up. The conventions
    are defined in `fedcac.vocabulary.BoundaryConvention`. Category and positivity always agree:
    an exam is positive at `cut_offs[i]` exactly when its category index is greater than `i`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    cut_offs: Annotated[tuple[float, ...], Field(min_length=1, max_length=8)]
    convention: BoundaryConvention = BoundaryConvention.UPPER_INCLUSIVE
    labels: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9<>=. -]{1,12}$")], ...], Field()]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.cut_offs) != sorted(set(self.cut_offs)) or self.cut_offs[0] <= 0:
            raise ValueError("cut_offs must be positive and strictly increasing")
        if len(self.labels) != len(self.cut_offs) + 1:
            raise ValueError(
                f"{len(self.cut_offs)} cut-offs make {len(self.cut_offs) + 1} categories, "
                f"but {len(self.labels)} labels are given"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from one another")
        return self

    @property
    def n_categories(self) -> int:
        """Number of categories."""
        return len(self.labels)

    def categorise(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the category index, 0 .. n_categories - 1, of each score (shape kept).

        Raises
        ------
        ValueError
            If a score is negative or not finite; a missing score has no category.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not np.all(np.isfinite(values)) or np.any(values < 0):
            raise ValueError("a score must be finite and at least 0 to have a category")
        if self.convention is BoundaryConvention.ROUND_FIRST:
            values = np.floor(values + 0.5)
        category = np.zeros(values.shape, dtype=np.int64)
        for cut_off in self.cut_offs:
            category += self._exceeds(values, cut_off)
        return category

    def _exceeds(self, values: NDArray[np.float64], cut_off: float) -> NDArray[np.bool_]:
        # The cut-off 1 separates 'no calcium' from 'some': Eng's first bucket is s < 1, so there
        # equality counts as positive while every higher cut-off is strict.
        if self.convention is BoundaryConvention.GUIDELINE_GE:
            return values >= cut_off
        if cut_off <= 1:
            if self.convention is BoundaryConvention.ANY_GT0:
                return values > 0
            return values >= cut_off
        return values > cut_off


def category_scores(scheme: CategoryScheme) -> dict[str, float]:
    """Return a score inside every category, by label: a model may answer with the category."""
    edges = [0.0, *scheme.cut_offs, 2 * scheme.cut_offs[-1]]
    middles = [0.0, *((low + high) / 2 for low, high in pairwise(edges[1:]))]
    return {label.lower(): score for label, score in zip(scheme.labels, middles, strict=True)}
