"""`python -m benchmarks.hundred_sites`: Miller's whole protocol at 100 generated sites.

Eight generated cohorts of the paper (18,168 patients) are shared out among 100 sites of very
different sizes. Recorded per disclosure policy: seconds of the round and of its report, and sizes.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import Spread
from coordinator.reports.reporting import write_round_report
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.phantom import miller_tables, write_tables
from fedcac.protocol.catalogue import load_shipped
from fedcac.report import ReportFormats
from fedcac.signing import SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

_RESULTS = Path(__file__).parent / "results"
_COLUMNS = (
    "policy",
    "sites",
    "patients",
    "estimates",
    "exchanges",
    "round_s",
    "report_s",
    "report_html_mb",
    "figures",
    "estimates_csv_mb",
    "estimates_parquet_mb",
    "tables_docx_mb",
    "releases_jsonl_mb",
)


def share_out(tables: Sequence[Path], folder: Path, n_sites: int, seed: int) -> list[Path]:
    """Deal the rows of all tables out to `n_sites` tables whose sizes are log-normal."""
    rows: list[list[str]] = []
    for table in tables:
        with table.open(encoding="utf-8", newline="") as stream:
            head, *own = csv.reader(stream)
        rows += own
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0, 0.7, n_sites)
    ends = np.round(np.cumsum(weights) / weights.sum() * len(rows)).astype(int)
    order = rng.permutation(len(rows))
    folder.mkdir()
    paths = []
    for number, places in enumerate(np.split(order, ends[:-1]), start=1):
        path = folder / f"site{number:03d}.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(head)
            writer.writerows([f"P{i}", *rows[place][1:]] for i, place in enumerate(places))
        paths.append(path)
    return paths


def measure(paths: Sequence[Path], policy: str, scratch: Path) -> dict[str, object]:
    """Run one round and write its report; return a line of the results."""
    sites = [
        InMemorySite(
            name=path.stem,
            source=TableSource(path),
            store=SiteStore(":memory:"),
            ledger_path=scratch / "sites" / path.stem / "ledger.jsonl",
            secret=path.read_bytes()[:64],
        )
        for path in paths
    ]
    protocol = load_shipped("miller2023-ctac")
    start = time.perf_counter()
    rules = load_policy(policy).model_copy(update={"review": "auto"})
    view = run_round(protocol, sites, rules, SigningKey.generate())
    ran = time.perf_counter()
    out = scratch / "out"
    write_round_report(view, out, None, formats=ReportFormats(has_word=True, has_parquet=True))
    wrote = time.perf_counter()
    sizes = {path.name: path.stat().st_size / 1e6 for path in out.iterdir() if path.is_file()}
    n_patients = sum(len(path.read_text(encoding="utf-8").splitlines()) - 1 for path in paths)
    values = (
        policy,
        len(paths),
        n_patients,
        len(view.estimates),
        view.n_exchanges,
        round(ran - start),
        round(wrote - ran, 1),
        *(round(sizes[name], 2) for name in ("report.html",)),
        len(list((out / "figures").iterdir())),
        *(
            round(sizes[name], 2)
            for name in ("estimates.csv", "estimates.parquet", "tables.docx", "releases.jsonl")
        ),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark; its numbers are on its own page."""
    main([])
    return {}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both policies and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=100)
    arguments = parser.parse_args(argv)
    lines = []
    for policy in ("open", "research"):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            tables = write_tables(miller_tables(seed=1, copies=8), scratch / "tables")
            paths = share_out(tables, scratch / "shared", arguments.sites, seed=3)
            lines.append(measure(paths, policy, scratch))
            print(lines[-1])
    with (_RESULTS / "hundred_sites.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, shared with other work"
    text = [
        f"# Miller's protocol at {arguments.sites} generated sites\n",
        f"Machine: {machine}. matplotlib {version('matplotlib')}, numpy {version('numpy')}. "
        "Every site in this process; `python -m benchmarks.hundred_sites` makes it again.\n",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(f"| {' | '.join(str(value) for value in line.values())} |" for line in lines),
    ]
    (_RESULTS / "hundred_sites.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
