"""A coordinator with table sites on spool folders, all in one process, and its dashboard."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from argon2 import PasswordHasher

from coordinator.dashboard.accounts import Role
from coordinator.dashboard.app import make_app
from coordinator.dashboard.desk import Dashboard, made_settings
from coordinator.folder import CoordinatorFolder
from coordinator.rounds.service import EngineService
from coordinator.state.store import EnrolledSite
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import Spool
from fedcac.signing import PublicKey, SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

with warnings.catch_warnings():
    # It wants a package of another name; the one there is serves.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["PASSWORD", "Consortium", "Visitor", "write_table"]

PASSWORD = "five calm otters swim"  # noqa: S105
FAST = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
ORIGIN = "http://localhost"


def write_table(path: Path, seed: int, n_patients: int = 90) -> Path:
    """Write a table of generated patients that the demonstration protocol can be asked about."""
    draw = np.random.default_rng(seed)
    reference = np.where(draw.random(n_patients) < 0.35, 0.0, draw.lognormal(4, 1.6, n_patients))
    index = np.where(draw.random(n_patients) < 0.05, 0, reference * draw.lognormal(0, 0.25))
    lines = ["patient_id,index_score,reference_score"]
    lines += [f"P{n},{index[n]:.1f},{reference[n]:.1f}" for n in range(n_patients)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Clock:
    """Tells the time, and can be set forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Consortium:
    """Folders, agents and dashboard; `step` lets agents and engine do what they can."""

    def __init__(
        self, root: Path, sites: tuple[str, ...] = (), url: str | None = None, **settings: Any
    ) -> None:
        self.root = root
        self.folder = CoordinatorFolder(root / "lead")
        lead = self.folder.create()
        if url is not None:
            self.folder.database_path.write_text(url, encoding="utf-8")
        self.store = self.folder.store()
        self.agents: dict[str, SiteAgent] = {}
        keys = {name: SigningKey.generate() for name in sites}
        known = {name: key.public for name, key in keys.items()}
        for number, name in enumerate(sites, start=1):
            self._add_site(name, number, keys[name], lead, known)
        self.clock = Clock()
        self.dashboard = Dashboard(
            self.folder,
            self.store,
            made_settings(self.folder.root, **settings),
            clock=self.clock,
            hasher=FAST,
        )
        self.app = make_app(self.dashboard)
        self.engine = EngineService(self.folder, self.store, lambda _: None)

    def _add_site(
        self, name: str, seed: int, key: SigningKey, lead: PublicKey, known: dict[str, PublicKey]
    ) -> None:
        home = self.root / "sites" / name
        home.mkdir(parents=True)
        self.store.enrol(EnrolledSite(name, key.public, str(home / "spool")))
        self.agents[name] = SiteAgent(
            identity=SiteIdentity(name, key, lead, known),
            spool=Spool.at(home / "spool"),
            store=SiteStore(home / "state.sqlite"),
            source=TableSource(write_table(home / "table.csv", seed)),
            answerer=Answerer(
                load_policy("research"), FileLedger(home / "ledger.jsonl"), name.encode()
            ),
            is_auto_approving=True,
        )

    def step(self, *only: str) -> None:
        self.engine.step()
        for name in only or self.agents:
            self.agents[name].step()
            assert not self.agents[name].problems
        self.engine.step()

    def finish(self, round_id: str) -> None:
        for _ in range(12):
            self.step()
            if self.store.round(round_id).state == "pooled":
                return
        raise AssertionError("the round does not end")

    def add_user(self, name: str, role: Role = Role.LEAD, password: str = PASSWORD) -> None:
        self.dashboard.accounts.add(name, role)
        self.dashboard.accounts.set_password(name, password)

    def close(self) -> None:
        self.store.close()


class Visitor:
    """A browser: keeps cookies, and sends forms as the pages make them."""

    def __init__(self, consortium: Consortium, address: str = "198.51.100.7") -> None:
        self.client = TestClient(
            consortium.app,
            base_url=ORIGIN,
            client=(address, 5000),
            follow_redirects=False,
            raise_server_exceptions=False,
        )

    def get(self, path: str, **extra: Any) -> Any:
        return self.client.get(path, **extra)

    def token(self, path: str) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.get(path).text)
        assert found, path
        return found[1]

    def post(
        self,
        path: str,
        fields: Mapping[str, Any] | None = None,
        page: str | None = None,
        origin: str | None = ORIGIN,
        **extra: Any,
    ) -> Any:
        """Send a form of `page`, which is the one at `/account` where none is named."""
        sent = dict(fields or {})
        if "form_token" not in sent:
            sent["form_token"] = self.token(page or "/account")
        headers = {} if origin is None else {"Origin": origin}
        return self.client.post(path, data=sent, headers=headers, **extra)

    def sign_in(self, name: str, password: str = PASSWORD) -> Any:
        return self.post("/sign-in", {"name": name, "password": password}, page="/sign-in")


@contextmanager
def opened(root: Path, **settings: Any) -> Iterator[Consortium]:
    """Yield a consortium and close its database afterwards."""
    made = Consortium(root, **settings)
    try:
        yield made
    finally:
        made.close()
