"""A round over Flower that is launched, followed and read by the dashboard alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from dashboard.consortium import FAST, Consortium, Visitor, write_table
from dashboard.launches import SITES, launched
from flower.deployment import Deployment

from coordinator.dashboard.accounts import Role
from coordinator.dashboard.app import make_app
from coordinator.dashboard.desk import Dashboard, made_settings
from coordinator.rounds.service import EngineService
from fedcac.errors import FedcacError


def test_a_round_over_flower(tmp_path: Path) -> None:
    tables = {
        name: write_table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(SITES, 1)
    }
    deployment = Deployment(tmp_path / "deployment", tables)
    dashboard = Dashboard(
        deployment.coordinator,
        deployment.coordinator.store(),
        made_settings(deployment.home),
        hasher=FAST,
    )
    said: list[str] = []
    engine = EngineService(deployment.coordinator, deployment.store, said.append)
    try:
        deployment.start_all()
        dashboard.accounts.add("lead", Role.LEAD)
        dashboard.accounts.set_password("lead", "five calm otters swim")
        visitor = Visitor(cast(Consortium, SimpleNamespace(app=make_app(dashboard))))
        assert visitor.sign_in("lead").status_code == 303
        shown = visitor.get("/sites").text
        assert "the server&#39;s certificate" in shown
        assert shown.count("Flower</td>") == len(SITES)
        page = f"/rounds/{launched(visitor)}"

        def is_pooled() -> bool:
            deployment.revive()
            engine.step()
            for site in deployment.sites.values():
                site.agent.step()
                problems = list(site.agent.problems.values())
                if problems:
                    raise cast(FedcacError, problems[0])
            return "State: pooled" in visitor.get(f"{page}/fragment").text

        deployment.wait_for(is_pooled, "the round does not end", 150.0)
        assert "Pooled values" in visitor.get(page).text
        report = visitor.get(f"{page}/report/page")
        assert report.status_code == 200
        assert "external validation" in report.text
        assert visitor.post(f"{page}/close").status_code == 303
        assert "State: closed" in visitor.get(page).text
    finally:
        dashboard.store.close()
        deployment.stop()
