"""`estimates.csv`: tidy, one number a row, read back without loss."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from fedcac.errors import TableError
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import Measure, RowStatus

__all__ = ["COLUMNS", "estimates_csv", "read_estimates"]

COLUMNS = (
    "analysis",
    "scope",
    "group",
    "term",
    "measure",
    "estimate",
    "se",
    "ci_low",
    "ci_high",
    "ci_method",
    "p_value",
    "n",
    "n_events",
    "status",
)
"""The contract: these columns in this order."""

_COUNTS = ("n", "n_events")


def estimates_csv(estimates: Iterable[Estimate]) -> str:
    """Return the table as text: lines end in a line feed, an absent number is an empty field.

    Floats are written in the shortest form that reads back as the same float.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in estimates:
        writer.writerow([_written(row, column) for column in COLUMNS])
    return text.getvalue()


_AS_WRITTEN = "Use the file as it was written; a spreadsheet may have altered it."


def read_estimates(path: Path) -> tuple[Estimate, ...]:
    """Return the rows of an `estimates.csv` in their order.

    Raises
    ------
    TableError
        If the columns are not exactly those of the contract (`estimates_columns`) or a field does
        not hold what its column declares, or is no text of a CSV file (`estimates_value`).
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(
            f"'{path.name}' is not CSV in UTF-8.", code="estimates_value", cure=_AS_WRITTEN
        ) from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise TableError(
            f"'{path.name}' does not have the columns of an estimates table.",
            code="estimates_columns",
            cure=f"The first line must read: {','.join(COLUMNS)}",
        )
    return tuple(_row(fields, number) for number, fields in enumerate(rows[1:], start=2))


def _written(row: Estimate, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return ""
    return repr(float(value)) if column in _NUMBERS else str(value)


_NUMBERS = ("estimate", "se", "ci_low", "ci_high", "p_value")


def _row(fields: list[str], line: int) -> Estimate:
    try:
        named = dict(zip(COLUMNS, fields, strict=True))
        numbers = {name: float(named[name]) if named[name] else None for name in _NUMBERS}
        counts = {name: int(named[name]) if named[name] else None for name in _COUNTS}
        return Estimate(
            analysis=named["analysis"],
            scope=named["scope"],
            group=named["group"],
            term=named["term"],
            measure=Measure(named["measure"]),
            ci_method=named["ci_method"],
            status=RowStatus(named["status"]),
            estimate=numbers["estimate"],
            se=numbers["se"],
            ci_low=numbers["ci_low"],
            ci_high=numbers["ci_high"],
            p_value=numbers["p_value"],
            n=counts["n"],
            n_events=counts["n_events"],
        )
    except ValueError as error:
        raise TableError(
            f"Line {line} of the estimates table cannot be read: {error}.",
            code="estimates_value",
            cure=_AS_WRITTEN,
        ) from error
