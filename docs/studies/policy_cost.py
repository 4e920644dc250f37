"""`python docs/studies/policy_cost.py`: what a disclosure policy costs in power and bias.

Runs whole rounds over generated sites under `open`, `research` and `cms`, and compares every
pooled row that `open` gives with the same row under the policy.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import re
import sys
import tempfile
import time as clock
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# One process on one core: results and times do not depend on how many threads a machine offers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from coordinator.views import RoundView
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.phantom import eng_tables, miller_tables, write_tables
from fedcac.phantom.clinical import SiteTables
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.report.figures.canvas import BLUE, GREY, VERMILLION, canvas, to_svg
from fedcac.signing import SigningKey
from fedcac.statistics import Estimate
from fedcac.vocabulary import Measure
from site_agent.store import SiteStore
from site_agent.table_source import TableSource

POLICIES = ("research", "cms")
SEEDS = 10
PRIMARY = "cox_adjusted_model"
FEW = ("age", "sex")

Key = tuple[str, str, str, str]
Rows = dict[Key, Estimate]


def _shipped(protocol: Protocol) -> Protocol:
    return protocol


def _primary_first(protocol: Protocol) -> Protocol:
    """Move the primary model to the front; sites answer in the protocol's order."""
    ordered = sorted(protocol.analyses, key=lambda spec: spec.id != PRIMARY)
    return protocol.model_copy(update={"analyses": tuple(ordered)})


def _primary_alone(protocol: Protocol) -> Protocol:
    """Keep the primary model alone."""
    primary = next(spec for spec in protocol.analyses if spec.id == PRIMARY)
    return protocol.model_copy(update={"analyses": (primary,)})


def _primary_small(protocol: Protocol) -> Protocol:
    """Keep the primary model alone, adjusted for age and sex only, without its extra tests."""
    primary = next(spec for spec in protocol.analyses if spec.id == PRIMARY)
    small = {"covariates": FEW, "proportionality": False, "concordance": False}
    return protocol.model_copy(update={"analyses": (primary.model_copy(update=small),)})


def _first_half(protocol: Protocol) -> Protocol:
    """Keep the analyses up to the adjusted models of MACE."""
    ids = [spec.id for spec in protocol.analyses]
    return protocol.model_copy(
        update={"analyses": protocol.analyses[: ids.index("cox_adjusted_expert") + 1]}
    )


@dataclass(frozen=True)
class Design:
    """One cohort and one protocol; `reference` names the design whose open rows it is held to."""

    name: str
    title: str
    protocol: str
    tables: Callable[[int], SiteTables]
    change: Callable[[Protocol], Protocol] = _shipped
    reference: str = ""

    def plan(self) -> Protocol:
        """Return the protocol of this design."""
        return self.change(load_shipped(self.protocol))


def _miller(seed: int) -> SiteTables:
    return miller_tables(seed)


def _miller_complete(seed: int) -> SiteTables:
    """Leave out patients without a covariate, so that every analysis has the same cohort."""
    return {
        site: [row for row in rows if row["bmi"] and row["stress_lvef"]]
        for site, rows in miller_tables(seed).items()
    }


def _miller_large(seed: int) -> SiteTables:
    return miller_tables(seed, copies=4)


MILLER = "miller2023-ctac"
DESIGNS = (
    Design("eng", "Eng: 22, 75, 71, 135 patients", "eng2021-nongated", eng_tables),
    Design("miller", "Miller: 908, 682, 454, 227 patients", MILLER, _miller),
    Design("miller_large", "Miller: 4 x 2,271 patients", MILLER, _miller_large),
    Design(
        "primary_first", "the primary Cox model first", MILLER, _miller, _primary_first, "miller"
    ),
    Design("primary_alone", "the primary Cox model alone", MILLER, _miller, _primary_alone),
    Design("primary_small", "alone, with age and sex only", MILLER, _miller, _primary_small),
    Design("no_gaps", "without missing covariates", MILLER, _miller_complete, _first_half),
)

COLUMNS = (
    "design",
    "policy",
    "analysis",
    "seeds",
    "rows",
    "available",
    "available_least",
    "available_greatest",
    "patients",
    "se_rows",
    "se_kept",
    "efficiency",
    "information",
    "bias_mean",
    "bias_max",
    "bias_row",
    "merged_rows",
    "missing_because",
    "refusals",
)


# --- one round ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """Pooled rows of one round, and each analysis' first refusal by each site that refused."""

    rows: Rows
    refusals: Mapping[str, Mapping[str, str]]
    sites: tuple[str, ...]


def run(protocol: Protocol, tables: SiteTables, policy: str) -> Round:
    """Run one round in memory over generated tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_tables(tables, folder / "tables")
        sites = [
            InMemorySite(
                name=path.stem,
                source=TableSource(path),
                store=SiteStore(":memory:"),
                ledger_path=folder / path.stem / "ledger.jsonl",
                # From the data alone, so that the resampling groups are the same in every run.
                secret=path.read_bytes()[:64],
            )
            for path in paths
        ]
        # Sites tell of table columns that a protocol does not ask for; that is expected here.
        with contextlib.redirect_stderr(io.StringIO()):
            view = run_round(protocol, sites, load_policy(policy), SigningKey.generate())
    return Round(pooled(view.estimates), first_refusals(view, protocol), tuple(tables))


def pooled(estimates: Iterable[Estimate]) -> Rows:
    """Return the pooled rows that are studied.

    Rows that leave one site out follow from the others and are not counted; nor is an AUC's error
    bound, which is a remark on another row.
    """
    return {
        (row.analysis, row.measure.value, row.group, row.term): row
        for row in estimates
        if row.scope == "pooled"
        and not row.group.startswith("without ")
        and row.measure is not Measure.AUC_ERROR_BOUND
    }


def first_refusals(view: RoundView, protocol: Protocol) -> dict[str, dict[str, str]]:
    """Return analysis -> site -> the code that this site refused with first.

    An analysis that builds on fitted models is not asked at all where a fit failed: it then has
    the refusals of its models.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for site in view.sites:
        for reply in site.replies:
            for analysis, answer in reply.answers.items():
                if answer.refusal is not None:
                    found[analysis].setdefault(site.name, answer.refusal.value)
    for spec in protocol.analyses:
        if spec.kind == "reclassification" and spec.id not in found:
            for model in (spec.full, spec.base):
                for site_name, code in found.get(model, {}).items():
                    found[spec.id].setdefault(site_name, code)
    return dict(found)


# --- comparison -----------------------------------------------------------------------------


@dataclass
class Tally:
    """What one analysis has under one policy, over all seeds."""

    shares: list[float] = field(default_factory=list)
    n_rows: int = 0
    n_available: int = 0
    patients: list[float] = field(default_factory=list)
    n_se: int = 0
    efficiencies: list[float] = field(default_factory=list)
    biases: list[tuple[float, str]] = field(default_factory=list)
    n_merged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, analysis: str, whole: Round, found: Round) -> None:
        """Compare one round under the policy with the same round under `open`."""
        asked = {k: r for k, r in whole.rows.items() if k[0] == analysis and r.estimate is not None}
        refused = found.refusals.get(analysis, {})
        self.refusals.update(refused.items())
        n_available = 0
        for key, row in asked.items():
            self.n_se += has_se(row)
            got = found.rows.get(key)
            if got is None or got.estimate is None:
                self._miss(got, refused, found.sites)
                continue
            n_available += 1
            if row.n and got.n:
                self.patients.append(got.n / row.n)
            if has_se(row):
                self.biases.append((bias(row, got), " ".join(part for part in key[1:] if part)))
                if has_se(got):
                    self.efficiencies.append(efficiency(row, got))
        self.n_rows += len(asked)
        self.n_available += n_available
        self.shares.append(n_available / len(asked))
        self.n_merged += sum(
            key[0] == analysis and key not in whole.rows and row.estimate is not None
            for key, row in found.rows.items()
        )

    def _miss(self, got: Estimate | None, refused: Mapping[str, str], sites: Sequence[str]) -> None:
        if len(refused) == len(sites):
            for code in refused.values():
                self.reasons[code] += 1
        else:
            # Some site answered, but not with what this row needs.
            reason = "coarser" if got is None else "withheld_cells"
            if got is not None and got.status.value == "not_estimable":
                reason = "not_estimable"
            self.reasons[reason] += len(sites)

    def columns(self) -> dict[str, str]:
        """Return this tally as text, rounded so that every machine writes the same file."""
        n_seeds = len(self.shares)
        largest = max(self.biases, default=(0.0, ""), key=lambda pair: abs(pair[0]))
        total = sum(self.reasons.values())
        refusals = [
            f"{site}:{code}={count}" for (site, code), count in sorted(self.refusals.items())
        ]
        return {
            "seeds": str(n_seeds),
            "rows": _number(self.n_rows / n_seeds, 1),
            "available": _number(self.n_available / self.n_rows),
            "available_least": _number(min(self.shares)),
            "available_greatest": _number(max(self.shares)),
            "patients": _mean(self.patients),
            "se_rows": _number(self.n_se / n_seeds, 1),
            "se_kept": _number(len(self.efficiencies) / self.n_se) if self.n_se else "",
            "efficiency": _mean(self.efficiencies),
            "information": _number(sum(self.efficiencies) / self.n_se) if self.n_se else "",
            "bias_mean": _mean([abs(value) for value, _ in self.biases]),
            "bias_max": _number(abs(largest[0])) if self.biases else "",
            # Rounding to the policy's digits is no bias, and which row it hits most is chance.
            "bias_row": largest[1] if abs(largest[0]) > 0.0005 else "",
            "merged_rows": _number(self.n_merged / n_seeds, 1),
            "missing_because": " ".join(
                f"{reason}={count / total:.2f}"
                for reason, count in sorted(self.reasons.items(), key=lambda p: (-p[1], p[0]))
            ),
            "refusals": " ".join(refusals),
        }


def has_se(row: Estimate) -> bool:
    """Say whether the row has a standard error above zero."""
    return row.se is not None and row.se > 0


def bias(whole: Estimate, found: Estimate) -> float:
    """Return how far the estimate is from the one of `open`, in standard errors of `open`."""
    return (found.estimate - whole.estimate) / whole.se  # type: ignore[operator]


def efficiency(whole: Estimate, found: Estimate) -> float:
    """Return the relative efficiency: the share of the patients that would have done as well."""
    return float((whole.se / found.se) ** 2)  # type: ignore[operator]


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def _mean(values: Sequence[float]) -> str:
    return _number(sum(values) / len(values)) if values else ""


def study(designs: Sequence[Design], seeds: Sequence[int]) -> list[dict[str, str]]:
    """Run every design under every policy with every seed; return the rows of the csv."""
    tallies: dict[tuple[str, str, str], Tally] = {}
    start = clock.process_time()
    for seed in seeds:
        whole: dict[str, Round] = {}
        for design in designs:
            protocol, tables = design.plan(), design.tables(seed)
            if not design.reference:
                whole[design.name] = run(protocol, tables, "open")
            reference = whole[design.reference or design.name]
            for policy in POLICIES:
                found = run(protocol, tables, policy)
                for spec in protocol.analyses:
                    tally = tallies.setdefault((design.name, policy, spec.id), Tally())
                    tally.add(spec.id, reference, found)
            say(f"seed {seed}, {design.name}: {clock.process_time() - start:.0f} s of CPU in all")
    order = {design.name: number for number, design in enumerate(designs)}
    names = sorted(tallies, key=lambda name: (order[name[0]], POLICIES.index(name[1])))
    return [dict(zip(COLUMNS[:3], name, strict=True)) | tallies[name].columns() for name in names]


# --- csv, page, figure ----------------------------------------------------------------------


def write_csv(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write the results."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the results."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Mapping[str, str]], design: str, only: str = "") -> str:
    """Return the markdown table of one design, `research` and `cms` side by side."""
    own = {(row["analysis"], row["policy"]): row for row in rows if row["design"] == design}
    lines = [
        "| analysis | rows | research: there, % | efficiency | bias, SE | missing because | "
        "cms: there, % | efficiency | bias, SE | missing because |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---|",
    ]
    for analysis in dict.fromkeys(name for name, _ in own):
        if only and analysis != only:
            continue
        cells = [analysis, f"{float(own[analysis, POLICIES[0]]['rows']):.0f}"]
        for policy in POLICIES:
            cells += _cells(own[analysis, policy])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: Mapping[str, str]) -> list[str]:
    share = f"{100 * float(row['available']):.0f}"
    if row["available_least"] != row["available_greatest"]:
        share += (
            f" ({100 * float(row['available_least']):.0f}-"
            f"{100 * float(row['available_greatest']):.0f})"
        )
    gain = "-"
    if row["efficiency"]:
        gain = f"{float(row['efficiency']):.2f}"
        gain += f" / {float(row['information']):.2f}"
    elif row["se_rows"] != "0.0":
        gain = "- / 0.00"
    off = "-"
    if row["bias_mean"]:
        off = f"{float(row['bias_mean']):.2f} / {float(row['bias_max']):.2f}"
    why = row["missing_because"].split(" ")[0]
    if why:
        reason, _, part = why.partition("=")
        why = f"{reason} {100 * float(part):.0f} %"
    return [share, gain, off, why or "-"]


def update_page(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Put the tables between the page's markers."""
    path.write_text(filled(path.read_text(encoding="utf-8"), rows), encoding="utf-8")


def filled(text: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Return the page with every marked table made from the results."""

    def made(match: re.Match[str]) -> str:
        design, _, only = match.group(1).partition(":")
        return f"<!-- table {match.group(1)} -->\n{table(rows, design, only)}\n<!-- end -->"

    return re.sub(r"<!-- table ([\w:]+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


def draw_figure(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw the share of rows there, and the information kept, by analysis, design and policy."""
    shown = [design for design in DESIGNS[:3] if any(r["design"] == design.name for r in rows)]
    names = {
        design.name: list(dict.fromkeys(r["analysis"] for r in rows if r["design"] == design.name))
        for design in shown
    }
    alt = "Share of pooled rows that a policy leaves, by analysis, cohort and policy"
    with canvas(1080, 620) as figure:
        grid = figure.add_gridspec(
            2, 2, height_ratios=(3, 28), left=0.17, right=0.985, top=0.94, bottom=0.09, hspace=0.22
        )
        places = {"eng": grid[0, 0], "miller": grid[1, 0], "miller_large": grid[1, 1]}
        for design in shown:
            axis = figure.add_subplot(places[design.name])
            for policy, colour, shift in zip(
                POLICIES, (BLUE, VERMILLION), (-0.17, 0.17), strict=True
            ):
                own = {
                    r["analysis"]: r
                    for r in rows
                    if r["design"] == design.name and r["policy"] == policy
                }
                at = [number + shift for number in range(len(own))]
                there = [100 * float(r["available"]) for r in own.values()]
                axis.hlines(at, 0, there, color=colour, linewidth=1.2)
                axis.plot(there, at, "o", color=colour, markersize=5, label=f"{policy}: rows there")
                kept = [
                    (100 * float(r["information"]), y)
                    for r, y in zip(own.values(), at, strict=True)
                    if r["information"]
                ]
                axis.plot(
                    [x for x, _ in kept],
                    [y for _, y in kept],
                    "D",
                    markerfacecolor="white",
                    color=colour,
                    markersize=4,
                    label=f"{policy}: information kept",
                )
            axis.set_yticks(range(len(names[design.name])), names[design.name], fontsize=9)
            if design.name == "miller_large":
                axis.tick_params(axis="y", labelleft=False)
            axis.set_ylim(len(names[design.name]) - 0.5, -0.5)
            axis.set_xlim(-2, 106)
            axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
            axis.set_title(design.title, fontsize=10, loc="left")
            if design.name != "eng":
                axis.set_xlabel("% of what the policy open gives")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper right", bbox_to_anchor=(0.985, 0.95), ncols=2, frameon=False
        )
        path.write_text(to_svg(figure, "policy_cost", alt), encoding="utf-8")


def say(text: str) -> None:
    """Write a line of progress to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the study; write policy_cost.csv, the figure, and the tables of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1 to N of the generators")
    parser.add_argument(
        "--design", action="append", choices=[d.name for d in DESIGNS], help="only this design"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="a folder")
    parser.add_argument(
        "--figure", action="store_true", help="only the figure and the page's tables, from the csv"
    )
    arguments = parser.parse_args()
    results = arguments.out / "policy_cost.csv"
    if not arguments.figure:
        chosen = [d for d in DESIGNS if d.name in (arguments.design or [x.name for x in DESIGNS])]
        chosen_names = [design.name for design in chosen]
        for design in chosen:
            if design.reference and design.reference not in chosen_names:
                parser.error(f"{design.name} needs --design {design.reference} as well")
        rows = study(chosen, range(1, arguments.seeds + 1))
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_csv(rows, results)
    rows = read_csv(results)
    draw_figure(rows, arguments.out / "policy_cost.svg")
    page = arguments.out / "policy_cost.md"
    if page.exists() and {row["design"] for row in rows} == {d.name for d in DESIGNS}:
        update_page(rows, page)


if __name__ == "__main__":
    main()
