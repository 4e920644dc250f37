"""The output of three or more rounds followed: one table, run charts and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fedcac.report.comparison_folder import (
    TREND_TABLE,
    ComparisonOutput,
    round_document,
    write_comparison_folder,
)
from fedcac.report.comparison_words import (
    PATIENTS_WORDS,
    change_words,
    size_words,
    value_words,
)
from fedcac.report.figures import Figure
from fedcac.report.figures.run_chart import Run, RunSheet, draw_runs
from fedcac.report.page import fill_template
from fedcac.report.rounds_compared import RATIOS, ComparedRound, Patients, usable_limits
from fedcac.report.rounds_trend import TREND_MEASURES, TrendRow
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    PERCENT_MEASURES,
    measure_words,
    p_phrase,
    p_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate

__all__ = ["TREND_COLUMNS", "trend_csv", "write_trend"]

TREND_COLUMNS: Final = (
    "analysis",
    "scope",
    "group",
    "term",
    "measure",
    "round",
    "round_id",
    "finished",
    "package",
    "estimate",
    "ci_low",
    "ci_high",
    "n",
    "status",
    "contrast",
    "change",
    "change_low",
    "change_high",
    "reason",
    "drift_q",
    "drift_df",
    "drift_p",
)


def write_trend(
    rounds: Sequence[ComparedRound], rows: Sequence[TrendRow], patients: Patients, out: Path
) -> None:
    """Write `rounds.csv`, `comparison.html`, `figures/runs_*.svg` and `provenance.json`.

    Raises
    ------
    UsageError
        If `out` holds something that is not an earlier comparison (`output_not_empty`).
    """
    figures = tuple(draw_trends(rounds, rows))
    output = ComparisonOutput(
        first=rounds[0],
        patients=patients,
        rounds={"rounds": [round_document(one) for one in rounds]},
        table_name=TREND_TABLE,
        table=trend_csv(rounds, rows),
        page=_page(rounds, rows, patients, figures),
        figures=figures,
    )
    write_comparison_folder(output, out)


def trend_csv(rounds: Sequence[ComparedRound], rows: Sequence[TrendRow]) -> str:
    """Return one line per value and round; `change` is against round 1, an absent number empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TREND_COLUMNS)
    for row in rows:
        for number, (one, value) in enumerate(zip(rounds, row.values, strict=True), start=1):
            change = row.changes[number - 2] if number > 1 else None
            against = (
                ("", "", "", "", "")
                if change is None
                else (
                    "ratio" if row.measure in RATIOS else "difference",
                    *(_text(x) for x in (change.change, change.low, change.high)),
                    change.reason,
                )
            )
            writer.writerow(
                [
                    *(row.analysis, row.scope, row.group, row.term, row.measure.value),
                    *(number, one.round_id, one.finished, one.package),
                    *_fields(value),
                    *against,
                    *(_text(x) for x in (row.q, row.df, row.p_value)),
                ]
            )
    return text.getvalue()


def draw_trends(rounds: Sequence[ComparedRound], rows: Sequence[TrendRow]) -> Iterator[Figure]:
    """Yield a run chart per analysis, measure and term, with a panel per site."""
    sheets: dict[tuple[str, str, str], list[TrendRow]] = {}
    for row in rows:
        if row.measure in TREND_MEASURES:
            sheets.setdefault((row.analysis, row.measure.value, row.term), []).append(row)
    for (analysis, measure, term), own in sheets.items():
        own.sort(key=lambda row: {POOLED: 0, META: 1}.get(row.scope, 2))
        runs = tuple(_run(row) for row in own)
        if not any(point for run in runs for point in run.points):
            continue
        head = own[0].measure
        unit = ", percent" if head in PERCENT_MEASURES else ""
        yield draw_runs(
            RunSheet(
                name=f"{analysis}_{measure}_{term}",
                title=_title(own[0]),
                axis=f"{measure_words(head)}{unit} ({analysis}), with 95% intervals, by round",
                ceiling=100.0 if head in PERCENT_MEASURES else None,
                rounds=tuple(str(number) for number in range(1, len(rounds) + 1)),
                runs=runs,
            )
        )


def _run(row: TrendRow) -> Run:
    factor = 100.0 if row.measure in PERCENT_MEASURES else 1.0
    points = tuple(_point(value, factor) for value in row.values)
    p_value = "" if row.p_value is None else f"p {p_phrase(row.p_value)}"
    return Run(scope_words(row.scope), points, p_value, row.scope in {POOLED, META})


def _point(row: Estimate | None, factor: float) -> tuple[float, float | None, float | None] | None:
    if row is None or row.estimate is None:
        return None
    three = usable_limits(row)
    if three is None:
        return factor * row.estimate, None, None
    return factor * three[0], factor * three[1], factor * three[2]


def _title(row: TrendRow) -> str:
    return measure_words(row.measure) + (f", {term_words(row.term)}" if row.term else "")


def _fields(row: Estimate | None) -> tuple[str, ...]:
    if row is None:
        return "", "", "", "", "absent"
    numbers = (_text(x) for x in (row.estimate, row.ci_low, row.ci_high))
    return (*numbers, "" if row.n is None else str(row.n), row.status.value)


def _text(number: float | None) -> str:
    return "" if number is None else repr(number)


def _tables(
    rounds: Sequence[ComparedRound], rows: Sequence[TrendRow]
) -> tuple[Table, Table, Table]:
    sites = tuple(dict.fromkeys(site for one in rounds for site in one.sites))
    heads = tuple(f"Round {number}" for number in range(1, len(rounds) + 1))
    which = Table(
        "The rounds, in the order given.",
        ("Round", "Id", "Finished", "Model package", "Sites"),
        tuple(
            Row(
                str(number),
                (one.round_id, one.finished, one.package or "none", str(len(one.sites))),
            )
            for number, one in enumerate(rounds, start=1)
        ),
    )
    who = Table(
        "Who took part: patients analysed.",
        ("Site", *heads),
        tuple(Row(site, tuple(size_words(one, site) for one in rounds)) for site in sites),
    )
    lines: list[Row] = []
    for scope in (POOLED, META, *sites):
        own = [row for row in rows if row.scope == scope]
        if own:
            lines += [Row(scope_words(scope)), *(_line(row) for row in own)]
    values = Table(
        "Values by round, and the last against the first.",
        ("Measure", "Analysis", *heads, "Last against first (95% CI)", "p over rounds"),
        tuple(lines),
        note="p over rounds: Cochran's Q that the value is the same in all rounds, proportions on "
        "the logit scale, ratios on the log scale; only for rounds of different patients and from "
        "three values on. No correction for the number of tests was made.",
    )
    return which, who, values


def _line(row: TrendRow) -> Row:
    last = row.changes[-1]
    return Row(
        _title(row),
        (
            row.analysis,
            *(value_words(value) for value in row.values),
            "not in the last round" if last is None else change_words(last),
            "not tested" if row.p_value is None else p_words(row.p_value),
        ),
    )


def _page(
    rounds: Sequence[ComparedRound],
    rows: Sequence[TrendRow],
    patients: Patients,
    figures: Sequence[Figure],
) -> str:
    first = rounds[0]
    which, who, values = _tables(rounds, rows)
    return fill_template(
        "trend.html.j2",
        f"{first.protocol_id}, version {first.protocol_version}; {len(rounds)} rounds",
        first=first,
        n_rounds=len(rounds),
        patients=PATIENTS_WORDS[patients],
        which=which,
        who=who,
        values=values,
        figures=figures,
    )
