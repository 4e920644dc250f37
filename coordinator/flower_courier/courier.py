"""The courier as the study engine sees it: a journal to write to and read from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from coordinator.flower_courier.folder import CourierFolder
from coordinator.flower_courier.journal import CourierJournal
from fedcac.exchange import Courier, MailboxCourier, Spool
from fedcac.vocabulary import SiteName

__all__ = ["ClosedCourier", "FlowerCourier", "SplitCourier", "courier_of"]


class FlowerCourier(Courier):
    """Hands parcels to the courier's process through its journal; touches no network."""

    def __init__(self, journal: CourierJournal) -> None:
        self._journal = journal

    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        """Have a parcel brought to a site; RoundError `parcel_changed` if it was another one."""
        self._journal.add(site, name, payload)

    def collect(self, site: SiteName, name: str) -> bytes | None:
        """Return a parcel that has come, or have it fetched and return None."""
        return self._journal.ask(site, name)


class SplitCourier(Courier):
    """Some sites over Flower, the others over spool folders that are carried by hand."""

    def __init__(self, by_site: Mapping[SiteName, Courier], others: Courier) -> None:
        self._by_site = dict(by_site)
        self._others = others

    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        """Send a parcel on the site's own way."""
        self._by_site.get(site, self._others).send(site, name, payload)

    def collect(self, site: SiteName, name: str) -> bytes | None:
        """Collect a parcel on the site's own way."""
        return self._by_site.get(site, self._others).collect(site, name)


class ClosedCourier(Courier):
    """The way to a revoked site, or one without any: nothing goes there, nothing comes back."""

    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        """Send nothing."""

    def collect(self, site: SiteName, name: str) -> bytes | None:
        """Return None: whatever lies there is not looked at."""


def courier_of(home: Path, spools: Mapping[str, str], closed: Collection[str] = ()) -> Courier:
    """Return the courier for the sites of a coordinator's folder.

    Parameters
    ----------
    home
        The coordinator's folder; `courier` in it is the courier's.
    spools
        Each enrolled site's spool folder; not looked at for sites over Flower.
    closed
        Sites that are revoked.
    """
    folder = CourierFolder(home / "courier")
    roster = folder.roster()
    by_hand = {
        SiteName(name): Spool.at(Path(spool))
        for name, spool in spools.items()
        if name not in roster and name not in closed and spool
    }
    others = MailboxCourier(by_hand)
    ways: dict[SiteName, Courier] = {}
    if roster:
        flower = FlowerCourier(CourierJournal(folder.journal_path))
        ways = {SiteName(name): flower for name in roster}
    # A site with neither a node's key nor a spool folder cannot be reached any more than a revoked
    # one; an empty path would be this process's own folder.
    nowhere = {name for name, spool in spools.items() if not spool and name not in roster}
    ways.update({SiteName(name): ClosedCourier() for name in {*closed, *nowhere}})
    return SplitCourier(ways, others) if ways else others
