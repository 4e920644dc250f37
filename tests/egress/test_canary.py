"""Planted names, identifiers, UIDs and paths never reach a ledger, an outbox, a log or the lead."""

from __future__ import annotations

import base64
import csv
import json
import logging
from pathlib import Path
from typing import Any

import pydicom
import pytest

CANARY = "ZZCANARY"


def plant(exams: Path) -> None:
    """Put the canary into every header, folder name and table of a generated site."""
    manifest, clinical = (
        list(csv.DictReader((exams / name).read_text(encoding="utf-8").splitlines()))
        for name in ("manifest.csv", "clinical.csv")
    )
    for number, row in enumerate(manifest):
        old = exams / row["path"]
        new = exams / "dicom" / f"{CANARY}-{number}"
        old.rename(new)
        row["path"] = f"dicom/{new.name}"
        for path in new.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID = f"{CANARY}{dataset.PatientID}"
            dataset.PatientName = f"{CANARY}^JOHN"
            dataset.StudyDescription = CANARY
            dataset.AccessionNumber = CANARY
            dataset.StudyInstanceUID = "1.2.3.99887766." + dataset.StudyInstanceUID[-8:]
            dataset.save_as(path)
    for row in clinical:
        row["patient_id"] = f"{CANARY}{row['patient_id']}"
    # One exam is cut short, one has pixels that cannot be decoded: failures must not talk either.
    broken = sorted((exams / manifest[0]["path"]).iterdir())
    broken[3].write_bytes(broken[3].read_bytes()[:2000])
    damaged = sorted((exams / manifest[2]["path"]).iterdir())[1]
    dataset = pydicom.dcmread(damaged)
    dataset.RescaleType = CANARY
    dataset.save_as(damaged)
    for name, rows in (("manifest.csv", manifest), ("clinical.csv", clinical)):
        with (exams / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def test_no_canary_leaves_the_site(
    consortium: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    made = consortium
    plant(made.root / "exams" / "site-1")
    settings = made.site / "site.yaml"
    settings.write_text(
        settings.read_text(encoding="utf-8").replace(
            "maximum_excluded_share: 0.2", "maximum_excluded_share: 0.9"
        ),
        encoding="utf-8",
    )
    from fedcac.models import demonstration_package_folder

    package = str(demonstration_package_folder())
    round_id = made.run("lead", "round", "launch", "demo-nongated", "--model", package)["round_id"]
    made.run("site", "approve", round_id)
    for _ in range(20):
        made.run("site", "run", "--once")
        state = made.run("lead", "round", "status", round_id)["rounds"][0]["state"]
        if state == "pooled":
            break
    assert state == "pooled"
    made.run("lead", "report", round_id, "--out", str(made.root / "out"))

    searched = [
        made.site / "ledger.jsonl",
        *(made.site / "spool").rglob("*"),
        *made.lead.rglob("*"),
        *(made.root / "out").rglob("*"),
        made.root / "log.txt",
    ]
    files = [path for path in searched if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        for word in (CANARY, "99887766", "JOHN"):
            assert word.encode() not in content, path.name
            assert word not in path.name
    # Envelopes are base64 inside: look into every parcel as well.
    for path in (made.site / "spool").rglob("*"):
        if path.is_file() and b'"payloadType"' in path.read_bytes():
            payload = base64.b64decode(json.loads(path.read_bytes())["payload"])
            assert CANARY.encode() not in payload
    assert CANARY not in caplog.text
    captured = capfd.readouterr()
    assert CANARY not in captured.out + captured.err

    # The two broken exams are excluded by code, not dropped.
    flow = json.loads(base64.b64decode(_last_reply(made.site, round_id)))["flow"]["release"]
    assert flow["stages"]["listed"] == 6
    assert sum(flow["exclusions"].values()) == 6 - flow["stages"]["analysed"] >= 2


def _last_reply(site: Path, round_id: str) -> bytes:
    replies = sorted((site / "spool" / "outbox").glob(f"{round_id}.reply-*"))
    payload: str = json.loads(replies[-1].read_bytes())["payload"]
    return payload.encode()
