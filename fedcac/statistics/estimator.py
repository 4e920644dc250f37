"""The estimator interface: both halves of a statistic in one class, and the registry of them.

`summarise` runs at a site and sees patient rows; `pool` runs at the coordinator and sees released
aggregates only. `pool` is a generator: it yields the next query and receives every site's answer,
so an iterative fit and a one-exchange sum are driven in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from fedcac.aggregate import Aggregate
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

__all__ = [
    "Answers",
    "Estimate",
    "Estimator",
    "Pooling",
    "QueryError",
    "estimator_for",
    "register_estimator",
    "registered_estimators",
]

POOLED = "pooled"
META = "meta"

Answers = Mapping[SiteName, Aggregate | RefusalCode]
"""Every expected site's released aggregate, or the code with which it refused."""

SpecT = TypeVar("SpecT", bound=BaseModel)


@dataclass(frozen=True)
class Estimate:
    """One row of estimates.csv. A number that is absent is None and `status` says why.

    `scope` is `pooled`, `meta` or a site's name. `n` and `n_events` count the patients behind
    the row.
    """

    analysis: str
    scope: str
    measure: Measure
    group: str = ""
    term: str = ""
    estimate: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str = ""
    p_value: float | None = None
    n: int | None = None
    n_events: int | None = None
    status: RowStatus = RowStatus.OK


Pooling = Generator[Query, Answers, tuple[Estimate, ...]]


class QueryError(ValueError):
    """A query does not have the shape this estimator's step declares."""


class Estimator(ABC, Generic[SpecT]):
    """One analysis of one protocol.

    `kind` is the analysis kind in the protocol; `aggregate_types` what `summarise` may return.
    """

    kind: ClassVar[str]
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]]

    def __init__(self, spec: SpecT, protocol: Protocol) -> None:
        self.spec = spec
        self.protocol = protocol

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Site-table columns the analysis needs; rows where one is missing are left out."""

    @abstractmethod
    def summarise(self, exams: Exams, query: Query) -> Aggregate:
        """Return this site's aggregate for a query.

        Raises
        ------
        QueryError
            If the query is not one this estimator asks; the site answers `malformed_query`.
        """

    @abstractmethod
    def pool(self, sites: Sequence[SiteName]) -> Pooling:
        """Yield queries, receive every site's answer, and return the estimates."""


E = TypeVar("E", bound=type[Estimator[Any]])
_REGISTRY: dict[str, type[Estimator[Any]]] = {}


def register_estimator(estimator_type: E) -> E:
    """Class decorator: make an estimator available under its `kind`."""
    if estimator_type.kind in _REGISTRY:
        raise ValueError(f"estimator kind '{estimator_type.kind}' is taken")
    _REGISTRY[estimator_type.kind] = estimator_type
    return estimator_type


def registered_estimators() -> dict[str, type[Estimator[Any]]]:
    """Return a copy of the registry, analysis kind to estimator."""
    return dict(_REGISTRY)


def estimator_for(analysis_id: str, protocol: Protocol) -> Estimator[Any]:
    """Return the estimator of one declared analysis; KeyError if the protocol has no such id."""
    for spec in protocol.analyses:
        if spec.id == analysis_id:
            return _REGISTRY[spec.kind](spec, protocol)
    raise KeyError(analysis_id)
