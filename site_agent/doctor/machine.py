"""Checks of the computer: interpreter, packages, device, memory, disks, user."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import re
import shutil
import sys
from pathlib import Path

import fedcac
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, skipped, warning
from site_agent.faults import MINIMUM_FREE_MB

__all__ = ["MACHINE_CHECKS", "needed_packages", "versions_tested"]

_OLDEST_PYTHON = (3, 11)
_MB = 2**20
_ROOM_FOR_WORK_MB = 2048
_LEAST_MEMORY_MB, _MEMORY_MB = 4_000, 8_000
_ARTEFACT_MB = 3
_LEAST_GPU_MB = 4_000
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;(.*))?$")


def _python(_: Situation) -> Finding:
    found = f"Python {sys.version.split()[0]}"
    if sys.version_info < _OLDEST_PYTHON:
        return failed(found, "Install Python 3.11 or newer and make the environment anew.")
    if sys.prefix == sys.base_prefix:
        return warning(
            f"{found}, outside a virtual environment",
            "Install into one (`python3 -m venv`), so that the system's packages stay apart.",
        )
    return ok(found)


def versions_tested() -> dict[str, str]:
    """Return the versions this release was tested with, by normalised name; empty if unknown."""
    path = _constraints()
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==", 1) for line in lines if "==" in line]
    return {_normal(name): version.strip() for name, version in pairs}


def _constraints() -> Path | None:
    package = Path(fedcac.__file__).parent
    # In an installed package, and in a copy of the source.
    places = (package / "constraints.txt", package.parent / "constraints.txt")
    return next((path for path in places if path.is_file()), None)


def _install_words() -> str:
    path = _constraints()
    versions = "" if path is None else f"--constraint {path} "
    return f"`pip install {versions}'fedcac[site]'`"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def needed_packages() -> dict[str, str]:
    """Return what a site needs, by normalised name, with its pin (`==...`) or an empty text."""
    needed: dict[str, str] = {}
    for line in importlib.metadata.requires("fedcac") or []:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, bounds, marker = match.groups()
        if marker is None or re.search(r"extra\s*==\s*['\"]site['\"]", marker):
            needed[_normal(name)] = bounds.strip() if "==" in bounds else ""
    return needed


def _packages(_: Situation) -> Finding:
    tested, missing, wrong, other = versions_tested(), [], [], []
    needed = needed_packages()
    for name, pin in needed.items():
        try:
            # A build's label after `+` (such as +cpu) says how it was built, not which release.
            version = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if pin and version != pin.removeprefix("=="):
            wrong.append(f"{name} {version} (pinned {pin.removeprefix('==')})")
        elif tested.get(name, version) != version:
            other.append(f"{name} {version} (tested {tested[name]})")
    if missing or wrong:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"other than pinned: {', '.join(wrong)}"] if wrong else []
        return failed("; ".join(parts), f"Install with {_install_words()}.")
    if other:
        return warning(
            f"{len(other)} of {len(needed)} are not the versions tested: {', '.join(other)}",
            f"Scores may differ in the last digits; to be sure, install with {_install_words()}.",
        )
    words = "as tested" if tested else "present; the list of tested versions is not installed"
    return ok(f"fedcac {fedcac.__version__}, {len(needed)} packages {words}")


def _gpu(situation: Situation) -> Finding:
    from fedcac.models.devices import probe_device

    facts = probe_device(situation.settings.device)
    if not facts.is_exact:
        return failed(
            f"{facts.name} gives a wrong product of two small matrices",
            "Do not score on it; have the device, its memory and its driver checked.",
        )
    if facts.kind == "cpu":
        return warning(
            f"no GPU is used: torch {facts.torch_version} scores on {facts.name}",
            "Scoring works and takes longer, up to minutes an exam; for hundreds of exams give "
            "it a night, or install a GPU and set `device: auto`.",
        )
    found = (
        f"{facts.name}, {facts.free_mb} of {facts.memory_mb} MB free, torch {facts.torch_version}"
    )
    if (facts.free_mb or 0) < _LEAST_GPU_MB:
        return warning(found, "Free its memory: another process holds most of it (`nvidia-smi`).")
    return ok(found)


def _memory(_: Situation) -> Finding:
    numbers = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _colon, rest = line.partition(":")
        numbers[name] = int(rest.split()[0]) // 1024
    total_mb, free_mb = numbers["MemTotal"], numbers["MemAvailable"]
    found = f"{total_mb} MB of memory, {free_mb} MB available"
    if total_mb < _LEAST_MEMORY_MB:
        return failed(found, "Give the machine 8 GB: a volume and a network do not fit.")
    if min(total_mb, free_mb) < _MEMORY_MB:
        return warning(found, "Give the machine 8 GB or stop other work while exams are scored.")
    return ok(found)


def _disk(situation: Situation) -> Finding:
    folder, settings = situation.folder, situation.settings
    places = {"site's folder": folder.root, "spool": folder.spool_path}
    if settings.pacs is not None:
        places["pacs folder"] = folder.resolve(settings.pacs.folder)
    if settings.artefacts != "none":
        places["artefacts"] = folder.artefacts_path
    package_mb = _largest_package_mb(folder.spool_path / "inbox")
    # A package lies in the inbox, in the courier's chunks, and once more while it is put together.
    needed_mb = _ROOM_FOR_WORK_MB + 2 * package_mb
    if settings.artefacts != "none":
        needed_mb += _ARTEFACT_MB * _n_lines(folder.resolve(settings.manifest))
    free_mb = {
        name: shutil.disk_usage(_existing(path)).free // _MB for name, path in places.items()
    }
    worst = min(free_mb.values())
    found = ", ".join(f"{name} {mb} MB free" for name, mb in free_mb.items())
    found += f"; {needed_mb} MB wanted (largest package here: {package_mb} MB)"
    if worst < MINIMUM_FREE_MB:
        return failed(found, f"Make room: below {MINIMUM_FREE_MB} MB the agent pauses.")
    if worst < needed_mb:
        return warning(found, f"Make room for {needed_mb} MB before a large round.")
    return ok(found)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _largest_package_mb(inbox: Path) -> int:
    sizes: dict[str, int] = {}
    for path in inbox.glob("*package.*") if inbox.is_dir() else ():
        round_id = path.name.partition(".")[0]
        sizes[round_id] = sizes.get(round_id, 0) + path.stat().st_size
    return -(-max(sizes.values(), default=0) // _MB)


def _n_lines(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError:
        return 0


def _user(situation: Situation) -> Finding:
    owner, user = situation.folder.root.stat().st_uid, os.geteuid()
    name = _user_name(user)
    if user == 0:
        return warning(
            f"this runs as root; the site's folder belongs to {_user_name(owner)}",
            "Run the agent as a user of its own that owns nothing but the site's folder.",
        )
    if owner != user:
        return failed(
            f"this runs as {name}; the site's folder belongs to {_user_name(owner)}",
            f"Run it as {_user_name(owner)}: `sudo -u {_user_name(owner)} fedcac-site doctor`.",
        )
    return ok(f"{name} owns the site's folder")


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _clock_sync(_: Situation) -> Finding:
    # systemd-timesyncd and chrony both leave a trace; a container often has its host's clock.
    if Path("/run/systemd/timesync/synchronized").exists():
        return ok("synchronised by systemd-timesyncd")
    if Path("/run/chrony/chronyd.pid").exists() or Path("/run/ntpd.pid").exists():
        return ok("an NTP service runs")
    return skipped("no trace of an NTP service here; the check `clock` compares with the lead's")


MACHINE_CHECKS = (
    Check("python", _python, needs_settings=False),
    Check("packages", _packages, needs_settings=False),
    Check("gpu", _gpu),
    Check("memory", _memory, needs_settings=False),
    Check("disk", _disk),
    Check("user", _user),
    Check("ntp", _clock_sync, needs_settings=False),
)
