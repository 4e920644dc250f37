"""The whole Miller protocol in memory: four sites of 2,271 patients each, jackknife included.

The round is what `fedcac analyze` runs: signed requests, estimators, gate, ledger on disk, pooling;
without reading the tables from disk a second time and without the report.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.phantom import miller_tables, write_tables
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

__all__ = ["NAME", "miller_round", "recorded"]

NAME = "miller_protocol_four_sites_of_2271_in_memory"
_RUNS = 5


def miller_round() -> dict[str, float]:
    """Return seconds of a round (median, least, greatest) and its exchanges."""
    protocol = load_shipped("miller2023-ctac")
    seconds, exchanges = [], 0
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        paths = write_tables(miller_tables(seed=1, copies=4), scratch / "tables")
        for run in range(_RUNS):
            sites = [
                InMemorySite(
                    name=path.stem,
                    source=TableSource(path),
                    store=SiteStore(":memory:"),
                    ledger_path=scratch / f"run{run}" / path.stem / "ledger.jsonl",
                    secret=path.read_bytes()[:64],
                )
                for path in paths
            ]
            start = time.perf_counter()
            view = run_round(protocol, sites, load_policy("open"), SigningKey.generate())
            seconds.append(time.perf_counter() - start)
            exchanges = view.n_exchanges
    return {
        "median": round(statistics.median(seconds), 2),
        "least": round(min(seconds), 2),
        "greatest": round(max(seconds), 2),
        "exchanges": exchanges,
    }


def recorded() -> dict[str, dict[str, dict[str, float]]]:
    """Run this benchmark and return what `benchmarks` records."""
    return {"seconds": {NAME: miller_round()}}
