"""One cell of a site table at a time: text to a number, or an error that names line and column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date

from fedcac.errors import TableError
from fedcac.protocol import Covariate
from fedcac.protocol.columns import ColumnKind

__all__ = [
    "PARSERS",
    "Parser",
    "covariate_parser",
    "parse_date",
    "parse_eligibility",
    "parse_score",
    "parse_score_or_missing",
]

Parser = Callable[[int, str, str], float]

_MISSING = frozenset({"", "na", "nan", "null", "none", "."})
# float() also reads '1_0' as 10 and digits of other scripts: not what whoever typed it meant.
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DAY = re.compile(r"(19|20)[0-9]{2}(-[0-9]{2}-[0-9]{2}|[0-9]{4})")
_TRUE, _FALSE = frozenset({"1", "yes", "true", "y"}), frozenset({"0", "no", "false", "n"})


def _number(line: int, column: str, cell: str) -> float:
    if cell.lower() in _MISSING:
        return math.nan
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    if math.isinf(value):
        raise TableError(
            f"Line {line}, column '{column}': not a finite number.",
            code="not_a_number",
            cure="Write numbers with a decimal point, and leave a missing value empty.",
        )
    return value


def parse_score_or_missing(line: int, column: str, cell: str) -> float:
    """Return a score of 0 or above, NaN if the cell is empty."""
    value = _number(line, column, cell)
    if value < 0:
        raise TableError(
            f"Line {line}, column '{column}': a score cannot be negative.",
            code="negative_score",
            cure="Correct the score, or leave a missing one empty.",
        )
    return value


def parse_score(line: int, column: str, cell: str) -> float:
    """Return a score of 0 or above; an empty cell is an error."""
    value = parse_score_or_missing(line, column, cell)
    if math.isnan(value):
        raise TableError(
            f"Line {line}, column '{column}': the score is missing.",
            code="nan_score",
            cure="Leave patients without both scores out of the table.",
        )
    return value


def _time(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if value < 0:
        raise TableError(
            f"Line {line}, column '{column}': follow-up cannot be negative.",
            code="negative_time",
            cure="Count days from the index exam; an event before it does not belong here.",
        )
    return value


def _probability(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if not (math.isnan(value) or 0 <= value <= 1):
        raise TableError(
            f"Line {line}, column '{column}': a probability lies between 0 and 1.",
            code="out_of_range",
            cure="Write a fraction such as 0.12, not a percentage; leave a missing value empty.",
        )
    return value


def parse_eligibility(line: int, column: str, cell: str) -> float:
    """Return a number that decides whether a patient may take part; it may not be missing."""
    value = _number(line, column, cell)
    if math.isnan(value):
        raise TableError(
            f"Line {line}, column '{column}': empty, so it is unknown whether the patient may take "
            "part.",
            code="unknown_eligibility",
            cure="Fill in the cell, or leave the patient out of the table.",
        )
    return value


def parse_date(line: int, column: str, cell: str) -> date | None:
    """Return a day written YYYYMMDD or YYYY-MM-DD, None if the cell is empty."""
    if cell.lower() in _MISSING:
        return None
    try:
        if _DAY.fullmatch(cell) is None:
            raise ValueError("another form")
        return date.fromisoformat(cell)
    except ValueError as error:
        raise TableError(
            f"Line {line}, column '{column}': not a date.",
            code="not_a_date",
            cure="Write YYYYMMDD or YYYY-MM-DD, and leave an unknown day empty.",
        ) from error


def _event(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if value not in (0.0, 1.0) and not math.isnan(value):
        raise TableError(
            f"Line {line}, column '{column}': an event is 0 or 1.",
            code="bad_event",
            cure="Write 1 for a patient with the event and 0 for one without.",
        )
    return value


PARSERS: dict[ColumnKind, Parser] = {
    ColumnKind.SCORE: parse_score_or_missing,
    ColumnKind.PROBABILITY: _probability,
    ColumnKind.TIME: _time,
    ColumnKind.EVENT: _event,
    ColumnKind.NUMBER: parse_eligibility,
}


def covariate_parser(covariate: Covariate) -> Parser:
    """Return the parser of a covariate's cells."""

    def continuous(line: int, column: str, cell: str) -> float:
        value = _number(line, column, cell)
        low = -math.inf if covariate.minimum is None else covariate.minimum
        high = math.inf if covariate.maximum is None else covariate.maximum
        if not math.isnan(value) and not low <= value <= high:
            raise TableError(
                f"Line {line}, column '{column}': not in the protocol's range {low:g} to {high:g}.",
                code="out_of_range",
                cure="Correct the value or its unit, or leave it empty.",
            )
        return value

    def level(line: int, column: str, cell: str) -> float:
        word = cell.lower()
        if word in _MISSING:
            return math.nan
        levels = [name.lower() for name in covariate.levels]
        if covariate.type == "binary":
            if word in _TRUE | _FALSE:
                return float(word in _TRUE)
        elif word in levels:
            return float(levels.index(word))
        known = ", ".join(covariate.levels) if covariate.levels else "0, 1"
        raise TableError(
            f"Line {line}, column '{column}': not one of {known}.",
            code="unknown_level",
            cure="Use the protocol's levels, or leave a missing value empty.",
        )

    return continuous if covariate.type == "continuous" else level
