"""The lead's notices about other sites' keys, taken out of the inbox and kept.

A notice takes trust away at once: a key that it names counts no more here, whatever was confirmed
before. It gives none: a new key counts when people here have confirmed it.
"""

from __future__ import annotations

from fedcac.errors import FedcacError
from fedcac.exchange import DirectoryMailbox
from fedcac.joining import Notice, is_notice_name
from fedcac.signing import PublicKey
from site_agent.settings import SiteFolder

__all__ = ["distrusted_keys", "newest_notice", "notices_of"]


def notices_of(folder: SiteFolder) -> tuple[Notice, ...]:
    """Return every notice that the lead signed, oldest first.

    What has come is kept in the site's folder, so that an inbox that was cleared, or a courier
    that brings nothing more, does not bring a revoked key back.

    Raises
    ------
    UsageError
        If the site's settings cannot be read.
    SignatureError
        If a notice that was kept was altered since.
    """
    roots = (folder.spool_path / "inbox", folder.root / "notices")
    boxes = [DirectoryMailbox(root) for root in roots if root.is_dir()]
    if not any(is_notice_name(name) for box in boxes for name in box.names()):
        return ()
    lead = PublicKey.from_text(folder.settings().lead_key)
    arrived, kept = DirectoryMailbox(roots[0]), DirectoryMailbox(roots[1])
    found: dict[int, Notice] = {}
    for name in filter(is_notice_name, arrived.names()):
        payload = arrived.get(name) or b""
        try:
            Notice.open(payload, lead)
            kept.put(name, payload)
        except FedcacError:
            # Not the lead's, or another one in the place of one that is kept: it says nothing.
            continue
    for name in filter(is_notice_name, kept.names()):
        notice = Notice.open(kept.get(name) or b"", lead)
        found[notice.number] = notice
    return tuple(found[number] for number in sorted(found))


def distrusted_keys(folder: SiteFolder) -> frozenset[str]:
    """Return the keys that count no more, whatever was confirmed here."""
    return frozenset(notice.former_key for notice in notices_of(folder))


def newest_notice(folder: SiteFolder, site: str) -> Notice | None:
    """Return the newest notice about a site, None if there is none."""
    about = [notice for notice in notices_of(folder) if notice.site == site]
    return about[-1] if about else None
