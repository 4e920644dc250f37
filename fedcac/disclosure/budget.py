"""How many numbers about a cohort a site may tell, and for whom they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcac.aggregate import LikelihoodTerms
from fedcac.disclosure.history import numbers_released, shape_is
from fedcac.disclosure.ledger import LedgerEntry
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.question import Question

__all__ = ["is_over_budget"]

EXPECTED_ANSWERS = 6
"""Answers that the fit of a likelihood takes, of which this many are kept back once it began."""

Payload = Mapping[str, Any]


def is_over_budget(
    question: Question, released: Payload, about: Sequence[LedgerEntry], policy: Policy
) -> bool:
    """Say whether an answer tells too many numbers about a cohort, or numbers kept for others.

    The limit is `budget_share` times patients times the columns of the site table that any of the
    answers is about: their values are what is unknown. A fit that began keeps what it needs to
    end, so that of many analyses the first are answered to the end, and not all of them by half.

    Parameters
    ----------
    about
        What was charged about the question's cohort before.
    """
    # A repeated answer tells nothing new, so each question is charged once.
    charged = [entry for entry in about if entry.repeats is None]
    spent = sum(numbers_released(entry.payload or {}) for entry in charged)
    columns = {*question.columns, *(name for entry in about for name in entry.columns)}
    limit: float = policy.cox.budget_share * released["n_patients"] * max(len(columns), 1)
    own = _still_needed(question, released, charged)
    return spent + own + _kept_for_others(question, charged) > limit


def _still_needed(question: Question, released: Payload, charged: Sequence[LedgerEntry]) -> int:
    cost = numbers_released(released)
    if not shape_is(released, LikelihoodTerms):
        return cost
    n_answers = sum(entry.analysis_digest == question.analysis_digest for entry in charged)
    return cost * max(EXPECTED_ANSWERS - n_answers, 1)


def _kept_for_others(question: Question, charged: Sequence[LedgerEntry]) -> int:
    running: dict[str, list[LedgerEntry]] = {}
    for entry in charged:
        is_likelihood = shape_is(entry.payload, LikelihoodTerms)
        if is_likelihood and entry.analysis_digest != question.analysis_digest:
            running.setdefault(entry.analysis_digest, []).append(entry)
    kept = 0
    for entries in running.values():
        last = entries[-1]
        # All fits of a round ask in every exchange: one that asked no more has ended.
        is_running = last.round_id == question.round_id and last.exchange >= question.exchange - 1
        if is_running:
            cost = numbers_released(last.payload or {})
            kept += cost * max(EXPECTED_ANSWERS - len(entries), 0)
    return kept
