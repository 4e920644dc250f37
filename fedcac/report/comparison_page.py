"""The output of a comparison of two rounds: tables, one figure and one page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcac.canonical import sha256_hex
from fedcac.errors import UsageError
from fedcac.report.figures import Figure
from fedcac.report.figures.pairs import PairRow, draw_pairs
from fedcac.report.page import is_gap, security_policy
from fedcac.report.rounds_compared import (
    RATIOS,
    ComparedRound,
    ComparedRow,
    Patients,
)
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    PERCENT_MEASURES,
    measure_words,
    number_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["COMPARISON_COLUMNS", "COMPARISON_FORMAT", "comparison_csv", "write_comparison"]

COMPARISON_FORMAT: Final = "fedcac-comparison/1"

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

_REASONS = {
    "patients_unknown": "no interval: not said whether the patients differ",
    "same_patients": "no interval: same patients",
    "no_interval": "no interval: a round has none",
    "only_first": "not in round B",
    "only_second": "not in round A",
    "no_number": "not in both rounds",
}
_HEADLINES = frozenset(
    {
        Measure.KAPPA_UNWEIGHTED,
        Measure.KAPPA_LINEAR,
        Measure.SENSITIVITY,
        Measure.SPECIFICITY,
        Measure.PPV,
        Measure.NPV,
        Measure.AUC,
        Measure.BIAS,
        Measure.HAZARD_RATIO,
        Measure.C_INDEX,
    }
)
_DRAWN = _HEADLINES - {Measure.BIAS, Measure.HAZARD_RATIO}
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
    _check_target(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    table = comparison_csv(rows).encode()
    figure = draw_comparison(rows)
    if figure is not None:
        (out / "figures" / "comparison.svg").write_text(figure.svg, encoding="utf-8")
    (out / "comparison.csv").write_bytes(table)
    page = _page(first, second, rows, patients, figure)
    (out / "comparison.html").write_text(page, encoding="utf-8")
    provenance = {
        "format": COMPARISON_FORMAT,
        "protocol": {
            "id": first.protocol_id,
            "version": first.protocol_version,
            "digest": first.protocol_digest,
        },
        "patients": patients,
        "first": _round_document(first),
        "second": _round_document(second),
        "files": {"comparison.csv": sha256_hex(table)},
    }
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (out / "provenance.json").write_text(text + "\n", encoding="utf-8")


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
    pooled = [row for row in rows if row.scope == POOLED and row.measure in _HEADLINES]
    sites = tuple(dict.fromkeys([*first.sites, *second.sites]))
    drift: list[Row] = []
    for scope in (*sites, META):
        own = [row for row in rows if row.scope == scope and row.measure in _HEADLINES]
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
                        _size(first, site),
                        _size(second, site),
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


def _size(told: ComparedRound, site: str) -> str:
    if site not in told.n_analysed:
        return "not in this round"
    n = told.n_analysed[site]
    return "not released" if n is None else f"{n:,}"


def _line(row: ComparedRow) -> Row:
    head = measure_words(row.measure)
    if row.term:
        head += f", {term_words(row.term)}"
    if row.group:
        head += f" ({row.group})"
    return Row(head, (row.analysis, _number(row.first), _number(row.second), _change(row)))


def _number(row: Estimate | None) -> str:
    if row is None:
        return "not computed"
    return row.status.value.replace("_", " ") if row.estimate is None else number_words(row)


def _change(row: ComparedRow) -> str:
    if row.change is None:
        return _REASONS[row.reason]
    factor = 100.0 if row.measure in PERCENT_MEASURES else 1.0
    places = 1 if row.measure in {*PERCENT_MEASURES, Measure.BIAS} else 3
    sign = "" if row.measure in RATIOS else "+"
    number = f"{sign}z.{places}f"
    text = f"{factor * row.change:{number}}"
    if row.low is not None and row.high is not None:
        text += f" ({factor * row.low:{number}}, {factor * row.high:{number}})"
    else:
        text += f"; {_REASONS[row.reason]}"
    return text.replace("-", "\N{MINUS SIGN}")


_PATIENTS_WORDS = {
    "different": "The rounds are said to be about different patients. Intervals of a change "
    "treat them as independent samples: the distances of both values' limits are added in squares "
    "(Zou and Donner 2008); for proportions with Wilson's limits (Newcombe 1998), whatever limits "
    "the protocol asks for. Sites that took part in both may "
    "be alike in ways that no interval covers.",
    "same": "The rounds are about the same patients. Their values are correlated, and only the "
    "patients' own pairs of values say how much; aggregates do not hold those. No interval of a "
    "change is valid, and none is given. A protocol with an analysis of kind 'comparison' asks the "
    "sites for paired tables and gives one.",
    "unknown": "Nobody has said whether the rounds are about the same patients. If they are, no "
    "interval of a change follows from aggregates, so none is given; if they are not, state "
    "'--patients different'.",
}


def _page(
    first: ComparedRound,
    second: ComparedRound,
    rows: Sequence[ComparedRow],
    patients: Patients,
    figure: Figure | None,
) -> str:
    css = files("fedcac.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("fedcac.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["gap"] = is_gap
    who, pooled, drift = _tables(first, second, rows)
    page = environment.get_template("compare.html.j2").render(
        first=first,
        second=second,
        css=css,
        policy=security_policy(css),
        patients=_PATIENTS_WORDS[patients],
        who=who,
        pooled=pooled,
        drift=drift,
        figure=figure,
    )
    return page.strip() + "\n"


def _round_document(told: ComparedRound) -> dict[str, Any]:
    return {"round_id": told.round_id, "finished": told.finished, "package": told.package}


def _check_target(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        document = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("format") != COMPARISON_FORMAT:
        raise UsageError(
            f"'{out}' already holds something that is not an earlier comparison.",
            code="output_not_empty",
            cure="Name a new or empty folder.",
        )
