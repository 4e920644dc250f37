"""What a site keeps between the steps of masked sums, so that it survives a restart.

It holds secrets: whoever reads it can open this site's vectors. It belongs where the site keeps its
signing key, is written before the message that follows from it leaves, and is never put back to an
earlier version, or a site could sign two survivor lists.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedcac.masking.messages import (
    ChannelList,
    ExchangePlan,
    MaskingMessage,
    Raw32,
    RoundId,
    SiteWord,
    SurvivorList,
)
from fedcac.masking.shares import SharePair

__all__ = ["ExchangeSecrets", "SiteState"]


class ExchangeSecrets(MaskingMessage):
    """One exchange: the site's secrets, and its shares of every site's by their owner.

    `plan` is the one that was answered, `signed` the one survivor list that was signed.
    """

    exchange: Annotated[int, Field(ge=1)]
    mask_key: Annotated[Raw32, Field(repr=False)]
    seed: Annotated[Raw32, Field(repr=False)]
    held: Annotated[dict[SiteWord, SharePair], Field(repr=False)]
    plan: ExchangePlan | None = None
    signed: SurvivorList | None = None


class SiteState(MaskingMessage):
    """A site in a round: its channel key, the list it accepted, and its exchanges."""

    round_id: RoundId
    site: SiteWord
    threshold: Annotated[int, Field(ge=2)]
    channel_key: Annotated[Raw32, Field(repr=False)]
    channels: ChannelList | None
    newest: Annotated[int, Field(ge=0)]
    exchanges: tuple[ExchangeSecrets, ...]
