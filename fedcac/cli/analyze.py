"""`fedcac analyze`: a protocol's analyses on already scored tables, one in-memory site each."""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from coordinator.reports.report_options import add_format_options, formats_of
from fedcac.console import Outcome, add_format, say
from fedcac.errors import UsageError

__all__ = ["add_parser"]

_SITE = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,39})=(?P<path>.+)$")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "analyze", help="run a protocol's analyses on already scored tables, one per site"
    )
    parser.add_argument("protocol", help="a protocol file, or the id of a shipped one")
    parser.add_argument(
        "--site",
        action="append",
        required=True,
        metavar="NAME=TABLE.csv",
        help="a site's table; give the option once per site",
    )
    parser.add_argument(
        "--policy",
        default="research",
        help="disclosure policy: research (default), cms, open, or a policy file",
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--pooling",
        choices=("open", "masked"),
        help="each site answers by itself, or only sums over sites are seen (default: as the "
        "protocol says)",
    )
    add_format_options(parser)
    add_format(parser, _run)


def _tables(arguments: list[str]) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for argument in arguments:
        match = _SITE.match(argument)
        if match is None:
            raise UsageError(
                f"'{argument}' is not NAME=TABLE.csv.",
                code="bad_site",
                cure="Name the site with letters, digits, '-' and '_': --site duke=duke.csv",
            )
        if match["name"] in tables:
            raise UsageError(
                f"Site '{match['name']}' is given twice.",
                code="bad_site",
                cure="Give every site one table.",
            )
        tables[match["name"]] = Path(match["path"])
    return tables


def _secret_of(table: Path) -> bytes:
    # The same table gives the same numbers again, and who has not got the table cannot know it.
    try:
        return hashlib.sha256(table.read_bytes()).digest()
    except OSError:
        return b""  # reading the table says what is wrong


def _run(arguments: argparse.Namespace) -> Outcome:
    from coordinator.reports.reporting import write_round_report
    from fedcac.cli.in_memory import NOT_SHOWN, InMemorySite, pooled_by, run_round
    from fedcac.disclosure import load_policy
    from fedcac.protocol.catalogue import load_protocol_or_shipped
    from fedcac.signing import SigningKey
    from site_agent.exams.table_source import TableSource
    from site_agent.state.store import SiteStore

    tables, formats = _tables(arguments.site), formats_of(arguments)
    protocol = pooled_by(load_protocol_or_shipped(arguments.protocol), arguments.pooling)
    policy = load_policy(arguments.policy)
    with tempfile.TemporaryDirectory(prefix="fedcac-") as scratch:
        sites = [
            InMemorySite(
                name=name,
                source=TableSource(path),
                store=SiteStore(":memory:"),
                ledger_path=Path(scratch) / "sites" / name / "ledger.jsonl",
                secret=_secret_of(path),
            )
            for name, path in tables.items()
        ]
        say(f"Sites: {len(sites)}; analyses: {len(protocol.analyses)}; policy: {policy.profile}")
        view = run_round(protocol, sites, policy, SigningKey.generate())
        write_round_report(view, arguments.out, package=None, formats=formats)
        shutil.copytree(
            Path(scratch) / "sites", arguments.out / "sites", dirs_exist_ok=True, ignore=NOT_SHOWN
        )
    return Outcome(
        f"{len(view.estimates)} estimates after {view.n_exchanges} exchanges.\n"
        f"Read {arguments.out}/report.html",
        {"out": str(arguments.out), "estimates": len(view.estimates)},
    )
