"""`fedcac protocol check | show | diff | schema`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from fedcac.console import Outcome, add_format

if TYPE_CHECKING:
    from fedcac.protocol import Protocol

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verbs."""
    parser = subparsers.add_parser("protocol", help="check, show or list evaluation protocols")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    check = verbs.add_parser("check", help="say whether a protocol is valid, or what to mend")
    check.add_argument("protocol", help="a protocol file, or the id of a shipped one")
    add_format(check, _check)
    show = verbs.add_parser("show", help="print a protocol in words; without a name, list them")
    show.add_argument("protocol", nargs="?", help="a protocol file, or the id of a shipped one")
    add_format(show, _show)
    diff = verbs.add_parser(
        "diff", help="say in words what differs between two protocols (exit 0 also if something)"
    )
    diff.add_argument("first", help="a protocol file, or the id of a shipped one")
    diff.add_argument("second", help="the later one")
    add_format(diff, _diff)
    add_format(verbs.add_parser("schema", help="print the JSON Schema of protocols"), _schema)


def _check(arguments: argparse.Namespace) -> Outcome:
    from fedcac.protocol.catalogue import load_protocol_or_shipped

    protocol = load_protocol_or_shipped(arguments.protocol)
    text = f"{protocol.id} version {protocol.version} is valid.\nDigest {protocol.digest()}"
    return Outcome(
        text, {"id": protocol.id, "version": protocol.version, "digest": protocol.digest()}
    )


def _show(arguments: argparse.Namespace) -> Outcome:
    from fedcac.protocol.catalogue import load_protocol_or_shipped, load_shipped, shipped_protocols

    if arguments.protocol is None:
        titles = {name: load_shipped(name).title for name in shipped_protocols()}
        return Outcome("\n".join(f"{name}: {title}" for name, title in titles.items()), titles)
    protocol = load_protocol_or_shipped(arguments.protocol)
    return Outcome(_in_words(protocol), protocol.model_dump(mode="json"))


def _diff(arguments: argparse.Namespace) -> Outcome:
    from fedcac.protocol.catalogue import load_protocol_or_shipped
    from fedcac.protocol.differences import protocol_differences

    first = load_protocol_or_shipped(arguments.first)
    second = load_protocol_or_shipped(arguments.second)
    found = protocol_differences(first, second)
    heading = (
        f"From {first.id} version {first.version} to {second.id} version {second.version}:"
        if found
        else "The protocols do not differ."
    )
    return Outcome(
        "\n".join([heading, *(f"  - {difference}" for difference in found)]),
        {
            "first": {"id": first.id, "version": first.version, "digest": first.digest()},
            "second": {"id": second.id, "version": second.version, "digest": second.digest()},
            "differences": [
                {"where": one.where, "before": one.before, "after": one.after} for one in found
            ],
        },
    )


def _schema(arguments: argparse.Namespace) -> Outcome:
    from fedcac.protocol import Protocol

    schema = Protocol.model_json_schema()
    return Outcome(json.dumps(schema, indent=2), schema)


def _in_words(protocol: Protocol) -> str:
    window = f"within {protocol.pairing.window_days} days" if protocol.pairing else "same exam"
    lines = [
        f"{protocol.title} ({protocol.id} version {protocol.version})",
        protocol.purpose,
        "",
        f"Index test: {protocol.index_test.kind} by {protocol.index_test.model_family} on "
        f"{protocol.modality}",
        f"Reference standard: {protocol.reference.kind} on {protocol.reference.modality}, {window}",
        f"Risk categories: {' | '.join(protocol.categories.labels)} "
        f"({protocol.categories.convention})",
        "Included:",
        *(f"  - {sentence}" for sentence in protocol.inclusion),
    ]
    if protocol.exclusion or protocol.clinical_criteria:
        lines.append("Excluded:")
        lines += [f"  - {sentence}" for sentence in protocol.exclusion]
        lines += [f"  - {c.statement} (column {c.column})" for c in protocol.clinical_criteria]
    lines.append("Analyses:")
    lines += [f"  - {spec.id}: {spec.kind}" for spec in protocol.analyses]
    if protocol.covariates:
        lines.append("Covariates:")
        for item in protocol.covariates:
            kind = ", ".join(item.levels) if item.levels else f"{item.type} {item.unit}".strip()
            lines.append(f"  - {item.name}: {item.description} ({kind})")
    lines += [f"Endpoint {e.name}: {e.definition}" for e in protocol.endpoints]
    if protocol.amends:
        lines.append("Amends:")
        lines += [f"  - version {one.version}: {one.reason}" for one in protocol.amends]
    lines += [
        f"A site suppresses cells under {protocol.disclosure.minimum_cell} at least.",
        "",
        f"{protocol.citation.text} doi:{protocol.citation.doi}",
        f"Digest {protocol.digest()}",
    ]
    return "\n".join(lines)
