"""A site that restarts after every step goes on as if it had not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedcac.masking import MaskingError, MaskingSite, SiteState

MakeRound = Callable[..., Any]


def restart(group: Any) -> None:
    for name, site in group.sites.items():
        state = SiteState.from_document(site.to_state().to_document())
        group.sites[name] = MaskingSite.from_state(
            state, key=group.keys[name], enrolled=group.enrolled
        )


def test_sites_survive_a_restart_after_every_step(make_strangers: MakeRound) -> None:
    group = make_strangers(5)
    adverts = [site.advertise() for site in group.sites.values()]
    restart(group)
    channels = group.coordinator.list_channels(adverts)
    for site in group.sites.values():
        site.accept_channels(channels)
    restart(group)
    opened = group.open(1, group.block(2))
    restart(group)
    inputs = group.masked(opened, {name: [1.0, 2.5] for name in group.names}, lost=["site002"])
    restart(group)
    request = group.certified(opened, inputs)
    restart(group)
    (result,) = group.sums(opened, request)
    assert result.values.tolist() == [4.0, 10.0]


def test_what_was_done_before_a_restart_stays_done(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    vectors = {name: [1.0, 2.5] for name in group.names}
    survivors = opened.close(group.masked(opened, vectors))
    site = group.sites["site000"]
    signature = site.sign_survivors(survivors)
    restart(group)
    site = group.sites["site000"]
    with pytest.raises(MaskingError, match="exchange_used"):
        site.prepare(1)
    with pytest.raises(MaskingError, match="exchange_used"):
        site.mask(opened.deliveries()["site000"], {"cox": [1.0, 2.5]})
    other = survivors.model_copy(update={"survivors": tuple(group.names[:3])})
    with pytest.raises(MaskingError, match="second_survivor_list"):
        site.sign_survivors(other)
    assert site.sign_survivors(survivors) == signature


def test_a_state_shows_no_secret_when_it_is_printed(make_round: MakeRound) -> None:
    group = make_round(3)
    group.open(1, group.block(2))
    state = group.sites["site000"].to_state()
    (exchange,) = state.exchanges
    printed = repr(state) + str(state)
    for secret in (state.channel_key, exchange.mask_key, exchange.seed):
        assert repr(secret) not in printed
    assert repr(exchange.held["site000"].of_seed) not in printed
