"""`python -m benchmarks.page`: docs/studies/benchmarks.md and its figure, from `results/`.

Every number of the page comes from `results/results.json` or `results/estimator_parity.csv`; the
tests hold the page to them.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ratio_figure import ratio_figure
from benchmarks.registry import BENCHMARKS, Benchmark, Figure
from benchmarks.side_by_side import RESULTS, recorded_results

__all__ = ["PAGE", "SVG", "page_text", "shown_number", "table_of_figures", "write_page"]

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "studies" / "benchmarks.md"
SVG = PAGE.with_suffix(".svg")

Results = Mapping[str, Any]

_UNITS = {"ratios": "x", "seconds": "s", "bytes_out_per_site": "B", "differences": "", "counts": ""}


def _number(value: float, kind: str) -> str:
    if kind == "differences":
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def shown_number(results: Results, figure: Figure) -> str:
    """Return a figure's median with its spread and unit; 'not measured' where there is none."""
    spread = results.get(figure.kind, {}).get(figure.key)
    if spread is None:
        return "not measured"
    middle, least, greatest = (
        _number(spread[name], figure.kind) for name in ("median", "least", "greatest")
    )
    text = middle if least == greatest else f"{middle} ({least} to {greatest})"
    return f"{text} {_UNITS[figure.kind]}".strip()


def _links(pages: Sequence[str]) -> str:
    return ", ".join(
        f"[{Path(page).stem}]({os.path.relpath(_ROOT / page, PAGE.parent)})" for page in pages
    )


def _in_table(benchmark: Benchmark) -> bool:
    # The parity table has a line for each of its ratios.
    return benchmark.name != "estimator_parity"


def table_of_figures(results: Results) -> list[str]:
    """Return the table of every figure but those of the parity table, as Markdown."""
    lines = [
        "| benchmark | figure | median (least to greatest) | quoted in |",
        "|---|---|---|---|",
    ]
    for benchmark in filter(_in_table, BENCHMARKS):
        for number, figure in enumerate(benchmark.figures):
            name = f"`{benchmark.name}`" if number == 0 else ""
            value = shown_number(results, figure)
            quoted = _links([page for page, _, _ in figure.quoted])
            lines.append(f"| {name} | {figure.words} | {value} | {quoted} |")
        if not benchmark.figures:
            where, quoted = f"benchmarks/results/{benchmark.page}", _links(benchmark.quoted)
            lines.append(f"| `{benchmark.name}` | see `{where}` | | {quoted} |")
    return lines


def _table_of_benchmarks(results: Results) -> list[str]:
    measured = results["measured"]
    lines = ["| benchmark | compares | machine, load and versions |", "|---|---|---|"]
    for one in BENCHMARKS:
        lines.append(
            f"| `{one.name}` | {one.compares} | {measured.get(one.name, 'not measured')} |"
        )
    return lines


def _parity_rows() -> list[dict[str, str]]:
    with (RESULTS / "estimator_parity.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _table_of_parity() -> list[str]:
    rows = _parity_rows()
    head = list(rows[0])
    shown = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    kind = ""
    for row in rows:
        cells = list(row.values())
        # A kind's second line shares what the first says of the round.
        cells = ["", *cells[1:6], *[""] * 4] if row["kind"] == kind else cells
        kind = row["kind"]
        shown.append("| " + " | ".join([f"`{cells[0]}`" if cells[0] else "", *cells[1:]]) + " |")
    return shown


def _value(results: Results, kind: str, key: str) -> float:
    return float(results[kind][key]["median"])


def _alternatives(results: Results) -> list[str]:
    """Return what a user would otherwise do, in words and recorded numbers."""

    def size(key: str) -> str:
        return f"{_value(results, 'bytes_out_per_site', key):,.0f}"

    def count(key: str) -> str:
        return f"{_value(results, 'counts', key):,.0f}"

    flower = [
        "- **Flower's Kaplan-Meier example** sends every patient's time and event to the server: "
        f"{count('kaplan_meier_patients_whose_own_day_left_over_flower')} patients' days left four "
        f"sites in {size('kaplan_meier_rows_over_flower')} bytes a site. Our round is slower, for "
        "it signs, checks, keeps a ledger and tests; daily bins give lifelines' curve in "
        f"{size('kaplan_meier_daily')} bytes and tell as much as the rows; neither `research` "
        "nor `cms` lets them out. Under `research` "
        f"{size('kaplan_meier_under_the_policy_research')} bytes leave, "
        "every bin has at least five events, and the curve has fewer days. Flower says itself "
        "that the example sends raw data "
        "(<https://github.com/adap/flower/tree/main/examples/federated-kaplan-meier-fitter>); what "
        "is timed is written anew with Flower's messages, without ray and without a SuperLink.",
    ]
    if "cox_by_vantage6" not in results["bytes_out_per_site"]:
        return flower
    return [
        *flower,
        "- **vantage6's Cox algorithm** (<https://github.com/MaastrichtU-CDS/v6-coxph>, commit "
        "02bc8b5) keeps rows at the sites and sends, for every day on which any patient of any "
        f"site had the event, the sums over the patients at risk: {size('cox_by_vantage6')} bytes "
        f"a site in {count('cox_exchanges_by_vantage6')} exchanges, against {size('cox')} in "
        f"{count('cox_exchanges')} here. "
        f"{count('cox_event_days_of_one_patient_that_left_by_vantage6')} of the days with a count "
        "that left a site were one patient's. It was run with its own mock client, with binning "
        "and noise off. `vantage6-algorithm-tools` 4.15.2 comes from PyPI; the algorithm is not "
        "there and was installed from its repository without its dependencies, because its "
        "`flask_sqlalchemy` needs an SQLAlchemy that the tools exclude, and pip then falls back "
        "to tools 4.5.0, whose mock client lacks `connectorx`. Where its environment is absent "
        "this part is skipped. It fits one baseline hazard with Breslow's ties, ours one per site "
        "with Efron's: each is held against pooled rows of its own kind.",
    ]


def _onboarding(results: Results) -> str:
    seconds = _value(results, "seconds", "from_a_kit_to_a_passed_dry_run")
    return (
        f"Minutes to onboard: {seconds / 60:.1f} of the machine from the lead's kit to a passed "
        "dry run, installing left out; a person's time is an estimate, some 15 minutes, and was "
        "not measured ([a new site](deployment.md#a-new-site)). It is the same for every "
        "estimator: a site that has joined answers all of them."
    )


_INTRODUCTION = """# Benchmarks

What each benchmark compares, its figure, how far it spread, and where it is quoted. `make bench`
reruns all of them and writes this page; `python -m benchmarks NAME` reruns one. Contenders run in
turn on the same machine, A B A B, and a ratio is that of one turn: the other's seconds over ours,
so that above 1 ours is faster. Machines were shared: their load is in the last table.

![Ratios of the other's seconds to ours, with their spread, on a log axis](benchmarks.svg)"""

_NOT_MEASURED = """## Numbers in the documentation that no benchmark gives

- Masked sums, in [secure-sums](../explanation/secure-sums.md#what-it-costs) and
  [scaling](../explanation/scaling.md): bytes and milliseconds per exchange.
- Seconds that the scripts of other studies take (attacks, resampling, policy cost): a hint for
  whoever reruns them.
- Sizes of the container images in [run-in-containers](../how-to/run-in-containers.md), and the
  minutes in the headings of [join-a-consortium](../how-to/join-a-consortium.md), which are
  estimates.
- The lines of 1 and 2 Mbit/s in [run-over-flower](../how-to/run-over-flower.md): trials.

MONAI's ITKReader and ray are not installed and were not timed; pooled rows under `research` and
masked sums are in [policy cost](policy_cost.md)."""


def _price(results: Results) -> str:
    shares = [
        results["ratios"][figure.key]["median"]
        for benchmark in BENCHMARKS
        for figure in benchmark.figures
        if figure.is_round and figure.key in results["ratios"]
    ]
    seconds = [float(row["seconds of a round"]) for row in _parity_rows()]
    return (
        f"A signed round in memory takes {1 / max(shares):.1f} to {1 / min(shares):.0f} times as "
        f"long as the same analysis of pooled rows ({min(seconds):.1f} to {max(seconds):.1f} s for "
        "a round of one kind): it reads, signs, asks in exchanges, gates and keeps a ledger. That "
        "is its price; a hospital's rows are not to be had otherwise."
    )


def page_text(results: Results) -> str:
    """Return the page."""
    return "\n".join(
        [
            _INTRODUCTION,
            "",
            _price(results),
            "",
            "## Figures",
            "",
            *table_of_figures(results),
            "",
            "A difference is absolute. Bytes are those of the answers, without signatures and "
            "encoding; Flower's and vantage6's are those of their serialised messages.",
            "",
            "## Every estimator beside software on pooled rows",
            "",
            *_table_of_parity(),
            "",
            "`exact`: the same estimand. `grid`: the sites count on a public grid, and the "
            "estimate is the grid's; ages are in years. Each kind is a round of its own under the "
            "policy `open`, over generated patients: four sites of Miller's 2,271, three of Hong's "
            "2,800. The federated round against one site with every row is in "
            "[deployment](deployment.md#estimates-and-bytes).",
            "",
            _onboarding(results),
            "",
            "## What a user would otherwise do",
            "",
            *_alternatives(results),
            "",
            "## Machine and versions",
            "",
            *_table_of_benchmarks(results),
            "",
            _NOT_MEASURED,
            "",
        ]
    )


def write_page() -> None:
    """Write the page and its figure."""
    results = recorded_results()
    PAGE.write_text(page_text(results), encoding="utf-8")
    SVG.write_text(ratio_figure(results), encoding="utf-8")


if __name__ == "__main__":
    write_page()
