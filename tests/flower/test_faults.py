"""Lines that break and are slow, processes that are killed, sites that are silent.

Every host is a network namespace of its own; a site's firewall lets one connection out and none
in. Whatever happens, the estimates are those of the same tables without any network.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from flower.deployment import Deployment
from flower.namespaces import COORDINATOR, PUBLIC_PORT, Network, network
from flower.small_tables import (
    answers_given_twice,
    estimates_in_memory,
    estimates_of,
    paired_tables,
)

from fedcac.protocol.catalogue import load_protocol_or_shipped

SITES = ("north", "east", "south", "west")
PROTOCOL = "eng2021-nongated"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    with network(*SITES) as made:
        yield made


@pytest.fixture(scope="module")
def deployment(hosts: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("faults")
    made = Deployment(root / "deployment", paired_tables(root, *SITES), network=hosts)
    try:
        made.start_all()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    def run(sites: Sequence[str]) -> bytes:
        root = tmp_path_factory.mktemp("memory")
        tables = paired_tables(root, *SITES)
        asked = load_protocol_or_shipped(PROTOCOL)
        return estimates_in_memory({name: tables[name] for name in sites}, asked, root)

    return run


def drive(
    deployment: Deployment,
    is_reached: Callable[[], bool],
    agents: Sequence[str] = (),
    rounds: Sequence[str] = (),
    limit_s: float = 600.0,
) -> None:
    """Let agents work, restart what has ended as an init system does, until something holds."""

    def look() -> bool:
        deployment.revive()
        for name in agents:
            deployment.step_agent(name)
        for round_id in rounds:
            deployment.coordinator.engine(deployment.store).step(round_id)
        return is_reached()

    deployment.wait_for(look, "it did not happen", limit_s)


def has(deployment: Deployment, site: str, box: str, parcel: str) -> bool:
    return (deployment.sites[site].spool / box / parcel).exists()


def is_pooled(deployment: Deployment, round_id: str) -> bool:
    return deployment.store.round(round_id).state.value == "pooled"


def status_of(deployment: Deployment, site: str) -> str:
    database = deployment.folder.link_path / "superlink.sqlite"
    with sqlite3.connect(database, timeout=10) as connection:
        rows = connection.execute("SELECT status FROM node WHERE name = ?", (site,)).fetchall()
    return str(rows[-1][0])


def test_one_connection_out_is_enough_and_nothing_else_answers(
    deployment: Deployment, hosts: Network, in_memory: Callable[..., bytes], tmp_path: Path
) -> None:
    round_id = deployment.launch(PROTOCOL, sites=("north", "east"))
    deployment.finish(round_id)
    assert estimates_of(deployment, round_id, tmp_path) == in_memory(("north", "east"))
    assert not hosts.reaches("north", "east", 22)
    assert not hosts.reaches("north", COORDINATOR, deployment.superlink_port)
    # What follows owes nothing to the hospital's firewall.
    hosts.open_firewall("north")
    try:
        assert hosts.exposed("north") == set()
        assert hosts.answering_ports(COORDINATOR, "north") == set()
        assert hosts.exposed(COORDINATOR) == {("tcp", PUBLIC_PORT)}
        assert hosts.answering_ports("north", COORDINATOR) == {PUBLIC_PORT}
    finally:
        hosts.close_firewall("north")


def test_two_rounds_at_once_do_not_wait_for_a_silent_site(
    deployment: Deployment, in_memory: Callable[..., bytes], tmp_path: Path
) -> None:
    awake = ("north", "east")
    rounds = [deployment.launch(PROTOCOL, sites=(*awake, "south"), quorum=2) for _ in range(2)]
    drive(
        deployment,
        lambda: all(is_pooled(deployment, one) for one in rounds),
        agents=awake,
        rounds=rounds,
    )
    expected = in_memory(awake).splitlines()
    for round_id in rounds:
        assert has(deployment, "south", "inbox", f"{round_id}.offer")
        found = estimates_of(deployment, round_id, tmp_path / round_id).splitlines()
        assert set(expected) <= set(found)
        # What more is said of the third site, and of three, holds no estimate.
        further = set(found) - set(expected)
        assert {line.split(b",")[5] for line in further} == {b""}
    # It wakes up too late: what was pooled stays as it was.
    deployment.step_agent("south")
    deployment.step(rounds[1])
    assert estimates_of(deployment, rounds[1], tmp_path / "again").splitlines() == found


def test_a_line_that_is_cut_past_the_heartbeats(
    deployment: Deployment, hosts: Network, in_memory: Callable[..., bytes], tmp_path: Path
) -> None:
    round_id = deployment.launch(PROTOCOL, sites=("north", "south"))
    drive(
        deployment,
        lambda: has(deployment, "south", "inbox", f"{round_id}.request-0001"),
        agents=("north", "south"),
        rounds=[round_id],
    )
    hosts.cut("south")
    try:
        # The site answers while its line is down; meanwhile another round is not held up.
        deployment.step_agent("south")
        other = deployment.launch(PROTOCOL, sites=("north", "east"))
        drive(
            deployment,
            lambda: is_pooled(deployment, other),
            agents=("north", "east", "south"),
            rounds=[round_id, other],
        )
        drive(deployment, lambda: status_of(deployment, "south") == "offline")
        assert not is_pooled(deployment, round_id)
    finally:
        hosts.mend("south")
    drive(
        deployment,
        lambda: is_pooled(deployment, round_id),
        agents=("north", "south"),
        rounds=[round_id],
    )
    assert estimates_of(deployment, round_id, tmp_path) == in_memory(("north", "south"))
    assert answers_given_twice(deployment, round_id, ("north", "south")) == []


@pytest.mark.parametrize(
    "victims",
    [("run:south", "node:south"), ("front", "superlink"), ("run", "engine")],
    ids=lambda names: "+".join(names),
)
def test_kill_9_at_every_state_of_a_round(
    deployment: Deployment,
    in_memory: Callable[..., bytes],
    tmp_path: Path,
    victims: tuple[str, str],
) -> None:
    sites = ("north", "south")
    deployment.start("engine")
    try:
        round_id = deployment.launch(PROTOCOL, sites=sites)

        def kill(*names: str) -> None:
            for name in names:
                deployment.kill(name)
                deployment.start(name)

        # Offered, and neither site has looked.
        drive(deployment, lambda: has(deployment, "south", "inbox", f"{round_id}.offer"))
        kill(victims[0])
        # Asked, and neither site has answered.
        drive(
            deployment,
            lambda: has(deployment, "south", "inbox", f"{round_id}.request-0001"),
            agents=() if has(deployment, "south", "inbox", f"{round_id}.request-0001") else sites,
        )
        kill(victims[1])
        # One site has answered, and its answer is on its way.
        drive(
            deployment,
            lambda: has(deployment, "south", "outbox", f"{round_id}.reply-0001"),
            agents=("south",),
        )
        kill(*victims)
        drive(deployment, lambda: is_pooled(deployment, round_id), agents=sites)
    finally:
        deployment.kill("engine")
    assert estimates_of(deployment, round_id, tmp_path) == in_memory(sites)
    assert answers_given_twice(deployment, round_id, sites) == []


@pytest.mark.parametrize(("process", "folder"), [("superlink", "link"), ("run", "journal")])
def test_a_process_whose_folder_is_lost(
    deployment: Deployment,
    in_memory: Callable[..., bytes],
    tmp_path: Path,
    process: str,
    folder: str,
) -> None:
    sites = ("north", "east")
    round_id = deployment.launch(PROTOCOL, sites=sites)
    drive(
        deployment,
        lambda: has(deployment, "east", "inbox", f"{round_id}.request-0001"),
        agents=sites,
        rounds=[round_id],
    )
    deployment.kill(process)
    shutil.rmtree(deployment.folder.root / folder)
    deployment.start(process)
    drive(deployment, lambda: is_pooled(deployment, round_id), agents=sites, rounds=[round_id])
    assert estimates_of(deployment, round_id, tmp_path) == in_memory(sites)
    assert answers_given_twice(deployment, round_id, sites) == []


def test_a_package_over_a_slow_line(
    deployment: Deployment, hosts: Network, in_memory: Callable[..., bytes], tmp_path: Path
) -> None:
    weights = random.Random(1).randbytes(5 * 2**20)  # noqa: S311
    hosts.slow_down("west", "2mbit")
    round_id = deployment.launch(PROTOCOL, {"weights": weights}, sites=("north", "west"))
    deployment.finish(round_id)
    assert (deployment.sites["west"].spool / "inbox" / f"{round_id}.package.weights").read_bytes()
    assert estimates_of(deployment, round_id, tmp_path) == in_memory(("north", "west"))
