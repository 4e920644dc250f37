"""Masked sums equal plain sums, whoever drops out, or nothing is unmasked at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.masking import MaskingError
from fedcac.masking.fixed_point import rounding_error_bound

MakeRound = Callable[..., Any]


def vectors_of(names: list[str], length: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Draw numbers of likelihoods: both signs, from 1e-6 to 1e9."""
    generator = np.random.default_rng(seed)
    size = (len(names), length)
    drawn = generator.choice([-1.0, 1.0], size) * 10.0 ** generator.uniform(-6, 8.9, size)
    return dict(zip(names, drawn, strict=True))


def plain_sum(vectors: dict[str, np.ndarray], sites: tuple[str, ...]) -> np.ndarray:
    return np.sum([np.asarray(vectors[site], dtype=np.longdouble) for site in sites], axis=0)


@pytest.mark.parametrize("n_sites", [3, 5, 20])
def test_the_sum_is_numpys(make_round: MakeRound, n_sites: int) -> None:
    group = make_round(n_sites)
    vectors = vectors_of(group.names, 7)
    for exchange in (1, 2):
        result = group.total(exchange, vectors)
        assert result.sites == tuple(group.names)
        expected = plain_sum(vectors, result.sites).astype(float)
        np.testing.assert_allclose(result.values, expected, rtol=1e-12, atol=0)


def test_whole_numbers_are_summed_exactly(make_round: MakeRound) -> None:
    group = make_round(5)
    vectors = {name: [1.0, 2.0**29, -(3.0**number)] for number, name in enumerate(group.names)}
    assert group.total(1, vectors).values.tolist() == [5.0, 5 * 2.0**29, -121.0]


@given(
    table=st.integers(3, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=n, max_size=n
        )
    ),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_any_numbers_and_any_dropouts(
    make_round: MakeRound, table: list[list[float]], data: st.DataObject
) -> None:
    group = make_round(len(table))
    vectors = dict(zip(group.names, table, strict=True))
    spare = len(table) - group.threshold
    lost = data.draw(st.lists(st.sampled_from(group.names), max_size=spare, unique=True))
    result = group.total(1, vectors, lost)
    assert result.sites == tuple(name for name in group.names if name not in lost)
    expected = plain_sum(vectors, result.sites)
    spacing = np.spacing(np.abs(expected).astype(float))
    error = np.abs(result.values - expected).astype(float)
    assert (error <= rounding_error_bound(len(result.sites)) + spacing).all()


def test_a_site_that_never_came_is_not_in_the_round(make_strangers: MakeRound) -> None:
    group = make_strangers(5)
    present = [name for name in group.names if name != "site002"]
    group.introduce(present)
    vectors = vectors_of(present, 4)
    result = group.total(1, vectors)
    assert result.sites == tuple(present)
    np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_a_site_that_sent_no_key_is_not_in_the_exchange(make_round: MakeRound) -> None:
    group = make_round(5)
    vectors = vectors_of(group.names[1:], 4)
    result = group.total(1, vectors)
    assert result.sites == tuple(group.names[1:])
    np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_sites_drop_out_at_every_step_after_sharing(make_round: MakeRound) -> None:
    group = make_round(7, threshold=4)
    vectors = vectors_of(group.names, 4)
    opened = group.open(1, group.block(4))
    # One before its masked input; one more before it signs, and one before it unmasks.
    inputs = group.masked(opened, vectors, lost=["site000"])
    request = group.certified(opened, inputs, silent=["site003"])
    (result,) = group.sums(opened, request, silent=["site003", "site005"])
    # Who gave a masked input is in the sum, even if nothing was heard of it since.
    assert result.sites == tuple(group.names[1:])
    np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_a_dropout_takes_part_again_with_fresh_keys(make_round: MakeRound) -> None:
    group = make_round(5)
    vectors = vectors_of(group.names, 4)
    assert group.total(1, vectors, lost=["site001"]).sites == (
        "site000",
        "site002",
        "site003",
        "site004",
    )
    result = group.total(2, vectors)
    assert result.sites == tuple(group.names)
    np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_analyses_of_one_exchange_may_have_other_members(make_round: MakeRound) -> None:
    group = make_round(6, threshold=4)
    vectors = vectors_of(group.names, 2)
    everyone, fewer = group.names, group.names[:5]
    opened = group.open(1, group.block(2, everyone), group.block(2, fewer, analysis="auc"))
    request = group.certified(opened, group.masked(opened, vectors, lost=["site004"]))
    cox, auc = group.sums(opened, request)
    assert (cox.analysis, auc.analysis) == ("cox", "auc")
    assert cox.sites == ("site000", "site001", "site002", "site003", "site005")
    assert auc.sites == ("site000", "site001", "site002", "site003")
    for result in (cox, auc):
        np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_keys_may_be_prepared_ahead(make_round: MakeRound) -> None:
    group = make_round(3)
    vectors = vectors_of(group.names, 2)
    first, second = (group.open(exchange, group.block(2)) for exchange in (1, 2))
    for opened in (second, first):
        request = group.certified(opened, group.masked(opened, vectors))
        (result,) = group.sums(opened, request)
        np.testing.assert_allclose(result.values, plain_sum(vectors, result.sites).astype(float))


def test_too_few_survivors_end_the_exchange(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    inputs = group.masked(opened, vectors_of(group.names, 2), lost=group.names[:3])
    with pytest.raises(MaskingError, match="too_few_survivors") as raised:
        opened.close(inputs)
    assert raised.value.code == "round.too_few_survivors"
    with pytest.raises(MaskingError, match="not closed"):
        opened.sums([])


def test_too_few_survivors_of_one_analysis_end_the_exchange(make_round: MakeRound) -> None:
    group = make_round(6, threshold=4)
    few = group.block(2, group.names[:4], analysis="auc")
    opened = group.open(1, group.block(2), few)
    inputs = group.masked(opened, vectors_of(group.names, 2), lost=["site000"])
    with pytest.raises(MaskingError, match="too_few_survivors"):
        opened.close(inputs)


def test_too_few_signatures_or_shares_end_the_exchange(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    inputs = group.masked(opened, vectors_of(group.names, 2))
    request = group.certified(opened, inputs)
    with pytest.raises(MaskingError, match="too_few_shares"):
        group.sums(opened, request, silent=group.names[:3])
    opened = group.open(2, group.block(2))
    inputs = group.masked(opened, vectors_of(group.names, 2))
    with pytest.raises(MaskingError, match="too_few_signatures"):
        group.certified(opened, inputs, silent=group.names[:3])


@pytest.mark.parametrize(("n_sites", "threshold"), [(4, 2), (5, 6), (10, 5)])
def test_thresholds_that_allow_two_survivor_lists(
    make_strangers: MakeRound, n_sites: int, threshold: int
) -> None:
    with pytest.raises(MaskingError, match="bad_threshold"):
        make_strangers(n_sites, threshold=threshold)


def test_two_sites_are_too_few(make_strangers: MakeRound) -> None:
    with pytest.raises(MaskingError, match="too_few_sites"):
        make_strangers(2, threshold=2)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"cox": [1.0, float("nan")]}, "not_finite"),
        ({"cox": [1.0, 2e9]}, "out_of_bounds"),
        ({"cox": [1.0]}, "bad_length"),
        ({}, "bad_length"),
        ({"cox": [1.0, 2.0], "auc": [1.0]}, "bad_length"),
    ],
)
def test_a_site_masks_only_what_is_planned(
    make_round: MakeRound, values: dict[str, list[float]], code: str
) -> None:
    group = make_round(3)
    opened = group.open(1, group.block(2))
    delivery = opened.deliveries()["site001"]
    with pytest.raises(MaskingError, match=code):
        group.sites["site001"].mask(delivery, values)
    # A refusal burns nothing: the site can still answer.
    assert group.sites["site001"].mask(delivery, {"cox": [1.0, 2.0]}).site == "site001"
