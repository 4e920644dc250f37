"""What a coordinator and colluding sites see of one site: masks, and the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedcac.masking import ExchangePlan, MaskedInput, MaskingError
from fedcac.masking.fixed_point import Words, add, encode, negate, words_from_bytes, words_to_bytes
from fedcac.masking.keys import AgreementKey, mask_of, pair_mask_key, self_mask_key
from fedcac.masking.shamir import combine

MakeRound = Callable[..., Any]

BOUND = 1e9
CHI_SQUARE_LIMIT = 330.5
"""The 99.9th percentile with 255 degrees of freedom."""


def chi_square(payload: bytes) -> float:
    counts = np.bincount(np.frombuffer(payload, dtype=np.uint8), minlength=256)
    expected = len(payload) / 256
    return float(((counts - expected) ** 2 / expected).sum())


def words_of(message: MaskedInput) -> Words:
    return words_from_bytes(message.values["cox"])


def pair_mask(plan: ExchangePlan, own: AgreementKey, site: str, peer: str, n_numbers: int) -> Words:
    """Return what `site` added to its vector for `peer`."""
    public = next(key.public_key for key in plan.keys if key.site == peer)
    key = pair_mask_key(own.agree(public), plan.context(), "cox", (site, peer))
    mask = mask_of(key, n_numbers)
    return mask if site < peer else negate(mask)


def self_mask(plan: ExchangePlan, seed: bytes, site: str, n_numbers: int) -> Words:
    return mask_of(self_mask_key(seed, plan.context(), "cox", site), n_numbers)


def without_pair_masks(plan: ExchangePlan, own: AgreementKey, site: str, masked: Words) -> Words:
    for peer in plan.sites:
        if peer != site:
            masked = add(masked, negate(pair_mask(plan, own, site, peer, len(masked))))
    return masked


@pytest.mark.parametrize("value", [0.0, 1.0, -1e9])
def test_a_masked_vector_looks_uniform(make_round: MakeRound, value: float) -> None:
    n_numbers, masked, differences = 40, b"", b""
    for run in range(40):
        group = make_round(3, seed=f"uniform {value} {run}")
        vectors = {name: [value] * n_numbers for name in group.names}
        first, second = (
            words_of(group.masked(group.open(exchange, group.block(n_numbers)), vectors)[1])
            for exchange in (1, 2)
        )
        masked += words_to_bytes(first)
        differences += words_to_bytes(add(first, negate(second)))
    assert chi_square(masked) < CHI_SQUARE_LIMIT
    # Nor do two exchanges tell more than one: what they share does not cancel.
    assert chi_square(differences) < CHI_SQUARE_LIMIT
    assert chi_square(words_to_bytes(encode([value] * 1600, BOUND))) > CHI_SQUARE_LIMIT


def test_the_same_input_is_masked_differently_every_time(make_round: MakeRound) -> None:
    group = make_round(3)
    vectors = {name: [1.5, -2.5] for name in group.names}
    seen = set()
    for exchange in (1, 2, 3):
        opened = group.open(exchange, group.block(2), group.block(2, analysis="auc"))
        for message in group.masked(opened, vectors):
            seen.update(words_to_bytes(words_from_bytes(raw)) for raw in message.values.values())
    assert len(seen) == 3 * 3 * 2


def test_a_late_vector_stays_masked_although_its_key_is_known(make_round: MakeRound) -> None:
    group = make_round(5)
    vectors = {name: [7.0] * 50 for name in group.names}
    opened = group.open(1, group.block(50))
    inputs = group.masked(opened, vectors)
    # The coordinator has all five, and says that the last one never came.
    late = inputs.pop()
    request = group.certified(opened, inputs)
    answers = [group.sites[name].unmask(request) for name in group.names[:3]]
    shares = {number: one.key_shares["site004"] for number, one in enumerate(answers, start=1)}
    own = AgreementKey(combine(shares, 3))
    rest = without_pair_masks(opened.plan, own, "site004", words_of(late))
    secret = group.sites["site004"]._exchanges[1]
    own_mask = self_mask(opened.plan, secret.seed, "site004", 50)
    # What is left is the input under its own mask, whose seed nobody has a share to give of.
    assert (rest == add(encode(vectors["site004"], BOUND), own_mask)).all()
    assert not (rest == encode(vectors["site004"], BOUND)).all(axis=1).any()
    assert all("site004" not in answer.seed_shares for answer in answers)


def test_a_key_revealed_later_does_not_open_an_earlier_exchange(make_round: MakeRound) -> None:
    group = make_round(5)
    vectors = {name: [7.0] * 3 for name in group.names}
    first = group.open(1, group.block(3))
    inputs = group.masked(first, vectors)
    request = group.certified(first, inputs)
    answers = [group.sites[name].unmask(request) for name in group.names[:3]]
    second = group.open(2, group.block(3))
    request = group.certified(second, group.masked(second, vectors, lost=["site004"]))
    later = [group.sites[name].unmask(request) for name in group.names[:3]]

    def shares_of(field: str, given: list[Any]) -> dict[int, bytes]:
        return {n: getattr(one, field)["site004"] for n, one in enumerate(given, start=1)}

    # The seed was revealed in the first exchange, the key in the second.
    seed = combine(shares_of("seed_shares", answers), 3)
    revealed = AgreementKey(combine(shares_of("key_shares", later), 3))
    own_mask = self_mask(first.plan, seed, "site004", 3)

    def opened_with(key: AgreementKey) -> Words:
        rest = without_pair_masks(first.plan, key, "site004", words_of(inputs[4]))
        return add(rest, negate(own_mask))

    plain = encode(vectors["site004"], BOUND)
    assert not (opened_with(revealed) == plain).all(axis=1).any()
    # This is why a mask key serves one exchange: with the first one's, the input lies open.
    kept = AgreementKey(group.sites["site004"]._exchanges[1].mask_key)
    assert (opened_with(kept) == plain).all()


class View:
    """What the coordinator and two sites of five, one fewer than the threshold, know together."""

    def __init__(self, group: Any, vectors: dict[str, list[float]]) -> None:
        self.length = len(vectors["site000"])
        opened = group.open(1, group.block(self.length))
        self.plan = opened.plan
        self.inputs = {one.site: words_of(one) for one in group.masked(opened, vectors)}
        self.colluders = {name: group.sites[name]._exchanges[1] for name in ("site000", "site001")}

    def held(self, kind: str, owner: str) -> dict[int, bytes]:
        """Return the colluders' shares of a secret of another site."""
        return {
            number: getattr(state.held[owner], kind)
            for number, state in enumerate(self.colluders.values(), start=1)
        }

    def residual(self, site: str) -> Words:
        """Return a masked vector without the masks that the colluders know."""
        rest = self.inputs[site]
        for name, state in self.colluders.items():
            rest = add(
                rest, pair_mask(self.plan, AgreementKey(state.mask_key), name, site, self.length)
            )
        return rest


def test_fewer_than_threshold_colluders_hold_no_secret(make_round: MakeRound) -> None:
    group = make_round(5)
    view = View(group, {name: [3.0] for name in group.names})
    for owner in ("site002", "site003", "site004"):
        for kind in ("of_key", "of_seed"):
            shares = view.held(kind, owner)
            assert len(shares) == group.threshold - 1
            with pytest.raises(MaskingError, match="too_few_shares"):
                combine(shares, group.threshold)


@pytest.mark.parametrize("candidate", [0.0, -1e9, 123.456])
def test_every_input_of_a_third_site_fits_what_colluders_see(
    make_round: MakeRound, candidate: float
) -> None:
    group = make_round(5, seed="collusion")
    length = 400
    vectors = {name: [float(number)] * length for number, name in enumerate(group.names)}
    view = View(group, vectors)
    # Even with every seed, as after the unmasking: the colluders strip all self masks too.
    seeds = {name: group.sites[name]._exchanges[1].seed for name in group.names}
    honest = ("site002", "site003", "site004")
    rest = {
        name: add(view.residual(name), negate(self_mask(view.plan, seeds[name], name, length)))
        for name in honest
    }
    total = add(add(rest["site002"], rest["site003"]), rest["site004"])
    assert (total == encode([9.0] * length, BOUND)).all()
    # Suppose site002 gave the candidate and site003 the rest of their sum. Then there is a mask
    # between the two that gives exactly the vectors seen, and it looks as random as any.
    own = {name: AgreementKey(group.sites[name]._exchanges[1].mask_key) for name in honest}
    known = pair_mask(view.plan, own["site002"], "site002", "site004", length)
    supposed = encode([candidate] * length, BOUND)
    partner = add(
        add(encode([2.0] * length, BOUND), encode([3.0] * length, BOUND)), negate(supposed)
    )
    mask = add(rest["site002"], negate(add(supposed, known)))
    third = pair_mask(view.plan, own["site003"], "site003", "site004", length)
    assert (add(add(partner, third), negate(mask)) == rest["site003"]).all()
    assert chi_square(words_to_bytes(mask)) < CHI_SQUARE_LIMIT
    assert chi_square(words_to_bytes(rest["site002"])) < CHI_SQUARE_LIMIT


def test_nothing_but_the_sum_depends_on_who_gave_what(make_round: MakeRound) -> None:
    """Two worlds with one sum: all messages but the masked vectors are the same bytes."""
    worlds = []
    for values in ([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 1.0, 4.0, 2.0, 3.0]):
        group = make_round(5, seed="worlds")
        vectors = {name: [value] for name, value in zip(group.names, values, strict=True)}
        opened = group.open(1, group.block(1))
        deliveries = [one.to_document() for one in opened.deliveries().values()]
        request = group.certified(opened, group.masked(opened, vectors))
        answers = [group.sites[name].unmask(request).to_document() for name in group.names]
        worlds.append((deliveries, request.to_document(), answers))
        assert group.sums(opened, request)[0].values.tolist() == [15.0]
    assert worlds[0] == worlds[1]


def test_keys_seeds_and_shares_are_fresh_in_every_exchange(make_round: MakeRound) -> None:
    group = make_round(3)
    sent = [site.prepare(exchange) for site in group.sites.values() for exchange in (1, 2, 3)]
    states = [one for site in group.sites.values() for one in site.to_state().exchanges]
    for drawn in (
        [one.key.public_key for one in sent],
        [one.key.seed_digest for one in sent],
        [state.mask_key for state in states],
        [state.seed for state in states],
        [share for one in sent for share in one.shares.values()],
    ):
        assert len(set(drawn)) == len(drawn)
