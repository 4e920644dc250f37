"""A startup kit in a site's folder: `startup/` is the lead's and read-only, `local/` is ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fedcac.errors import UsageError
from fedcac.joining import Kit, open_kit
from fedcac.joining.kits import MANIFEST_NAME, check_startup
from fedcac.signing import PublicKey

__all__ = ["COURIER_FILES", "install_courier_files", "install_kit", "installed_kit", "read_kit"]

COURIER_FILES = ("ca.crt", "fedcac-courier.pyz")
"""What the courier has of the kit; it runs as another user, so it gets copies."""

_LOCAL_NOTE = """This folder is yours. Put your proxy's certificate, your disclosure policy and your
notes here; no kit of the lead ever writes to it.
"""


def read_kit(path: Path, lead: PublicKey | None = None) -> Kit:
    """Read and verify a kit's file; UsageError `no_kit` if there is none.

    Raises
    ------
    SignatureError
        As `fedcac.joining.open_kit`.
    """
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"There is no kit at {path}.",
            code="no_kit",
            cure="Give the file that the lead sent, as it came, not unpacked.",
        ) from error
    return open_kit(payload, lead)


def install_kit(root: Path, kit: Kit) -> None:
    """Put a verified kit in the place of the one before, whole or not at all.

    Parameters
    ----------
    root
        The site's folder.
    kit
        The kit; its site's name and lead have been compared already.

    Raises
    ------
    UsageError
        `kit_older` if a newer one is installed.
    """
    present = installed_kit(root)
    if present is not None and kit.manifest.revision < present.manifest.revision:
        raise UsageError(
            f"Revision {present.manifest.revision} is installed, and this kit is "
            f"{kit.manifest.revision}.",
            code="kit_older",
            cure="Ask the lead for the newest kit; a site never goes back to an older one.",
        )
    target, fresh, former = root / "startup", root / ".startup.new", root / ".startup.former"
    for folder in (fresh, former):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, payload in kit.startup.items():
        (fresh / name).write_bytes(payload)
        (fresh / name).chmod(0o444)
    if target.exists():
        os.rename(target, former)
    os.rename(fresh, target)
    shutil.rmtree(former, ignore_errors=True)
    local = root / "local"
    if not local.exists():
        local.mkdir()
        (local / "README.txt").write_text(_LOCAL_NOTE, encoding="utf-8")


def installed_kit(root: Path) -> Kit | None:
    """Return the installed kit, None if the site joined without one.

    Raises
    ------
    SignatureError
        `kit_altered` if a file of `startup` is not what the lead signed any more.
    """
    startup = root / "startup"
    if not (startup / MANIFEST_NAME).exists():
        return None
    return check_startup({path.name: path.read_bytes() for path in sorted(startup.iterdir())}, None)


def install_courier_files(kit: Kit, courier_home: Path) -> None:
    """Copy what the courier has of a kit into its folder, file by file and whole.

    Raises
    ------
    UsageError
        `no_rights` if the folder belongs to the courier's user and this is another.
    """
    try:
        courier_home.mkdir(parents=True, exist_ok=True)
        for name in COURIER_FILES:
            temporary = courier_home / f"{name}.part"
            temporary.write_bytes(kit.startup[name])
            temporary.chmod(0o644)
            os.replace(temporary, courier_home / name)
    except PermissionError as error:
        raise UsageError(
            f"{courier_home} may not be written to by this user.",
            code="no_rights",
            cure="Run this once as a user who may write to the site's and the courier's folder.",
        ) from error
