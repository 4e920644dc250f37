"""The systemd units: judged by systemd itself, and their commands by the command line."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.cli import build_parser as coordinator_parser
from site_agent.cli import build_parser as site_parser

ROOT = Path(__file__).parents[2]
UNITS = sorted(ROOT.glob("*/deploy/systemd/*.service"))
# What `systemd-analyze security` calls 'OK'; a daemon without any setting has 9.6.
_MOST_EXPOSED = 2.5


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")
    return found


def _unit(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path, encoding="utf-8")
    return unit


@pytest.mark.parametrize("path", UNITS, ids=lambda path: f"{path.parts[-4]}/{path.stem}")
def test_systemd_finds_nothing_unknown(path: Path, analyze: str) -> None:
    done = subprocess.run([analyze, "verify", path], capture_output=True, text=True, check=False)
    # Neither the program nor the other units are installed where the tests run.
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "is not executable" not in line
        and "not found" not in line
        and "No such file" not in line
    ]
    assert not [line for line in complaints if path.name in line]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: f"{path.parts[-4]}/{path.stem}")
def test_systemd_judges_it_confined(path: Path, analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={int(_MOST_EXPOSED * 10)}", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: f"{path.parts[-4]}/{path.stem}")
def test_its_command_is_one_of_the_command_line(path: Path) -> None:
    program, *words = shlex.split(_unit(path)["Service"]["ExecStart"])
    if program.endswith("fedcac-site"):
        site_parser().parse_args(words)
    elif program.endswith("fedcac-coordinator"):
        coordinator_parser().parse_args(words)
    else:
        assert Path(words[0]).name == "fedcac-courier.pyz"
        assert words[1:3] == ["--home", "/srv/fedcac/courier"]
        assert words[3:] in (["node"], ["run"])


def test_the_agent_has_no_network_and_the_courier_sees_no_patients() -> None:
    agent = _unit(ROOT / "site_agent/deploy/systemd/fedcac-site.service")["Service"]
    assert agent["PrivateNetwork"] == "yes"
    for name in ("fedcac-courier", "fedcac-courier-node"):
        courier = _unit(ROOT / f"site_agent/deploy/systemd/{name}.service")["Service"]
        assert "-/srv/fedcac/site" in courier["InaccessiblePaths"].split()
        assert courier["User"] != agent["User"]


def test_the_lead_s_key_is_out_of_reach_of_what_talks_to_sites() -> None:
    for name in ("fedcac-superlink", "fedcac-front", "fedcac-courier"):
        unit = _unit(ROOT / f"coordinator/deploy/systemd/{name}.service")["Service"]
        assert "-/srv/fedcac/lead/keys" in unit["InaccessiblePaths"].split()
        assert unit["User"] != "fedcac-lead"


def test_every_user_and_group_of_a_unit_is_made() -> None:
    for folder in {path.parent for path in UNITS}:
        made = {
            line.split()[1]
            for path in folder.glob("*.sysusers")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line[:2] in ("u ", "g ")
        }
        for path in folder.glob("*.service"):
            service = _unit(path)["Service"]
            named = {
                service["User"],
                service["Group"],
                *service.get("SupplementaryGroups", "").split(),
            }
            assert named <= made
