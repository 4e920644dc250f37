"""Writes the page of dependencies and their licences from what is installed."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = [
    "INSTALLATIONS",
    "dependencies_of",
    "installed_with",
    "licence_of",
    "page",
    "pinned_versions",
    "requirements_of",
]

INSTALLATIONS = {
    "core": "",
    "publishing": "publishing",
    "site": "site",
    "coordinator": "coordinator",
    "flower": "flower",
}
"""What a person may install, and the extra that does it."""

_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def dependencies_of(extra: str) -> set[str]:
    """Return the names of all that `fedcac`, or `fedcac[extra]`, needs on this machine."""
    return set(installed_with(extra)) - {"fedcac"}


def installed_with(extra: str) -> dict[str, set[str]]:
    """Return every package of an installation, `fedcac` too, with the extras asked of it."""
    found: dict[str, set[str]] = {}
    waiting = [("fedcac", {extra})]
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if name in found and extras <= found[name]:
            continue
        found.setdefault(name, set()).update(extras)
        waiting.extend(requirements_of(name, extras))
    return found


def requirements_of(name: str, extras: Collection[str]) -> list[tuple[str, set[str]]]:
    """Return what one package itself asks for on this machine, with the extras it asks for."""
    try:
        required = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    return [
        (one.name, set(one.extras))
        for one in map(Requirement, required)
        if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in {*extras, ""})
    ]


def licence_of(name: str) -> str:
    """Return the licence that a distribution states, '' where it states none."""
    metadata = distribution(name).metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        str(line).rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if str(line).startswith("License :: ") and not str(line).endswith("OSI Approved")
    ]
    return "; ".join(classifiers) or str(metadata.get("License") or "").partition("\n")[0]


def pinned_versions() -> dict[str, str]:
    """Return the versions of `constraints.txt`.

    Whatever else is installed (CUDA's libraries, say) came with another build of the same packages.
    """
    found = re.findall(r"^([^=\s]+)==(\S+)$", _CONSTRAINTS.read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name): version for name, version in found}


def page() -> str:
    """Return the page: every pinned dependency, its licence, and which installation needs it."""
    pinned = pinned_versions()
    needed = {word: dependencies_of(extra) for word, extra in INSTALLATIONS.items()}
    core = needed["core"]
    rows = []
    for name in sorted(set().union(*needed.values()) & set(pinned)):
        users = [word for word, names in needed.items() if name in names]
        rows.append(
            f"| {name} | {pinned[name]} | {licence_of(name)} | "
            f"{'every installation' if name in core else ', '.join(users)} |"
        )
    return (
        "# Dependencies and their licences\n\n"
        "As the packages state them, in the versions of `constraints.txt`. None is under a licence "
        "of the GPL family; a test holds that. PyTorch's builds for GPUs bring NVIDIA's CUDA "
        "libraries, which are under NVIDIA's own licence.\n\n"
        "| package | version | licence | needed by |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
