"""The containers as their files describe them: no root, no network for the agent, real verbs."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import ComposeSpecification
from dockerfile_parse import DockerfileParser

from coordinator.cli import build_parser as coordinator_parser
from site_agent.cli import build_parser as site_parser

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site_agent" / "deploy"
LEAD = ROOT / "coordinator" / "deploy"
CONTAINERFILES = [
    SITE / "Containerfile.agent",
    SITE / "Containerfile.courier",
    LEAD / "Containerfile",
]


class _Compose(yaml.SafeLoader):
    """Compose's own tags, read as the plain values beneath them."""


_Compose.add_constructor("!reset", lambda loader, node: None)


def _services(path: Path) -> dict[str, dict[str, Any]]:
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Compose)  # noqa: S506
    services: dict[str, dict[str, Any]] = document["services"]
    return services


def _targets(service: dict[str, Any]) -> set[str]:
    return {volume["target"] for volume in service.get("volumes", ())}


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_with_privileges_and_copies_what_exists(path: Path) -> None:
    steps = [
        (step["instruction"], step["value"])
        for step in DockerfileParser(fileobj=io.BytesIO(path.read_bytes())).structure
    ]
    users = [value for instruction, value in steps if instruction == "USER"]
    assert users[-1].split(":")[0].isdigit()
    assert "ADD" not in dict(steps)
    for instruction, value in steps:
        if instruction == "COPY" and "--from" not in value:
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
    # Images are named as an engine's own configuration resolves them.
    bases = {value.split()[0] for instruction, value in steps if instruction == "FROM"}
    assert bases == {"${PYTHON_IMAGE}"}


def test_pinned_flower_of_the_courier_is_the_project_s() -> None:
    pinned = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
        if line.startswith("flwr==")
    ]
    assert pinned[0] in (SITE / "Containerfile.courier").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [SITE / "compose.yaml", LEAD / "compose.yaml"], ids=str)
def test_every_service_is_hardened(path: Path) -> None:
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Compose)  # noqa: S506
    ComposeSpecification.model_validate(
        {key: part for key, part in document.items() if not key.startswith("x-")}
    )
    for service in document["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].split(":")[0]) > 1000
        assert "privileged" not in service


def test_the_agent_has_no_network_and_the_courier_no_patients() -> None:
    services = _services(SITE / "compose.yaml")
    agent, node, courier = services["agent"], services["courier-node"], services["courier"]
    assert agent["network_mode"] == "none"
    assert all("ports" not in service for service in services.values())
    assert _targets(node) == _targets(courier) == {"/courier", "/spool"}
    assert {agent["user"], node["user"]} == {"10001:10000", "10002:10000"}
    exams = next(volume for volume in agent["volumes"] if volume["target"] == "/exams")
    assert exams["read_only"] is True
    # Only while somebody pulls from the PACS has the agent's image a network.
    assert services["pacs"]["profiles"] == ["pacs"]


def test_the_lead_s_key_is_mounted_where_it_is_used_alone() -> None:
    services = _services(LEAD / "compose.yaml")
    for name in ("superlink", "front", "courier"):
        assert _targets(services[name]) == {"/lead/courier"}
    assert services["engine"]["network_mode"] == "none"
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"superlink", "dashboard"}
    assert services["dashboard"]["ports"][0].startswith("127.0.0.1:")


def _arguments(command: list[str], parser: Any) -> None:
    try:
        parser.parse_args(command)
    except SystemExit:
        pytest.fail(f"the command line knows no such verb: {shlex.join(command)}")


def test_every_command_of_the_containers_is_one_of_the_command_line() -> None:
    for name, service in _services(SITE / "compose.yaml").items():
        if name == "agent":
            _arguments(service.get("command", ["run"]), site_parser())
    for service in _services(LEAD / "compose.yaml").values():
        _arguments(service["command"], coordinator_parser())


def test_postgresql_is_reached_by_the_engine_and_the_dashboard_alone() -> None:
    services = _services(LEAD / "compose.postgresql.yaml")
    document = (LEAD / "compose.postgresql.yaml").read_text(encoding="utf-8")
    assert set(services) == {"database", "engine", "dashboard"}
    assert "ports" not in services["database"]
    assert "internal: true" in document
    # A password that stands in the file would be everybody's.
    assert document.count("FEDCAC_DATABASE_PASSWORD:?") == 2
