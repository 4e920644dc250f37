"""Small tables of paired scores for rounds over Flower, and what they give in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from flower.deployment import Deployment, secret_of

from coordinator.reports.reporting import write_round_report
from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

__all__ = ["answers_given_twice", "estimates_in_memory", "estimates_of", "paired_tables"]

_SCORES = (0.0, 5.0, 50.0, 250.0, 800.0)


def paired_tables(root: Path, *names: str, n_patients: int = 90) -> dict[str, Path]:
    """Write a table of one site each: two scores a patient, in one of five categories."""
    root.mkdir(parents=True, exist_ok=True)
    tables = {}
    for seed, name in enumerate(names, start=1):
        draw = np.random.default_rng(seed)
        rows = ["patient_id,index_score,reference_score"]
        for number in range(n_patients):
            reference = int(draw.integers(0, 5))
            index = int(np.clip(reference + draw.choice([-1, 0, 0, 0, 1]), 0, 4))
            rows.append(f"P{number},{_SCORES[index]},{_SCORES[reference]}")
        tables[name] = root / f"{name}.csv"
        tables[name].write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tables


def _estimates(view: RoundView, out: Path) -> bytes:
    write_round_report(view, out, None)
    return (out / "estimates.csv").read_bytes()


def estimates_in_memory(
    tables: Mapping[str, Path], protocol: Protocol, root: Path, policy: str = "open"
) -> bytes:
    """Return `estimates.csv` of the same tables without any network."""
    sites = [
        InMemorySite(
            name=name,
            source=TableSource(path),
            store=SiteStore(":memory:"),
            ledger_path=root / name / "ledger.jsonl",
            secret=secret_of(name),
        )
        for name, path in tables.items()
    ]
    view = run_round(protocol, sites, load_policy(policy), SigningKey.generate())
    return _estimates(view, root / "out")


def estimates_of(deployment: Deployment, round_id: str, out: Path) -> bytes:
    """Return `estimates.csv` of a round that was pooled."""
    view = deployment.coordinator.engine(deployment.store).view(round_id)
    assert view.record.state.value == "pooled"
    return _estimates(view, out)


def answers_given_twice(deployment: Deployment, round_id: str, sites: Iterable[str]) -> list[str]:
    """Return what the sites' ledgers hold more than once of a round: nothing, if all is well."""
    found = []
    for name in sites:
        text = deployment.sites[name].ledger.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        keys = [
            (line["exchange"], line["analysis"], line["key"])
            for line in lines
            if line["round_id"] == round_id
        ]
        assert keys, f"{name} answered nothing"
        found += [f"{name}: {key}" for key in keys if keys.count(key) > 1]
    return found
