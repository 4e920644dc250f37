"""Masked sums: the coordinator learns a sum over sites and nothing else about a site.

After Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017, the variant with signatures. docs/explanation/secure-sums.md says what it hides from whom.
"""

from __future__ import annotations

from fedcac.masking.coordinator import MaskedSum, MaskingCoordinator, MaskingExchange
from fedcac.masking.errors import MaskingError
from fedcac.masking.messages import (
    Block,
    ChannelKey,
    ChannelList,
    ExchangeKeys,
    ExchangePlan,
    MaskedInput,
    MaskKey,
    PlanDelivery,
    SurvivorList,
    SurvivorSignature,
    UnmaskRequest,
    UnmaskShares,
)
from fedcac.masking.site import MaskingSite
from fedcac.masking.state import SiteState

__all__ = [
    "Block",
    "ChannelKey",
    "ChannelList",
    "ExchangeKeys",
    "ExchangePlan",
    "MaskKey",
    "MaskedInput",
    "MaskedSum",
    "MaskingCoordinator",
    "MaskingError",
    "MaskingExchange",
    "MaskingSite",
    "PlanDelivery",
    "SiteState",
    "SurvivorList",
    "SurvivorSignature",
    "UnmaskRequest",
    "UnmaskShares",
]
