"""A hospital joins by a kit behind a real proxy, renews its keys and is revoked, over Flower."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flower.deployment import HOST, Deployment, free_port, secret_of
from joining.consortium import CommandFailed, command
from joining.network import ConnectProxy, connect_proxy

from coordinator.enrolment.consortium import Consortium, write_consortium
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import Spool
from fedcac.signing import PublicKey, SigningKey
from site_agent.__main__ import main as site_main
from site_agent.exams.table_source import TableSource
from site_agent.flower_courier.line import look
from site_agent.flower_courier.settings import CourierFolder
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

PROTOCOL = "eng2021-nongated"


@dataclass
class Hospital:
    """A site as `fedcac-site init --kit` made it; its agent is stepped by the test."""

    name: str
    root: Path
    courier: Path
    agent: SiteAgent | None = None

    def verb(self, *arguments: str) -> dict[str, Any]:
        return command(site_main, self.root, *arguments)

    def restart_agent(self) -> None:
        folder = SiteFolder(self.root)
        self.agent = SiteAgent(
            identity=SiteIdentity(
                self.name,
                SigningKey.load(folder.key_path),
                PublicKey.from_text(folder.settings().lead_key),
            ),
            spool=Spool.at(folder.spool_path),
            store=SiteStore(folder.database_path),
            source=TableSource(self.root / "table.csv"),
            answerer=Answerer(
                load_policy("open"), FileLedger(folder.ledger_path), secret_of(self.name)
            ),
            is_auto_approving=True,
        )


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "deployment", {})
    write_consortium(made.home, Consortium(name="CAC", address=f"{HOST}:8443"))
    try:
        made.start_all()
        yield made
    finally:
        made.stop()


@pytest.fixture
def proxy(deployment: Deployment) -> Iterator[ConnectProxy]:
    with connect_proxy({f"{HOST}:8443": deployment.public_port}, "fedcac:secret") as made:
        yield made


def join(deployment: Deployment, proxy: ConnectProxy, root: Path) -> Hospital:
    kit = deployment.lead_verb("kit", "duke", "--out", str(root / "duke.zip"))
    site = Hospital("duke", root / "site", root / "courier")
    made = site.verb(
        *("init", "duke", "--kit", kit["out"], "--fingerprint", kit["fingerprint"]),
        *("--courier-home", str(site.courier), "--port", str(free_port())),
        *("--proxy", f"http://fedcac:secret@127.0.0.1:{proxy.port}"),
        *("--request", str(root / "request.json")),
    )
    deployment.lead_verb("enrol", made["request"], "--fingerprint", made["fingerprint"])
    rows = [f"P{n},{(0, 5, 50, 250, 800)[n % 5]},{(0, 5, 50, 250, 800)[n % 5]}" for n in range(80)]
    table = "\n".join(["patient_id,index_score,reference_score", *rows]) + "\n"
    (site.root / "table.csv").write_text(table, encoding="utf-8")
    site.restart_agent()
    return site


def statuses(deployment: Deployment) -> list[str]:
    with sqlite3.connect(
        deployment.folder.link_path / "superlink.sqlite", timeout=10
    ) as connection:
        rows = connection.execute("SELECT status FROM node ORDER BY registered_at").fetchall()
    return [status for (status,) in rows]


def test_a_hospital_joins_renews_and_is_revoked(
    deployment: Deployment, proxy: ConnectProxy, tmp_path: Path
) -> None:
    site = join(deployment, proxy, tmp_path)
    deployment.sites["duke"] = site  # type: ignore[assignment]
    assert all(one.is_good for one in look(CourierFolder(site.courier)))
    deployment.wait_for(lambda: len(statuses(deployment)) == 1, "duke's node is not registered")
    for name in ("run:duke", "node:duke"):
        deployment.start(name)
    first = deployment.finish(deployment.launch(PROTOCOL))
    assert first.record.state.value == "pooled"

    made = site.verb("keys", "renew", "--out", str(tmp_path / "renewal.json"))
    told = ("--fingerprint", made["fingerprint"])
    assert deployment.lead_verb("enrolments", "renew", made["request"], *told)["kind"] == "renewed"
    deployment.wait_for(
        lambda: statuses(deployment)[0] == "unregistered" and len(statuses(deployment)) == 2,
        "the former node is still in the registry",
    )
    site.verb("keys", "activate")
    for name in ("run:duke", "node:duke"):
        deployment.kill(name)
        deployment.start(name)
    site.restart_agent()
    second = deployment.finish(deployment.launch(PROTOCOL))
    assert second.estimates == first.estimates

    deployment.lead_verb("enrolments", "revoke", "duke", "--reason", "left")
    deployment.wait_for(
        lambda: statuses(deployment) == ["unregistered"] * 2, "a revoked node is registered"
    )
    deployment.kill("node:duke")
    deployment.start("node:duke")
    deployment.wait_for(
        lambda: deployment.processes["node:duke"].poll() not in (None, 0),
        "a revoked node is not turned away",
    )
    with pytest.raises((CommandFailed, RuntimeError)):
        deployment.lead_verb("round", "launch", PROTOCOL, "--site", "duke")
    # The hospital asked its proxy for one host and one port, whatever was said over it.
    assert set(proxy.asked) == {f"CONNECT {HOST}:8443"}
