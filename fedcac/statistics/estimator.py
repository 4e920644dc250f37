"""The estimator interface: both halves of a statistic in one class, and the registry of them.

`summarise` runs at a site and sees patient rows; `pool` runs at the coordinator and sees released
aggregates only. `pool` is a generator: it yields the next query and receives every site's answer,
so an iterative fit and a one-exchange sum are driven in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol
from fedcac.protocol.columns import columns_of, endpoint_of
from fedcac.statistics.fit import Fit
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

__all__ = [
    "NO_FITS",
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

NO_FITS: Mapping[str, Fit] = MappingProxyType({})

SpecT = TypeVar("SpecT", bound=Any)


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
    def columns(self) -> tuple[str, ...]:
        """Site-table columns the analysis needs; rows where one is missing are left out."""
        return tuple(columns_of(self.spec, self.protocol).needed)

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the analyses whose fits `pool` starts from; empty for most."""
        return ()

    @property
    def fit(self) -> Fit | None:
        """The fit that `pool` ended with, for the analyses that build on it."""
        return None

    def cohort(self, exams: Exams) -> Exams:
        """Return the patients of the analysis: its subgroup, its endpoint's, complete ones.

        With a landmark, times count from it, and only patients who are still followed and
        event-free then take part.

        Raises
        ------
        KeyError
            If the site lacks a column that the analysis needs.
        """
        exams = exams.complete(self.columns)
        if self.spec.subgroup is not None:
            exams = exams.where(self._in_subgroup(exams))
        endpoint = endpoint_of(self.spec, self.protocol)
        if endpoint is None:
            return exams
        if endpoint.exclusion is not None:
            excluded = exams.column(endpoint.exclusion.column) == endpoint.exclusion.exclude_if
            exams = exams.where(~excluded)
        if endpoint.landmark_days:
            time = exams.column(endpoint.time_column)
            since = exams.with_column(endpoint.time_column, time - endpoint.landmark_days)
            exams = since.where(time > endpoint.landmark_days)
        return exams

    def _in_subgroup(self, exams: Exams) -> NDArray[np.bool_]:
        subgroup = self.protocol.subgroup(self.spec.subgroup)
        covariate = self.protocol.covariate(subgroup.covariate)
        values = exams.column(subgroup.covariate)
        if subgroup.levels:
            levels = ("0", "1") if covariate.type == "binary" else covariate.levels
            chosen: NDArray[np.bool_] = np.isin(
                values, [levels.index(level) for level in subgroup.levels]
            )
            return chosen
        low = -np.inf if subgroup.minimum is None else subgroup.minimum
        high = np.inf if subgroup.below is None else subgroup.below
        return (values >= low) & (values < high)

    @abstractmethod
    def summarise(self, exams: Exams, query: Query) -> Aggregate:
        """Return this site's aggregate for a query.

        Raises
        ------
        QueryError
            If the query is not one this estimator asks; the site answers `malformed_query`.
        """

    @abstractmethod
    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Yield queries, receive every site's answer, and return the estimates.

        `fits` holds the fits of the analyses named in `models`.
        """


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
