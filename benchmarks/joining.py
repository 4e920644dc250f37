"""`python -m benchmarks joining`: a new site, command by command of the page for hospitals' IT.

From the lead's kit to a passed dry run, as docs/how-to/join-a-consortium.md has it, with a
SuperLink and its front on loopback in the lead's place. Installing, which is downloading, and
making users are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.consortium import Deployment, free_port
from benchmarks.side_by_side import RESULTS, Spread, machine, spread_of, version_of

__all__ = ["NAME", "recorded"]

NAME = "joining"
_EXPECTED_FAILURES = {"exams"}
"""What the doctor rightly says of a site that has no manifest yet."""


@dataclass(frozen=True)
class Step:
    """One command of the page: where it stands there, its words, its seconds, what came of it."""

    section: str
    command: str
    seconds: float
    outcome: str


class _Site:
    """Runs commands as a new site's IT would, and keeps their times."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []

    def run(self, section: str, *words: str, may_fail: bool = False) -> str:
        program = {
            "fedcac-site": [sys.executable, "-m", "site_agent"],
            "python": [sys.executable],
        }[words[0]]
        start = time.perf_counter()
        done = subprocess.run(
            [*program, *words[1:]], cwd=self.root, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode and not may_fail:
            raise RuntimeError(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        lines = (done.stdout if done.stdout.strip() else done.stderr).strip().splitlines()
        command = f"{words[0]} {next(w for w in words[1:] if _is_verb(w))}"
        self.steps.append(Step(section, command, seconds, f"exit {done.returncode}"))
        return "\n".join(lines)


def _is_verb(word: str) -> bool:
    return word.isascii() and word.replace("-", "").isalpha() and not word.startswith("-")


def recorded() -> dict[str, dict[str, Spread]]:
    """Join, look and run dry; write the page; return the seconds to record."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        lead = Deployment(root / "lead", {})
        try:
            lead.start("superlink")
            lead.start("front")
            lead.wait_for(lead.is_healthy, "the SuperLink does not become healthy")
            told = lead.lead_verb("kit", "duke", "--out", str(root / "duke.zip"))
            steps = _joined(root, str(told["fingerprint"]))
        finally:
            lead.stop()
    _write_page(steps)
    total = sum(step.seconds for step in steps)
    return {"seconds": {"from_a_kit_to_a_passed_dry_run": spread_of([total])}}


def _joined(root: Path, fingerprint: str) -> list[Step]:
    site = _Site(root)
    home, courier = ("--home", str(root / "site")), ("--home", str(root / "courier"))
    site.run("2", "fedcac-site", "kit", "show", "duke.zip")
    site.run(
        "3",
        *("fedcac-site", *home, "init", "duke", "--kit", "duke.zip"),
        *("--courier-home", str(root / "courier"), "--manifest", "manifest.csv"),
        *("--fingerprint", fingerprint, "--port", str(free_port())),
    )
    packed = str(root / "courier" / "fedcac-courier.pyz")
    line = site.run("5", "python", packed, *courier, "check")
    if any(not text.startswith("ok") for text in line.splitlines()):
        raise RuntimeError(line)
    found = site.run("6", "fedcac-site", *home, "doctor", "--format", "json", may_fail=True)
    _check_doctor(found)
    site.run("6", "fedcac-site", *home, "dry-run")
    return site.steps


def _check_doctor(output: str) -> None:
    checks = json.loads(output)["data"]["checks"]
    failed = {check["name"] for check in checks if check["status"] == "failed"}
    # Where this runs as root, `spool` cannot tell the courier's group from the agent's.
    if not failed <= _EXPECTED_FAILURES | {"spool"}:
        raise RuntimeError(f"the doctor found {failed}")


def _write_page(steps: Sequence[Step]) -> None:
    total = sum(step.seconds for step in steps)
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("fedcac", "flwr", "torch"))
    lines = [
        "# From the lead's kit to a passed dry run",
        "",
        f"{machine()}; {versions}.",
        "",
        "The commands of [join-a-consortium.md](../../docs/how-to/join-a-consortium.md) at a new "
        "site, in a folder of its own, with the lead's SuperLink and front on loopback. Left out: "
        "installing, making users, the telephone, and the network group's work.",
        "",
        "| step of the page | command | seconds | outcome |",
        "|---|---|---|---|",
        *(f"| {s.section} | `{s.command}` | {s.seconds:.1f} | {s.outcome} |" for s in steps),
        f"| all | {len(steps)} commands | {total:.1f} | |",
        "",
        "`doctor` ends with 1 until there is a manifest, which the page says.",
    ]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
