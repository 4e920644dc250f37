"""`python -m benchmarks deployment_rounds`: whole rounds over TLS beside the same in memory.

Eng's and Miller's protocols with four sites, and Miller's with the same patients shared out among
16, each in memory, over spool folders, and over a SuperLink with node authentication in which the
engine and every agent, courier and SuperNode is a process. Recorded: seconds per round and
exchange, where an exchange spends them, memory per process, and how far the estimates are from
those of the pooled rows.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.consortium import Consortium, RoundRun, SpoolConsortium, in_memory_round
from benchmarks.hundred_sites import share_out
from benchmarks.parity import ParityRow, parity_rows, pooled_table
from benchmarks.processes import memory_rows
from benchmarks.side_by_side import RESULTS, Spread, machine, spread_of, version_of
from fedcac.phantom import eng_tables, miller_tables, write_tables

__all__ = ["NAME", "recorded"]

NAME = "deployment_rounds"
ENG, MILLER = "eng2021-nongated", "miller2023-ctac"
_WAYS = ("in memory", "spool folders", "TLS")
_STAGES = ("request to the inbox", "answer in the outbox", "reply to the engine", "next request")

Tables = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Case:
    """One protocol at one number of sites: runs by way, and the stages of exchanges over TLS."""

    protocol: str
    n_sites: int
    runs: Mapping[str, tuple[RoundRun, ...]]
    stages: Mapping[str, Spread]

    def seconds(self, way: str) -> Spread:
        """Return seconds of a whole round."""
        return spread_of([run.seconds for run in self.runs[way]])

    @property
    def n_exchanges(self) -> int:
        """Exchanges of the round, the same on every way."""
        return self.runs["TLS"][0].view.n_exchanges

    def per_exchange(self, way: str) -> Spread:
        """Return seconds from the first request to the estimates, by exchange."""
        values = []
        for run in self.runs[way]:
            whole = run.seconds if way == "in memory" else run.asking_s
            values.append(whole / run.view.n_exchanges)
        return spread_of(values)

    @property
    def extra_s(self) -> float:
        """Return how much longer a round is over TLS than in memory, offer and start included."""
        return self.seconds("TLS")["median"] - self.seconds("in memory")["median"]


def stages_of(consortium: Consortium, round_id: str) -> dict[str, list[float]]:
    """Return seconds of each stage, per site and exchange, from events and files' times."""
    sent, closed, replied = consortium.times_of(round_id)
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for site in consortium.sites.values():
        for exchange in sent:
            name = f"{exchange:04d}"
            came = (site.spool / "inbox" / f"{round_id}.request-{name}").stat().st_mtime
            left = (site.spool / "outbox" / f"{round_id}.reply-{name}").stat().st_mtime
            stages[_STAGES[0]].append(came - sent[exchange])
            stages[_STAGES[1]].append(left - came)
            stages[_STAGES[2]].append(replied[site.name, exchange] - left)
    stages[_STAGES[3]] = [sent[n + 1] - closed[n] for n in closed if n + 1 in sent]
    return stages


def measure_case(
    consortium: Consortium, protocol: str, tables: Mapping[str, Path], scratch: Path, n_runs: int
) -> Case:
    """Run a protocol on each way in turn, `n_runs` times."""
    runs: dict[str, list[RoundRun]] = {way: [] for way in _WAYS}
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for number in range(n_runs):
        runs["in memory"].append(in_memory_round(protocol, tables))
        spool = SpoolConsortium(scratch / f"spool-{protocol}-{len(tables)}-{number}", tables)
        runs["spool folders"].append(spool.run(protocol))
        spool.close()
        over_tls = consortium.run(protocol)
        runs["TLS"].append(over_tls)
        for stage, values in stages_of(consortium, over_tls.view.record.round_id).items():
            stages[stage] += values
    return Case(
        protocol,
        len(tables),
        {way: tuple(found) for way, found in runs.items()},
        {stage: spread_of(values) for stage, values in stages.items() if values},
    )


def _measured(
    root: Path, tables: Tables, plan: Sequence[tuple[str, int]]
) -> tuple[list[Case], dict[str, dict[str, float]], float]:
    consortium = Consortium(root, tables)
    try:
        began_s = consortium.start_all()
        cases = [
            measure_case(consortium, protocol, tables[protocol], root / "beside", n_runs)
            for protocol, n_runs in plan
        ]
        return cases, memory_rows(consortium), began_s
    finally:
        consortium.stop()


def recorded(n_eng: int = 3, n_miller: int = 2) -> dict[str, dict[str, Spread]]:
    """Measure, write the page and its tables; return the seconds to record."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        miller = write_tables(miller_tables(seed=1), scratch / "miller")
        eng = _renamed(write_tables(eng_tables(seed=1), scratch / "eng"), miller)
        four = {ENG: eng, MILLER: {path.stem: path for path in miller}}
        shared = share_out(miller, scratch / "shared", 16, seed=3)
        sixteen = {MILLER: {path.stem: path for path in shared}}
        cases, memory, began_s = _measured(
            scratch / "four", four, [(ENG, n_eng), (MILLER, n_miller)]
        )
        more, memory_16, began_16_s = _measured(scratch / "sixteen", sixteen, [(MILLER, 1)])
        rows = [
            row
            for case in cases
            for row in parity_rows(
                case.runs["TLS"][0],
                in_memory_round(
                    case.protocol,
                    {"all": pooled_table(four[case.protocol].values(), scratch / case.protocol)},
                ),
            )
        ]
    cases += more
    _write_csv(cases)
    _write_page(cases, {4: (memory, began_s), 16: (memory_16, began_16_s)}, rows)
    return {"seconds": _recorded(cases)}


def _renamed(paths: Sequence[Path], alike: Sequence[Path]) -> dict[str, Path]:
    """Return Eng's tables under the names of other sites: a site has a table for each protocol."""
    return {other.stem: path for path, other in zip(paths, alike, strict=True)}


def _recorded(cases: Sequence[Case]) -> dict[str, Spread]:
    recorded = {}
    for case in cases:
        key = f"{case.protocol}_{case.n_sites}_sites"
        recorded[f"exchange_over_tls_{key}"] = case.per_exchange("TLS")
        recorded[f"round_over_tls_more_than_in_memory_{key}"] = spread_of(
            [
                tls.seconds - memory.seconds
                for tls, memory in zip(case.runs["TLS"], case.runs["in memory"], strict=True)
            ]
        )
    return recorded


def _write_csv(cases: Sequence[Case]) -> None:
    with (RESULTS / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["protocol", "sites", "way", "run", "exchanges", "seconds"])
        for case in cases:
            for way, runs in case.runs.items():
                for number, run in enumerate(runs, start=1):
                    row = [case.protocol, case.n_sites, way, number, run.view.n_exchanges]
                    writer.writerow([*row, f"{run.seconds:.2f}"])


def _shown(spread: Spread) -> str:
    if spread["least"] == spread["greatest"]:
        return f"{spread['median']:.2f}"
    return f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['greatest']:.2f})"


def _write_page(
    cases: Sequence[Case],
    processes: Mapping[int, tuple[Mapping[str, Mapping[str, float]], float]],
    parity: Sequence[ParityRow],
) -> None:
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("fedcac", "flwr", "numpy"))
    n_patients = {ENG: "Eng's tables", MILLER: "Miller's patients"}
    lines = [
        "# Rounds over TLS beside the same rounds in memory and over spool folders",
        "",
        f"{machine()}; {versions}. All processes of coordinator and sites on this machine, over "
        "loopback; times of day from one clock. The ways are taken in turn within each run.",
        "",
        "| tables | protocol | sites | exchanges | way | seconds of a round | s per exchange |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        head = f"| {n_patients[case.protocol]} | {case.protocol} | {case.n_sites} | "
        lines += [
            f"{head}{case.n_exchanges} | {way} | {_shown(case.seconds(way))} "
            f"| {_shown(case.per_exchange(way))} |"
            for way in _WAYS
        ]
    lines += [
        "",
        "A round over TLS begins when the draft is stored: offer, acceptances and every exchange "
        "are in it. Seconds per exchange count from the first request.",
        "",
        "## Where an exchange over TLS spends its time",
        "",
        "| protocol | sites | stage | seconds, median (least to greatest) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {case.protocol} | {case.n_sites} | {stage} | {_shown(spread)} |"
        for case in cases
        for stage, spread in case.stages.items()
    ]
    for n_sites, (memory, began_s) in processes.items():
        lines += [
            "",
            f"## Memory with {n_sites} sites",
            "",
            f"Every process up and every SuperNode connected after {began_s:.0f} s, started one "
            "after another. MiB resident after the rounds, and the most (`VmHWM`); of the sites' "
            "processes the largest. Pages shared between processes are counted in each.",
            "",
            "| process | now | most |",
            "|---|---|---|",
            *(f"| {name} | {row['now']:.0f} | {row['peak']:.0f} |" for name, row in memory.items()),
        ]
    lines += ["", "## Estimates over TLS against the pooled rows", "", *_parity_lines(parity)]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _parity_lines(rows: Sequence[ParityRow]) -> list[str]:
    with (RESULTS / "parity.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ParityRow.columns())
        writer.writerows(row.cells() for row in rows)
    return [
        "The same protocol with one site that holds all rows, against the round of four sites. "
        "Differences are absolute, over every pooled row that both have. `by site`: the analysis "
        "compares patients within sites and is another one without them; its numbers are held "
        "against R's `strata(site)` by tests/oracle.",
        "",
        f"| {' | '.join(ParityRow.columns())} |",
        f"|{'---|' * len(ParityRow.columns())}",
        *(f"| {' | '.join(row.cells())} |" for row in rows),
    ]
