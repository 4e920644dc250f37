"""A whole round with review artefacts: they carry the patient, and nothing of them leaves."""

from __future__ import annotations

import base64
import csv
import json
import logging
from pathlib import Path
from typing import Any

import pydicom
import pytest
from egress.canaries import Canaries

from fedcac.imaging.review_artefacts import OVERLAY_FILE, REPORT_FILE, SEGMENTATION_FILE
from fedcac.models import demonstration_package_folder

WORD = "QQARTEFACT"


def plant(exams: Path) -> None:
    """Name every patient by a word that can be searched for."""
    for row in csv.DictReader((exams / "manifest.csv").read_text("utf-8").splitlines()):
        for path in (exams / row["path"]).iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientName = f"{WORD}NAME^JOHN"
            dataset.AccessionNumber = f"{WORD}ACC"
            dataset.save_as(path)


def test_nothing_of_an_artefact_leaves_the_site(
    consortium: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    made = consortium
    plant(made.root / "exams" / "site-1")
    settings = made.site / "site.yaml"
    text = settings.read_text(encoding="utf-8")
    assert "artefacts: none" in text
    settings.write_text(text.replace("artefacts: none", "artefacts: all"), encoding="utf-8")
    package = str(demonstration_package_folder())
    round_id = made.run("lead", "round", "launch", "demo-nongated", "--model", package)["round_id"]
    made.run("site", "approve", round_id)
    # Until the first answer has left; later ones are sums of the same frozen cohort.
    outbox = made.site / "spool" / "outbox"
    for _ in range(5):
        made.run("site", "run", "--once")
        if list(outbox.glob(f"{round_id}.reply-*")):
            break
        made.run("lead", "round", "status", round_id)
    assert list(outbox.glob(f"{round_id}.reply-*"))

    folders = sorted(path for path in (made.site / "artefacts").glob("*/*") if path.is_dir())
    assert len(folders) >= 3
    uids = []
    for folder in folders:
        page = (folder / OVERLAY_FILE).read_bytes()
        assert folder.name.encode() in page
        assert WORD.encode() not in page
        for name in (SEGMENTATION_FILE, REPORT_FILE):
            dataset = pydicom.dcmread(folder / name)
            assert dataset.PatientName == f"{WORD}NAME^JOHN"
            uids += [dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID]

    pseudonyms = [folder.name for folder in folders]
    canaries = Canaries(words=(f"{WORD}NAME", f"{WORD}ACC", *map(str, uids), *pseudonyms))
    searched = [
        made.site / "ledger.jsonl",
        *(made.site / "spool").rglob("*"),
        *made.lead.rglob("*"),
        made.root / "log.txt",
    ]
    files = [path for path in searched if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert canaries.found_in(path.name.encode()) == []
        assert canaries.found_in(path.read_bytes()) == [], path.name
    # A parcel is base64 in an envelope: its content is searched too.
    for path in outbox.iterdir():
        payload = base64.b64decode(json.loads(path.read_bytes())["payload"])
        assert canaries.found_in(payload) == [], path.name
    captured = capfd.readouterr()
    assert canaries.found_in((caplog.text + captured.out + captured.err).encode()) == []
