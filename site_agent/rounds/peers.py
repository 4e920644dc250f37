"""`fedcac-site peer`: the keys of other sites, confirmed by people and not by the lead."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format, say
from fedcac.errors import UsageError
from fedcac.joining import compared
from fedcac.joining.key_files import public_key_text
from fedcac.signing import PublicKey
from site_agent.joining.notices import distrusted_keys, newest_notice
from site_agent.settings import SiteFolder

__all__ = ["LivePeers", "add_peer_verbs", "known_peers"]


def known_peers(folder: SiteFolder) -> dict[str, PublicKey]:
    """Return the signing keys of other sites that were confirmed here and still count, by name.

    A key that the lead's notices name as replaced or revoked counts no more.

    Raises
    ------
    SignatureError
        If a file there is not a public key.
    """
    distrusted = distrusted_keys(folder)
    confirmed = _confirmed(folder).items()
    return {name: key for name, key in confirmed if key.to_text() not in distrusted}


def _confirmed(folder: SiteFolder) -> dict[str, PublicKey]:
    return {
        path.stem: PublicKey.from_text(path.read_text(encoding="ascii"))
        for path in sorted(folder.peers_path.glob("*.pub"))
    }


class LivePeers(Mapping[str, PublicKey]):
    """`known_peers` as it is whenever it is looked at: a revocation counts without a restart."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> PublicKey:
        return known_peers(self._folder)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(known_peers(self._folder))

    def __len__(self) -> int:
        return len(known_peers(self._folder))


def add_peer_verbs(verbs: Any) -> None:
    """Add `peer add`, `peer list`, `peer replace` and `peer remove`."""
    peer = verbs.add_parser("peer", help="other sites' keys, needed for sums over sites")
    peer_verbs = peer.add_subparsers(metavar="VERB", required=True)
    add = peer_verbs.add_parser("add", help="trust a site's key after comparing its fingerprint")
    add.add_argument("name", help="the other site's name in the consortium")
    add.add_argument("key", type=Path, help="its site.pub, from its own people")
    add_format(add, _add)
    add_format(peer_verbs.add_parser("list", help="show every key and its fingerprint"), _list)
    replace = peer_verbs.add_parser(
        "replace", help="trust the new key of a site of which the lead says that it changed"
    )
    replace.add_argument("name")
    replace.add_argument("--fingerprint", help="what that site's people read to you")
    add_format(replace, _replace)
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
    folder = SiteFolder(arguments.home)
    path = _path(arguments)
    if arguments.name == folder.settings().name:
        raise UsageError(
            "This is this site's own name.",
            code="bad_site",
            cure="Give the name under which the other site is enrolled.",
        )
    key = PublicKey.from_text(public_key_text(arguments.key))
    if path.exists() and PublicKey.from_text(path.read_text(encoding="ascii")) != key:
        raise UsageError(
            f"Another key of {arguments.name} is trusted here.",
            code="peer_exists",
            cure="If the site has a new key, confirm that with its people, then "
            f"`fedcac-site peer remove {arguments.name}` first.",
        )
    if key.to_text() in distrusted_keys(folder):
        raise UsageError(
            f"The lead says that this key of {arguments.name} was replaced or revoked.",
            code="key_distrusted",
            cure=f"If the site has a new key: `fedcac-site peer replace {arguments.name}`.",
        )
    _trust(path, key)
    text = (
        f"{arguments.name} is trusted with the fingerprint\n  {key.fingerprint}\n"
        "Compare it with that site's people by telephone or in person. If it differs: "
        f"`fedcac-site peer remove {arguments.name}`."
    )
    return Outcome(text, {"name": arguments.name, "fingerprint": key.fingerprint})


def _trust(path: Path, key: PublicKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(key.to_text() + "\n", encoding="ascii")


def _list(arguments: argparse.Namespace) -> Outcome:
    folder = SiteFolder(arguments.home)
    known = known_peers(folder)
    lines = [f"{name}  {key.fingerprint}" for name, key in known.items()]
    ended: dict[str, str | None] = {}
    for name in _confirmed(folder).keys() - known.keys():
        notice = newest_notice(folder, name)
        new = None if notice is None else notice.new_key
        ended[name] = None if new is None else PublicKey.from_text(new).fingerprint
        lines.append(
            f"{name}  counts no more: the lead says that it "
            + ("is revoked" if new is None else f"changed; `peer replace {name}` confirms the new")
        )
    text = "\n".join(lines) or "No other site's key is confirmed here; `peer add` adds one."
    peers = {name: key.fingerprint for name, key in known.items()}
    return Outcome(text, {"peers": peers, "ended": ended})


def _replace(arguments: argparse.Namespace) -> Outcome:
    folder, path = SiteFolder(arguments.home), _path(arguments)
    notice = newest_notice(folder, arguments.name)
    if notice is None or notice.new_key is None:
        raise UsageError(
            f"The lead names no new key of {arguments.name}.",
            code="unknown_peer",
            cure="Wait until the lead's notice has come. With a site.pub from that site's own "
            f"people: `fedcac-site peer remove {arguments.name}`, then `fedcac-site peer add`.",
        )
    key = PublicKey.from_text(notice.new_key)
    signed = (
        "its former key signed that" if notice.is_signed_by_former else "its former key did not"
    )
    say(f"The lead says that {arguments.name} has a new key; {signed}.")
    compared(
        key.fingerprint,
        arguments.fingerprint,
        arguments.name,
        may_ask=arguments.format == "text",
    )
    _trust(path, key)
    return Outcome(
        f"{arguments.name} is trusted with its new key:\n  {key.fingerprint}",
        {"name": arguments.name, "fingerprint": key.fingerprint},
    )


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
