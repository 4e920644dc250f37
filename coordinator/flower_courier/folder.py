"""The courier's folder at the coordinator: settings, certificates, keys, roster and journal.

Holds neither the lead's signing key nor the coordinator's database: the courier's process is
given this folder and no other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.flower_courier.authority import Authority
from coordinator.flower_courier.certificates import replace_file
from fedcac.errors import UsageError
from fedcac.exchange.couriering import CourierKey, CourierPublicKey

__all__ = ["CourierFolder", "CourierPorts"]

Port = Annotated[int, Field(ge=1, le=65535)]


class CourierPorts(BaseModel):
    """Where the processes listen: `courier.json`.

    Attributes
    ----------
    public_host, public_port
        The one port that sites reach: the Fleet interface and health, over TLS.
    superlink_port
        Loopback port of the SuperLink, with all of its interfaces.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    public_host: str = "0.0.0.0"  # noqa: S104 - the sites are elsewhere
    public_port: Port = 8443
    superlink_port: Port = 8444


class CourierFolder:
    """The files of the coordinator's courier."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def key_path(self) -> Path:
        """The key that signs orders; sites pin its public half."""
        return self.root / "courier.key"

    @property
    def secret_path(self) -> Path:
        """What an executor shows the SuperLink to be given a task."""
        return self.root / "superexec.secret"

    @property
    def journal_path(self) -> Path:
        """The journal's folder, which the engine's process writes too."""
        return self.root / "journal"

    @property
    def link_path(self) -> Path:
        """The SuperLink's own folder: its database and Flower's files; nobody else writes there."""
        return self.root / "link"

    @property
    def _ports_path(self) -> Path:
        return self.root / "courier.json"

    @property
    def _roster_path(self) -> Path:
        return self.root / "roster.json"

    def create(
        self, hosts: Sequence[str], ports: CourierPorts, passphrase: bytes | None = None
    ) -> CourierPublicKey:
        """Make the folder with its certificates and key; UsageError if there is one.

        The certificate authority comes beside it, into `authority`, its key encrypted if there is
        a passphrase.
        """
        if self._ports_path.exists():
            raise UsageError(
                f"{self.root} already holds a courier.",
                code="courier_exists",
                cure="Use it as it is, or give another folder.",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        Authority(self.root.parent / "authority", self.root).create(hosts, passphrase)
        key = CourierKey.generate()
        key.save(self.key_path)
        self.secret_path.touch(mode=0o600)
        self.secret_path.write_bytes(secrets.token_bytes(32))
        replace_file(self._ports_path, (ports.model_dump_json(indent=2) + "\n").encode("utf-8"))
        return key.public

    def ports(self) -> CourierPorts:
        """Read `courier.json`; UsageError if it is missing or malformed."""
        try:
            return CourierPorts.model_validate_json(self._ports_path.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.root} is not a courier's folder: it has no courier.json.",
                code="no_courier_folder",
                cure="Make one with `fedcac-coordinator init --host`.",
            ) from error
        except ValidationError as error:
            raise UsageError(
                f"{self._ports_path} has problems: {error}",
                code="bad_settings",
                cure="docs/how-to/run-over-flower.md describes each key.",
            ) from error

    def key(self) -> CourierKey:
        """Read the key that signs orders."""
        return CourierKey.load(self.key_path)

    def public_key(self) -> CourierPublicKey:
        """Read the public half, which sites pin; the private one is the courier's alone."""
        path = self.key_path.with_name(self.key_path.name + ".pub")
        return CourierPublicKey.from_text(path.read_text(encoding="ascii"))

    def roster(self) -> dict[str, CourierPublicKey]:
        """Return the node key of each site over Flower; empty while there is no courier."""
        try:
            document = json.loads(self._roster_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {name: CourierPublicKey.from_text(text) for name, text in document.items()}

    def add_site(self, name: str, key: CourierPublicKey) -> None:
        """Put a site on the roster; UsageError `site_exists` if the name or key is there."""
        self.ports()
        keys = {name: key.to_text() for name, key in self.roster().items()}
        if name in keys or key.to_text() in keys.values():
            raise UsageError(
                f"Site '{name}' or its key is on the roster already.",
                code="site_exists",
                cure="A new key comes with a renewal: `fedcac-coordinator enrolments renew`.",
            )
        self._write_roster({**keys, name: key.to_text()})

    def replace_site(self, name: str, key: CourierPublicKey | None) -> None:
        """Put another key in a site's place on the roster, or with None take it off."""
        keys = {name: key.to_text() for name, key in self.roster().items()}
        keys.pop(name, None)
        if key is not None:
            keys[name] = key.to_text()
        if keys or self._roster_path.exists():
            self._write_roster(keys)

    def _write_roster(self, keys: Mapping[str, str]) -> None:
        replace_file(self._roster_path, json.dumps(keys, indent=2).encode("utf-8"))
