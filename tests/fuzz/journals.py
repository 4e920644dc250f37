"""Parsers of what programs wrote down: ledgers, registers, releases, estimates, notes."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.engine import CANARY, Parser, file_at, register
from fuzz.messages import LEAD, parcels
from fuzz.mutations import (
    damage_archive,
    damage_bytes,
    damage_cells,
    damage_json,
    damage_lines,
    damage_numbers,
    damage_text,
    packed,
)
from fuzz.tables import asked, site_rows

from coordinator.enrolment.register import EnrolmentEvent, EventKind, Register
from coordinator.reports.release_reading import read_releases
from coordinator.reports.releases import releases_jsonl
from coordinator.reports.repooling import repool
from fedcac.canonical import canonical_bytes, digest_of
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import FileLedger, load_policy
from fedcac.report.estimates_csv import estimates_csv, read_estimates
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore
from site_agent.status.standing import Standing, read_note
from site_agent.status_page.page import page_of

_PROTOCOLS = Path(__file__).resolve().parents[2] / "protocols"


def _read_ledger(payload: bytes, folder: Path) -> None:
    ledger = FileLedger(file_at(folder, "ledger.jsonl", payload))
    ledger.verify()
    # The last line has none after it that would hold its digest; a reply has, and the lead.
    chained = payload.split(b"\n")[:-2]
    assert chained == parcels().ledger.split(b"\n")[: len(chained)], "other entries were taken"


register(
    Parser(
        name="ledger",
        writer="whoever can write to the site's folder",
        entry="fedcac.disclosure.FileLedger",
        promise="all entries but the last are those that were written, from the first on",
        seeds=lambda: [parcels().ledger],
        parse=_read_ledger,
        mutators=(damage_bytes, damage_lines, damage_numbers, damage_text),
    )
)


def _register_lines() -> list[bytes]:
    key = LEAD.public.to_text()
    rows: Sequence[dict[str, Any]] = (
        {"kind": "kit", "revision": 1, "contents": "sha256:" + "0" * 64},
        {"kind": "enrolled", "key": key, "request": "sha256:" + "1" * 64},
        {"kind": "revoked", "former_key": key, "reason": "lost"},
    )
    lines = [
        {"at": f"2026-01-0{n}T00:00:00Z", "site": "duke", **row}
        for n, row in enumerate(rows, start=1)
    ]
    return [b"".join(canonical_bytes(line) + b"\n" for line in lines)]


def _damage_json_line(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    lines = payload.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = damage_json(rng, lines[at], [lines[at]])
    return b"\n".join(lines)


def _read_register(payload: bytes, folder: Path) -> None:
    events = Register(file_at(folder, "enrolments.jsonl", payload)).events
    for event in events:
        assert isinstance(event.kind, EventKind)
        assert EnrolmentEvent.model_validate_json(event.model_dump_json()) == event
    assert len(events) == len(payload.splitlines())


register(
    Parser(
        name="register",
        writer="whoever can write to the lead's folder",
        entry="coordinator.enrolment.register.Register.events",
        promise="one event a line; written again, each is the same",
        seeds=_register_lines,
        parse=_read_register,
        mutators=(_damage_json_line, _damage_json_line, damage_lines, damage_bytes),
        names_path=True,
    )
)


@cache
def _releases() -> bytes:
    lines = site_rows()[0].decode().splitlines()
    with TemporaryDirectory() as folder:
        sites = []
        for name in ("east", "north"):
            path = Path(folder) / f"{name}.csv"
            rows = [lines[0], *(line.replace(CANARY, name) for line in lines[1:])]
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
            sites.append(
                InMemorySite(
                    name=name,
                    source=TableSource(path),
                    store=SiteStore(":memory:"),
                    ledger_path=Path(folder) / name / "ledger.jsonl",
                    secret=name.encode(),
                )
            )
        whole = asked()
        few = tuple(spec for spec in whole.analyses if spec.id in ("agreement", "accuracy"))
        view = run_round(
            whole.model_copy(update={"analyses": few}), sites, load_policy("open"), LEAD
        )
        for site in sites:
            site.store.close()
    return _of_one_day(releases_jsonl(view, None, None))


def _of_one_day(releases: bytes) -> bytes:
    """Return the same releases, all written at one moment; their digests follow."""
    moment = rb'"\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)"'
    records = [
        json.loads(re.sub(moment, b'"2026-01-01T00:00:00Z"', line))
        for line in releases.splitlines()
    ]
    return _fitted(records)


def _fitted(records: list[Any]) -> bytes:
    for record in records[1:]:
        record["digest"] = digest_of(record["document"])
    for stated, record in zip(records[0]["document"]["parts"], records[1:], strict=False):
        stated["digest"] = record["digest"]
    records[0]["digest"] = digest_of(records[0]["document"])
    return b"".join(canonical_bytes(record) + b"\n" for record in records)


def _damage_releases(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage one document, and make every digest fit again: what an unsigned file may hold."""
    lines = payload.splitlines()
    try:
        records = [json.loads(line) for line in lines]
        at = rng.randrange(len(records))
        part = canonical_bytes(records[at]["document"])
        records[at]["document"] = json.loads(damage_json(rng, part, [part]))
        return _fitted(records)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return _damage_json_line(rng, payload, seeds)


def _read_releases(payload: bytes, folder: Path) -> None:
    found = read_releases(file_at(folder, "releases.jsonl", payload))
    assert found.payload == payload
    repool(found)


register(
    Parser(
        name="releases",
        writer="a coordinator, for a third party that pools again",
        entry="coordinator.reports.release_reading.read_releases",
        promise="every document is the one listed; it can be pooled again, or says why not",
        seeds=lambda: [_releases()],
        parse=_read_releases,
        mutators=(_damage_releases, _damage_releases, _damage_json_line, damage_bytes),
        n_cases=60,
        names_path=True,
    )
)


def _zipped() -> list[bytes]:
    members = [("releases.jsonl", _releases()), ("report.html", b"<p>")]
    return [packed(members, packing) for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)]


def _read_archive(payload: bytes, folder: Path) -> None:
    found = read_releases(file_at(folder, "round.zip", payload))
    whole = read_releases(file_at(folder, "releases.jsonl", _releases()))
    assert replace(found, payload=b"") == replace(whole, payload=b""), "altered releases were taken"


register(
    Parser(
        name="releases-archive",
        writer="a coordinator, for a third party that pools again",
        entry="coordinator.reports.release_reading.read_releases",
        promise="every document is the one that was packed",
        seeds=_zipped,
        parse=_read_archive,
        mutators=(damage_archive, damage_archive, damage_bytes),
        n_cases=100,
        names_path=True,
    )
)


def _estimates() -> list[bytes]:
    lines = [
        "analysis,scope,group,term,measure,estimate,se,ci_low,ci_high,ci_method,p_value,n,"
        "n_events,status",
        "agreement,pooled,,,kappa_linear,0.5,0.1,0.3,0.7,delta,,40,,ok",
        "agreement,duke,,,kappa_linear,,,,,,,,,suppressed",
    ]
    return ["\n".join(lines).encode() + b"\n"]


def _read_estimates(payload: bytes, folder: Path) -> None:
    rows = read_estimates(file_at(folder, "estimates.csv", payload))
    text = estimates_csv(rows)
    again = file_at(folder, "again.csv", text if isinstance(text, bytes) else text.encode())
    assert len(read_estimates(again)) == len(rows)


register(
    Parser(
        name="estimates",
        writer="another round's output, by way of a statistician",
        entry="fedcac.report.estimates_csv.read_estimates",
        promise="written again, it has as many rows",
        seeds=_estimates,
        parse=_read_estimates,
        mutators=(damage_cells, damage_cells, damage_numbers, damage_bytes),
    )
)


def _standing() -> list[bytes]:
    document = {
        "site": "duke", "software": "0.1.0", "policy": "research", "approval": "manual",
        "written_at": "2026-03-01T12:00:00Z",
        "agent": {"state": "working", "process": 7, "since": "2026-03-01T10:00:00Z",
                  "at": "2026-03-01T11:59:56Z"},
    }  # fmt: skip
    return [canonical_bytes(document)]


def _read_standing(payload: bytes, folder: Path) -> None:
    standing = read_note(file_at(folder, "standing.json", payload), Standing)
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    page = page_of(standing, now=now, refresh_s=15)
    assert "</html>" in page
    page.encode("utf-8")


register(
    Parser(
        name="standing",
        writer="the agent's process, or whoever can write to the site's folder",
        entry="site_agent.status.standing.read_note",
        promise="the status page can show it; what cannot be read is as absent",
        seeds=_standing,
        parse=_read_standing,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        n_cases=40,
    )
)
