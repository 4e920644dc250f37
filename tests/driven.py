"""Drives one analysis of the plan over sites, and compares its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from plans import plan

from fedcac.aggregate import BinnedCounts
from fedcac.exams import Exams
from fedcac.statistics import Estimate, PoolingSession, estimator_for
from fedcac.vocabulary import RefusalCode

__all__ = ["Key", "Rows", "assert_close", "assert_same", "merged", "numbers", "pool"]

Key = tuple[str, str, str, str]
Rows = Mapping[Key, Estimate]
"""Scope, measure, group and term; and the row."""


def pool(
    spec: Any,
    parts: Mapping[str, Exams | RefusalCode],
    released: list[list[Any]] | None = None,
    change: Callable[[str, Any, Any], Any] | None = None,
    exchanges: int = 60,
    **changes: Any,
) -> Rows:
    """Return the rows of an analysis that ends within so many exchanges.

    `change` stands for a gate that alters what a site answers to a query; `released` collects
    every exchange's answers.
    """
    protocol = plan((spec,), **changes)
    estimator = estimator_for("x", protocol)
    session = PoolingSession(protocol, list(parts))
    for _ in range(exchanges):
        if session.is_finished:
            break
        query = session.queries["x"]
        answers = {
            site: part if isinstance(part, RefusalCode) else estimator.summarise(part, query)
            for site, part in parts.items()
        }
        if change is not None:
            answers = {site: change(site, query, answer) for site, answer in answers.items()}
        if released is not None:
            released.append(list(answers.values()))
        session.answer({site: {"x": answer} for site, answer in answers.items()})
    assert session.is_finished
    rows = session.estimates()
    found = {(row.scope, row.measure.value, row.group, row.term): row for row in rows}
    assert len(found) == len(rows)
    return found


def merged(kept: tuple[int, ...]) -> Callable[[str, Any, Any], Any]:
    """Return a gate that gives the histograms on these bins alone."""

    def change(_: str, __: Any, answer: Any) -> Any:
        if not isinstance(answer, BinnedCounts):
            return answer
        counts = tuple(
            tuple(tuple(np.add.reduceat(np.array(row), kept).tolist()) for row in variable)
            for variable in answer.counts
        )
        return answer.model_copy(update={"starts": ((kept,), (kept,)), "counts": counts})

    return change


def numbers(row: Estimate) -> tuple[float | None, ...]:
    return row.estimate, row.se, row.ci_low, row.ci_high, row.p_value


def assert_close(found: float | None, expected: float, tolerance: float = 1e-8) -> None:
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


def assert_same(row: Estimate, other: Estimate, tolerance: float = 1e-8) -> None:
    assert (row.n, row.n_events, row.status) == (other.n, other.n_events, other.status)
    for found, expected in zip(numbers(row), numbers(other), strict=True):
        if expected is None:
            assert found is None
        else:
            assert_close(found, expected, tolerance)
