"""Registered aggregate types of every shape, and questions about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import ClassVar

import pytest

from fedcac.aggregate import CrossTable, Evidence, FlowCounts, LikelihoodTerms, Moments, base
from fedcac.aggregate.shapes import FlowStage
from fedcac.canonical import digest_of
from fedcac.disclosure import (
    Gate,
    MemoryLedger,
    Question,
    Refusal,
    Release,
    load_policy,
    question_of,
)
from fedcac.disclosure.cross_table import two_by_two_tables
from fedcac.disclosure.groups import group_of
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol
from fedcac.statistics import estimator_for
from fedcac.vocabulary import ExclusionReason

__all__ = ["answer_to", "gate_of"]


def gate_of(profile: str) -> Gate:
    """Return a gate with a shipped policy and an empty ledger."""
    return Gate(load_policy(profile), MemoryLedger())


def answer_to(
    gate: Gate,
    protocol: Protocol,
    analysis: str,
    exams: Exams,
    query: Query,
    cohort: str = "cohort",
    exchange: int = 1,
) -> Release | Refusal:
    """Return what a site answers to one query."""
    question = question_of(
        protocol,
        analysis,
        query,
        round_id="round-1",
        exchange=exchange,
        cohort_digest=digest_of(cohort),
        group=group_of(estimator_for(analysis, protocol).cohort(exams).keys, exams.keys),
        cohort_size=exams.n,
    )
    return gate.release(question, estimator_for(analysis, protocol).summarise(exams, query))


class Table(CrossTable):
    kind: ClassVar[str] = "gate_test_table"


class Means(Moments):
    kind: ClassVar[str] = "gate_test_moments"


class Terms(LikelihoodTerms):
    kind: ClassVar[str] = "gate_test_likelihood"


def _table(matrix: tuple[tuple[int, ...], ...]) -> Table:
    return Table(
        n_patients=sum(map(sum, matrix)), matrix=matrix, two_by_two=two_by_two_tables(matrix)
    )


def _terms(
    n: int = 200,
    n_events: int = 50,
    p: int = 2,
    smallest_group: int | None = None,
    norm: float = 0.0,
) -> Terms:
    return Terms(
        n_patients=n,
        n_events=n_events,
        log_likelihood=-123.45678901234567,
        gradient=tuple(0.1 + j for j in range(p)),
        information=tuple(tuple(1.0 if i == j else 0.5 for j in range(p)) for i in range(p)),
        evidence=Evidence(n_parameters=p, smallest_group=smallest_group, parameter_norm=norm),
    )


def _means(n_patients: int, *n: int) -> Means:
    return Means(
        n_patients=n_patients,
        n=n,
        mean=tuple(1.23456789012345678 for _ in n),
        m2=tuple(98.7654321 for _ in n),
    )


def _flow(stages: tuple[int, int, int, int, int], **exclusions: int) -> FlowCounts:
    return FlowCounts(
        n_patients=stages[-1],
        stages=dict(zip(FlowStage, stages, strict=True)),
        exclusions={ExclusionReason(reason): count for reason, count in exclusions.items()},
    )


@pytest.fixture(scope="module")
def make() -> Iterator[SimpleNamespace]:
    for aggregate_type in (Table, Means, Terms):
        base._REGISTRY[aggregate_type.kind] = aggregate_type
    yield SimpleNamespace(table=_table, terms=_terms, means=_means, flow=_flow)
    for aggregate_type in (Table, Means, Terms):
        del base._REGISTRY[aggregate_type.kind]


@pytest.fixture
def ask() -> Callable[..., Question]:
    def build(
        analysis: str = "agreement",
        query: object = 0,
        cohort: object = "cohort",
        exchange: int = 1,
        round_id: str = "round-1",
        content: object = None,
        scores: object = "scores",
        categories: object = "categories",
        columns: tuple[str, ...] = ("age", "sex", "follow_up_days", "event"),
    ) -> Question:
        return Question(
            round_id=round_id,
            protocol_digest=digest_of("protocol"),
            exchange=exchange,
            analysis=analysis,
            analysis_digest=digest_of(analysis if content is None else content),
            query_digest=digest_of(query),
            cohort_digest=digest_of(cohort),
            scores_digest=digest_of(scores),
            categories_digest=digest_of(categories),
            columns=columns,
        )

    return build
