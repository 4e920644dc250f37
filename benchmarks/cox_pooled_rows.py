"""`python -m benchmarks cox_pooled_rows`: Cox over four sites against models of pooled rows.

lifelines and statsmodels get every patient's row, which no hospital would give away. vantage6's
algorithm (MaastrichtU-CDS/v6-coxph) leaves the rows at the sites as we do. It runs in an
environment of its own, whose Python `FEDCAC_BENCH_VANTAGE6` names:

    pip install vantage6-algorithm-tools==4.15.2 scipy
    pip install --no-deps git+https://github.com/MaastrichtU-CDS/v6-coxph@02bc8b5

Without the variable its part is skipped, and the reason is on the page.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from numpy.typing import NDArray
from statsmodels.duration.hazard_regression import PHReg

from benchmarks.one_analysis import (
    answer_bytes,
    paths_by_site,
    pooled_rows,
    protocol_with,
    round_of,
)
from benchmarks.side_by_side import (
    OURS,
    RESULTS,
    Case,
    Spread,
    only,
    spread_of,
    time_in_turn,
    write_tables,
)
from coordinator.rounds.views import RoundView
from fedcac.phantom import miller_tables
from fedcac.phantom import write_tables as write_site_tables
from fedcac.protocol import CoxSpec

__all__ = ["NAME", "VANTAGE6", "recorded"]

NAME = "cox_pooled_rows"
VANTAGE6 = "FEDCAC_BENCH_VANTAGE6"

_LIFELINES, _STATSMODELS = "lifelines on pooled rows", "statsmodels on pooled rows"
_VANTAGE6 = "vantage6's Cox"
_ROUNDS = 7
_VANTAGE6_ROUNDS = 3
_COVARIATES = {
    "age": "age",
    "sex=male": "male",
    "hypertension": "hypertension",
    "diabetes": "diabetes",
    "1-100": "low",
    "101-400": "middle",
    ">400": "high",
}
_PROTOCOL = protocol_with(
    "miller2023-ctac",
    [
        CoxSpec(
            id="cox",
            kind="cox",
            endpoint="mace",
            covariates=("age", "sex", "hypertension", "diabetes"),
            risk_category="index",
        )
    ],
)

Vector = NDArray[np.float64]
Tables = Mapping[str, Path]


@dataclass(frozen=True)
class _Model:
    """Log hazard ratios in the order of `_COVARIATES`, and their standard errors."""

    beta: Vector
    se: Vector

    def apart(self, other: _Model) -> tuple[float, float]:
        beta, se = np.abs(self.beta - other.beta), np.abs(self.se - other.se)
        return float(beta.max()), float(se.max())


def _design(tables: Tables) -> pd.DataFrame:
    """Return every patient of every site, the covariates coded as the protocol codes them."""
    frames = [pd.read_csv(path).assign(site=site) for site, path in tables.items()]
    rows = pd.concat(frames, ignore_index=True)
    score = rows["index_score"]
    return pd.DataFrame(
        {
            "age": rows["age"] / 10,
            "male": (rows["sex"] == "male").astype(float),
            "hypertension": rows["hypertension"].astype(float),
            "diabetes": rows["diabetes"].astype(float),
            "low": ((score >= 1) & (score <= 100)).astype(float),
            "middle": ((score > 100) & (score <= 400)).astype(float),
            "high": (score > 400).astype(float),
            "days": rows["follow_up_days"].astype(float),
            "event": rows["event"],
            "site": rows["site"],
        }
    )


def _ours(view: RoundView) -> _Model:
    rows = pooled_rows(view, "cox")
    found = [rows["log_hazard_ratio", "", term] for term in _COVARIATES]
    values = np.array([(row.estimate, row.se) for row in found], dtype=np.float64)
    return _Model(values[:, 0], values[:, 1])


def _lifelines(tables: Tables) -> _Model:
    model = CoxPHFitter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(
            _design(tables),
            "days",
            "event",
            strata=["site"],
            fit_options={"precision": 1e-10, "r_precision": 1e-12},
        )
    names = list(_COVARIATES.values())
    return _Model(model.params_[names].to_numpy(), model.standard_errors_[names].to_numpy())


def _statsmodels(tables: Tables, ties: str = "efron", *, is_by_site: bool = True) -> _Model:
    rows = _design(tables)
    strata = pd.factorize(rows["site"])[0] if is_by_site else None
    exog = rows[list(_COVARIATES.values())].to_numpy()
    fit = PHReg(
        rows["days"].to_numpy(), exog, rows["event"].to_numpy(), ties=ties, strata=strata
    ).fit(disp=0)
    return _Model(np.asarray(fit.params), np.asarray(fit.bse))


class _Vantage6:
    """The other environment's process, which fits each time it is asked."""

    def __init__(self, python: str, tables: Tables, folder: Path) -> None:
        self._answer = folder / "answer.json"
        paths = []
        for site, path in tables.items():
            paths.append(folder / f"{site}.csv")
            _design({site: path}).drop(columns="site").to_csv(paths[-1], index=False)
        words = [str(Path(__file__).with_name("vantage6_cox.py")), str(self._answer)]
        words += ["days", "event", *_COVARIATES.values(), "--", *map(str, paths)]
        self._process = subprocess.Popen(
            [python, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fit(self) -> dict[str, Any]:
        """Return what one fit gave."""
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError("vantage6's process ended early")
        found: dict[str, Any] = json.loads(self._answer.read_text(encoding="utf-8"))
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class _Compared:
    """What several fits by vantage6 gave, and our seconds beside each."""

    fits: Sequence[Mapping[str, Any]]
    own_seconds: Sequence[float]
    n_sites: int
    apart: tuple[float, float]

    @property
    def ratios(self) -> Spread:
        pairs = zip(self.fits, self.own_seconds, strict=True)
        return spread_of([fit["seconds"] / own for fit, own in pairs], 0)

    @property
    def n_bytes(self) -> float:
        return float(self.fits[0]["bytes_out"]) / self.n_sites

    def text(self) -> str:
        """Return what the page says beside its row."""
        fit = self.fits[0]
        versions = ", ".join(f"{name} {value}" for name, value in fit["versions"].items())
        z = np.array(fit["z"]) - np.array(fit["coefficients"]) / np.array(fit["errors"])
        return (
            f"{versions}, the algorithm at commit 02bc8b5, in an environment of its own with "
            f"vantage6's mock client: {self._seconds()} s a fit, {self.ratios['median']:g} "
            f"({self.ratios['least']:g} to {self.ratios['greatest']:g}) times ours in "
            f"{len(self.fits)} rounds in turn. "
            "Binning and noise were off; by default both are on, and its noise has no seed. It "
            "fits one baseline hazard for all sites with Breslow's ties, so it is held against "
            "statsmodels on pooled rows with the same; it rounds to five decimals. Every day on "
            f"which a patient had the event leaves its site with its count: {fit['event_times']} "
            f"site and day pairs, {fit['event_times_of_one_patient']} of them of one patient; "
            "and per iteration, for every such day of any site, the three sums over the patients "
            "at risk. Its Wald statistic is taken from exp(b) - 1: it differs from b / SE by up to "
            f"{np.abs(z).max():.1f} here."
        )

    def _seconds(self) -> str:
        spread = spread_of([fit["seconds"] for fit in self.fits], 0)
        return f"{spread['median']:g} ({spread['least']:g} to {spread['greatest']:g})"


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _against_vantage6(python: str, tables: Tables) -> _Compared:
    with tempfile.TemporaryDirectory() as folder:
        other = _Vantage6(python, tables, Path(folder))
        fits, own = [], []
        try:
            for number in range(1, _VANTAGE6_ROUNDS + 1):
                own.append(_timed(lambda: round_of(_PROTOCOL, tables)))
                fits.append(other.fit())
                print(f"vantage6, fit {number}: {fits[-1]['seconds']:.0f} s, ours {own[-1]:.1f} s")
        finally:
            other.close()
    found = _Model(np.array(fits[0]["coefficients"]), np.array(fits[0]["errors"]))
    target = _statsmodels(tables, "breslow", is_by_site=False)
    return _Compared(fits, own, len(tables), found.apart(target))


def _skipped() -> str:
    python = os.environ.get(VANTAGE6, "")
    if not python:
        return f"`{VANTAGE6}` names no Python with vantage6-algorithm-tools and its Cox algorithm"
    asked = [python, "-c", "import coxph, vantage6.algorithm.tools.mock_client"]
    finished = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "" if finished.returncode == 0 else finished.stderr.strip().splitlines()[-1]


def _row(way: str, against: str, apart: tuple[float, float], size: str, exchanges: str) -> str:
    beta, se = (f"{value:.1e}" for value in apart)
    return f"| {way} | {against} | {beta} | {se} | {size} | {exchanges} |"


def _append(text: Sequence[str]) -> None:
    path = RESULTS / f"{NAME}.md"
    path.write_text(
        path.read_text(encoding="utf-8") + "\n" + "\n".join(text) + "\n", encoding="utf-8"
    )


def _write_page(case: Case, n_patients: int) -> None:
    write_tables(
        NAME,
        f"Cox's model of MACE over four sites, {n_patients:,} generated patients",
        [case],
        ("fedcac", "lifelines", "statsmodels", "numpy", "pandas"),
        f"{_ROUNDS} rounds, contenders in turn within each; tables are read from disk. Seven "
        "terms: age, sex, hypertension, diabetes and three categories of the score. `fedcac` is a "
        "signed round in memory, with Newton's steps over exchanges, gate and ledger on disk; the "
        "others have every row in one place. All stratify by site, with Efron's ties.",
    )


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark, write its page and return what `benchmarks` records.

    Raises
    ------
    RuntimeError
        If the models of the pooled rows differ from ours.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_site_tables(miller_tables(seed=1), Path(scratch) / "tables")
        tables = paths_by_site(paths)
        view = round_of(_PROTOCOL, tables)
        ours, n_patients = _ours(view), len(_design(tables))
        apart = {
            _LIFELINES: ours.apart(_lifelines(tables)),
            _STATSMODELS: ours.apart(_statsmodels(tables)),
        }
        if max(max(pair) for pair in apart.values()) > 1e-5:
            raise RuntimeError(f"the models differ: {apart}")
        case = time_in_turn(
            f"{len(tables)} sites, {n_patients} patients",
            {
                OURS: lambda: lambda: round_of(_PROTOCOL, tables),
                _LIFELINES: lambda: lambda: _lifelines(tables),
                _STATSMODELS: lambda: lambda: _statsmodels(tables),
            },
            n_rounds=_ROUNDS,
        )
        _write_page(case, n_patients)
        skipped = _skipped()
        compared = None if skipped else _against_vantage6(os.environ[VANTAGE6], tables)
    n_bytes = answer_bytes(view)
    rows = [
        _row(OURS, name, pair, f"{n_bytes:.0f}", str(view.n_exchanges))
        for name, pair in apart.items()
    ]
    if compared is not None:
        exchanges = str(compared.fits[0]["exchanges"])
        target = "statsmodels on pooled rows, one stratum, Breslow"
        rows.append(_row(_VANTAGE6, target, compared.apart, f"{compared.n_bytes:.0f}", exchanges))
    note = f"vantage6: {compared.text()}" if compared else f"vantage6 was not run: {skipped}."
    _append(
        [
            "| way | held against | largest difference of a log hazard ratio | of a standard error "
            "| bytes out per site | exchanges |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            note,
        ]
    )
    return _to_record(case, apart, n_bytes, view.n_exchanges, compared)


def _to_record(
    case: Case,
    apart: Mapping[str, tuple[float, float]],
    n_bytes: float,
    exchanges: int,
    compared: _Compared | None,
) -> dict[str, dict[str, Spread]]:
    found: dict[str, dict[str, Spread]] = {
        "ratios": {
            "cox_round_speed_relative_to_lifelines_on_pooled_rows": case.ratios_to(_LIFELINES),
            "cox_round_speed_relative_to_statsmodels_on_pooled_rows": case.ratios_to(_STATSMODELS),
        },
        "differences": {
            "cox_log_hazard_ratio_from_lifelines_on_pooled_rows": only(apart[_LIFELINES][0]),
            "cox_standard_error_from_lifelines_on_pooled_rows": only(apart[_LIFELINES][1]),
        },
        "bytes_out_per_site": {"cox": only(n_bytes)},
        "counts": {"cox_exchanges": only(exchanges)},
    }
    if compared is not None:
        fit = compared.fits[0]
        found["ratios"]["cox_round_speed_relative_to_vantage6"] = compared.ratios
        found["differences"]["vantage6_cox_log_hazard_ratio_from_its_pooled_model"] = only(
            compared.apart[0]
        )
        found["differences"]["vantage6_cox_standard_error_from_its_pooled_model"] = only(
            compared.apart[1]
        )
        found["bytes_out_per_site"]["cox_by_vantage6"] = only(compared.n_bytes)
        found["counts"]["cox_exchanges_by_vantage6"] = only(fit["exchanges"])
        found["counts"]["cox_event_days_of_one_patient_that_left_by_vantage6"] = only(
            fit["event_times_of_one_patient"]
        )
    return found
