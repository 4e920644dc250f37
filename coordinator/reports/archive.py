"""One archive of an ended round: everything that was signed, sent, received, noted and pooled.

A ZIP file whose bytes follow from the round: members in order, no times of writing. Notes of
reports and exports made of the round are about copies of it and are left out. Weights of a model
package are in it only on request; its manifest names their digests.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from coordinator.reports.release_records import RELEASES_FILE
from coordinator.reports.releases import RoundSeals
from coordinator.reports.reporting import write_round_report
from coordinator.rounds.views import RoundView
from coordinator.state.records import Event, EventKind, json_value
from coordinator.state.store import CoordinatorStore
from fedcac import __version__
from fedcac.canonical import canonical_bytes
from fedcac.errors import UsageError
from fedcac.exchange import package_parcels
from fedcac.exchange.parcels import PackageRole
from fedcac.models.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from fedcac.models.manifest import PackageManifest

__all__ = ["write_archive"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_ABOUT_COPIES = (EventKind.REPORT_WRITTEN, EventKind.EXPORTED)
_FROM_REPORT = (RELEASES_FILE, "estimates.csv", "results.json", "provenance.json", "report.html")


def write_archive(
    view: RoundView,
    path: Path,
    store: CoordinatorStore,
    *,
    package: PackageManifest | None,
    seals: RoundSeals,
    with_package: bool = False,
) -> None:
    """Write the archive of an ended round.

    It holds `round.json`, `events.jsonl`, `parcels/{sent,received}/...` as they were signed, and of
    a pooled round `releases.jsonl`, `estimates.csv`, `results.json`, `provenance.json` and
    `report.html`. `fedcac report --from` reads it.

    Raises
    ------
    UsageError
        If something lies at `path` already (`archive_exists`).
    """
    if path.exists():
        raise UsageError(
            f"There is something at {path} already.",
            code="archive_exists",
            cure="Give another name; archives are not overwritten.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    os.close(descriptor)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, payload in _members(view, store, package, seals, with_package):
                member = zipfile.ZipInfo(name, _EPOCH)
                member.external_attr = 0o640 << 16
                archive.writestr(member, payload, zipfile.ZIP_DEFLATED, 6)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _members(
    view: RoundView,
    store: CoordinatorStore,
    package: PackageManifest | None,
    seals: RoundSeals,
    with_package: bool,
) -> Iterator[tuple[str, bytes]]:
    round_id = view.record.round_id
    document = {
        "format": "fedcac-round/1",
        "software": __version__,
        "round": asdict(view.record),
        "editions": [asdict(one) for one in view.editions],
        "protocol": {"id": view.protocol.id, "version": view.protocol.version},
        "site_keys": {
            name: seals.site_keys[name].to_text()
            for name in view.offer.sites
            if name in seals.site_keys
        },
        "lead_key": seals.lead.public.to_text(),
    }
    yield "round.json", canonical_bytes(json_value(document))
    events = [one for one in store.events.of(round_id) if one.what not in _ABOUT_COPIES]
    yield "events.jsonl", b"".join(canonical_bytes(_event(one)) + b"\n" for one in events)
    if view.is_pooled:
        yield from _report(view, package, seals)
    weights = _weights(store, round_id) if not with_package else frozenset()
    for direction, site, name in store.parcel_names(round_id):
        payload = store.parcel(round_id, direction, name, site)
        if payload is not None and name not in weights:
            # `*` is no part of a file's name everywhere.
            folder = site.replace("*", "_") or "all"
            yield f"parcels/{direction.value}/{folder}/{name}", payload


def _report(
    view: RoundView, package: PackageManifest | None, seals: RoundSeals
) -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report"
        write_round_report(view, out, package, seals)
        for name in _FROM_REPORT:
            yield name, (out / name).read_bytes()


def _weights(store: CoordinatorStore, round_id: str) -> frozenset[str]:
    found: set[str] = set()
    for role in get_args(PackageRole):
        prefix = package_parcels(round_id, [""], role)[""]
        manifest = package_parcels(round_id, [MANIFEST_FILE], role)[MANIFEST_FILE]
        names = {name for _, _, name in store.parcel_names(round_id) if name.startswith(prefix)}
        found |= names - {manifest}
    return frozenset(found)


def _event(event: Event) -> dict[str, Any]:
    # Numbers are those of the database, in which other rounds have events too.
    found: dict[str, Any] = json_value(
        {**event.row(), "at": event.at, "detail": dict(event.detail)}
    )
    return found
