"""What a check says: ok, warning, failed or skipped; what was found, and the cure in a sentence.

`found` and `cure` are made to be pasted into a mail: no patient's identifier, no path of an exam,
no address of the PACS. What only people at the site may read is in `details`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fedcac.errors import FedcacError
from site_agent.faults import as_problem
from site_agent.flower_courier.settings import CourierFolder
from site_agent.redaction import redacted
from site_agent.settings import SiteFolder, SiteSettings

__all__ = [
    "Check",
    "Finding",
    "Situation",
    "failed",
    "ok",
    "run_check",
    "skipped",
    "warning",
]

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    status: Status
    found: str
    cure: str = ""
    details: tuple[str, ...] = ()


def ok(found: str, *details: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", found, details=details)


def warning(found: str, cure: str, *details: str) -> Finding:
    """Return what works and will cost something."""
    return Finding("warning", found, cure, details)


def failed(found: str, cure: str, *details: str) -> Finding:
    """Return what keeps this site from taking part."""
    return Finding("failed", found, cure, details)


def skipped(reason: str, cure: str = "") -> Finding:
    """Return why a check was not made."""
    return Finding("skipped", reason, cure)


class Situation:
    """The folders to look at; settings are read once."""

    def __init__(self, folder: SiteFolder, courier: CourierFolder) -> None:
        self.folder = folder
        self.courier = courier

    @cached_property
    def settings(self) -> SiteSettings:
        """The site's settings; UsageError if they cannot be used."""
        return self.folder.settings()


@dataclass(frozen=True)
class Check:
    """One check. Those that need `site.yaml` are skipped where it cannot be read."""

    name: str
    look: Callable[[Situation], Finding]
    needs_settings: bool = True


def run_check(check: Check, situation: Situation) -> Finding:
    """Run a check; whatever it raises is a finding, without foreign words."""
    if check.needs_settings:
        try:
            _ = situation.settings
        except (FedcacError, OSError):
            return skipped("site.yaml cannot be used; see the check `settings`")
    try:
        return check.look(situation)
    except PermissionError:
        return skipped(
            "this user may not read what the check looks at",
            f"Run `fedcac-site doctor --only {check.name}` as the user it belongs to.",
        )
    except Exception as error:
        problem = as_problem(error)
        return Finding(
            "failed",
            f"{redacted(problem.message)} [{problem.code}]",
            redacted(problem.cure),
            (problem.message,),
        )
