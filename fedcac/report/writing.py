"""The output folder of a round."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.errors import UsageError
from fedcac.report.content import RoundReport
from fedcac.report.documents import OUTPUT_FORMAT, provenance_document, results_document
from fedcac.report.estimates_csv import estimates_csv
from fedcac.report.estimates_frame import PARQUET_FILE, estimates_parquet
from fedcac.report.extra_forms import EXTRA_FILES, write_formats
from fedcac.report.figures import draw_figures
from fedcac.report.findings import Findings
from fedcac.report.formats import ReportFormats
from fedcac.report.page import render_page

__all__ = ["write_report"]

_PROVENANCE = "provenance.json"
_LEDGERS = "sites"
_RELEASES = "releases.jsonl"


def write_report(
    report: RoundReport,
    out: Path,
    attachments: Mapping[str, bytes] | None = None,
    formats: ReportFormats | None = None,
) -> None:
    """Write `estimates.csv`, `results.json`, `report.html`, `figures/` and `provenance.json`.

    `attachments` are further files by name, such as `releases.jsonl`, from which the released
    histograms of scores are drawn; their digests stand in
    `provenance.json` too. `formats` adds `report.pdf`, `tables/`, `tables.docx`,
    `estimates.parquet` or PNG figures; those of an earlier output go, since they would show other
    numbers.

    Everything is made in a hidden folder beside `out` and then moved in by renaming, with
    `provenance.json`, which holds the digests of the tables, last. What else lies in an earlier
    output, such as the sites' ledgers, is left alone.

    Raises
    ------
    UsageError
        If `out` is not a folder, or holds files and is not an earlier output (`output_not_empty`);
        what a format needs is missing (`no_browser`, `browser_failed`, `no_publishing`).
    """
    _check_target(out)
    if formats is not None:
        formats.check()
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write_files(report, scratch, attachments or {}, formats or ReportFormats())
        _move_into(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_files(
    report: RoundReport, folder: Path, attachments: Mapping[str, bytes], formats: ReportFormats
) -> None:
    findings = Findings(report)
    tables = {
        "estimates.csv": estimates_csv(report.estimates).encode(),
        "results.json": canonical_bytes(results_document(report)) + b"\n",
        **attachments,
    }
    if formats.has_parquet:
        tables[PARQUET_FILE] = estimates_parquet(report.estimates, _about(report))
    provenance = provenance_document(
        report, {name: sha256_hex(payload) for name, payload in tables.items()}
    )
    figures = draw_figures(findings, attachments.get(_RELEASES, b""))
    page = render_page(findings, figures, provenance)
    (folder / "figures").mkdir()
    for figure in figures:
        (folder / "figures" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    for name, payload in tables.items():
        (folder / name).write_bytes(payload)
    (folder / "report.html").write_text(page, encoding="utf-8")
    write_formats(formats, findings, figures, folder)
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / _PROVENANCE).write_text(text + "\n", encoding="utf-8")


def _about(report: RoundReport) -> dict[str, str]:
    return {
        "fedcac_round": report.round_id,
        "fedcac_protocol": f"{report.protocol.id} {report.protocol.version}",
        "fedcac_protocol_digest": report.protocol.digest(),
    }


def _check_target(out: Path) -> None:
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if out.is_dir() and (names <= {_LEDGERS} or _is_output(out / _PROVENANCE)):
        return
    raise UsageError(
        f"'{out}' already holds something that is not an earlier output.",
        code="output_not_empty",
        cure="Name a new or empty folder.",
    )


def _is_output(provenance: Path) -> bool:
    try:
        document = json.loads(provenance.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == OUTPUT_FORMAT


def _move_into(scratch: Path, out: Path) -> None:
    if not out.exists() or not any(out.iterdir()):
        # mkdtemp makes a private folder; the output is as readable as any other the user makes.
        umask = os.umask(0)
        os.umask(umask)
        scratch.chmod(0o777 & ~umask)
        os.replace(scratch, out)
        return
    for name in EXTRA_FILES:
        if (out / name).exists():
            (out / name).rename(scratch / f".earlier-{name}")
    fresh = [path for path in scratch.iterdir() if not path.name.startswith(".")]
    for path in sorted(fresh, key=lambda path: path.name == _PROVENANCE):
        target = out / path.name
        if target.is_dir():
            target.rename(scratch / f".earlier-{path.name}")
        path.rename(target)
