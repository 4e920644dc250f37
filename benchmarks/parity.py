"""A round's pooled estimates against those of one site that holds every row."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.consortium import RoundRun
from coordinator.rounds.views import RoundView
from fedcac.statistics import Estimate

__all__ = ["ParityRow", "parity_rows", "pooled_table"]

_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class ParityRow:
    """One kind of analysis of one protocol.

    Attributes
    ----------
    basis
        `same` where one site with every row is asked the same; `by site` for what compares patients
        within sites on purpose (Cox's strata, the log-rank test, and what is built on such models),
        so that rows without sites answer something else.
    n_rows
        Pooled rows that both have a number in.
    estimate, se
        The largest absolute difference of an estimate and of a standard error; NaN where there is
        none.
    n_bytes
        Bytes of this kind's answers that a site sent, the mean of the sites over the whole round.
    exchanges
        In how many exchanges it was asked.
    """

    protocol: str
    kind: str
    basis: str
    n_rows: int
    estimate: float
    se: float
    n_bytes: float
    exchanges: int

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Return the columns' names."""
        return (
            "protocol",
            "kind",
            "basis",
            "rows",
            "largest difference of an estimate",
            "of a standard error",
            "bytes out per site",
            "exchanges",
        )

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        numbers = ("" if np.isnan(v) else f"{v:.1e}" for v in (self.estimate, self.se))
        counts = (f"{self.n_bytes:.0f}", str(self.exchanges))
        return self.protocol, self.kind, self.basis, str(self.n_rows), *numbers, *counts


def pooled_table(tables: Iterable[Path], folder: Path) -> Path:
    """Write the rows of all tables into one, with patients renumbered."""
    rows: list[dict[str, str]] = []
    for table in tables:
        with table.open(encoding="utf-8", newline="") as stream:
            rows += list(csv.DictReader(stream))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "all.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "patient_id": f"P{n}"} for n, row in enumerate(rows))
    return path


def parity_rows(federated: RoundRun, pooled: RoundRun) -> list[ParityRow]:
    """Return a row per kind of analysis; analyses that are by site on purpose are left out."""
    view = federated.view
    by_kind: dict[str, list[str]] = {}
    for spec in view.protocol.analyses:
        if not getattr(spec, "by_site", False):
            by_kind.setdefault(spec.kind, []).append(spec.id)
    ours, theirs = _pooled(view), _pooled(pooled.view)
    rows = []
    for kind, names in by_kind.items():
        for basis in ("same", "by site"):
            keys = [
                key
                for key in ours.keys() & theirs.keys()
                if key[0] in names and basis == _basis(kind, key[3])
            ]
            found = _differences([(ours[key], theirs[key]) for key in keys])
            if found[0]:
                rows.append(ParityRow(view.protocol.id, kind, basis, *found, *_cost(view, names)))
    return rows


def _basis(kind: str, measure: str) -> str:
    is_within = kind in ("cox", "reclassification") or measure == "logrank_chi2"
    return "by site" if is_within else "same"


def _pooled(view: RoundView) -> dict[_Key, Estimate]:
    return {
        (one.analysis, one.group, one.term, one.measure.value): one
        for one in view.estimates
        if one.scope == "pooled"
    }


def _differences(pairs: list[tuple[Estimate, Estimate]]) -> tuple[int, float, float]:
    values = [_apart(a.estimate, b.estimate) for a, b in pairs]
    errors = [_apart(a.se, b.se) for a, b in pairs]
    found = [value for value in values if value is not None]
    return len(found), _largest(found), _largest([one for one in errors if one is not None])


def _apart(a: float | None, b: float | None) -> float | None:
    if a is None or b is None or not np.isfinite(a) or not np.isfinite(b):
        return None
    return abs(a - b)


def _largest(values: list[float]) -> float:
    return max(values, default=float("nan"))


def _cost(view: RoundView, names: list[str]) -> tuple[float, int]:
    sizes, exchanges = [], 0
    for site in view.sites:
        answers = [
            answer for told in site.told for analysis, answer in told.items() if analysis in names
        ]
        sizes.append(sum(len(answer.model_dump_json()) for answer in answers))
        exchanges = max(exchanges, sum(any(name in told for name in names) for told in site.told))
    return float(np.mean(sizes)), exchanges
