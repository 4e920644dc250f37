"""`python -m benchmarks estimator_parity`: every estimator against software on pooled rows.

One signed round in memory for each kind of analysis, over generated tables of Miller's patients
(four sites) or Hong's (three), against lifelines, statsmodels, scikit-learn or scipy with every row
in one place. Recorded per kind: the largest difference of an estimate and of a standard error,
bytes that leave a site, exchanges, and how long the other takes beside ours.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.one_analysis import (
    answer_bytes,
    paths_by_site,
    pooled_rows,
    protocol_with,
    round_of,
)
from benchmarks.parity_kinds import HONG, MILLER, Kind, Part, compared_kinds
from benchmarks.pooled_scores import Numbers
from benchmarks.side_by_side import (
    OURS,
    RESULTS,
    Spread,
    machine,
    time_in_turn,
    version_of,
)
from fedcac.phantom import hong_tables, miller_tables
from fedcac.phantom import write_tables as write_site_tables
from fedcac.phantom.clinical import SiteTables
from fedcac.protocol import Covariate
from fedcac.protocol.catalogue import load_shipped
from fedcac.statistics import registered_estimators

__all__ = ["NAME", "TOLERANCE", "recorded"]

NAME = "estimator_parity"
TOLERANCE = 1e-5
"""The largest difference that passes where an estimate is exact."""

_ROUNDS = 5
_COLUMNS = (
    "kind",
    "basis",
    "against",
    "numbers",
    "largest difference of an estimate",
    "of a standard error",
    "bytes out per site",
    "exchanges",
    "seconds of a round",
    "pooled rows / fedcac",
)


def _risk(row: Mapping[str, str]) -> str:
    age, score = float(row["age"]), float(row["index_score"])
    return f"{0.02 + 0.0015 * max(age - 40, 0) + 0.035 * np.log1p(score):.4f}"


def _with_risk(tables: SiteTables) -> SiteTables:
    """Add a predicted risk by age and score, above 0 and below 0.5."""
    return {site: [{**row, "risk": _risk(row)} for row in rows] for site, rows in tables.items()}


def _protocol(kind: Kind) -> Any:
    added = tuple(
        Covariate(name=name, type="continuous", description="Predicted", minimum=0, maximum=1)
        for name in kind.columns
    )
    covariates = (*load_shipped(kind.protocol).covariates, *added)
    return protocol_with(kind.protocol, kind.analyses, covariates=covariates)


def _together(tables: Mapping[str, Path]) -> pd.DataFrame:
    frames = [pd.read_csv(path).assign(site=site) for site, path in tables.items()]
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class _Found:
    """One line of the table."""

    kind: str
    part: Part
    n_numbers: int
    estimate: float
    se: float
    n_bytes: float
    exchanges: int
    seconds: float
    ratio: Spread

    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.ratio['median']:g} ({self.ratio['least']:g} to {self.ratio['greatest']:g})"
        return (
            self.kind,
            "exact" if self.part.is_exact else "grid",
            self.part.software,
            str(self.n_numbers),
            f"{self.estimate:.1e}",
            "" if np.isnan(self.se) else f"{self.se:.1e}",
            f"{self.n_bytes:.0f}",
            str(self.exchanges),
            f"{self.seconds:.2f}",
            ratio,
        )


def _apart(ours: Mapping[tuple[str, str, str], Any], theirs: Numbers) -> tuple[float, float]:
    """Return the largest difference of an estimate and of a standard error.

    Raises
    ------
    RuntimeError
        If ours lacks a number that the other has.
    """
    estimates, errors = [], []
    for key, (value, se) in theirs.items():
        row = ours.get(key)
        if row is None or row.estimate is None:
            raise RuntimeError(f"there is no number for {key}")
        estimates.append(abs(row.estimate - value))
        if se is not None and row.se is not None and np.isfinite(se):
            errors.append(abs(row.se - se))
    return max(estimates), max(errors, default=float("nan"))


def _measured(name: str, kind: Kind, tables: Mapping[str, Path]) -> list[_Found]:
    protocol = _protocol(kind)
    view = round_of(protocol, tables)
    ours, rows = pooled_rows(view, "x"), _together(tables)
    apart = [_apart(ours, part.numbers(rows)) for part in kind.parts]
    for part, (estimate, se) in zip(kind.parts, apart, strict=True):
        if part.is_exact and not max(estimate, np.nan_to_num(se)) < TOLERANCE:
            raise RuntimeError(f"{name} differs from {part.software}: {estimate} and {se}")

    def pooled() -> None:
        together = _together(tables)
        for part in kind.parts:
            part.numbers(together)

    case = time_in_turn(
        name,
        {OURS: lambda: lambda: round_of(protocol, tables), "pooled": lambda: pooled},
        n_rounds=_ROUNDS,
    )
    seconds = float(np.median(case.seconds[OURS]))
    return [
        _Found(
            name,
            part,
            len(part.numbers(rows)),
            *pair,
            answer_bytes(view),
            view.n_exchanges,
            seconds,
            case.ratios_to("pooled"),
        )
        for part, pair in zip(kind.parts, apart, strict=True)
    ]


def _write_page(found: Sequence[_Found]) -> None:
    with (RESULTS / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(one.cells() for one in found)
    names = ("fedcac", "lifelines", "statsmodels", "scikit-learn", "scipy", "pandas", "numpy")
    lines = [
        "# Every estimator against software on pooled rows",
        "",
        f"{machine()}; {', '.join(f'{name} {version_of(name)}' for name in names)}.",
        "",
        f"Each kind is a signed round of its own in memory, {_ROUNDS} of them in turn with the "
        "other software; both read the tables from disk. `exact`: the same estimand, or there is "
        "no table. `grid`: the sites count on a public grid, and the estimate is that of the grid; "
        "for AUC and the Kolmogorov-Smirnov distance the row in `estimates.csv` states a bound. "
        "Bytes are those of the answers, without signatures and encoding; a kind's lines share "
        "bytes, exchanges and seconds. The policy is `open`.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(f"| {' | '.join(one.cells())} |" for one in found),
    ]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark, write its table and return what `benchmarks` records.

    Raises
    ------
    RuntimeError
        If an exact estimate differs by more than `TOLERANCE`, or a kind is not measured.
    """
    kinds = compared_kinds()
    if set(kinds) != set(registered_estimators()):
        raise RuntimeError("a kind of analysis is not measured")
    found: list[_Found] = []
    with tempfile.TemporaryDirectory() as scratch:
        tables = {
            MILLER: _with_risk(miller_tables(seed=1)),
            HONG: hong_tables(seed=1),
        }
        paths = {
            name: paths_by_site(write_site_tables(own, Path(scratch) / name))
            for name, own in tables.items()
        }
        for number, (name, kind) in enumerate(kinds.items(), start=1):
            found += _measured(name, kind, paths[kind.protocol])
            print(f"{number} of {len(kinds)}: {' | '.join(found[-1].cells())}", flush=True)
    _write_page(found)
    return {"ratios": {f"{one.kind}_speed_relative_to_pooled_rows": one.ratio for one in found}}
