"""The courier's own folder at a site: `courier.toml`, its key, its state.

Of the agent's folder it names the spool and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedcac.errors import UsageError
from fedcac.exchange.couriering import CourierKey, CourierPublicKey
from fedcac.exchange.mailbox import DirectoryMailbox
from site_agent.flower_courier.carrying import SiteCarrier

__all__ = ["CourierFolder", "CourierSettings", "create_courier_folder", "settings_of"]


class CourierSettings(BaseModel):
    """What site IT decides; paths are relative to the courier's folder unless absolute.

    Attributes
    ----------
    site
        The site's name in the consortium.
    spool
        The agent's spool folder: `inbox` writable by the courier, `outbox` readable.
    superlink
        HOST:PORT of the coordinator's public port.
    ca_certificate
        PEM file of the consortium's own certificate authority.
    coordinator_key
        Public key line of the coordinator's courier; compare it over another channel.
    port
        Loopback port of the SuperNode's runtime interface; nothing else connects to it.
    limit_mb
        What chunks may take on disk; a larger parcel is brought another way.
    proxy
        `http://[USER:PASSWORD@]HOST:PORT` of the hospital's proxy, by which CONNECT goes out.
    extra_ca
        PEM file of the hospital's own authority, where its proxy opens TLS to inspect it. Trusted
        beside `ca_certificate`; orders and parcels are signed beneath it all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    site: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
    spool: str
    superlink: Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]
    ca_certificate: str = "ca.crt"
    coordinator_key: str
    port: Annotated[int, Field(ge=1, le=65535)] = 9100
    limit_mb: Annotated[int, Field(ge=16)] = 2048
    proxy: Annotated[str, Field(pattern=r"^https?://[^\s/]+:[0-9]{1,5}/?$")] | None = None
    extra_ca: str | None = None


class CourierFolder:
    """The files of one site's courier."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def settings_path(self) -> Path:
        """`courier.toml`."""
        return self.root / "courier.toml"

    @property
    def key_path(self) -> Path:
        """The SuperNode's key, which signs receipts too."""
        return self.root / "node.key"

    @property
    def secret_path(self) -> Path:
        """What this courier shows the SuperNode beside it to be given its tasks."""
        return self.root / "runner.secret"

    @property
    def state_path(self) -> Path:
        """The last order's serial and the chunks."""
        return self.root / "state"

    @property
    def node_path(self) -> Path:
        """The number that the SuperLink knows the SuperNode by."""
        return self.state_path / "node-id"

    @property
    def task_path(self) -> Path:
        """The task at work, so that it can be refused after a crash."""
        return self.state_path / "task"

    def trust_path(self) -> Path:
        """Return the PEM file to trust: `ca_certificate`, with `extra_ca` put beside it.

        Raises
        ------
        UsageError
            `bad_certificate` if a file is missing.
        """
        settings = self.settings()
        paths = [self.root / settings.ca_certificate]
        if settings.extra_ca is not None:
            paths.append(self.root / settings.extra_ca)
        for path in paths:
            if not path.is_file():
                raise UsageError(
                    f"There is no certificate at {path}.",
                    code="bad_certificate",
                    cure="Mend ca_certificate or extra_ca in courier.toml.",
                )
        if len(paths) == 1:
            return paths[0].resolve()
        self.state_path.mkdir(parents=True, exist_ok=True)
        combined = self.state_path / "trust.pem"
        temporary = combined.with_suffix(".part")
        temporary.write_bytes(b"\n".join(path.read_bytes() for path in paths))
        os.replace(temporary, combined)
        return combined.resolve()

    def settings(self) -> CourierSettings:
        """Read `courier.toml`; UsageError if it is missing, malformed or has an unknown key."""
        try:
            document = tomllib.loads(self.settings_path.read_text(encoding="utf-8"))
            return settings_of(**document)
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.root} is not a courier's folder: it has no courier.toml.",
                code="no_courier_folder",
                cure="Make one with `courier init`, or give --courier-home.",
            ) from error
        # Neither UTF-8, nor a number that Python reads, nor nested as settings are.
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{self.settings_path} has problems: {error}", code="bad_settings"
            ) from error

    def carrier(self) -> SiteCarrier:
        """Return the carrier over this site's spool."""
        settings = self.settings()
        spool = self.root / settings.spool
        return SiteCarrier(
            site=settings.site,
            inbox=DirectoryMailbox(spool / "inbox"),
            outbox=DirectoryMailbox(spool / "outbox"),
            state=self.state_path,
            key=CourierKey.load(self.key_path),
            coordinator=CourierPublicKey.from_text(settings.coordinator_key),
            limit_bytes=settings.limit_mb * 2**20,
        )


def settings_of(**document: Any) -> CourierSettings:
    """Return settings of their keys; UsageError `bad_settings` says which one cannot be meant."""
    try:
        return CourierSettings.model_validate(document)
    except ValidationError as error:
        # Without the values: a proxy's may hold a password.
        lines = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise UsageError(
            f"The courier's settings have problems: {lines}",
            code="bad_settings",
            cure="docs/how-to/run-over-flower.md describes each key.",
        ) from error


def create_courier_folder(root: Path, settings: CourierSettings) -> CourierPublicKey:
    """Make a courier's folder with its own key; return the public key to send to the lead.

    Raises
    ------
    UsageError
        If there is a courier already (`courier_exists`).
    SignatureError
        If the coordinator's key is none (`bad_courier_key`).
    """
    folder = CourierFolder(root)
    CourierPublicKey.from_text(settings.coordinator_key)
    if folder.settings_path.exists() or folder.key_path.exists():
        raise UsageError(
            f"{root} already holds a courier.",
            code="courier_exists",
            cure="Use it as it is, or give another folder.",
        )
    root.mkdir(parents=True, exist_ok=True)
    key = CourierKey.generate()
    key.save(folder.key_path)
    folder.secret_path.touch(mode=0o600)
    folder.secret_path.write_bytes(secrets.token_bytes(32))
    # A JSON string or number is a TOML one. A proxy may have a password in it.
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in settings.model_dump(exclude_none=True).items()
    ]
    folder.settings_path.touch(mode=0o600)
    folder.settings_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return key.public
