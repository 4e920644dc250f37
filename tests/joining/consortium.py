"""A lead and sites that join by kits, through the commands that people use."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.__main__ import main as coordinator_main
from site_agent.__main__ import main as site_main

__all__ = ["CommandFailed", "Lead", "SiteHome", "command"]


class CommandFailed(Exception):
    def __init__(self, code: str, exit_code: int) -> None:
        super().__init__(code)
        self.code = code
        self.exit_code = exit_code


def command(main: Any, home: Path, *arguments: str) -> dict[str, Any]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(["--home", str(home), *arguments, "--format", "json"])
    data: dict[str, Any] = json.loads(output.getvalue())["data"]
    if code != 0:
        raise CommandFailed(data["code"], code)
    return data


@dataclass
class SiteHome:
    name: str
    home: Path
    courier: Path
    request: Path
    fingerprint: str

    def verb(self, *arguments: str) -> dict[str, Any]:
        return command(site_main, self.home, *arguments)


@dataclass
class Lead:
    root: Path
    host: str | None = "lead.example.org"

    def __post_init__(self) -> None:
        self.home = self.root / "lead"
        hosts = ("--host", self.host) if self.host else ()
        made = self.verb("init", "--name", "CAC consortium", *hosts)
        self.fingerprint = made["fingerprint"]

    def verb(self, *arguments: str) -> dict[str, Any]:
        return command(coordinator_main, self.home, *arguments)

    def kit(self, name: str) -> Path:
        path = self.root / f"{name}.zip"
        self.verb("kit", name, "--out", str(path))
        return path

    def invite(self, name: str, *extra: str, kit: Path | None = None) -> SiteHome:
        home = self.root / name
        request = self.root / f"{name}.request.json"
        made = command(
            *(site_main, home, "init", name, "--kit", str(kit or self.kit(name))),
            *("--fingerprint", self.fingerprint, "--request", str(request)),
            *("--courier-home", str(home / "courier"), *extra),
        )
        return SiteHome(name, home, home / "courier", request, made["fingerprint"])

    def enrol(self, site: SiteHome, *extra: str) -> dict[str, Any]:
        return self.verb("enrol", str(site.request), "--fingerprint", site.fingerprint, *extra)

    def join(self, name: str, *extra: str) -> SiteHome:
        site = self.invite(name)
        self.enrol(site, *extra)
        return site

    def states(self) -> Mapping[str, str]:
        return {one["site"]: one["state"] for one in self.verb("enrolments", "list")["sites"]}
