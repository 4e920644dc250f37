"""Checks of what is scored: model packages, exams, clinical table, PACS."""

from __future__ import annotations

import csv
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fedcac.errors import DicomError, FedcacError
from fedcac.exchange import Offer, Spool, parcel_name
from fedcac.exchange.parcels import PackageRole, package_files, rounds_in
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import open_protocol
from fedcac.signing import PublicKey, TrustedKeys, trusted
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, skipped, warning

__all__ = ["HOLDING_CHECKS"]

_N_EXAMS, _N_LINES = 3, 24


def _keys(situation: Situation) -> TrustedKeys:
    return trusted([PublicKey.from_text(situation.settings.lead_key)])


def _offered(situation: Situation) -> tuple[str, ...]:
    if not (situation.folder.spool_path / "inbox").is_dir():
        return ()
    return rounds_in(Spool.at(situation.folder.spool_path).inbox)


def _models(situation: Situation) -> Finding:
    rounds = _offered(situation)
    inbox = Spool.at(situation.folder.spool_path).inbox if rounds else None
    digests: set[str] = set()
    bad: list[str] = []
    roles: tuple[PackageRole, ...] = ("package", "reference_package")
    for round_id, role in itertools.product(rounds, roles):
        files = package_files(inbox, round_id, role) if inbox else {}
        if not files:
            continue
        from fedcac.models import open_package

        try:
            digests.add(open_package(files, _keys(situation)).digest)
        except FedcacError as error:
            bad.append(f"{round_id}: {error.code}")
    if bad:
        return failed(
            f"packages that do not hold: {', '.join(bad)}",
            "Ask the lead to send the package again, or to launch another round; this site "
            "refuses a round whose package does not hold.",
        )
    if not digests:
        return skipped("no model package has arrived yet")
    return ok(f"{len(digests)} packages verify and give their golden case")


@dataclass(frozen=True)
class _Asked:
    """What exams and table are held against: the newest offer's protocol, or the demonstration."""

    protocol: Protocol
    is_offered: bool
    is_reference_scored: bool


def _asked(situation: Situation) -> _Asked:
    for round_id in reversed(_offered(situation)):
        inbox = Spool.at(situation.folder.spool_path).inbox
        keys = _keys(situation)
        try:
            offer, _ = Offer.open(inbox.get(parcel_name(round_id, "offer")) or b"", keys)
            envelope = inbox.get(parcel_name(round_id, "protocol")) or b""
            protocol = open_protocol(envelope, keys, newest_seen={})
        except FedcacError:
            continue
        return _Asked(protocol, True, offer.reference_package_digest is not None)
    return _Asked(load_shipped("demo-nongated"), False, False)


_FROM_SCORES = skipped("this site answers from its scored table")


def _answers_from_scores(situation: Situation, path: Path) -> bool:
    """Say whether a file is not there because exams were scored elsewhere."""
    return situation.settings.scored_table is not None and not path.exists()


def _exams(situation: Situation) -> Finding:
    from fedcac.imaging import load_volume, pair_manifest
    from fedcac.imaging.manifest import read_manifest

    manifest = situation.folder.resolve(situation.settings.manifest)
    if _answers_from_scores(situation, manifest):
        return _FROM_SCORES
    entries = read_manifest(manifest)
    protocol = _asked(situation).protocol
    with tempfile.TemporaryDirectory(prefix="fedcac-doctor-") as scratch:
        sample = Path(scratch) / "manifest.csv"
        with sample.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "role", "patient_id", "study_date"))
            for entry in entries[:_N_LINES]:
                day = f"{entry.study_date:%Y%m%d}" if entry.study_date else ""
                writer.writerow((entry.path, entry.role, entry.patient_id or "", day))
        outcome = pair_manifest(
            sample,
            window_days=protocol.pairing.window_days if protocol.pairing else None,
            secret=b"\0" * 32,
            is_study=protocol.image_criteria.choose_series,
        )
    reasons: Counter[str] = Counter(str(reason) for reason in outcome.exclusions.elements())
    n_read = 0
    for pair in outcome.pairs[:_N_EXAMS]:
        try:
            load_volume(pair.index_path, protocol.image_criteria)
            n_read += 1
        except DicomError as error:
            reasons[error.code.removeprefix("dicom.")] += 1
    found = (
        f"{len(entries)} series listed; of the first {min(_N_LINES, len(entries))}, "
        f"{len(outcome.pairs)} patients can be paired; {n_read} exams were read whole"
    )
    codes = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
    cure = (
        "`fedcac-site cohort check PROTOCOL` names each exam; docs/reference/codes.md has a cure "
        "for each code."
    )
    if not n_read:
        return failed(f"{found}. Not used: {codes or 'all'}", cure)
    return warning(f"{found}. Not used: {codes}", cure) if codes else ok(found)


def _clinical(situation: Situation) -> Finding:
    from fedcac.site_table import read_clinical_table, survey_clinical_table

    path = situation.folder.resolve(situation.settings.clinical_table)
    if _answers_from_scores(situation, path):
        return _FROM_SCORES
    asked = _asked(situation)
    if not asked.is_offered:
        return _plain_table(path)
    table = read_clinical_table(path, asked.protocol, is_reference_scored=asked.is_reference_scored)
    survey = survey_clinical_table(table)
    empty = {name: number for name, number in survey.missing.items() if number}
    found = f"{survey.n_patients} patients, as protocol {asked.protocol.id} asks"
    if empty:
        return warning(
            f"{found}; columns with empty cells: {', '.join(empty)}",
            "Fill them where the value is known; patients without it are not analysed there.",
        )
    return ok(found)


def _plain_table(path: Path) -> Finding:
    """Look at the table's form: which columns it needs is known once a protocol is offered."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except FileNotFoundError:
        return warning(
            "there is no clinical table yet",
            "`fedcac-site cohort dictionary PROTOCOL --out DIR` writes a template to fill in.",
        )
    except (UnicodeDecodeError, csv.Error):
        return failed("the clinical table is no CSV in UTF-8", "Save it as CSV, UTF-8.")
    header = rows[0] if rows else []
    if "patient_id" not in header:
        return failed(
            "the clinical table's first line has no column patient_id",
            "The first line names the columns; `fedcac-site cohort dictionary PROTOCOL`.",
        )
    return ok(f"{len(rows) - 1} lines, {len(header)} columns; no protocol is offered to check by")


def _pacs(situation: Situation) -> Finding:
    settings = situation.settings.pacs
    if settings is None:
        return skipped("site.yaml names no PACS")
    from site_agent.pacs.clients import open_client

    with open_client(settings, situation.folder.resolve) as client:
        client.check()
    return ok(f"answers over {settings.connection.protocol} and offers what a pull needs")


HOLDING_CHECKS = (
    Check("models", _models),
    Check("exams", _exams),
    Check("clinical", _clinical),
    Check("pacs", _pacs),
)
