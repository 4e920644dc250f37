"""Shares on their way through the coordinator: encrypted by one site for another.

A share's key is derived from the two sites' channel keys, the sender's signed mask key (which names
round, exchange and sender) and the direction; the same is authenticated as associated data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedcac.masking.errors import MaskingError
from fedcac.masking.keys import open_sealed, seal_for, share_key
from fedcac.masking.messages import MaskingMessage, MaskKey, PlanDelivery, Raw
from fedcac.masking.shamir import SHARE_BYTES, RandomBytes

__all__ = ["SharePair", "open_shares", "seal_shares"]


class SharePair(MaskingMessage):
    """One holder's shares of one site's secrets of one exchange. Only one of them is ever shown."""

    of_key: Annotated[Raw, Field(repr=False)]
    of_seed: Annotated[Raw, Field(repr=False)]


def seal_shares(
    key: MaskKey,
    pairs: Mapping[str, SharePair],
    common: Mapping[str, bytes],
    random: RandomBytes,
) -> dict[str, bytes]:
    """Return the ciphertext for every receiver in `pairs`; `common` holds the agreed secrets."""
    context = _context(key)
    sealed = {}
    for peer, pair in pairs.items():
        secret = share_key(common[peer], context, key.site, peer)
        associated = {**context, "from": key.site, "to": peer}
        sealed[peer] = seal_for(secret, pair.of_key + pair.of_seed, associated, random)
    return sealed


def open_shares(
    delivery: PlanDelivery, site: str, common: Mapping[str, bytes]
) -> dict[str, SharePair]:
    """Return the shares that `site` was sent, by their owner.

    Raises
    ------
    MaskingError
        If a site of the plan sent none (`missing_shares`), or one does not open
        (`altered_ciphertext`).
    """
    senders = {key.site: key for key in delivery.plan.keys if key.site != site}
    if set(delivery.shares) != set(senders):
        raise MaskingError("The shares are not of the plan's sites.", code="missing_shares")
    held = {}
    for peer, key in senders.items():
        context = _context(key)
        secret = share_key(common[peer], context, peer, site)
        associated = {**context, "from": peer, "to": site}
        pair = open_sealed(secret, delivery.shares[peer], associated)
        if len(pair) != 2 * SHARE_BYTES:
            raise MaskingError("A site's shares have another length.", code="bad_share")
        held[peer] = SharePair(of_key=pair[:SHARE_BYTES], of_seed=pair[SHARE_BYTES:])
    return held


def _context(key: MaskKey) -> dict[str, Any]:
    return {"round": key.round_id, "exchange": key.exchange, "mask_key": key.to_document()}
