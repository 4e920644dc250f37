"""An output folder as pandas frames: estimates, flow, what was withheld, where it comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedcac.aggregate import FlowStage
from fedcac.canonical import sha256_hex
from fedcac.errors import IntegrityError, UsageError
from fedcac.report.documents import OUTPUT_FORMAT
from fedcac.report.estimates_csv import read_estimates
from fedcac.report.estimates_frame import (
    PARQUET_FILE,
    estimates_frame,
    estimates_of,
    read_estimates_parquet,
)
from fedcac.report.rounds_compared import ComparedRound
from fedcac.statistics.estimator import META, POOLED
from fedcac.vocabulary import CellStatus, Measure, RowStatus

__all__ = ["RoundOutput", "read_compared_round", "read_output"]

_WITHHELD_COUNTS = (
    "n_patients",
    "n_patients_pooled",
    "n_events",
    "n_events_pooled",
    "n_parts",
    "n_suppressed",
)


@dataclass(frozen=True, eq=False)
class RoundOutput:
    """What a round's output folder holds. The object is frozen; its frames are the reader's own.

    Attributes
    ----------
    folder
        Where it was read from.
    round_id, protocol_id, protocol_version, protocol_digest
        Which round, of which protocol.
    estimates
        The rows of `estimates.csv`: `analysis, scope, group, term, measure, estimate, se, ci_low,
        ci_high, ci_method, p_value, n, n_events, status`. Numbers are float64 and NaN where the
        row has none, counts Int64 and NA. A NaN estimate is never a zero: `status` says why.
    flow
        One row per site and stage or exclusion reason: `site, kind, name, n, status`. `kind` is
        `stage` or `exclusion`; `status` is `ok`, the code of a withheld count, or
        `not_released` for a site whose flow was not released (one row without a name).
    sites
        One row per invited site: `site, policy, minimum_cell, minimum_patients, n_releases,
        bytes_left, ledger_head, software, package`; no policy for a site that never replied.
    withheld
        One row per analysis and site: `analysis, site, is_whole, is_partial, n_patients,
        n_patients_is_exact, n_patients_pooled, n_events, n_events_pooled, n_parts, n_suppressed,
        codes`. `codes` are refusal codes separated by blanks. Masked analyses have no rows.
    provenance
        `key, value`: every entry of `provenance.json`, nested keys joined by dots.
    """

    folder: Path
    round_id: str
    protocol_id: str
    protocol_version: int
    protocol_digest: str
    estimates: pd.DataFrame
    flow: pd.DataFrame
    sites: pd.DataFrame
    withheld: pd.DataFrame
    provenance: pd.DataFrame

    def select(
        self,
        *,
        analysis: str | None = None,
        measure: str | None = None,
        scope: str | None = None,
        term: str | None = None,
        group: str | None = None,
    ) -> pd.DataFrame:
        """Return the rows of `estimates` that have all the given words.

        Raises
        ------
        UsageError
            If `measure` is no measure (`unknown_measure`), or no row of the round has the analysis
            (`unknown_analysis`).
        """
        _check_words(self.estimates, analysis, measure)
        wanted = {
            "analysis": analysis,
            "measure": measure,
            "scope": scope,
            "term": term,
            "group": group,
        }
        rows = self.estimates
        for column, word in wanted.items():
            if word is not None:
                rows = rows[rows[column] == word]
        return rows.reset_index(drop=True)

    def wide(
        self, analysis: str, measure: str, value: str = "estimate", group: str | None = None
    ) -> pd.DataFrame:
        """Return one measure with a column per scope: sites, then `meta`, then `pooled`.

        Parameters
        ----------
        analysis, measure
            Which rows.
        value
            The column of `estimates` to show, such as `estimate`, `n` or `status`.
        group
            Only this group: `""` leaves out values without one site and the bivariate model's.

        Returns
        -------
        Frame with the index (group, term), in the order of `estimates.csv`; NaN or NA where a
        scope has no number.

        Raises
        ------
        UsageError
            As `select`.
        """
        rows = self.select(analysis=analysis, measure=measure, group=group)
        table = rows.pivot(index=["group", "term"], columns="scope", values=value)
        order = pd.MultiIndex.from_frame(rows[["group", "term"]].drop_duplicates())
        sites = [scope for scope in rows["scope"].unique() if scope not in {POOLED, META}]
        last = [scope for scope in (META, POOLED) if scope in table.columns]
        return table.reindex(index=order, columns=[*sites, *last])


def read_output(folder: str | os.PathLike[str]) -> RoundOutput:
    """Read the output folder of a round.

    Either table of estimates will do: `estimates.csv`, or the `estimates.parquet` of `--parquet`,
    which holds the same. Where both are there, both are checked.

    Raises
    ------
    UsageError
        If the folder holds no output of this project (`not_an_output`).
        If the folder's only table of estimates is `estimates.parquet` and pyarrow is not installed
        (`no_publishing`).
    IntegrityError
        If `estimates.csv`, `estimates.parquet` or `results.json` is not the one that
        `provenance.json` names (`output_altered`).
    TableError
        As `fedcac.report.read_estimates`, or if the Parquet file has another schema.
    """
    root = Path(folder)
    provenance = _document(root, "provenance.json")
    if provenance.get("format") != OUTPUT_FORMAT:
        raise _not_an_output(root)
    for name in _numbers_of(root, provenance):
        _check_digest(root, name, provenance)
    results = _document(root, "results.json")
    protocol = provenance["protocol"]
    return RoundOutput(
        folder=root,
        round_id=provenance["round"]["id"],
        protocol_id=protocol["id"],
        protocol_version=protocol["version"],
        protocol_digest=protocol["digest"],
        estimates=_estimates(root, provenance),
        flow=_frame(_flow_rows(results["sites"]), ("site", "kind", "name", "n", "status"), ("n",)),
        sites=_sites(results["sites"]),
        withheld=_withheld(results["withheld"]),
        provenance=_frame(_flat(provenance), ("key", "value"), ()),
    )


def _document(root: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads((root / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_an_output(root) from error
    if not isinstance(document, dict):
        raise _not_an_output(root)
    return document


def _numbers_of(root: Path, provenance: Mapping[str, Any]) -> list[str]:
    """Return the files that must be as they were written."""
    names = ["results.json"]
    has_parquet = PARQUET_FILE in provenance.get("files", {}) and (root / PARQUET_FILE).exists()
    if has_parquet:
        names.append(PARQUET_FILE)
    if not has_parquet or (root / "estimates.csv").exists():
        names.append("estimates.csv")
    return names


def _check_digest(root: Path, name: str, provenance: Mapping[str, Any]) -> None:
    try:
        payload = (root / name).read_bytes()
    except OSError as error:
        raise _not_an_output(root) from error
    if provenance.get("files", {}).get(name) != sha256_hex(payload):
        raise IntegrityError(
            f"{name} is not the file that was written with this report.",
            code="output_altered",
            cure="Use the folder as it was written; work on a copy.",
        )


def _estimates(root: Path, provenance: Mapping[str, Any]) -> pd.DataFrame:
    """Return the estimates of the CSV file, or of the Parquet file where that is the only one."""
    if (root / "estimates.csv").exists() or PARQUET_FILE not in provenance.get("files", {}):
        return estimates_frame(read_estimates(root / "estimates.csv"))
    return read_estimates_parquet(root / PARQUET_FILE)


def _flow_rows(sites: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for site in sites:
        flow = site["flow"]
        if flow is None:
            yield site["name"], "stage", "", None, "not_released"
            continue
        stages = {stage.value: flow["stages"][stage.value] for stage in FlowStage}
        for kind, counts in (("stage", stages), ("exclusion", flow["exclusions"])):
            for name, count in counts.items():
                is_known = isinstance(count, int)
                status = RowStatus.OK.value if is_known else CellStatus(count).value
                yield site["name"], kind, name, count if is_known else None, status


def _sites(sites: list[dict[str, Any]]) -> pd.DataFrame:
    limits = ("minimum_cell", "minimum_patients")
    sums = ("n_releases", "bytes_left")
    texts = ("ledger_head", "software", "package")
    rows = (
        (
            site["name"],
            (site["policy"] or {}).get("profile", ""),
            *((site["policy"] or {}).get(name) for name in limits),
            *(site[name] for name in (*sums, *texts)),
        )
        for site in sites
    )
    return _frame(rows, ("site", "policy", *limits, *sums, *texts), (*limits, *sums))


def _withheld(analyses: list[dict[str, Any]]) -> pd.DataFrame:
    columns = (
        "analysis",
        "site",
        "is_whole",
        "is_partial",
        "n_patients",
        "n_patients_is_exact",
        "n_patients_pooled",
        "n_events",
        "n_events_pooled",
        "n_parts",
        "n_suppressed",
        "codes",
    )
    rows = (
        (
            analysis["analysis"],
            site["site"],
            site["is_whole"],
            site["is_partial"],
            site["n_patients"]["value"],
            site["n_patients"]["is_exact"],
            site["n_patients_pooled"],
            None if site["n_events"] is None else site["n_events"]["value"],
            site["n_events_pooled"],
            site["n_parts"],
            site["n_suppressed"],
            " ".join(site["codes"]),
        )
        for analysis in analyses
        for site in analysis["sites"]
    )
    return _frame(rows, columns, _WITHHELD_COUNTS)


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[object, ...]]:
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list):
            yield name, " ".join(str(item) for item in value)
        else:
            yield name, "" if value is None else str(value)


def _frame(
    rows: Iterator[tuple[object, ...]], columns: tuple[str, ...], counts: tuple[str, ...]
) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    for column in counts:
        frame[column] = frame[column].astype("Int64")
    return frame


def _check_words(estimates: pd.DataFrame, analysis: str | None, measure: str | None) -> None:
    if measure is not None and measure not in {one.value for one in Measure}:
        raise UsageError(
            f"'{measure}' is no measure.",
            code="unknown_measure",
            cure="docs/reference/estimators has the measures of every analysis.",
        )
    if analysis is not None and not (estimates["analysis"] == analysis).any():
        known = ", ".join(estimates["analysis"].unique())
        raise UsageError(
            f"The round has no analysis '{analysis}'.",
            code="unknown_analysis",
            cure=f"It has: {known}.",
        )


def _not_an_output(root: Path) -> UsageError:
    return UsageError(
        f"'{root}' is not an output folder of a round.",
        code="not_an_output",
        cure="Give the folder that holds provenance.json, results.json, and estimates.csv or "
        "estimates.parquet.",
    )


def read_compared_round(folder: Path) -> ComparedRound:
    """Return what an output folder says of its round.

    Raises
    ------
    UsageError, IntegrityError
        As `read_output`.
    """
    output = read_output(folder)
    words = dict(zip(output.provenance["key"], output.provenance["value"], strict=True))
    policies = dict(zip(output.sites["site"], output.sites["policy"], strict=True))
    analysed = output.flow[(output.flow["name"] == "analysed") & (output.flow["status"] == "ok")]
    sizes = {site: int(n) for site, n in zip(analysed["site"], analysed["n"], strict=True)}
    name = words.get("package.name", "")
    return ComparedRound(
        round_id=output.round_id,
        finished=words["round.finished"][:10],
        package=f"{name} {words['package.version']}" if name else "",
        protocol_id=output.protocol_id,
        protocol_version=output.protocol_version,
        protocol_digest=output.protocol_digest,
        estimates=estimates_of(output.estimates),
        n_analysed={site: sizes.get(site) for site in policies},
        policies={site: policy or "no reply" for site, policy in policies.items()},
    )
