"""Rounds over a real SuperLink and real SuperNodes, attacks on them, and killed processes.

TLS with an authority made for the test, node authentication, every listener on 127.0.0.1.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flower.deployment import Deployment
from flower.small_tables import estimates_in_memory, estimates_of, paired_tables

from fedcac.exchange import DirectoryMailbox
from fedcac.exchange.couriering import CourierKey, Order
from fedcac.protocol.catalogue import load_protocol_or_shipped

PROTOCOL = "eng2021-nongated"
ROOT = Path(__file__).parents[2]
SITES = ("duke", "yale")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("flower")
    made = Deployment(root / "deployment", paired_tables(root, *SITES))
    try:
        made.start_all()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The estimates of the same tables without any network."""
    root = tmp_path_factory.mktemp("memory")
    protocol = load_protocol_or_shipped(PROTOCOL)
    return estimates_in_memory(paired_tables(root, *SITES), protocol, root)


def estimates(deployment: Deployment, round_id: str, out: Path) -> bytes:
    deployment.finish(round_id)
    return estimates_of(deployment, round_id, out / "out")


def attack(root: Path, verb: str, **arguments: Any) -> Any:
    (root / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
    finished = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("thief.py"))),
            *(verb, str(root / "arguments.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout)


def node_of(deployment: Deployment, site: str) -> int:
    database = deployment.folder.link_path / "superlink.sqlite"
    with sqlite3.connect(database, timeout=10) as connection:
        (number,) = connection.execute(
            "SELECT node_id FROM node WHERE name = ?", (site,)
        ).fetchone()
    return int(number) % 2**64


def test_a_round_gives_the_estimates_of_a_round_in_memory(
    deployment: Deployment, in_memory: bytes, tmp_path: Path
) -> None:
    # More than one order carries: what is missing is asked for, chunk by chunk.
    weights = random.Random(1).randbytes(5 * 2**20)  # noqa: S311
    round_id = deployment.launch(PROTOCOL, {"weights": weights})
    assert estimates(deployment, round_id, tmp_path) == in_memory
    for site in deployment.sites.values():
        inbox = site.spool / "inbox"
        assert (inbox / f"{round_id}.package.weights").read_bytes() == weights
        names = {path.name for path in inbox.iterdir()}
        assert {f"{round_id}.{what}" for what in ("offer", "protocol", "request-0001")} <= names


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/stop-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/runtime/pull-task-input"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/register-node/"),
        ("POST", "/v1/fleet/../control/list-nodes"),
        ("POST", "/v1/fleet/%2e%2e/control/list-nodes"),
        ("POST", "/v1/fleet//../../control/list-nodes"),
        ("POST", "//v1/control/list-nodes"),
        ("POST", "/V1/CONTROL/list-nodes"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v1/fleet/pull-messages"),
    ],
)
def test_an_anonymous_peer_finds_no_other_interface(
    deployment: Deployment, method: str, path: str
) -> None:
    assert ask(deployment, method, path) == 404


@pytest.mark.parametrize(
    "call", ["activate-node", "pull-messages", "push-messages", "pull-object", "get-fab"]
)
def test_an_anonymous_peer_is_turned_away_by_the_fleet_interface(
    deployment: Deployment, call: str
) -> None:
    assert ask(deployment, "POST", f"/v1/fleet/{call}") in (401, 403)


def ask(deployment: Deployment, method: str, path: str) -> int:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", deployment.public_port, timeout=20, context=deployment.tls()
    )
    headers = {
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
        "flwr-package-name": "flwr",
        "flwr-package-version": "1.41.0",
        "flwr-component-name": "SuperNode",
    }
    try:
        connection.request(method, path, body=b"", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_superlink_itself_listens_on_loopback_only(deployment: Deployment) -> None:
    listening = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        host, port = address.split(":")
        if state == "0A" and int(port, 16) == deployment.superlink_port:
            listening.add(host)
    assert listening == {"0100007F"}


def test_a_hostile_bundle_runs_nothing_at_a_site_and_reads_nothing(
    deployment: Deployment, tmp_path: Path
) -> None:
    site = deployment.sites["duke"]
    if not (site.courier / "state" / "last-serial").exists():
        deployment.finish(deployment.launch(PROTOCOL))
    reply = "attacked-round.reply-0001"
    DirectoryMailbox(site.spool / "outbox").put(reply, b"released")
    inbox_before = sorted(path.name for path in (site.spool / "inbox").iterdir())
    # An order that the courier really signed, seen on the SuperLink in the last round.
    old = Order.model_validate({"site": "duke", "serial": 1, "collect": {reply: {}}})
    sealed = old.seal(CourierKey.load(deployment.folder.key_path))
    got = attack(
        tmp_path,
        "bundle",
        folder=str(deployment.folder.root),
        site="duke",
        outbox=[reply],
        marker=str(tmp_path / "marker"),
        replayed={"document": sealed.document.decode(), "signature": sealed.signature.hex()},
    )
    assert got == [{"is_error": True, "code": 100, "reason": "refused"}] * 4
    assert not (tmp_path / "marker").exists()
    assert sorted(path.name for path in (site.spool / "inbox").iterdir()) == inbox_before
    log = deployment.log("run:duke")
    for code in ("signature.courier_signature", "round.courier_replayed"):
        assert code in log
    # Nothing was unpacked: Flower's folders at the site hold no application.
    assert not list(site.courier.rglob("hostile*"))


def test_a_false_site_is_not_believed_and_kill_9_anywhere_only_costs_time(
    deployment: Deployment, in_memory: bytes, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    deployment.kill("node:yale")
    round_id = deployment.launch(PROTOCOL)
    # The SuperLink holds yale for online still; its order waits, and duke's key answers it.
    forged = attack(
        tmp_path,
        "impostor",
        database=str(deployment.folder.link_path / "superlink.sqlite"),
        journal=str(deployment.folder.journal_path / "journal.sqlite"),
        superlink=f"127.0.0.1:{deployment.public_port}",
        ca=str(deployment.folder.root / "ca.crt"),
        own_key=str(deployment.sites["duke"].courier / "node.key"),
        own_node=node_of(deployment, "duke"),
        victim="yale",
        victim_node=node_of(deployment, "yale"),
        parcel=f"{round_id}.acceptance",
    )
    assert forged["answered"]
    wait_until(lambda: "yale: a receipt was dropped" in deployment.log("run"))
    assert "signature.courier_signature" in deployment.log("run")
    # Killed in the middle of an order, as its task file shows.
    task = deployment.sites["duke"].courier / "state" / "task"
    wait_until(task.exists)
    for name in ("run:duke", "superlink", "run"):
        deployment.kill(name)
    deployment.start("superlink")
    wait_until(deployment.is_healthy)
    for name in ("run", "run:duke", "node:yale"):
        deployment.start(name)
    assert estimates(deployment, round_id, tmp_path) == in_memory


@pytest.fixture
def wait_until(deployment: Deployment) -> Callable[..., None]:
    def wait(is_reached: Callable[[], bool]) -> None:
        deployment.wait_for(is_reached, "it did not happen")

    return wait
