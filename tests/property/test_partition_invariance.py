"""Pooling any split of the patients equals pooling the whole, for every registered estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.aggregate import Aggregate
from fedcac.exams import Exams
from fedcac.protocol import AccuracySpec, AgreementSpec, BlandAltmanSpec, CoxSpec, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics import (
    POOLED,
    Estimate,
    Estimator,
    PoolingSession,
    estimator_for,
    registered_estimators,
)
from fedcac.statistics.cox import CoxTerms
from fedcac.vocabulary import SiteName

DEMO = load_shipped("demo-nongated")

SPECS: dict[str, Any] = {
    "agreement": AgreementSpec(id="x", kind="agreement"),
    "accuracy": AccuracySpec(id="x", kind="accuracy"),
    "bland_altman": BlandAltmanSpec(id="x", kind="bland_altman", per_vessel=True),
    "cox": CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("age", "sex")),
}


def draw_exams(seed: int, n: int, prefix: str = "k") -> Exams:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.3, 0.0, rng.lognormal(4, 2, n).round(1))
    index = np.where(rng.random(n) < 0.1, 0.0, (reference * rng.lognormal(0, 0.5, n)).round(1))
    columns = {
        "reference_score": reference,
        "index_score": index,
        "age": rng.normal(62, 9, n).round(1),
        "sex": rng.integers(0, 2, n).astype(float),
        # Whole months: many ties.
        "follow_up_days": 30.0 * rng.integers(1, 40, n),
        "event": (rng.random(n) < 0.35).astype(float),
    }
    for vessel in ("lm", "lad", "lcx", "rca"):
        columns[f"reference_{vessel}"] = (reference * rng.random(n)).round(1)
        columns[f"index_{vessel}"] = (index * rng.random(n)).round(1)
    return Exams(columns=columns, keys=tuple(f"{prefix}{i}" for i in range(n)))


def pool(
    protocol: Protocol,
    sites: list[SiteName],
    answer: Callable[[SiteName, Any], Aggregate],
) -> tuple[Estimate, ...]:
    """Run one analysis with a gate that lets everything pass."""
    session = PoolingSession(protocol, sites)
    for _ in range(30):
        if session.is_finished:
            return session.estimates()
        query = session.queries["x"]
        session.answer({site: {"x": answer(site, query)} for site in sites})
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
        if row.scope == POOLED
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


def sum_terms(parts: list[Any]) -> CoxTerms:
    """A stratified likelihood of several strata is the sum of theirs."""
    return CoxTerms(
        n_patients=sum(part.n_patients for part in parts),
        n_events=sum(part.n_events for part in parts),
        log_likelihood=sum(part.log_likelihood for part in parts),
        gradient=tuple(np.sum([part.gradient for part in parts], axis=0).tolist()),
        information=tuple(
            tuple(row) for row in np.sum([part.information for part in parts], axis=0).tolist()
        ),
    )


def check(estimator: Estimator[Any], kind: str, exams: Exams, site_of: Any) -> None:
    protocol = estimator.protocol
    names = [SiteName(f"s{number}") for number in sorted(set(site_of.tolist()))]
    parts = {name: exams.where(site_of == int(name[1:])) for name in names}
    split = pool(protocol, names, lambda site, query: estimator.summarise(parts[site], query))
    if kind == "cox":
        whole = pool(
            protocol,
            [SiteName("all")],
            lambda site, query: sum_terms([estimator.summarise(p, query) for p in parts.values()]),
        )
    else:
        whole = pool(
            protocol,
            [SiteName("all")],
            lambda site, query: estimator.summarise(exams, query),
        )
    assert_same(split, whole)


@pytest.mark.parametrize("kind", sorted(registered_estimators()))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_sites=st.integers(1, 4))
def test_any_split_equals_the_whole(kind: str, seed: int, n_sites: int) -> None:
    protocol = DEMO.model_copy(update={"analyses": (SPECS[kind],)})
    rng = np.random.default_rng(seed)
    exams = draw_exams(seed, 90)
    check(estimator_for("x", protocol), kind, exams, rng.integers(0, n_sites, 90))


@pytest.mark.parametrize("kind", sorted(registered_estimators()))
def test_order_of_rows_does_not_matter(kind: str) -> None:
    protocol = DEMO.model_copy(update={"analyses": (SPECS[kind],)})
    estimator = estimator_for("x", protocol)
    exams = draw_exams(4, 80)
    order = np.random.default_rng(1).permutation(80)
    shuffled = Exams(
        columns={name: values[order] for name, values in exams.columns.items()},
        keys=tuple(exams.keys[i] for i in order),
    )
    site = SiteName("a")
    assert_same(
        pool(protocol, [site], lambda _, query: estimator.summarise(exams, query)),
        pool(protocol, [site], lambda _, query: estimator.summarise(shuffled, query)),
    )
