"""`fedcac report`: a round's report pooled again from its releases, without any site."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from coordinator.reports.report_options import add_format_options, formats_of
from fedcac.console import Outcome, add_format

__all__ = ["add_parser"]

_DIFFERS = 1


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "report",
        help="pool a round again from its releases alone (exit 0 identical numbers, 1 others)",
    )
    parser.add_argument(
        "--from",
        dest="releases",
        type=Path,
        required=True,
        metavar="RELEASES",
        help="releases.jsonl, or an output folder that holds it",
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--lead-key",
        type=Path,
        metavar="FILE",
        help="the lead's public key (lead.pub), got from the lead itself; releases that it did "
        "not sign are then refused",
    )
    add_format_options(parser)
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from coordinator.reports.release_reading import read_releases
    from coordinator.reports.reporting import write_repooled_report
    from fedcac.joining.key_files import public_key_text
    from fedcac.signing import PublicKey

    given = arguments.lead_key
    key = None if given is None else PublicKey.from_text(public_key_text(given))
    releases = read_releases(arguments.releases, key)
    report, is_identical = write_repooled_report(releases, arguments.out, formats_of(arguments))
    signer = releases.lead_key
    lines = [
        f"{len(report.estimates)} estimates pooled again from {len(releases.replies)} replies in "
        f"{report.exchanges} exchanges.",
        "estimates.csv is the coordinator's, byte for byte."
        if is_identical
        else "estimates.csv is NOT the coordinator's: another version of fedcac or of numpy may "
        f"round otherwise (the coordinator ran {releases.header.software}).",
        f"{releases.n_signed} signatures fit; the lead's key is {signer.fingerprint}"
        if signer
        else "The releases carry digests and no signature: they agree with themselves.",
        f"Read {arguments.out}/report.html",
    ]
    return Outcome(
        "\n".join(lines),
        {
            "out": str(arguments.out),
            "round_id": report.round_id,
            "estimates": len(report.estimates),
            "is_identical": is_identical,
            "signatures": releases.n_signed,
            "lead_fingerprint": signer.fingerprint if signer else None,
        },
        0 if is_identical else _DIFFERS,
    )
