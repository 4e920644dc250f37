"""The command line and environment of the stock SuperNode that stands beside the courier."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from site_agent.flower_courier.line import line_environment
from site_agent.flower_courier.settings import CourierFolder

__all__ = ["supernode_command", "supernode_environment"]


def supernode_command(folder: CourierFolder) -> list[str]:
    """Return the command of a SuperNode that runs no app itself and installs nothing.

    In process isolation it waits for an executor that knows the secret; the only one is this
    project's courier, which never unpacks what the SuperLink sends as code.
    """
    settings = folder.settings()
    program = Path(sys.executable).with_name("flower-supernode")
    return [
        str(program),
        "--superlink",
        settings.superlink,
        "--root-certificates",
        str(folder.trust_path()),
        "--auth-supernode-private-key",
        str(folder.key_path.resolve()),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(folder.secret_path.resolve()),
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.port),
    ]


def supernode_environment(
    folder: CourierFolder, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment: no telemetry, no update check, Flower's files in our folder."""
    return {
        **line_environment(folder.settings(), environment),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str((folder.root / "flwr").resolve()),
    }
