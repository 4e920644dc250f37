"""`python docs/studies/policy_cost.py`: what a disclosure policy costs in power and bias.

Runs whole rounds over generated sites under `open`, `research` and `cms`, under the two latter with
every site's own answers and with masked sums over sites, and compares every pooled row that `open`
gives with the same row under the policy.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import os
import re
import sys
import tempfile
import time as clock
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# One process on one core: results and times do not depend on how many threads a machine offers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import load_policy
from fedcac.phantom import eng_tables, miller_tables, write_tables
from fedcac.phantom.clinical import SiteTables
from fedcac.protocol import CoxSpec, Pooling, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.report.figures.canvas import BLUE, GREY, VERMILLION, canvas, to_svg
from fedcac.signing import SigningKey
from fedcac.statistics import Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

POLICIES = ("research", "cms")
POOLINGS = ("own", "masked")
"""Every site's own answers, or masked sums over sites."""
SEEDS = 5
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


def masked(protocol: Protocol) -> Protocol:
    """Ask for masked sums, except for models that are wanted of every site."""
    per_site = tuple(
        spec.id for spec in protocol.analyses if isinstance(spec, CoxSpec) and spec.by_site
    )
    pooling = Pooling(mode="masked", least_sites=3, per_site=per_site)
    return Protocol.model_validate(protocol.model_dump() | {"pooling": pooling})


@dataclass(frozen=True)
class Design:
    """One cohort and one protocol; `reference` names the design whose open rows it is held to.

    `seeds` is how many of the study's seeds it has at most.
    """

    name: str
    title: str
    protocol: str
    tables: Callable[[int], SiteTables]
    change: Callable[[Protocol], Protocol] = _shipped
    reference: str = ""
    seeds: int = SEEDS

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
    Design("miller_large", "Miller: 4 x 2,271 patients", MILLER, _miller_large, seeds=2),
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
    "pooling",
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
    """Pooled rows of one round, and each analysis' first refusal by each site that refused.

    `no_sum` has the code of a masked analysis for which the sites that answered did not do.
    """

    rows: Rows
    refusals: Mapping[str, Mapping[str, str]]
    sites: tuple[str, ...]
    no_sum: Mapping[str, str] = field(default_factory=dict)


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
    return Round(
        pooled(view.estimates),
        first_refusals(view, protocol),
        tuple(tables),
        sums_not_made(view, protocol),
    )


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


def sums_not_made(view: RoundView, protocol: Protocol) -> dict[str, str]:
    """Return analysis -> why the coordinator made no sum of the answers that it had."""
    found = {
        analysis: one.answer.value
        for told in view.sums
        for analysis, one in told.items()
        if isinstance(one.answer, RefusalCode)
    }
    for spec in protocol.analyses:
        if spec.kind == "reclassification":
            for model in (spec.full, spec.base):
                if model in found:
                    found.setdefault(spec.id, found[model])
    return found


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
                self._miss(got, refused, found.sites, found.no_sum.get(analysis, ""))
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

    def _miss(
        self,
        got: Estimate | None,
        refused: Mapping[str, str],
        sites: Sequence[str],
        no_sum: str,
    ) -> None:
        if len(refused) == len(sites):
            for code in refused.values():
                self.reasons[code] += 1
            return
        # Some site answered, but not with what this row needs.
        if got is not None and got.status is not RowStatus.SUPPRESSED:
            reason = got.status.value
        elif no_sum:
            reason = no_sum
        else:
            reason = "coarser" if got is None else "withheld_cells"
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


def study(
    designs: Sequence[Design],
    seeds: Sequence[int],
    save: Callable[[Sequence[Mapping[str, str]]], None] = lambda _: None,
) -> list[dict[str, str]]:
    """Run every design under every policy with every seed; return the rows of the csv.

    `save` gets the rows so far after every seed.
    """
    tallies: dict[tuple[str, str, str, str], Tally] = {}
    start = clock.process_time()
    for seed in seeds:
        whole: dict[str, Round] = {}
        for design in designs:
            if seed > design.seeds:
                continue
            protocol, tables = design.plan(), design.tables(seed)
            if not design.reference:
                whole[design.name] = run(protocol, tables, "open")
            reference = whole[design.reference or design.name]
            for policy, pooling in itertools.product(POLICIES, POOLINGS):
                plan = masked(protocol) if pooling == "masked" else protocol
                found = run(plan, tables, policy)
                for spec in protocol.analyses:
                    name = (design.name, policy, pooling, spec.id)
                    tallies.setdefault(name, Tally()).add(spec.id, reference, found)
            say(f"seed {seed}, {design.name}: {clock.process_time() - start:.0f} s of CPU in all")
        save(_rows_of(tallies, designs))
    return _rows_of(tallies, designs)


def _rows_of(
    tallies: Mapping[tuple[str, str, str, str], Tally], designs: Sequence[Design]
) -> list[dict[str, str]]:
    order = {design.name: number for number, design in enumerate(designs)}
    names = sorted(
        tallies,
        key=lambda name: (order[name[0]], POLICIES.index(name[1]), POOLINGS.index(name[2])),
    )
    return [dict(zip(COLUMNS[:4], name, strict=True)) | tallies[name].columns() for name in names]


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


def table(
    rows: Sequence[Mapping[str, str]], design: str, pooling: str = POOLINGS[0], only: str = ""
) -> str:
    """Return the markdown table of one design, `research` and `cms` side by side."""
    own = {
        (row["analysis"], row["policy"]): row
        for row in rows
        if (row["design"], row["pooling"]) == (design, pooling)
    }
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


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the markdown table of all designs: a whole protocol in one line."""
    lines = [
        "| cohort or variant | policy | answers | rows there, % | information kept | "
        "largest bias, SE | analyses whole / in part / missing |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    titles = {design.name: design.title for design in DESIGNS}
    for design, policy, pooling in itertools.product(DESIGNS, POLICIES, POOLINGS):
        name = (design.name, policy, pooling)
        own = [row for row in rows if (row["design"], row["policy"], row["pooling"]) == name]
        if not own:
            continue
        shares = [float(row["available"]) for row in own]
        whole, missing = shares.count(1.0), shares.count(0.0)
        cells = [
            titles.pop(design.name, ""),
            policy,
            {"own": "sites' own", "masked": "**masked sums**"}[pooling],
            f"{100 * _over(own, 'available', 'rows'):.0f}",
            f"{_over(own, 'information', 'se_rows'):.2f}",
            f"{max((float(row['bias_max']) for row in own if row['bias_max']), default=0):.2f}",
            f"{whole} / {len(own) - whole - missing} / {missing}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _over(rows: Sequence[Mapping[str, str]], name: str, weight: str) -> float:
    """Return the mean of a column over rows, each as heavy as another column says."""
    pairs = [(float(row[name]), float(row[weight])) for row in rows if row[name]]
    return sum(value * w for value, w in pairs) / sum(w for _, w in pairs)


def update_page(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Put the tables between the page's markers."""
    path.write_text(filled(path.read_text(encoding="utf-8"), rows), encoding="utf-8")


def filled(text: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Return the page with every marked table made from the results.

    A marker names a design, after `@` the answers if they are masked, after `:` one analysis.
    """

    def made(match: re.Match[str]) -> str:
        design, pooling, only = match.group(2, 3, 4)
        body = table(rows, design, pooling or POOLINGS[0], only or "") if design else summary(rows)
        return f"{match.group(1)}\n{body}\n<!-- end -->"

    marker = r"(<!-- (?:summary|table (\w+)(?:@(\w+))?(?::(\w+))?) -->)\n.*?<!-- end -->"
    return re.sub(marker, made, text, flags=re.DOTALL)


COLOURS = {"research": BLUE, "cms": VERMILLION}
SHOWN = (("available", "rows there"), ("information", "information kept"))


def draw_figure(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw the shares of rows there and of information kept, from own answers to masked sums."""
    shown = [design for design in DESIGNS[:3] if any(r["design"] == design.name for r in rows)]
    alt = (
        "Share of pooled rows and of information that a policy leaves, with every site's own "
        "answers and with masked sums, by analysis, cohort and policy"
    )
    with canvas(1080, 760) as figure:
        grid = figure.add_gridspec(
            2, 4, height_ratios=(3, 27), left=0.165, right=0.985, top=0.94, bottom=0.045,
            hspace=0.2, wspace=0.14,
        )  # fmt: skip
        places = {"eng": (0, 0), "miller": (1, 0), "miller_large": (1, 2)}
        for design in shown:
            own = [row for row in rows if row["design"] == design.name]
            row, column = places[design.name]
            for shift, (name, title) in enumerate(SHOWN):
                axis = figure.add_subplot(grid[row, column + shift])
                _draw_panel(axis, own, name)
                axis.tick_params(axis="y", length=0, labelleft=column + shift == 0)
                if shift == 0:
                    axis.set_title(design.title, fontsize=10, fontweight="bold", loc="left", pad=20)
                axis.text(0.035, 1.0, f"{title}, %", fontsize=9, color=GREY, va="bottom",
                          transform=axis.transAxes)  # fmt: skip
        _draw_legend(figure)
        path.write_text(to_svg(figure, "policy_cost", alt), encoding="utf-8")


def _draw_panel(axis: Any, rows: Sequence[Mapping[str, str]], column: str) -> None:
    """Draw one number per analysis: hollow by every site's own answers, filled by masked sums."""
    names = list(dict.fromkeys(row["analysis"] for row in rows))
    numbers = {(r["analysis"], r["policy"], r["pooling"]): r[column] for r in rows}
    for policy, shift in zip(POLICIES, (-0.19, 0.19), strict=True):
        for place, analysis in enumerate(names):
            texts = [numbers[analysis, policy, pooling] for pooling in POOLINGS]
            if not all(texts):
                continue
            alone, together = (100 * float(text) for text in texts)
            at, colour = place + shift, COLOURS[policy]
            style: dict[str, Any] = {"linewidth": 2.2, "alpha": 0.45}
            if together < alone:
                style = {"linewidth": 1.4, "linestyle": (0, (1, 1.5))}
            axis.plot([alone, together], [at, at], color=colour, **style)
            axis.plot([together], [at], "o", color=colour, markersize=5.5, clip_on=False)
            axis.plot([alone], [at], "o", color=colour, markerfacecolor="white", markersize=4.5,
                      markeredgewidth=1.1, clip_on=False)  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(-4, 104)
    axis.set_xticks((0, 50, 100))
    axis.grid(axis="both", color=GREY, alpha=0.2, linewidth=0.6)
    axis.set_axisbelow(True)


def _draw_legend(figure: Any) -> None:
    axis = figure.add_axes((0.6, 0.855, 0.385, 0.11))
    axis.set_axis_off()
    axis.set_xlim(0, 38.5)
    axis.set_ylim(0, 11)
    for policy, y in zip(POLICIES, (7.5, 4.0), strict=True):
        colour = COLOURS[policy]
        axis.plot([8.4, 19], [y, y], color=colour, linewidth=2.2, alpha=0.45)
        axis.plot([19], [y], "o", color=colour, markersize=5.5)
        axis.plot([8.4], [y], "o", color=colour, markerfacecolor="white", markersize=4.5)
        axis.text(0, y, policy, va="center", fontsize=10, color=colour, fontweight="bold")
    axis.text(8.4, 9.8, "sites' own answers", ha="center", fontsize=9)
    axis.text(19, 9.8, "masked sums", ha="center", fontsize=9, fontweight="bold")
    notes = "Dotted: sums give less. A ring: both alike. 100 %: as under the policy open."
    axis.text(0, 0.4, notes, fontsize=9, color=GREY)


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
        arguments.out.mkdir(parents=True, exist_ok=True)
        study(chosen, range(1, arguments.seeds + 1), lambda rows: write_csv(rows, results))
    rows = read_csv(results)
    draw_figure(rows, arguments.out / "policy_cost.svg")
    page = arguments.out / "policy_cost.md"
    if page.exists() and {row["design"] for row in rows} == {d.name for d in DESIGNS}:
        update_page(rows, page)


if __name__ == "__main__":
    main()
