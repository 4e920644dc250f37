"""Lists of keys, plans, shares and answers that a site or the coordinator refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedcac.masking import ExchangeKeys, MaskingError, MaskingSite, SurvivorList

MakeRound = Callable[..., Any]


def flat(group: Any, value: float = 1.0) -> dict[str, list[float]]:
    return {name: [value, value] for name in group.names}


def test_lists_of_keys_that_a_site_refuses(make_strangers: MakeRound) -> None:
    group = make_strangers(5)
    channels = group.coordinator.list_channels([s.advertise() for s in group.sites.values()])
    keys = channels.keys
    swapped = keys[1].model_copy(update={"public_key": keys[2].public_key})
    cases = {
        "bad_signature": {"keys": (keys[0], swapped, *keys[2:])},
        "bad_order": {"keys": (keys[1], keys[0], *keys[2:])},
        "not in the list": {"keys": keys[1:]},
        "wrong_round": {"threshold": 4},
    }
    site = group.sites["site000"]
    for code, changes in cases.items():
        with pytest.raises(MaskingError, match=code):
            site.accept_channels(channels.model_copy(update=changes))
    with pytest.raises(MaskingError, match="no_channels"):
        site.prepare(1)
    site.accept_channels(channels)
    site.accept_channels(channels)
    with pytest.raises(MaskingError, match="channels_changed"):
        site.accept_channels(channels.model_copy(update={"keys": keys[:4]}))
    with pytest.raises(MaskingError, match="channels_changed"):
        group.coordinator.list_channels(keys)


def test_a_site_that_is_not_enrolled_is_refused(make_strangers: MakeRound) -> None:
    group, others = make_strangers(3), make_strangers(3, seed="elsewhere")
    with pytest.raises(MaskingError, match="bad_signature"):
        group.coordinator.list_channels([s.advertise() for s in others.sites.values()])
    with pytest.raises(MaskingError, match="not enrolled"):
        MaskingSite(
            round_id="masked-round",
            site="site000",
            key=others.keys["site000"],
            enrolled=group.enrolled,
            threshold=2,
        )


def test_a_list_of_too_few_sites_is_refused(make_strangers: MakeRound) -> None:
    group, lax = make_strangers(5, threshold=4), make_strangers(5)
    adverts = [site.advertise() for site in group.sites.values()][:3]
    with pytest.raises(MaskingError, match="too_few_sites"):
        group.coordinator.list_channels(adverts)
    # A coordinator that took them all the same, and claimed the sites' threshold.
    channels = lax.coordinator.list_channels(adverts).model_copy(update={"threshold": 4})
    with pytest.raises(MaskingError, match="too_few_sites"):
        group.sites["site000"].accept_channels(channels)
    with pytest.raises(MaskingError, match="no_channels"):
        group.coordinator.open(1, [], [group.block(2)])


def test_a_stranger_is_refused(make_strangers: MakeRound) -> None:
    small, large = make_strangers(3), make_strangers(4, threshold=3)
    adverts = [site.advertise() for site in large.sites.values()]
    with pytest.raises(MaskingError, match="not enrolled"):
        small.coordinator.list_channels(adverts)


def test_plans_without_a_sites_own_key_or_with_a_newcomer(make_strangers: MakeRound) -> None:
    group = make_strangers(5)
    group.introduce(group.names[:4])
    opened = group.open(1, group.block(2, group.names[:3]))
    late, plan = group.sites["site003"], opened.plan
    late.prepare(1)
    delivery = opened.deliveries()["site000"]
    with pytest.raises(MaskingError, match="this site's key"):
        late.mask(delivery, {})
    key = plan.keys[0].model_copy(update={"site": "site004"})
    blocks = (group.block(2, [*group.names[:3], "site004"]),)
    grown = plan.model_copy(update={"keys": (*plan.keys, key), "blocks": blocks})
    with pytest.raises(MaskingError, match="without channel key"):
        late.mask(delivery.model_copy(update={"plan": grown}), {})


def test_plans_that_a_site_refuses(make_round: MakeRound) -> None:
    group = make_round(5)
    delivery = group.open(1, group.block(2)).deliveries()["site000"]
    plan = delivery.plan
    swapped = plan.keys[1].model_copy(update={"public_key": plan.keys[2].public_key})
    later = group.sites["site001"].prepare(7).key
    small = group.block(2, group.names[:2], analysis="auc")
    cases = {
        "bad_signature": {"keys": (plan.keys[0], swapped, *plan.keys[2:])},
        "another exchange": {"keys": (plan.keys[0], later, *plan.keys[2:])},
        "wrong_round": {"channels": "sha256:" + "0" * 64},
        "sums one analysis twice": {"blocks": plan.blocks * 2},
        "not about its sites": {"blocks": (group.block(2, group.names[1:]),)},
        "over too few": {"blocks": (*plan.blocks, small)},
    }
    site = group.sites["site000"]
    for code, changes in cases.items():
        changed = delivery.model_copy(update={"plan": plan.model_copy(update=changes)})
        with pytest.raises(MaskingError, match=code):
            site.mask(changed, {"cox": [1.0, 1.0]})
    assert site.mask(delivery, {"cox": [1.0, 1.0]}).exchange == 1


def test_altered_or_missing_shares_are_refused(make_round: MakeRound) -> None:
    group = make_round(5)
    delivery = group.open(1, group.block(2)).deliveries()["site000"]
    shares = delivery.shares
    altered = bytes([shares["site001"][0] ^ 1]) + shares["site001"][1:]
    cases = {
        "altered_ciphertext": {**shares, "site001": altered},
        "missing_shares": {name: shares[name] for name in shares if name != "site001"},
    }
    # What was meant for another site, or came from another one.
    swapped = {**shares, "site001": shares["site002"], "site002": shares["site001"]}
    for code, changed in [*cases.items(), ("altered_ciphertext", swapped)]:
        with pytest.raises(MaskingError, match=code):
            group.sites["site000"].mask(
                delivery.model_copy(update={"shares": changed}), {"cox": [1.0, 1.0]}
            )


def test_shares_of_another_length_are_refused(
    make_round: MakeRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_round(3)
    delivery = group.open(1, group.block(2)).deliveries()["site000"]
    # A site that encrypts something else.
    monkeypatch.setattr("fedcac.masking.shares.open_sealed", lambda *_: bytes(65))
    with pytest.raises(MaskingError, match="bad_share"):
        group.sites["site000"].mask(delivery, {"cox": [1.0, 1.0]})


def test_shares_of_an_earlier_exchange_are_refused(make_round: MakeRound) -> None:
    group = make_round(5)
    old = group.open(1, group.block(2)).deliveries()["site000"]
    new = group.open(2, group.block(2)).deliveries()["site000"]
    mixed = new.model_copy(update={"shares": {**new.shares, "site001": old.shares["site001"]}})
    with pytest.raises(MaskingError, match="altered_ciphertext"):
        group.sites["site000"].mask(mixed, {"cox": [1.0, 1.0]})


# what the coordinator refuses


def test_the_coordinator_refuses_what_does_not_fit(make_round: MakeRound) -> None:
    group = make_round(5)
    keys = [site.prepare(1) for site in group.sites.values()]
    block = group.block(2)
    with pytest.raises(MaskingError, match="sent no key"):
        group.coordinator.open(1, keys[1:], [block])
    partial = ExchangeKeys(key=keys[0].key, shares=dict(list(keys[0].shares.items())[1:]))
    with pytest.raises(MaskingError, match="missing_shares"):
        group.coordinator.open(1, [partial, *keys[1:]], [block])
    with pytest.raises(MaskingError, match="wrong_exchange"):
        group.coordinator.open(2, keys, [block])
    opened = group.coordinator.open(1, keys, [block])
    inputs = group.masked(opened, flat(group))
    short = inputs[0].model_copy(update={"values": {"cox": bytes(16)}})
    with pytest.raises(MaskingError, match="bad_length"):
        opened.close([short, *inputs[1:]])
    opened.close(inputs)
    with pytest.raises(MaskingError, match="exchange_used"):
        opened.close(inputs)


def test_wrong_shares_and_spoiled_vectors_are_noticed(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    request = group.certified(opened, group.masked(opened, flat(group), lost=["site004"]))
    answers = [group.sites[name].unmask(request) for name in group.names[:4]]
    for field in ("seed_shares", "key_shares"):
        shares = dict(getattr(answers[0], field))
        owner = next(iter(shares))
        shares[owner] = bytes(32) + b"\x07"
        wrong = answers[0].model_copy(update={field: shares})
        with pytest.raises(MaskingError, match="shares_disagree"):
            opened.sums([wrong, *answers[1:]])
        fewer = answers[0].model_copy(update={field: {}})
        with pytest.raises(MaskingError, match="missing_shares"):
            opened.sums([fewer, *answers[1:]])
    dropout = answers[0].model_copy(update={"site": "site004"})
    with pytest.raises(MaskingError, match="no survivor"):
        opened.sums([dropout, *answers])
    assert opened.sums(answers)[0].values.tolist() == [4.0, 4.0]


def test_a_spoiled_vector_gives_no_sum(make_round: MakeRound) -> None:
    group = make_round(5)
    opened = group.open(1, group.block(2))
    inputs = group.masked(opened, flat(group))
    spoiled = inputs[0].model_copy(update={"values": {"cox": bytes(32)}})
    request = group.certified(opened, [spoiled, *inputs[1:]])
    with pytest.raises(MaskingError, match="sum_out_of_bounds"):
        group.sums(opened, request)


@pytest.mark.parametrize(
    "change", [{"extra": 1}, {"survivors": "all"}, {"plan": "md5:0"}, {"exchange": 0}]
)
def test_documents_of_another_shape(make_round: MakeRound, change: dict[str, Any]) -> None:
    group = make_round(3)
    opened = group.open(1, group.block(2))
    document = opened.close(group.masked(opened, flat(group))).to_document()
    with pytest.raises(MaskingError, match="malformed_message"):
        SurvivorList.from_document({**document, **change})


def test_bytes_that_are_not_base64(make_round: MakeRound) -> None:
    group = make_round(3)
    document = group.sites["site000"].prepare(1).to_document()
    document["shares"]["site001"] = "not base64!"
    with pytest.raises(MaskingError, match="malformed_message"):
        ExchangeKeys.from_document(document)
