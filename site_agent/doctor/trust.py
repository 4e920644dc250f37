"""Checks of settings, keys, enrolment and the rights that keep agent and courier apart."""

from __future__ import annotations

import stat
from pathlib import Path

from fedcac.errors import FedcacError
from fedcac.exchange import Offer, Spool, parcel_name
from fedcac.exchange.parcels import rounds_in
from fedcac.signing import PublicKey, SigningKey, trusted
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, skipped, warning
from site_agent.rounds.peers import known_peers

__all__ = ["TRUST_CHECKS"]

_FEW_PEERS = 2

_ENROL = (
    "Send the lead the request that `init` wrote, or without a kit keys/site.pub, and read them "
    "its fingerprint."
)


def _settings(situation: Situation) -> Finding:
    settings = situation.settings
    lead = PublicKey.from_text(settings.lead_key)
    found = f"site {settings.name}, approval {settings.approval}; lead {lead.fingerprint}"
    if settings.approval == "auto":
        return warning(
            found,
            "Every round with the lead's signature runs at once; `approval: manual` asks a person.",
        )
    return ok(found)


def _identity(situation: Situation) -> Finding:
    folder = situation.folder
    key = SigningKey.load(folder.key_path)
    private = [path for path in (folder.key_path, folder.secret_path) if path.exists()]
    open_ones = [path.name for path in private if path.stat().st_mode & 0o077]
    if open_ones:
        return failed(
            f"{', '.join(open_ones)} can be read by others",
            "`chmod 600 keys/site.key keys/pseudonym.secret`; if others had accounts here, make "
            "a new key and have it enrolled.",
        )
    public = folder.key_path.with_suffix(".pub")
    if not public.exists() or PublicKey.from_text(public.read_text("ascii")) != key.public:
        return warning(
            f"site.pub is not the half of site.key; this site is {key.public.fingerprint}",
            "Send the lead what `fedcac-site keys request` writes, and compare the fingerprint.",
        )
    return ok(f"keys are private; this site is {key.public.fingerprint}")


def _enrolment(situation: Situation) -> Finding:
    """Say whether the lead addresses this site, from the signed offers that lie here."""
    folder, settings = situation.folder, situation.settings
    if not (folder.spool_path / "inbox").is_dir():
        return skipped("no parcel has arrived yet", _ENROL)
    inbox = Spool.at(folder.spool_path).inbox
    keys = trusted([PublicKey.from_text(settings.lead_key)])
    own = SigningKey.load(folder.key_path).public
    n_offers = 0
    for round_id in rounds_in(inbox):
        try:
            offer, _ = Offer.open(inbox.get(parcel_name(round_id, "offer")) or b"", keys)
        except FedcacError:
            continue
        if settings.name not in offer.sites:
            continue
        n_offers += 1
        told = offer.masking.site_keys.get(settings.name) if offer.masking else None
        if told is not None and told != own.to_text():
            return failed(
                "the lead has enrolled another key under this site's name",
                "Compare the fingerprint with the lead over another channel, and enrol again.",
            )
    if not n_offers:
        return skipped("no offer to this site has arrived yet", _ENROL)
    n_peers = len(known_peers(folder))
    found = f"{n_offers} offers by the pinned lead name this site; {n_peers} other sites known"
    if n_peers < _FEW_PEERS:
        return ok(found + " (masked sums need two: `fedcac-site peer add`)")
    return ok(found)


def _spool(situation: Situation) -> Finding:
    # The spool may be a link to a disk that agent and courier share.
    spool, root = situation.folder.spool_path.resolve(), situation.folder.root
    if not spool.is_dir():
        return skipped("there is no spool yet; the first `fedcac-site run` makes it")
    inbox, outbox = spool / "inbox", spool / "outbox"
    bad = [path.name for path in (spool, inbox, outbox) if path.is_dir() and _mode(path) & 0o002]
    if bad:
        return failed(
            f"every account of this computer can write to {', '.join(bad)}",
            "`chmod o-rwx spool spool/inbox spool/outbox`.",
        )
    if outbox.is_dir() and _mode(outbox) & 0o020:
        return failed(
            "the outbox can be written by the group: a courier could put words in its mouth",
            "`chmod g-w spool/outbox`.",
        )
    if any(_is_listable(path) for path in (inbox, outbox)):
        return warning(
            "every account of this computer can list which rounds this site takes part in",
            "`chmod o-rwx spool spool/inbox spool/outbox`.",
        )
    is_shared = inbox.is_dir() and bool(_mode(inbox) & 0o020)
    if not is_shared:
        return ok("for this user alone: courier and agent are one user, or parcels come by hand")
    if not _mode(inbox) & stat.S_ISGID:
        return failed(
            "the inbox is shared without the setgid bit: the agent may not read what arrives",
            "`chmod g+s spool/inbox`.",
        )
    exposed = [
        path.name
        for path in (root / "keys", situation.folder.database_path, situation.folder.ledger_path)
        if path.exists() and _is_open_to(path, inbox.stat().st_gid)
    ]
    if exposed:
        return failed(
            f"the courier's group can read {', '.join(exposed)}",
            "Take the group's rights away from everything but the spool: `chmod g-rwx`.",
        )
    return ok("the courier's group may write the inbox and read the outbox, and nothing else")


def _mode(path: Path) -> int:
    return path.stat().st_mode


def _is_listable(path: Path) -> bool:
    # Behind a folder that others cannot enter, its own bits matter to nobody.
    if not path.is_dir():
        return False
    is_reachable = all(_mode(parent) & 0o001 for parent in (path.parent, path.parent.parent))
    return is_reachable and bool(_mode(path) & 0o004)


def _is_open_to(path: Path, group: int) -> bool:
    facts = path.stat()
    return facts.st_gid == group and bool(facts.st_mode & 0o060)


TRUST_CHECKS = (
    Check("settings", _settings, needs_settings=False),
    Check("identity", _identity),
    Check("enrolment", _enrolment),
    Check("spool", _spool),
)
