"""Reference scores read by a model: two packages in one round, verified, scored and marked."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from radiograph_package import write_radiograph_package

from coordinator.reports.reporting import write_round_report
from coordinator.rounds.views import RoundView
from fedcac.canonical import canonical_bytes
from fedcac.cli.in_memory import InMemorySite, SignedPackage, run_round
from fedcac.disclosure import load_policy
from fedcac.errors import UsageError
from fedcac.imaging import load_volume
from fedcac.models import (
    InferenceEngine,
    ModelPackage,
    demonstration_package_folder,
    seal_package,
)
from fedcac.phantom import write_cohort
from fedcac.protocol import ImageCriteria, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.schema import Reference
from fedcac.scoring import profile_named, score_volume
from fedcac.signing import SigningKey
from fedcac.vocabulary import ExclusionReason, Modality, ReferenceKind
from site_agent.exams.cohort import ExamSource, FrozenCohort, empty_cohort
from site_agent.exams.dicom_source import DicomFiles, DicomSource
from site_agent.exams.reference_model import reference_key
from site_agent.service.stopping import InterruptibleSource, Stopper
from site_agent.state.store import SiteStore

N_PATIENTS = 3
NOTE = "reference read by a model, not by an expert"
PROFILE = "agatston1990"


def read_by_model() -> Protocol:
    demo = load_shipped("demo-nongated")
    parts = {name: getattr(demo, name) for name in type(demo).model_fields}
    kept = tuple(spec for spec in demo.analyses if spec.kind in ("agreement", "accuracy"))
    return Protocol(
        **{
            **parts,
            "id": "read-by-model",
            "reference": Reference(kind=ReferenceKind.GATED_CT_MODEL, modality=Modality.GATED_CT),
            "analyses": kept,
        }
    )


PROTOCOL = read_by_model()


def gated_package(folder: Path) -> Path:
    """The demonstration's weights under another name: another package with another digest."""
    folder.mkdir()
    for path in demonstration_package_folder().iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["name"] = "gated-test"
    (folder / "manifest.json").write_bytes(canonical_bytes(manifest))
    return folder


def without_reference(table: Path, wrong: Callable[[int], str] | None = None) -> None:
    """Take the expert's scores out of a clinical table, or put nonsense in their place."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        for name in [name for name in row if name.startswith("reference_")]:
            if wrong is None or name != "reference_score":
                del row[name]
            else:
                row[name] = wrong(number)
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class Made:
    view: RoundView
    stores: dict[str, SiteStore]
    packages: dict[str, ModelPackage]
    sites: dict[str, DicomFiles]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("reference")
    names = write_cohort(root / "exams", n_sites=2, n_patients=N_PATIENTS, seed=3, hybrid_share=0.0)
    lead = SigningKey.generate()
    index = seal_package(demonstration_package_folder(), lead)
    gated = seal_package(gated_package(root / "gated"), lead)
    # One site has no scores at all, the other ones that must not be used.
    without_reference(root / "exams" / names[0] / "clinical.csv")
    without_reference(root / "exams" / names[1] / "clinical.csv", lambda _: "999")
    manifest = (root / "exams" / names[0] / "manifest.csv").read_text(encoding="utf-8")
    paths = [line.split(",")[0] for line in manifest.splitlines() if line.endswith(",reference")]
    broken = root / "exams" / names[0] / paths[0]
    cut = next(broken.iterdir())
    cut.write_bytes(cut.read_bytes()[:-9000])
    stores, sites, files = {}, [], {}
    for number, name in enumerate(names):
        folder = root / "exams" / name
        files[name] = DicomFiles(
            folder / "manifest.csv", folder / "clinical.csv", bytes([number]) * 32
        )
        stores[name] = SiteStore(":memory:")
        source = DicomSource(files[name], stores[name], device="cpu")
        ledger = root / name / "ledger.jsonl"
        sites.append(InMemorySite(name, source, stores[name], ledger, files[name].secret))
    view = run_round(
        PROTOCOL,
        sites,
        load_policy("open"),
        lead,
        SignedPackage(index.digest, index.files()),
        SignedPackage(gated.digest, gated.files()),
    )
    yield Made(view, stores, {"index": index, "gated": gated}, files)
    for store in stores.values():
        store.close()


def by_hand(made: Made) -> Counter[tuple[str, str]]:
    """Return the confusion matrix of both series of every pair, scored one after another."""
    engine = InferenceEngine(made.packages["gated"], device="cpu")
    criteria = ImageCriteria(min_slices=1)
    found: Counter[tuple[str, str]] = Counter()

    def category(path: Path) -> str:
        volume = load_volume(path, criteria)
        mask = engine.predict(volume.hu, volume.spacing_mm).vessel_map
        score = score_volume(volume.hu, mask, volume.spacing_mm, profile_named(PROFILE))
        index = PROTOCOL.categories.categorise(np.array([score.total]))[0]
        return PROTOCOL.categories.labels[index]

    for name, files in made.sites.items():
        for pair in files.pair(PROTOCOL).pairs:
            record = made.stores[name].exams(made.packages["gated"].digest, PROFILE)
            if record[reference_key(pair.exam_key)].is_scored:
                assert pair.reference_path is not None
                found[category(pair.reference_path), category(pair.index_path)] += 1
    engine.close()
    return found


def test_the_reference_of_every_pair_is_its_gated_exam_read_by_the_second_package(
    made: Made,
) -> None:
    expected = by_hand(made)
    assert sum(expected.values()) == 2 * N_PATIENTS - 1
    rows = {
        (row.group, row.term): row.estimate
        for row in made.view.estimates
        if row.analysis == "agreement" and row.measure == "count" and row.scope == "pooled"
    }
    for reference in PROTOCOL.categories.labels:
        for index in PROTOCOL.categories.labels:
            assert rows[reference, index] == expected[reference, index], (reference, index)


def test_a_reference_exam_that_cannot_be_read_is_coded_and_not_replaced_by_the_table(
    made: Made,
) -> None:
    first = made.view.sites[0].flow
    assert first is not None
    assert first.exclusions == {ExclusionReason.TRUNCATED_DICOM: 1}
    store = made.stores["site-1"]
    gated = store.exams(made.packages["gated"].digest, PROFILE)
    index = store.exams(made.packages["index"].digest, PROFILE)
    assert not set(gated) & set(index)
    assert Counter(record.reason for record in gated.values())[None] == N_PATIENTS - 1
    assert {record.completions for record in (*gated.values(), *index.values())} == {1}


def test_report_and_provenance_say_that_a_model_read_the_reference(
    made: Made, tmp_path: Path
) -> None:
    write_round_report(made.view, tmp_path / "out", made.packages["index"].manifest)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert NOTE in page
    assert "agreement of two models" in page
    flows = list((tmp_path / "out" / "figures").glob("flow*.svg"))
    assert flows
    assert all(NOTE in path.read_text(encoding="utf-8") for path in flows)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    text = json.dumps(provenance)
    assert made.packages["gated"].digest in text
    assert '"is_reference_read_by_model": true' in text


def test_a_round_goes_on_from_what_was_read(made: Made) -> None:
    files, store = made.sites["site-2"], made.stores["site-2"]
    before = store.exams(made.packages["gated"].digest, PROFILE)
    source = DicomSource(files, store, device="cpu")
    cohort = source.collect(PROTOCOL, made.packages["index"], made.packages["gated"])
    assert store.exams(made.packages["gated"].digest, PROFILE) == before
    assert cohort.exams.n == N_PATIENTS
    assert 999 not in cohort.exams.column("reference_score")


# --- by the command lines -------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL.model_dump(mode="json")), encoding="utf-8")
    return path


def launch(made: Any, plan: str, *more: str, expect: int = 0) -> dict[str, Any]:
    model = ["--model", str(demonstration_package_folder())]
    return dict(made.run("lead", "round", "launch", plan, *model, *more, expect=expect))


def test_a_site_verifies_and_shows_both_packages(consortium: Any, plan: Path) -> None:
    gated = gated_package(consortium.root / "gated")
    launched = launch(consortium, str(plan), "--reference-model", str(gated))
    packages = consortium.run("site", "approve", launched["round_id"])["packages"]
    assert packages == launched["packages"]
    assert packages["package"].startswith("eng2021-demo ")
    assert packages["reference_package"].startswith("gated-test ")


class Asked(ExamSource):
    """Keeps what it is asked to collect with."""

    needs_package = True

    def __init__(self) -> None:
        self.packages: list[Any] = []

    def collect(self, protocol: Protocol, package: Any, reference: Any = None) -> FrozenCohort:
        self.packages.append((package, reference))
        return empty_cohort()


def test_a_service_that_may_stop_passes_the_reference_package_on() -> None:
    asked = Asked()
    source = InterruptibleSource(asked, Stopper())
    source.collect(PROTOCOL, None)
    package: Any = object()
    source.collect(PROTOCOL, package, package)
    assert asked.packages == [(None, None), (package, package)]


def test_an_altered_reference_package_is_refused(consortium: Any, plan: Path) -> None:
    gated = gated_package(consortium.root / "gated")
    round_id = launch(consortium, str(plan), "--reference-model", str(gated))["round_id"]
    inbox = consortium.site / "spool" / "inbox"
    (weights,) = inbox.glob("*.reference_package.weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    consortium.run("site", "run", "--once")
    data = consortium.run("lead", "round", "status", round_id)["rounds"][0]
    assert data["sites"]["duke"]["refusal"] == "package_invalid"


def test_an_unmarked_reference_is_not_launched(consortium: Any, plan: Path) -> None:
    gated = gated_package(consortium.root / "gated")
    launch(consortium, "demo-nongated", "--reference-model", str(gated), expect=5)
    assert "package.unmarked_reference" in (consortium.root / "log.txt").read_text()
    write_radiograph_package(consortium.root / "cxr")
    launch(consortium, str(plan), "--reference-model", str(consortium.root / "cxr"), expect=5)
    assert "package.wrong_modality" in (consortium.root / "log.txt").read_text()
    arguments = ("round", "launch", str(plan), "--reference-model", str(gated))
    consortium.run("lead", *arguments, expect=UsageError.exit_code)
    assert "usage.unmarked_reference" in (consortium.root / "log.txt").read_text()
