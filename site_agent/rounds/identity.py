"""Who a site is, and whose keys it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedcac.signing import PublicKey, SigningKey

__all__ = ["SiteIdentity"]


@dataclass(frozen=True)
class SiteIdentity:
    """Who the site is and whom it trusts.

    `peers` holds the signing keys of other sites, confirmed out of band. They alone decide with
    whom the site adds up: keys that come with an offer are compared with them and never believed.
    """

    name: str
    key: SigningKey
    lead_key: PublicKey
    peers: Mapping[str, PublicKey] = field(default_factory=dict)
