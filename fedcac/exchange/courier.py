"""The courier moves bytes between the coordinator and the sites' spools. It is not trusted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcac.exchange.mailbox import DirectoryMailbox, Mailbox, MemoryMailbox
from fedcac.vocabulary import SiteName

__all__ = ["Courier", "MailboxCourier", "Spool"]


@dataclass(frozen=True)
class Spool:
    """A site's two mailboxes: `inbox` is written by the courier, `outbox` by the agent."""

    inbox: Mailbox
    outbox: Mailbox

    @classmethod
    def in_memory(cls) -> Spool:
        """Return an empty spool in memory."""
        return cls(MemoryMailbox(), MemoryMailbox())

    @classmethod
    def at(cls, root: Path) -> Spool:
        """Return the spool of a directory, made if it does not exist."""
        return cls(DirectoryMailbox(root / "inbox"), DirectoryMailbox(root / "outbox"))


class Courier(ABC):
    """Dispatch and collection are decoupled: a site may take days to answer."""

    @abstractmethod
    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        """Bring a parcel to a site's inbox; sending it again does nothing."""

    @abstractmethod
    def collect(self, site: SiteName, name: str) -> bytes | None:
        """Return a parcel of a site's outbox, or None while there is none."""


class MailboxCourier(Courier):
    """Moves parcels between mailboxes on one machine, in memory or on disk."""

    def __init__(self, spools: Mapping[SiteName, Spool]) -> None:
        self._spools = dict(spools)

    def send(self, site: SiteName, name: str, payload: bytes) -> None:
        """Put a parcel into the site's inbox."""
        self._spools[site].inbox.put(name, payload)

    def collect(self, site: SiteName, name: str) -> bytes | None:
        """Read a parcel of the site's outbox."""
        return self._spools[site].outbox.get(name)
