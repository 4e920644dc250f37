"""Radiographs in DICOM to estimates: a whole signed round, against numbers made another way."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from radiograph_package import write_radiograph_package

from coordinator.reports.reporting import write_round_report
from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, SignedPackage, run_round
from fedcac.disclosure import load_policy
from fedcac.imaging import load_radiograph
from fedcac.models import ModelPackage, seal_package
from fedcac.phantom.radiograph_cohort import write_radiograph_cohort
from fedcac.protocol import ImageCriteria
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from fedcac.vocabulary import ExclusionReason
from site_agent.exams.dicom_source import DicomFiles, DicomSource
from site_agent.state.store import SiteStore

PROTOCOL = load_shipped("hong2025-cxr")
N_PATIENTS = 40
CUTS = (1, 100, 400)


@dataclass(frozen=True)
class Made:
    """The round, the sites' stores, and what a person would find by hand."""

    view: RoundView
    stores: dict[str, SiteStore]
    package: ModelPackage
    expected: list[tuple[np.ndarray[Any, Any], float]]
    root: Path


def clinical(site: Path) -> list[dict[str, str]]:
    with (site / "clinical.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_clinical(site: Path, rows: list[dict[str, str]]) -> None:
    with (site / "clinical.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def follow(site: Path) -> None:
    """As many events as a study of few patients needs."""
    rows = clinical(site)
    rng = np.random.default_rng(2)
    for row in rows:
        row["follow_up_days"] = str(int(rng.integers(60, 1800)))
        row["event"] = str(int(rng.random() < 0.8))
    write_clinical(site, rows)


def damage(site: Path) -> None:
    """One fault each for four patients of a site."""
    rows = clinical(site)
    studies = {
        pydicom.dcmread(folder / "frontal.dcm").PatientID: folder
        for folder in sorted((site / "dicom").iterdir())
    }
    # Patients 1, 2, 7 and 8 have one study each, and only the frontal view.
    cut = studies[rows[1]["patient_id"]] / "frontal.dcm"
    cut.write_bytes(cut.read_bytes()[:-5000])
    lateral = studies[rows[2]["patient_id"]] / "frontal.dcm"
    dataset = pydicom.dcmread(lateral)
    dataset.ViewPosition = "LL"
    dataset.save_as(lateral)
    rows[7]["reference_date"] = ""
    rows[8]["reference_date"] = "2010-01-01"
    write_clinical(site, rows)


def by_hand(site: Path, package: ModelPackage) -> list[tuple[np.ndarray[Any, Any], float]]:
    """Return probabilities and reference score of every patient, one after another."""
    rows = {row["patient_id"]: row for row in clinical(site)}
    nearest: dict[str, tuple[int, Path]] = {}
    for folder in sorted((site / "dicom").iterdir()):
        header = pydicom.dcmread(folder / "frontal.dcm", stop_before_pixels=True, force=True)
        day = rows[header.PatientID]["reference_date"]
        if not day or header.ViewPosition != "PA":
            continue
        taken = date.fromisoformat(f"{header.StudyDate}")
        distance = abs((date.fromisoformat(day) - taken).days)
        known = nearest.get(header.PatientID)
        if distance <= 183 and (known is None or distance < known[0]):
            nearest[header.PatientID] = (distance, folder / "frontal.dcm")
    network, found = package.network(), []
    assert package.family.radiograph is not None
    for patient, (_, path) in nearest.items():
        if path.stat().st_size < 45_000:
            continue
        radiograph = load_radiograph(path, ImageCriteria(min_slices=1))
        image = package.family.radiograph.prepare(radiograph.intensity)[0]
        with torch.inference_mode():
            answer = package.outputs(network, {"image": image})["positive"][0]
        found.append((answer.double().numpy(), float(rows[patient]["reference_score"])))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("radiographs")
    names = write_radiograph_cohort(root / "exams", n_sites=2, n_patients=N_PATIENTS, seed=4)
    for name in names:
        follow(root / "exams" / name)
    damage(root / "exams" / names[0])
    write_radiograph_package(root / "package")
    lead = SigningKey.generate()
    package = seal_package(root / "package", lead)
    stores, sites = {}, []
    for number, name in enumerate(names):
        folder = root / "exams" / name
        files = DicomFiles(folder / "manifest.csv", folder / "clinical.csv", bytes([number]) * 32)
        stores[name] = SiteStore(root / f"{name}.sqlite")
        source = DicomSource(files, stores[name], device="cpu")
        ledger = root / name / "ledger.jsonl"
        sites.append(InMemorySite(name, source, stores[name], ledger, files.secret))
    signed = SignedPackage(package.digest, package.files())
    view = run_round(PROTOCOL, sites, load_policy("open"), lead, signed)
    expected = [one for name in names for one in by_hand(root / "exams" / name, package)]
    yield Made(view, stores, package, expected, root)
    for store in stores.values():
        store.close()


def row(view: RoundView, analysis: str, measure: str, **parts: str) -> Any:
    wanted = {"analysis": analysis, "measure": measure, "scope": "pooled", **parts}
    (found,) = [
        e
        for e in view.estimates
        if all(getattr(e, name) == value for name, value in wanted.items())
    ]
    return found


def reached(score: float) -> int:
    return sum(score >= cut for cut in CUTS)


def test_the_confusion_matrix_is_that_of_every_patient_looked_at_by_hand(made: Made) -> None:
    labels = PROTOCOL.categories.labels
    expected = Counter(
        (labels[reached(score)], labels[int((answer >= 0.5).sum())])
        for answer, score in made.expected
    )
    assert len({index for _, index in expected}) == 4, "the package answers every category"
    for reference in labels:
        for index in labels:
            found = row(made.view, "agreement", "count", group=reference, term=index)
            assert found.estimate == expected[reference, index], (reference, index)


@pytest.mark.parametrize("number", range(3))
def test_auc_is_that_of_the_probabilities(made: Made, number: int) -> None:
    values = np.array([answer[number] for answer, _ in made.expected])
    is_positive = np.array([score >= CUTS[number] for _, score in made.expected])
    greater = values[is_positive][:, None] - values[~is_positive][None, :]
    auc = float(((greater > 0) + 0.5 * (greater == 0)).mean())
    found = row(made.view, "discrimination", "auc", term=str(CUTS[number]))
    # Probabilities of the engine agree with the plain network's to 1e-3, and bins are coarser.
    assert found.estimate == pytest.approx(auc, abs=0.02)


def test_every_analysis_of_the_paper_has_its_numbers(made: Made) -> None:
    of_analysis = {
        spec.id: [e for e in made.view.estimates if e.analysis == spec.id and e.scope == "pooled"]
        for spec in PROTOCOL.analyses
    }
    for name, rows in of_analysis.items():
        assert any(e.status == "ok" for e in rows), name
        assert all(e.n in (None, 0) or e.n <= len(made.expected) for e in rows), name


def test_every_fault_costs_its_own_patient_under_its_code(made: Made) -> None:
    first = made.view.sites[0]
    assert len(made.expected) == 2 * N_PATIENTS - 4
    flow = first.replies[0].flow.release
    assert flow is not None
    text = str(flow)
    for reason in (
        ExclusionReason.TRUNCATED_DICOM,
        ExclusionReason.WRONG_VIEW,
        ExclusionReason.NO_REFERENCE_EXAM,
        ExclusionReason.OUTSIDE_PAIRING_WINDOW,
    ):
        assert reason.value in text, reason
    records = made.stores["site-1"].exams(made.package.digest, "agatston1990")
    assert sum(record.is_scored for record in records.values()) == N_PATIENTS - 4
    assert Counter(r.reason for r in records.values() if not r.is_scored) == {
        ExclusionReason.TRUNCATED_DICOM: 1,
        ExclusionReason.WRONG_VIEW: 1,
    }


def test_records_keep_what_the_model_said(made: Made) -> None:
    for record in made.stores["site-2"].exams(made.package.digest, "agatston1990").values():
        assert (record.total, record.vessels, record.completions) == (None, {}, 1)
        assert sorted(record.probabilities) == [0, 100, 400]
        index = sum(p >= 0.5 for p in record.probabilities.values())
        assert record.native_category == ("0", "1-99", "100-399", ">=400")[index]


def test_a_second_round_answers_from_the_records(made: Made, tmp_path: Path) -> None:
    folder = made.root / "exams" / "site-2"
    files = DicomFiles(folder / "manifest.csv", folder / "clinical.csv", bytes([1]) * 32)
    store = made.stores["site-2"]
    before = store.exams(made.package.digest, "agatston1990")
    cohort = DicomSource(files, store, device="cpu").collect(PROTOCOL, made.package)
    assert store.exams(made.package.digest, "agatston1990") == before
    assert cohort.exams.n == N_PATIENTS
    categories = PROTOCOL.categories.categorise(cohort.exams.column("index_score"))
    native = PROTOCOL.categories.categorise(cohort.exams.column("index_native_category"))
    assert categories.tolist() == native.tolist()
    assert np.isnan(cohort.exams.column("index_native_score")).all()
    assert np.isnan(cohort.exams.column("index_lad")).all()


def test_the_report_is_written(made: Made, tmp_path: Path) -> None:
    write_round_report(made.view, tmp_path / "out", package=made.package.manifest)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "tiny-radiograph" in page
    assert "frontal chest radiograph" in page.lower()
