"""Pooling any split of the patients equals pooling the whole, for every registered estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import SPECS, draw_exams, needed_models, plan

from fedcac.aggregate import Aggregate, BinnedCounts, LikelihoodTerms, Totals
from fedcac.aggregate.vectors import aggregate_of, layout_of, vector_of
from fedcac.exams import Exams
from fedcac.protocol import Protocol
from fedcac.statistics import (
    POOLED,
    Estimate,
    PoolingSession,
    estimator_for,
    registered_estimators,
)
from fedcac.vocabulary import SiteName

STRATIFIED = {"cox", "reclassification", "survival_calibration", "kaplan_meier", "fusion"}
"""Kinds that compare the patients of one site, or deal them to groups there."""


def test_every_registered_estimator_is_tried() -> None:
    assert set(SPECS) == set(registered_estimators())


def pool(
    protocol: Protocol,
    sites: list[SiteName],
    answer: Callable[[str, SiteName, Any], Aggregate],
) -> tuple[Estimate, ...]:
    """Run the analysis x with a gate that lets everything pass."""
    session = PoolingSession(protocol, sites)
    for _ in range(60):
        if session.is_finished:
            return tuple(row for row in session.estimates() if row.analysis == "x")
        queries = session.queries
        session.answer(
            {
                site: {name: answer(name, site, query) for name, query in queries.items()}
                for site in sites
            }
        )
    raise AssertionError("the pooling does not end")


def pooled_numbers(rows: tuple[Estimate, ...]) -> Mapping[tuple[str, ...], tuple[Any, ...]]:
    return {
        (row.measure.value, row.group, row.term): (
            row.estimate,
            row.se,
            row.ci_low,
            row.ci_high,
            row.p_value,
            row.n,
            row.status.value,
        )
        for row in rows
        if row.scope == POOLED and not row.group.startswith("without ")
    }


def assert_same(split: tuple[Estimate, ...], whole: tuple[Estimate, ...]) -> None:
    one, other = pooled_numbers(split), pooled_numbers(whole)
    assert one.keys() == other.keys()
    assert one
    for key, numbers in one.items():
        for number, expected in zip(numbers, other[key], strict=True):
            if isinstance(expected, float):
                assert number == pytest.approx(expected, rel=1e-8, abs=1e-8), key
            else:
                assert number == expected, key


def merged(parts: list[Any], whole: Any) -> Any:
    """Return what one site with several strata would say: the sum of what the strata say."""
    first = parts[0]
    if isinstance(first, LikelihoodTerms):
        update = {
            "log_likelihood": sum(part.log_likelihood for part in parts),
            "gradient": tuple(np.sum([part.gradient for part in parts], axis=0).tolist()),
            "information": tuple(
                tuple(row) for row in np.sum([part.information for part in parts], axis=0).tolist()
            ),
        }
    elif isinstance(first, Totals):
        values = np.sum([part.values for part in parts], axis=0)
        update = {"values": tuple(tuple(row) for row in values.tolist())}
    elif isinstance(first, BinnedCounts):
        counts = np.sum([part.counts for part in parts], axis=0)
        update = {
            "counts": tuple(tuple(tuple(row) for row in groups) for groups in counts.tolist())
        }
    else:
        return whole
    return whole.model_copy(update=update)


def check(kind: str, protocol: Protocol, exams: Exams, site_of: Any) -> None:
    names = [SiteName(f"s{number}") for number in sorted(set(site_of.tolist()))]
    parts = {name: exams.where(site_of == int(name[1:])) for name in names}
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}

    def own(analysis: str, site: SiteName, query: Any) -> Aggregate:
        return estimators[analysis].summarise(parts[site], query)

    def all_of(analysis: str, _: SiteName, query: Any) -> Aggregate:
        whole = estimators[analysis].summarise(exams, query)
        if kind not in STRATIFIED:
            return whole
        return merged([own(analysis, site, query) for site in names], whole)

    assert_same(pool(protocol, names, own), pool(protocol, [SiteName("all")], all_of))


def protocol_of(kind: str) -> Protocol:
    return plan((*needed_models(SPECS[kind]).values(), SPECS[kind]))


@pytest.mark.parametrize("kind", sorted(SPECS))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_sites=st.integers(1, 4))
def test_any_split_equals_the_whole(kind: str, seed: int, n_sites: int) -> None:
    rng = np.random.default_rng(seed)
    check(kind, protocol_of(kind), draw_exams(seed, 120), rng.integers(0, n_sites, 120))


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_order_of_rows_does_not_matter(kind: str) -> None:
    protocol = protocol_of(kind)
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
    exams = draw_exams(4, 120)
    order = np.random.default_rng(1).permutation(120)
    shuffled = Exams(
        columns={name: values[order] for name, values in exams.columns.items()},
        keys=tuple(exams.keys[i] for i in order),
        secret=exams.secret,
    )
    site = SiteName("a")
    assert_same(
        pool(protocol, [site], lambda name, _, query: estimators[name].summarise(exams, query)),
        pool(protocol, [site], lambda name, _, query: estimators[name].summarise(shuffled, query)),
    )


def summed(aggregates: list[Aggregate]) -> Aggregate:
    layouts = {layout_of(aggregate) for aggregate in aggregates}
    assert len(layouts) == 1
    return aggregate_of(
        layouts.pop(), np.sum([vector_of(one) for one in aggregates], axis=0).tolist()
    )


@pytest.mark.parametrize("kind", sorted(SPECS))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_sites=st.integers(1, 4))
def test_a_sum_over_sites_pools_like_the_sites(kind: str, seed: int, n_sites: int) -> None:
    protocol, exams = protocol_of(kind), draw_exams(seed, 120)
    site_of = np.random.default_rng(seed).integers(0, n_sites, 120)
    names = [SiteName(f"s{number}") for number in sorted(set(site_of.tolist()))]
    parts = {name: exams.where(site_of == int(name[1:])) for name in names}
    estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}

    def own(analysis: str, site: SiteName, query: Any) -> Aggregate:
        return estimators[analysis].summarise(parts[site], query)

    def of_all(analysis: str, _: SiteName, query: Any) -> Aggregate:
        return summed([own(analysis, site, query) for site in names])

    assert_same(pool(protocol, names, own), pool(protocol, [SiteName("sum")], of_all))
