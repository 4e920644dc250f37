"""What sites and coordinator both check before they go on with a masked sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcac.masking.errors import MaskingError
from fedcac.masking.messages import (
    MINIMUM_SITES,
    Block,
    ChannelList,
    ExchangePlan,
    SurvivorList,
    UnmaskRequest,
)
from fedcac.signing import PublicKey

__all__ = [
    "EnrolledKeys",
    "check_address",
    "check_certificate",
    "check_channels",
    "check_plan",
    "check_signature",
    "check_survivors",
    "check_threshold",
]

EnrolledKeys = Mapping[str, PublicKey]
"""The signing key of every site of the round, known before the round and not from its messages."""


def check_threshold(threshold: int, n_sites: int) -> None:
    """Check that two survivor lists of one exchange cannot both be signed by enough sites.

    Raises
    ------
    MaskingError
        If there are fewer than three sites (`too_few_sites`), or the threshold is not above half
        of them and at most all (`bad_threshold`).
    """
    if n_sites < MINIMUM_SITES:
        raise MaskingError("A masked sum needs three sites.", code="too_few_sites")
    if not n_sites < 2 * threshold <= 2 * n_sites:
        raise MaskingError(
            "The threshold must be above half of the sites and at most all of them.",
            code="bad_threshold",
            cure="With n sites take n // 2 + 1 or more; about 2 n / 3 is usual.",
        )


def check_signature(enrolled: EnrolledKeys, site: str, signature: bytes, statement: bytes) -> None:
    """Check a site's signature; MaskingError `unknown_site` or `bad_signature`."""
    key = enrolled.get(site)
    if key is None:
        raise MaskingError("A message is by a site that is not enrolled.", code="unknown_site")
    if not key.verify(signature, statement):
        raise MaskingError(
            "A site's signature does not fit its message.",
            code="bad_signature",
            cure="Discard the message and ask the site for the original.",
        )


def check_channels(
    channels: ChannelList, round_id: str, threshold: int, enrolled: EnrolledKeys
) -> None:
    """Check the list of channel keys: this round, this threshold, enough signed enrolled sites."""
    if (channels.round_id, channels.threshold) != (round_id, threshold):
        raise MaskingError("The list of keys is of another round.", code="wrong_round")
    _check_order([key.site for key in channels.keys])
    if len(channels.keys) < threshold:
        raise MaskingError("There are fewer sites than the threshold.", code="too_few_sites")
    for key in channels.keys:
        if key.round_id != round_id:
            raise MaskingError("A site's key is of another round.", code="wrong_round")
        check_signature(enrolled, key.site, key.signature, key.statement())


def check_plan(plan: ExchangePlan, channels: ChannelList, enrolled: EnrolledKeys) -> None:
    """Check a plan: its keys are its sites' own for this exchange, its blocks large enough."""
    address = (plan.round_id, plan.exchange, plan.channels)
    if (plan.round_id, plan.channels) != (channels.round_id, channels.digest()):
        raise MaskingError("The plan is of another round.", code="wrong_round")
    _check_order(plan.sites)
    listed = set(channels.index_of)
    for key in plan.keys:
        if (key.round_id, key.exchange, key.channels) != address:
            raise MaskingError("A mask key is of another exchange.", code="wrong_exchange")
        if key.site not in listed:
            raise MaskingError("The plan names a site without channel key.", code="unknown_site")
        check_signature(enrolled, key.site, key.signature, key.statement())
    _check_blocks(plan.blocks, set(plan.sites), channels.threshold)


def _check_blocks(blocks: Sequence[Block], sites: set[str], threshold: int) -> None:
    if len({block.analysis for block in blocks}) < len(blocks):
        raise MaskingError("The plan sums one analysis twice.", code="bad_plan")
    if set().union(*(block.members for block in blocks)) != sites:
        raise MaskingError("The plan's blocks are not about its sites.", code="bad_plan")
    for block in blocks:
        _check_order(block.members)
        if len(block.members) < threshold:
            raise MaskingError("A sum is over too few sites.", code="too_few_sites")


def check_survivors(survivors: SurvivorList, plan: ExchangePlan, threshold: int) -> None:
    """Check that a survivor list is of this plan and leaves every sum at least `threshold` sites.

    Raises
    ------
    MaskingError
        `wrong_exchange`, `unknown_site`, `bad_order` or `too_few_survivors`.
    """
    if survivors.address != (plan.round_id, plan.exchange, plan.digest()):
        raise MaskingError("The survivor list is of another exchange.", code="wrong_exchange")
    _check_order(survivors.survivors)
    stayed = set(survivors.survivors)
    if not stayed <= set(plan.sites):
        raise MaskingError("The survivor list names a site not planned.", code="unknown_site")
    if any(len(stayed.intersection(block.members)) < threshold for block in plan.blocks):
        raise MaskingError(
            "Too few sites stayed for a sum; nothing is unmasked.",
            code="too_few_survivors",
            cure="Repeat the exchange under a new number, without the sums that lack sites.",
        )


def check_certificate(request: UnmaskRequest, threshold: int, enrolled: EnrolledKeys) -> None:
    """Check that at least `threshold` survivors signed this survivor list.

    Raises
    ------
    MaskingError
        `too_few_signatures`, `unknown_site` (also for a signature by a site that is no survivor)
        or `bad_signature`.
    """
    survivors = request.survivors
    if not set(request.signatures) <= set(survivors.survivors):
        raise MaskingError("A signature is not by a survivor.", code="unknown_site")
    if len(request.signatures) < threshold:
        raise MaskingError(
            "Too few sites signed the survivor list; nothing is unmasked.",
            code="too_few_signatures",
        )
    statement = survivors.statement()
    for site, signature in request.signatures.items():
        check_signature(enrolled, site, signature, statement)


def check_address(address: tuple[str, int, str], survivors: SurvivorList) -> None:
    """Check that a message is about the same exchange as a survivor list; else `wrong_exchange`."""
    if address != survivors.address:
        raise MaskingError("A signature is of another exchange.", code="wrong_exchange")


def _check_order(sites: Sequence[str]) -> None:
    # One order and no doubles: share indices and digests must be the same for everybody.
    if list(sites) != sorted(set(sites)):
        raise MaskingError("Sites are not in the order of their names.", code="bad_order")
