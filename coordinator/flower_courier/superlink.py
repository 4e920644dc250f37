"""The command line and environment of the stock SuperLink behind the front."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.flower_courier.folder import CourierFolder

__all__ = ["superlink_command", "superlink_environment"]


def superlink_command(folder: CourierFolder) -> list[str]:
    """Return the command of a SuperLink on loopback that starts no app and installs nothing."""
    root = folder.root.resolve()
    return [
        str(Path(sys.executable).with_name("flower-superlink")),
        "--host",
        "127.0.0.1",
        "--port",
        str(folder.ports().superlink_port),
        "--ssl-ca-certfile",
        str(root / "ca.crt"),
        "--ssl-certfile",
        str(root / "server.pem"),
        "--ssl-keyfile",
        str(root / "server.key"),
        "--enable-supernode-auth",
        "--database",
        str(folder.link_path.resolve() / "superlink.sqlite"),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(folder.secret_path.resolve()),
        "--disable-runtime-dependency-installation",
    ]


def superlink_environment(
    folder: CourierFolder, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment: no telemetry, no update check, Flower's files in its own folder."""
    return {
        **environment,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str((folder.link_path / "flwr").resolve()),
        "NO_PROXY": "127.0.0.1,localhost",
    }
