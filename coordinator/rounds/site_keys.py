"""Which keys a site's parcels may be signed with: on arrival, and once they are stored."""

from __future__ import annotations

from datetime import datetime

from coordinator.state.store import CoordinatorStore
from fedcac.signing import PublicKey, TrustedKeys, trusted

__all__ = ["SiteKeys"]


class SiteKeys:
    """The keys of the enrolled sites.

    Parameters
    ----------
    store
        Holds the key of every site as it is now; its register knows former keys and revocations.
    """

    def __init__(self, store: CoordinatorStore) -> None:
        self._store = store
        self._register = store.register

    def arriving(self, site: str) -> TrustedKeys:
        """Return the key that a parcel must be signed with to be taken in; none if revoked."""
        member = self._store.members(site).get(site)
        former = () if self._register is None else self._register.former_keys(site)
        return {} if member is None or member.key in former else trusted([member.key])

    def stored(self, site: str) -> TrustedKeys:
        """Return the keys that a stored parcel may be signed with: it was verified on arrival."""
        former = () if self._register is None else self._register.former_keys(site)
        return trusted([*former, self._store.sites(site)[site].key])

    def at(self, moment: datetime) -> dict[str, PublicKey]:
        """Return every site's key as it was at a moment."""
        sites = self._store.sites().items()
        if self._register is None:
            return {name: site.key for name, site in sites}
        return {name: self._register.key_at(name, moment, site.key) for name, site in sites}
