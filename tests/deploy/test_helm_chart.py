"""The coordinator's Helm chart: rendered by helm, judged by the schemas of Kubernetes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from coordinator.cli import build_parser

CHART = Path(__file__).parents[2] / "coordinator" / "deploy" / "helm" / "fedcac-coordinator"
HELM = Path(sys.executable).with_name("helm")
HOST = "hosts={lead.example.org,10.0.0.1}"
EVERYTHING = (
    "database.existingSecret=database",
    "dashboard.ingress.enabled=true",
    "dashboard.ingress.host=dashboard.example.org",
    "dashboard.ingress.tlsSecret=dashboard-tls",
    "networkPolicy.sites={198.51.100.0/24}",
    "persistence.storageClass=encrypted",
)


def _rendered(*values: str) -> subprocess.CompletedProcess[str]:
    options = [part for value in values for part in ("--set", value)]
    return subprocess.run(
        [HELM, "template", "lead", CHART, *options], capture_output=True, text=True, check=False
    )


def _objects(*values: str) -> dict[str, dict[str, Any]]:
    done = _rendered(HOST, *values)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}


def test_helm_s_own_lint_finds_nothing() -> None:
    done = subprocess.run(
        [HELM, "lint", "--strict", CHART, "--set", HOST],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["defaults", "everything"])
def test_what_it_renders_is_valid_kubernetes(values: tuple[str, ...]) -> None:
    objects = _objects(*values)
    assert "StatefulSet/lead-coordinator" in objects
    for one in objects.values():
        kubernetes_validate.validate(one, "1.30", strict=True)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), "hosts"),
        ((HOST, "databse.existingSecret=x"), "databse"),
        ((HOST, "service.port=0"), "port"),
        ((HOST, "dashboard.ingress.enabled=true"), "dashboard.ingress.host"),
        ((HOST, "networkPolicy.sites={everywhere}"), "sites"),
    ],
)
def test_wrong_values_are_refused_by_name(values: tuple[str, ...], named: str) -> None:
    done = _rendered(*values)
    assert done.returncode != 0
    assert named in done.stderr


def test_every_process_is_confined() -> None:
    pod = _objects()["StatefulSet/lead-coordinator"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_only_engine_and_dashboard_see_the_lead_s_key_and_the_database() -> None:
    pod = _objects(*EVERYTHING)["StatefulSet/lead-coordinator"]["spec"]["template"]["spec"]
    for container in pod["containers"]:
        lead = next(mount for mount in container["volumeMounts"] if mount["name"] == "lead")
        is_trusted = container["name"] in ("engine", "dashboard")
        assert (lead.get("subPath") is None) == is_trusted
        assert ("env" in container) == is_trusted


def test_sites_reach_one_port_and_the_coordinator_calls_nobody() -> None:
    objects = _objects("networkPolicy.sites={198.51.100.0/24}", "dashboard.enabled=false")
    ports = objects["Service/lead-coordinator"]["spec"]["ports"]
    assert [port["targetPort"] for port in ports] == ["fleet"]
    policy = objects["NetworkPolicy/lead-coordinator"]["spec"]
    assert policy["egress"] == []
    assert policy["ingress"] == [
        {"ports": [{"port": "fleet"}], "from": [{"ipBlock": {"cidr": "198.51.100.0/24"}}]}
    ]


def test_its_commands_are_those_of_the_command_line() -> None:
    pod = _objects("service.port=443")["StatefulSet/lead-coordinator"]["spec"]["template"]["spec"]
    for container in pod["containers"]:
        build_parser().parse_args(container["args"])
    script = pod["initContainers"][0]["command"][-1]
    words = script.replace('"', "").split("fedcac-coordinator ")[1].split()
    made = build_parser().parse_args(words)
    assert made.host == ["lead.example.org", "10.0.0.1"]
    # Kits name the port of the Service, behind which the front listens on its own.
    assert made.address == "lead.example.org:443"
