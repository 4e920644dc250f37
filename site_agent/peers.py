"""`fedcac-site peer`: the keys of other sites, confirmed by people and not by the lead."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from fedcac.errors import UsageError
from fedcac.signing import PublicKey
from site_agent.settings import SiteFolder

__all__ = ["add_peer_verbs", "known_peers"]


def known_peers(folder: SiteFolder) -> dict[str, PublicKey]:
    """Return the signing keys of other sites that were confirmed here, by name.

    Raises
    ------
    SignatureError
        If a file there is not a public key.
    """
    return {
        path.stem: PublicKey.from_text(path.read_text(encoding="ascii"))
        for path in sorted(folder.peers_path.glob("*.pub"))
    }


def add_peer_verbs(verbs: Any) -> None:
    """Add `peer add`, `peer list` and `peer remove`."""
    peer = verbs.add_parser("peer", help="other sites' keys, needed for sums over sites")
    peer_verbs = peer.add_subparsers(metavar="VERB", required=True)
    add = peer_verbs.add_parser("add", help="trust a site's key after comparing its fingerprint")
    add.add_argument("name", help="the other site's name in the consortium")
    add.add_argument("key", type=Path, help="its site.pub, from its own people")
    add_format(add, _add)
    add_format(peer_verbs.add_parser("list", help="show every key and its fingerprint"), _list)
    remove = peer_verbs.add_parser("remove", help="trust a site's key no longer")
    remove.add_argument("name")
    add_format(remove, _remove)


def _path(arguments: argparse.Namespace) -> Path:
    name: str = arguments.name
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise UsageError(
            "A site's name has letters, digits, '-' and '_'.",
            code="bad_site",
            cure="Give the name under which the site is enrolled.",
        )
    return SiteFolder(arguments.home).peers_path / f"{name}.pub"


def _add(arguments: argparse.Namespace) -> Outcome:
    settings = SiteFolder(arguments.home).settings()
    path = _path(arguments)
    if arguments.name == settings.name:
        raise UsageError("This is this site's own name.", code="bad_site")
    key = PublicKey.from_text(arguments.key.read_text(encoding="ascii"))
    if path.exists() and PublicKey.from_text(path.read_text(encoding="ascii")) != key:
        raise UsageError(
            f"Another key of {arguments.name} is trusted here.",
            code="peer_exists",
            cure="If the site has a new key, confirm that with its people, then "
            f"`fedcac-site peer remove {arguments.name}` first.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(key.to_text() + "\n", encoding="ascii")
    text = (
        f"{arguments.name} is trusted with the fingerprint\n  {key.fingerprint}\n"
        "Compare it with that site's people by telephone or in person. If it differs: "
        f"`fedcac-site peer remove {arguments.name}`."
    )
    return Outcome(text, {"name": arguments.name, "fingerprint": key.fingerprint})


def _list(arguments: argparse.Namespace) -> Outcome:
    known = known_peers(SiteFolder(arguments.home))
    lines = [f"{name}  {key.fingerprint}" for name, key in known.items()]
    text = "\n".join(lines) or "No other site's key is confirmed here; `peer add` adds one."
    return Outcome(text, {"peers": {name: key.fingerprint for name, key in known.items()}})


def _remove(arguments: argparse.Namespace) -> Outcome:
    path = _path(arguments)
    if not path.exists():
        raise UsageError(
            f"No key of {arguments.name} is trusted here.",
            code="unknown_peer",
            cure="`fedcac-site peer list` shows every key.",
        )
    path.unlink()
    return Outcome(f"{arguments.name} is no longer trusted.", {"removed": arguments.name})
