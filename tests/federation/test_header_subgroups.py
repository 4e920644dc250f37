"""A round from DICOM whose subgroups are what the headers say, against tables that say it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaging.generated import body_hu, make_series, write_series

from coordinator.rounds.views import RoundView
from fedcac.cli.in_memory import InMemorySite, SignedPackage, run_round
from fedcac.disclosure import load_policy
from fedcac.errors import TableError
from fedcac.models import demonstration_package, demonstration_package_folder, seal_package
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from fedcac.site_table import read_clinical_table
from fedcac.vocabulary import Vessel
from site_agent.exams.dicom_source import DicomFiles, DicomSource
from site_agent.exams.dictionary import data_dictionary, template_csv
from site_agent.exams.table_source import TableSource
from site_agent.state.store import SiteStore

VENDORS = {
    "SIEMENS": "Siemens",
    "Siemens Healthineers": "Siemens",
    "GE MEDICAL SYSTEMS": "GE",
    "TOSHIBA": "Canon",
    "Some Maker": "other",
}
MAKERS = (
    ["SIEMENS"] * 5
    + ["Siemens Healthineers"] * 5
    + ["GE MEDICAL SYSTEMS"] * 8
    + ["TOSHIBA", "Some Maker"]
)
# Index and reference score: on either side of 100.
SCORES = [(250.0, 400.0), (0.0, 20.0), (60.0, 150.0), (180.0, 90.0)]
COVARIATES = [
    {
        "name": "scanner_manufacturer",
        "type": "categorical",
        "description": "Manufacturer of the scanner",
        "levels": ["siemens", "GE", "canon", "other"],
    },
    {
        "name": "slice_thickness_mm",
        "type": "continuous",
        "description": "Slice thickness",
        "unit": "mm",
        "minimum": 0.5,
        "maximum": 10,
    },
]
SUBGROUPS = [
    {
        "name": "siemens",
        "covariate": "scanner_manufacturer",
        "levels": ["siemens"],
        "description": "Siemens scanners",
    },
    {
        "name": "canon",
        "covariate": "scanner_manufacturer",
        "levels": ["canon"],
        "description": "Canon scanners",
    },
    {
        "name": "thin",
        "covariate": "slice_thickness_mm",
        "below": 4.0,
        "description": "Slices under 4 mm",
    },
]
ANALYSES = [
    {"id": name, "kind": "accuracy", "subgroup": name} for name in ("siemens", "canon", "thin")
] + [{"id": "all", "kind": "accuracy"}]


def protocol(**changes: Any) -> Protocol:
    document = load_shipped("eng2021-gated").model_dump(mode="json")
    document["image_criteria"] |= {"min_slices": 1, "acquisition": "any"}
    document |= {
        "covariates": COVARIATES,
        "subgroups": SUBGROUPS,
        "analyses": ANALYSES,
        "endpoints": [],
        "categories": {
            "cut_offs": [100],
            "convention": "upper_inclusive",
            "labels": ["0-100", ">100"],
        },
    }
    return Protocol.model_validate_json(json.dumps(document | changes))


@dataclass(frozen=True)
class Patient:
    """What is true of a patient, apart from what any header says."""

    patient_id: str
    manufacturer: str
    thickness_mm: float
    index: float
    reference: float


def patients(site: int, n: int) -> list[Patient]:
    """In every vendor and thickness every other patient falls on the wrong side of 100."""
    made = []
    for number in range(n):
        manufacturer = MAKERS[number % len(MAKERS)]
        thickness = (2.5, 5.0)[number // len(MAKERS) % 2]
        earlier = [p for p in made if (p.manufacturer, p.thickness_mm) == (manufacturer, thickness)]
        index, reference = SCORES[len(earlier) % len(SCORES)]
        made.append(Patient(f"P{site}{number:03d}", manufacturer, thickness, index, reference))
    return made


def write_site(folder: Path, own: Sequence[Patient]) -> DicomFiles:
    rng = np.random.default_rng(3)
    hu = body_hu(rng)[:2]
    for patient in own:
        slices = make_series(rng, patient.patient_id, hu)
        for dataset in slices:
            dataset.Manufacturer = patient.manufacturer
            dataset.SliceThickness = patient.thickness_mm
        write_series(folder / patient.patient_id, slices)
    rows = [{"path": patient.patient_id, "role": "index"} for patient in own]
    write_csv(folder / "manifest.csv", rows)
    rows = [{"patient_id": p.patient_id, "reference_score": p.reference} for p in own]
    write_csv(folder / "clinical.csv", rows)
    return DicomFiles(folder / "manifest.csv", folder / "clinical.csv", folder.name.encode() * 8)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


class Scored(DicomSource):
    """A source whose exams were scored before, so that no model runs."""

    def _scorer(self, protocol: Protocol, package: Any) -> Any:
        return None


def scored_store(files: DicomFiles, own: Sequence[Patient], digest: str) -> SiteStore:
    store, plan = SiteStore(":memory:"), protocol()
    scores = {patient.patient_id: patient.index for patient in own}
    table = read_clinical_table(files.clinical_table, plan)
    for pair in files.pair(plan, table).pairs:
        key = (pair.exam_key, digest, plan.index_test.scoring_profile)
        store.begin_exam(*key)
        total = scores[pair.patient_id]
        vessels = dict.fromkeys(Vessel, total / 4)
        store.finish_exam(*key, seconds=1.0, total=total, vessels=vessels)
    return store


def rows_of(view: RoundView) -> dict[tuple[Any, ...], Any]:
    return {
        (e.analysis, e.scope, e.measure, e.group, e.term): (e.estimate, e.n, e.status)
        for e in view.estimates
    }


SITES = {f"hospital-{number}": patients(number, 120) for number in (1, 2)}


@pytest.fixture(scope="module")
def lead() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory, lead: SigningKey) -> list[InMemorySite]:
    """Sites with DICOM whose tables hold reference scores alone."""
    folder = tmp_path_factory.mktemp("dicom")
    digest = seal_package(demonstration_package_folder(), lead).digest
    sites = []
    for name, own in SITES.items():
        files = write_site(folder / name, own)
        store = scored_store(files, own, digest)
        ledger = folder / name / "ledger.jsonl"
        sites.append(InMemorySite(name, Scored(files, store), store, ledger, files.secret))
    return sites


@pytest.fixture(scope="module")
def by_header(hospitals: list[InMemorySite], lead: SigningKey) -> dict[tuple[Any, ...], Any]:
    sealed = seal_package(demonstration_package_folder(), lead)
    package = SignedPackage(sealed.digest, sealed.files())
    return rows_of(run_round(protocol(), hospitals, load_policy("research"), lead, package))


def tables(folder: Path) -> list[InMemorySite]:
    """The same patients as tables that hold index scores and covariates."""
    sites = []
    for name, own in SITES.items():
        rows = [
            {
                "patient_id": p.patient_id,
                "index_score": p.index,
                "reference_score": p.reference,
                "scanner_manufacturer": VENDORS[p.manufacturer],
                "slice_thickness_mm": p.thickness_mm,
            }
            for p in own
        ]
        source = TableSource(write_csv(folder / f"{name}.csv", rows))
        ledger = folder / name / "ledger.jsonl"
        sites.append(InMemorySite(name, source, SiteStore(":memory:"), ledger, b"s" * 32))
    return sites


def test_subgroups_by_header_are_those_of_tables_that_name_them(
    tmp_path: Path, by_header: dict[tuple[Any, ...], Any], lead: SigningKey
) -> None:
    view = run_round(protocol(), tables(tmp_path), load_policy("research"), lead)
    assert by_header == rows_of(view)
    everyone = [patient for own in SITES.values() for patient in own]
    members = {
        "siemens": [p for p in everyone if VENDORS[p.manufacturer] == "Siemens"],
        "thin": [p for p in everyone if p.thickness_mm < 4],
        "all": everyone,
    }
    for name, group in members.items():
        positive = [p for p in group if p.reference > 100]
        assert by_header[name, "pooled", "sensitivity", "", "100"] == (
            pytest.approx(sum(p.index > 100 for p in positive) / len(positive)),
            len(positive),
            "ok",
        ), name


def test_a_small_subgroup_does_not_pass_the_gate(by_header: dict[tuple[Any, ...], Any]) -> None:
    canon = {row for key, row in by_header.items() if key[0] == "canon"}
    assert canon
    assert {(estimate, status) for estimate, _, status in canon} == {(None, "suppressed")}


def test_a_column_of_the_table_counts_before_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SITES["hospital-1"][:4]
    files = write_site(tmp_path / "site", own)
    rows = [
        {
            "patient_id": p.patient_id,
            "reference_score": p.reference,
            "scanner_manufacturer": ["canon", ""][number % 2],
        }
        for number, p in enumerate(own)
    ]
    write_csv(files.clinical_table, rows)
    package = seal_package(demonstration_package_folder(), SigningKey.generate())
    store = scored_store(files, own, package.digest)
    source = Scored(files, store)
    plan, loaded = protocol(), demonstration_package()
    exams = source.collect(plan, loaded).exams
    vendors = exams.column("scanner_manufacturer")
    assert np.count_nonzero(vendors == 2) == 2
    assert np.count_nonzero(np.isnan(vendors)) == 2
    assert sorted(exams.column("slice_thickness_mm")) == sorted(p.thickness_mm for p in own)
    # What a header said is kept, and not read again.
    monkeypatch.setattr("site_agent.exams.header_covariates.read_acquisition", None)
    assert source.collect(plan, loaded).exams.column("slice_thickness_mm").tolist() == (
        exams.column("slice_thickness_mm").tolist()
    )
    store.close()


def test_a_declaration_that_no_header_fits_asks_for_the_column(tmp_path: Path) -> None:
    files = write_site(tmp_path / "site", SITES["hospital-1"][:2])
    assert read_clinical_table(files.clinical_table, protocol()).columns
    covariates = [COVARIATES[0] | {"levels": ["siemens", "GE", "canon", "XYZ"]}, COVARIATES[1]]
    with pytest.raises(TableError, match="missing_column"):
        read_clinical_table(files.clinical_table, protocol(covariates=covariates))


def test_the_template_leaves_to_the_header_what_it_tells() -> None:
    entries = {entry.column: entry for entry in data_dictionary(protocol())}
    assert "DICOM header" in entries["slice_thickness_mm"].description
    assert not entries["slice_thickness_mm"].is_required
    assert template_csv(tuple(entries.values())).strip() == "patient_id,reference_score"
