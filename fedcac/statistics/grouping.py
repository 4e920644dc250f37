"""How an analysis sorts patients into groups: by risk category, covariate, event, or not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcac.exams import Exams
from fedcac.protocol import Protocol
from fedcac.vocabulary import ScoreRole

__all__ = ["group_labels", "group_numbers"]

EVERYONE = "all"


def group_labels(by: str, protocol: Protocol) -> tuple[str, ...]:
    """Return the groups' names in order; `by` as in the protocol's analyses."""
    if by == EVERYONE:
        return (EVERYONE,)
    if by in set(ScoreRole):
        return protocol.categories.labels
    if by in {endpoint.name for endpoint in protocol.endpoints}:
        return ("no event", "event")
    covariate = protocol.covariate(by)
    return covariate.levels if covariate.levels else ("no", "yes")


def group_numbers(by: str, protocol: Protocol, exams: Exams) -> NDArray[np.int64]:
    """Return every patient's group, 0 .. number of labels - 1, shape (n,).

    Raises
    ------
    KeyError
        If a column is absent.
    ValueError
        If a score is negative, or a value is not the code of a group.
    """
    if by == EVERYONE:
        return np.zeros(exams.n, dtype=np.int64)
    if by in set(ScoreRole):
        return protocol.categories.categorise(exams.column(protocol.score_column(by)))
    endpoints = {endpoint.name: endpoint.event_column for endpoint in protocol.endpoints}
    values = exams.column(endpoints.get(by, by))
    numbers = values.astype(np.int64)
    if np.any(numbers != values) or np.any(
        (numbers < 0) | (numbers >= len(group_labels(by, protocol)))
    ):
        raise ValueError("a value is not the code of a group")
    return numbers
