"""A coordinator that lies about survivors, and messages of another exchange or round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedcac.masking import (
    MaskingCoordinator,
    MaskingError,
    MaskingSite,
    SurvivorList,
    UnmaskRequest,
)

MakeRound = Callable[..., Any]


def flat(group: Any, value: float = 1.0) -> dict[str, list[float]]:
    return {name: [value, value] for name in group.names}


def certificate(group: Any, survivors: SurvivorList) -> UnmaskRequest:
    """Return a survivor list signed by all its sites, whatever they think of it."""
    statement = survivors.statement()
    signatures = {name: group.keys[name].sign(statement) for name in survivors.survivors}
    return UnmaskRequest(survivors=survivors, signatures=signatures)


# the two kinds of shares


def test_nobody_reveals_both_kinds_of_shares_of_a_site(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    request = group.certified(opened, group.masked(opened, flat(group), lost=["site004"]))
    site = group.sites["site000"]
    answer = site.unmask(request)
    assert set(answer.seed_shares) == set(group.names[:4])
    assert set(answer.key_shares) == {"site004"}
    # The coordinator now says that site003, whose seed share it has, dropped out.
    other = request.survivors.model_copy(update={"survivors": ("site000", "site001", "site002")})
    with pytest.raises(MaskingError, match="second_survivor_list"):
        site.sign_survivors(other)
    # Not even with everybody's signature.
    with pytest.raises(MaskingError, match="second_survivor_list"):
        site.unmask(certificate(group, other))
    assert site.unmask(request) == answer


def test_two_survivor_lists_cannot_both_be_signed(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    first = opened.close(group.masked(opened, flat(group)))
    second = first.model_copy(update={"survivors": tuple(group.names[1:4])})
    signed: dict[tuple[str, ...], int] = {first.survivors: 0, second.survivors: 0}
    for number, name in enumerate(group.names):
        # The coordinator shows each list to some sites first and the other one to all.
        for survivors in (first, second) if number % 2 else (second, first):
            try:
                group.sites[name].sign_survivors(survivors)
            except MaskingError:
                continue
            signed[survivors.survivors] += 1
    assert min(signed.values()) < group.threshold
    assert sum(signed.values()) == len(group.names)


def test_a_site_does_not_unmask_without_enough_signatures(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    survivors = opened.close(group.masked(opened, flat(group)))
    for name in group.names:
        group.sites[name].sign_survivors(survivors)
    full = certificate(group, survivors)
    few = dict(list(full.signatures.items())[:2])
    cases = {
        "too_few_signatures": few,
        "bad_signature": {**few, "site004": full.signatures["site003"]},
        "unknown_site": {**few, "stranger": full.signatures["site003"]},
    }
    for code, signatures in cases.items():
        with pytest.raises(MaskingError, match=code):
            group.sites["site000"].unmask(full.model_copy(update={"signatures": signatures}))


def test_survivor_lists_that_no_site_signs(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    good = opened.close(group.masked(opened, flat(group)))
    cases = {
        "too_few_survivors": {"survivors": ("site000", "site001")},
        "unknown_site": {"survivors": ("site000", "site001", "site002", "zz")},
        "not among": {"survivors": ("site001", "site002", "site003")},
        "bad_order": {"survivors": ("site001", "site000", "site002")},
        "wrong_exchange": {"plan": "sha256:" + "0" * 64},
    }
    for code, changes in cases.items():
        with pytest.raises(MaskingError, match=code):
            group.sites["site000"].sign_survivors(good.model_copy(update=changes))


def test_a_site_that_gave_no_input_signs_and_unmasks_nothing(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    survivors = opened.close(group.masked(opened, flat(group), lost=["site000"]))
    with pytest.raises(MaskingError, match="wrong_exchange"):
        group.sites["site000"].sign_survivors(survivors)
    with pytest.raises(MaskingError, match="second_survivor_list"):
        group.sites["site000"].unmask(certificate(group, survivors))
    with pytest.raises(MaskingError, match="second_survivor_list"):
        # Signed by others, but not by this site.
        group.sites["site001"].unmask(certificate(group, survivors))


# replays


def test_messages_of_another_exchange_are_refused(make_round: MakeRound) -> None:
    group = make_round(5)
    old = group.open(1, group.block(2))
    old_inputs = group.masked(old, flat(group))
    old_survivors = old.close(old_inputs)
    old_signatures = [site.sign_survivors(old_survivors) for site in group.sites.values()]
    old_request = old.certify(old_signatures)
    old_answers = [site.unmask(old_request) for site in group.sites.values()]
    new = group.open(2, group.block(2))
    with pytest.raises(MaskingError, match="wrong_exchange"):
        new.close(old_inputs)
    new_request = group.certified(new, group.masked(new, flat(group)))
    with pytest.raises(MaskingError, match="wrong_exchange"):
        new.certify(old_signatures)
    with pytest.raises(MaskingError, match="wrong_exchange"):
        new.sums(old_answers)
    site = group.sites["site000"]
    with pytest.raises(MaskingError, match="exchange_used"):
        site.mask(old.deliveries()["site000"], {"cox": [1.0, 1.0]})
    with pytest.raises(MaskingError, match="exchange_used"):
        site.prepare(1)
    mixed = new_request.model_copy(update={"signatures": old_request.signatures})
    with pytest.raises(MaskingError, match="bad_signature"):
        site.unmask(mixed)
    site.forget(1)
    with pytest.raises(MaskingError, match="wrong_exchange"):
        site.unmask(old_request)


def test_messages_of_another_round_are_refused(make_strangers: MakeRound) -> None:
    group = make_strangers(3)
    others = [
        MaskingSite(
            round_id="other-round",
            site=name,
            key=group.keys[name],
            enrolled=group.enrolled,
            threshold=2,
        )
        for name in group.names
    ]
    adverts = [site.advertise() for site in others]
    with pytest.raises(MaskingError, match="wrong_round"):
        group.coordinator.list_channels(adverts)
    coordinator = MaskingCoordinator(round_id="other-round", enrolled=group.enrolled, threshold=2)
    channels = coordinator.list_channels(adverts)
    with pytest.raises(MaskingError, match="wrong_round"):
        group.sites["site000"].accept_channels(channels)
    forged = channels.model_copy(update={"round_id": "masked-round"})
    with pytest.raises(MaskingError, match="wrong_round"):
        group.sites["site000"].accept_channels(forged)
    for site in others:
        site.accept_channels(channels)
    opened = coordinator.open(1, [site.prepare(1) for site in others], [group.block(2)])
    group.introduce()
    group.sites["site000"].prepare(1)
    with pytest.raises(MaskingError, match="wrong_round"):
        group.sites["site000"].mask(opened.deliveries()["site000"], {"cox": [1.0, 1.0]})
