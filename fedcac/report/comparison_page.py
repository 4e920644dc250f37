"""The output of a comparison of two rounds: tables, one figure and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedcac.report.comparison_folder import (
    COMPARISON_TABLE,
    ComparisonOutput,
    round_document,
    write_comparison_folder,
)
from fedcac.report.comparison_words import (
    HEADLINES,
    PATIENTS_WORDS,
    change_words,
    size_words,
    value_words,
)
from fedcac.report.figures import Figure
from fedcac.report.figures.pairs import PairRow, draw_pairs
from fedcac.report.page import fill_template
from fedcac.report.rounds_compared import (
    RATIOS,
    ComparedRound,
    ComparedRow,
    Patients,
)
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    measure_words,
    number_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["COMPARISON_COLUMNS", "comparison_csv", "write_comparison"]

COMPARISON_COLUMNS: Final = (
    "analysis",
    "scope",
    "group",
    "term",
    "measure",
    "first",
    "first_low",
    "first_high",
    "first_n",
    "second",
    "second_low",
    "second_high",
    "second_n",
    "contrast",
    "change",
    "change_low",
    "change_high",
    "reason",
)

_DRAWN = HEADLINES - {Measure.BIAS, Measure.HAZARD_RATIO}
_MOST_DRAWN = 20


def write_comparison(
    first: ComparedRound,
    second: ComparedRound,
    rows: Sequence[ComparedRow],
    patients: Patients,
    out: Path,
) -> None:
    """Write `comparison.csv`, `comparison.html`, `figures/comparison.svg` and `provenance.json`.

    Raises
    ------
    UsageError
        If `out` holds something that is not an earlier comparison (`output_not_empty`).
    """
    figure = draw_comparison(rows)
    output = ComparisonOutput(
        first=first,
        patients=patients,
        rounds={"first": round_document(first), "second": round_document(second)},
        table_name=COMPARISON_TABLE,
        table=comparison_csv(rows),
        page=_page(first, second, rows, patients, figure),
        figures=() if figure is None else (figure,),
    )
    write_comparison_folder(output, out)


def comparison_csv(rows: Sequence[ComparedRow]) -> str:
    """Return the rows as a table: an absent number is an empty field, `reason` says why."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COMPARISON_COLUMNS)
    for row in rows:
        writer.writerow(
            [
                row.analysis,
                row.scope,
                row.group,
                row.term,
                row.measure.value,
                *_fields(row.first),
                *_fields(row.second),
                "ratio" if row.measure in RATIOS else "difference",
                *("" if x is None else repr(x) for x in (row.change, row.low, row.high)),
                row.reason,
            ]
        )
    return text.getvalue()


def draw_comparison(rows: Sequence[ComparedRow]) -> Figure | None:
    """Draw the pooled values of both rounds, one pair per measure; None if no pair has numbers.

    Each value has its own interval. Two overlapping intervals say nothing of the difference of
    values of the same patients.
    """
    pairs = tuple(
        PairRow(
            f"{_short(row.measure)} {row.term}".strip(),
            (row.first.estimate, row.first.ci_low, row.first.ci_high),
            (row.second.estimate, row.second.ci_low, row.second.ci_high),
            number_words(row.first),
            number_words(row.second),
        )
        for row in rows
        if row.scope == POOLED
        and row.measure in _DRAWN
        and row.first is not None
        and row.second is not None
        and row.first.estimate is not None
        and row.second.estimate is not None
    )
    if not pairs:
        return None
    return draw_pairs(
        "comparison",
        "Pooled values of both rounds",
        "Value (proportions as fractions), with its own 95% interval",
        pairs[:_MOST_DRAWN],
        ("Round A", "Round B"),
    )


def _short(measure: Measure) -> str:
    words = {
        Measure.KAPPA_UNWEIGHTED: "Kappa",
        Measure.KAPPA_LINEAR: "Linear kappa",
    }
    return words.get(measure, measure_words(measure))


def _fields(row: Estimate | None) -> tuple[str, ...]:
    if row is None:
        return ("",) * 4
    numbers = (row.estimate, row.ci_low, row.ci_high)
    texts = tuple("" if number is None else repr(number) for number in numbers)
    return (*texts, "" if row.n is None else str(row.n))


def _tables(
    first: ComparedRound, second: ComparedRound, rows: Sequence[ComparedRow]
) -> tuple[Table, Table, Table]:
    columns = ("Measure", "Analysis", "Round A", "Round B", "Change (95% CI)")
    pooled = [row for row in rows if row.scope == POOLED and row.measure in HEADLINES]
    sites = tuple(dict.fromkeys([*first.sites, *second.sites]))
    drift: list[Row] = []
    for scope in (*sites, META):
        own = [row for row in rows if row.scope == scope and row.measure in HEADLINES]
        if own:
            drift += [Row(scope_words(scope)), *(_line(row) for row in own)]
    return (
        Table(
            "Who took part: patients analysed, and the disclosure policy in force.",
            ("Site", "Patients, A", "Patients, B", "Policy, A", "Policy, B"),
            tuple(
                Row(
                    site,
                    (
                        size_words(first, site),
                        size_words(second, site),
                        first.policies.get(site, "not in round A"),
                        second.policies.get(site, "not in round B"),
                    ),
                )
                for site in sites
            ),
        ),
        Table("Pooled values of both rounds.", columns, tuple(_line(row) for row in pooled)),
        Table("Drift: each site's own values in both rounds.", columns, tuple(drift)),
    )


def _line(row: ComparedRow) -> Row:
    head = measure_words(row.measure)
    if row.term:
        head += f", {term_words(row.term)}"
    if row.group:
        head += f" ({row.group})"
    return Row(
        head, (row.analysis, value_words(row.first), value_words(row.second), change_words(row))
    )


def _page(
    first: ComparedRound,
    second: ComparedRound,
    rows: Sequence[ComparedRow],
    patients: Patients,
    figure: Figure | None,
) -> str:
    who, pooled, drift = _tables(first, second, rows)
    return fill_template(
        "compare.html.j2",
        f"{first.protocol_id}, version {first.protocol_version}; two rounds",
        first=first,
        second=second,
        patients=PATIENTS_WORDS[patients],
        who=who,
        pooled=pooled,
        drift=drift,
        figure=figure,
    )
