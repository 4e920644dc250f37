"""Single analyses as signed rounds in memory, and what leaves a site in them.

Everything of a round is in the seconds: tables read from disk, signatures, estimators, gate,
ledger on disk, pooling. Nothing but the network is left out.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.protocol import AnalysisSpec, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from fedcac.statistics import Estimate
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

__all__ = ["answer_bytes", "paths_by_site", "pooled_rows", "protocol_with", "round_of"]


def protocol_with(shipped: str, analyses: Sequence[AnalysisSpec], **changes: object) -> Protocol:
    """Return a shipped protocol with these analyses in the place of its own."""
    protocol = load_shipped(shipped)
    document = {name: getattr(protocol, name) for name in type(protocol).model_fields}
    return Protocol.model_validate({**document, "analyses": tuple(analyses), **changes})


def paths_by_site(paths: Sequence[Path]) -> dict[str, Path]:
    """Return each site's table by the site's name, which is the file's."""
    return {path.stem: path for path in paths}


def round_of(protocol: Protocol, tables: Mapping[str, Path], policy: str = "open") -> RoundView:
    """Run a whole signed round with every site in this process."""
    with tempfile.TemporaryDirectory() as scratch:
        sites = [
            InMemorySite(
                name=name,
                source=TableSource(table),
                store=SiteStore(":memory:"),
                ledger_path=Path(scratch) / name / "ledger.jsonl",
                secret=f"secret of {name}".encode(),
            )
            for name, table in tables.items()
        ]
        # The sites say which columns they leave aside, once per round and site.
        with contextlib.redirect_stderr(io.StringIO()):
            view = run_round(protocol, sites, load_policy(policy), SigningKey.generate())
        for site in sites:
            site.store.close()
        return view


def answer_bytes(view: RoundView) -> float:
    """Return the bytes of a site's answers, signatures and encoding left out; mean of the sites."""
    sizes = [
        sum(len(answer.model_dump_json()) for told in site.told for answer in told.values())
        for site in view.sites
    ]
    return sum(sizes) / len(sizes)


def pooled_rows(view: RoundView, analysis: str) -> dict[tuple[str, str, str], Estimate]:
    """Return an analysis's pooled rows by measure, group and term."""
    return {
        (row.measure.value, row.group, row.term): row
        for row in view.estimates
        if row.analysis == analysis and row.scope == "pooled"
    }
