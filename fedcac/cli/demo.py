"""`fedcac demo`: four generated hospitals, a whole signed round from DICOM to report, in memory."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format, say

__all__ = ["add_parser"]

_PROTOCOL = "demo-nongated"


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "demo", help="a whole round of generated hospitals, from DICOM to report"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="output folder")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--patients", type=int, default=60, help="patients per site")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", default="research", help="research, cms, open or a file")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--keep-exams", type=Path, metavar="DIR", help="keep the generated DICOM in this folder"
    )
    parser.add_argument(
        "--pooling",
        choices=("open", "masked"),
        default="masked",
        help="each hospital answers by itself, or only sums over hospitals are seen (default: "
        "masked, which needs three; small hospitals may show little by themselves)",
    )
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from coordinator.reports.reporting import write_round_report
    from fedcac.cli.in_memory import NOT_SHOWN, InMemorySite, SignedPackage, pooled_by, run_round
    from fedcac.disclosure import load_policy
    from fedcac.models import demonstration_package_folder, seal_package
    from fedcac.phantom import write_cohort
    from fedcac.protocol.catalogue import load_shipped
    from fedcac.signing import SigningKey
    from site_agent.exams.dicom_source import DicomFiles, DicomSource
    from site_agent.state.store import SiteStore

    started = time.monotonic()
    policy = load_policy(arguments.policy)
    protocol = pooled_by(load_shipped(_PROTOCOL), arguments.pooling)
    lead_key = SigningKey.generate()
    package = seal_package(demonstration_package_folder(), lead_key)
    with tempfile.TemporaryDirectory(prefix="fedcac-demo-") as scratch_name:
        scratch = Path(scratch_name)
        exams = arguments.keep_exams or scratch / "exams"
        names = write_cohort(
            exams, n_sites=arguments.sites, n_patients=arguments.patients, seed=arguments.seed
        )
        sites = []
        for number, name in enumerate(names):
            store = SiteStore(":memory:")
            files = DicomFiles(
                manifest=exams / name / "manifest.csv",
                clinical_table=exams / name / "clinical.csv",
                secret=bytes([number]) * 32,
            )
            source = DicomSource(files, store, device=arguments.device)
            ledger_path = scratch / "sites" / name / "ledger.jsonl"
            sites.append(InMemorySite(name, source, store, ledger_path, files.secret))
        say(f"{len(sites)} sites verify, approve, score and answer under policy {policy.profile}")
        signed = SignedPackage(package.digest, package.files())
        view = run_round(protocol, sites, policy, lead_key, signed)
        write_round_report(view, arguments.out, package=package.manifest)
        shutil.copytree(
            scratch / "sites", arguments.out / "sites", dirs_exist_ok=True, ignore=NOT_SHOWN
        )
    seconds = time.monotonic() - started
    hint = (
        "\nOnly sums over the hospitals were seen. Each one's own rows, as far as policy "
        f"{policy.profile} lets them leave:\n  fedcac demo --pooling open --out OTHER"
        if protocol.pooling.mode == "masked"
        else ""
        if policy.is_open
        else "\nMany cells of such small hospitals are suppressed. Their sums need not be: "
        "fedcac demo --pooling masked"
    )
    return Outcome(
        f"{len(view.estimates)} estimates from {len(sites)} sites after {view.n_exchanges} "
        f"exchanges, {seconds:.0f} s.\nRead {arguments.out}/report.html{hint}",
        {"out": str(arguments.out), "estimates": len(view.estimates), "seconds": seconds},
    )
