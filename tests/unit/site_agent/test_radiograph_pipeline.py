"""Radiographs through the queue: batches, faults, resumption, and the package that fits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from radiograph_package import ARCHITECTURE, SIZE, write_radiograph_package
from unit.models.reading import read

from fedcac.errors import DicomError, IntegrityError, PackageError, UsageError
from fedcac.models import InferenceEngine, ModelPackage, demonstration_package, family_of
from fedcac.models.streams import StreamLimits
from fedcac.models.threshold_answers import (
    category_index,
    category_labels,
    check_package_fits,
)
from fedcac.models.transport import Reading
from fedcac.phantom.radiograph_cohort import RadiographLabel, write_radiograph
from fedcac.phantom.radiographs import draw_radiograph
from fedcac.protocol import CategoryScheme, ImageCriteria, Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.vocabulary import ExclusionReason
from site_agent.exams.exam_pipeline import ExamPipeline, ExamScore, package_pipeline
from site_agent.exams.radiograph_pipeline import prepared_radiograph
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue
from site_agent.state.store import SiteStore

CRITERIA = ImageCriteria(min_slices=1, choose_series=True)
HONG = load_shipped("hong2025-cxr")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return write_radiograph_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def engine(package: ModelPackage) -> Any:
    made = InferenceEngine(package, device="cpu")
    yield made
    made.close()


def write(path: Path, score: float, seed: int, **label: Any) -> Path:
    rng = np.random.default_rng(seed)
    told = RadiographLabel(f"P{seed}", date(2024, 1, 1), f"2.25.9{seed}", **label)
    write_radiograph(path, draw_radiograph(rng, score), told, rng)
    return path.parent


def images(n: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return [rng.random((SIZE, SIZE), dtype=np.float32) for _ in range(n)]


# --- the engine -----------------------------------------------------------------------------------


def test_an_answer_does_not_depend_on_the_exams_beside_it(engine: InferenceEngine) -> None:
    some = images(5)
    together = engine.probabilities(some)
    alone = np.concatenate([engine.probabilities([image]) for image in some])
    assert together.shape == (5, 3)
    assert np.array_equal(together, alone)
    assert np.array_equal(engine.probabilities(some[::-1]), together[::-1])
    assert engine.probabilities([]).shape == (0, 3)


def test_other_sizes_and_packages_of_volumes_are_refused(engine: InferenceEngine) -> None:
    with pytest.raises(ValueError, match=f"{SIZE} x {SIZE}"):
        engine.probabilities([np.zeros((SIZE, SIZE + 1), np.float32)])
    other = InferenceEngine(demonstration_package(), device="cpu")
    with pytest.raises(UsageError, match="wrong_input_kind"):
        other.probabilities(images(1))
    other.close()


def test_batches_of_a_device_are_filled_up_and_cut_again(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU, walked on a CPU."""
    expected = engine.probabilities(images(7))
    shapes = []
    positive = engine._positive

    def watched(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        shapes.append(batch.shape[0])
        return positive(batch)

    monkeypatch.setattr(engine, "_lanes", None)
    monkeypatch.setattr(engine, "_batch", 3)
    monkeypatch.setattr(engine, "_positive", watched)
    assert np.allclose(engine.probabilities(images(7)), expected, atol=1e-5)
    assert shapes == [3, 3, 3]


@pytest.mark.parametrize(
    "image", [{"rows": 8}, {"rows": 64.0}, {"rows": 100_000}, {"low": 99.5}, {"depth": 3}]
)
def test_an_input_that_cannot_be_meant_makes_no_package(image: dict[str, Any]) -> None:
    with pytest.raises(PackageError, match="bad_architecture"):
        family_of("hong2025", {**ARCHITECTURE, "image": image})


# --- batches in the pipeline ----------------------------------------------------------------------


def restore(reading: Reading) -> float:
    return float(reading.arrays["hu"][0, 0, 0])


def score(value: float, mask: float) -> ExamScore:
    return ExamScore(value + mask)


def run(names: Sequence[str], batch: int, segment: Any) -> tuple[dict[str, Any], list[int]]:
    sizes = []

    def watched(values: list[float]) -> list[float]:
        sizes.append(len(values))
        return list(segment(values))

    limits = StreamLimits(n_in_flight=2 + batch, n_workers=2, time_limit_s=120.0)
    pipeline: ExamPipeline[IndexExam] = ExamPipeline(
        read=read, restore=restore, segment=watched, score=score, limits=limits, batch=batch
    )
    queue = ScoringQueue(SiteStore(":memory:"), "sha256:p", "agatston1990", pipeline)
    records = queue.run([IndexExam(name, Path(name)) for name in names])
    return {name: (one.total, one.reason) for name, one in records.items()}, sizes


def test_exams_reach_the_device_in_batches_and_none_is_lost() -> None:
    names = [f"exam-{number}" for number in range(20, 33)]
    found, sizes = run(names, 4, lambda values: [0.5] * len(values))
    assert found == {name: (float(name[5:]) + 0.5, None) for name in names}
    assert max(sizes) <= 4
    assert sum(sizes) == len(names)
    assert len(sizes) < len(names), "never more than one at a time"


def test_one_bad_exam_of_a_batch_costs_no_other() -> None:
    def segment(values: list[float]) -> list[float]:
        if 11.0 in values:
            raise RuntimeError("the network quotes ZZCANARY")
        return [0.25] * len(values)

    failed = (None, ExclusionReason.INFERENCE_FAILED)
    found, _ = run(["exam-10", "exam-11", "corrupt-4", "exam-12", "exam-13"], 5, segment)
    assert found == {
        "exam-10": (10.25, None),
        "exam-11": failed,
        "corrupt-4": (None, ExclusionReason.CORRUPT_PIXELS),
        "exam-12": (12.25, None),
        "exam-13": (13.25, None),
    }


# --- from DICOM -----------------------------------------------------------------------------------


def test_radiographs_become_records_and_faults_their_codes(
    package: ModelPackage, engine: InferenceEngine, tmp_path: Path
) -> None:
    good = [write(tmp_path / f"good{n}" / "a.dcm", 50.0 * n, n) for n in range(3)]
    lateral = write(tmp_path / "lateral" / "a.dcm", 0, 10, view="LL")
    blank = write(tmp_path / "blank" / "a.dcm", 0, 11)
    dataset = pydicom.dcmread(blank / "a.dcm")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(blank / "a.dcm")
    cut = write(tmp_path / "cut" / "a.dcm", 0, 12)
    (cut / "a.dcm").write_bytes((cut / "a.dcm").read_bytes()[:-3000])
    made = package_pipeline(package, engine, CRITERIA, None, StreamLimits(3, 1))  # type: ignore[arg-type]
    path = tmp_path / "site.sqlite"
    store = SiteStore(path)
    work = ScoringQueue(store, package.digest, "agatston1990", made)
    exams = [IndexExam(folder.name, folder) for folder in (*good, lateral, blank, cut)]
    records = work.run(exams)
    assert {name: one.reason for name, one in records.items() if not one.is_scored} == {
        "lateral": ExclusionReason.WRONG_VIEW,
        "blank": ExclusionReason.CORRUPT_PIXELS,
        "cut": ExclusionReason.TRUNCATED_DICOM,
    }
    spec = package.family.radiograph
    assert spec is not None
    for folder in good:
        expected = engine.probabilities([prepared_radiograph(folder, CRITERIA, spec)])[0]
        found = records[folder.name]
        assert list(found.probabilities.values()) == [float(p) for p in expected]
        assert found.native_category in category_labels((0, 100, 400))
    store.close()
    # A restart finds everything done, and asks neither reader nor network again.
    again = SiteStore(path)
    nobody: Any = lambda _: pytest.fail("answered again")  # noqa: E731
    assert ScoringQueue(again, package.digest, "agatston1990", nobody).run(exams) == records
    again.close()


def test_pa_is_read_where_a_study_has_several_views(package: ModelPackage, tmp_path: Path) -> None:
    spec = package.family.radiograph
    assert spec is not None
    pa = prepared_radiograph(write(tmp_path / "one" / "pa.dcm", 90, 3), CRITERIA, spec)
    for name, view, seed in (("a.dcm", "AP", 4), ("b.dcm", "LL", 5)):
        write(tmp_path / "one" / name, 0, seed, view=view)
    for path in (tmp_path / "one").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.StudyInstanceUID = "P", "2.25.77"
        dataset.save_as(path)
    assert np.array_equal(prepared_radiograph(tmp_path / "one", CRITERIA, spec), pa)
    with pytest.raises(DicomError, match="mixed_series"):
        prepared_radiograph(tmp_path / "one", ImageCriteria(min_slices=1), spec)


@pytest.mark.parametrize("is_cr", [False, True])
def test_a_negative_is_the_same_radiograph(
    package: ModelPackage, tmp_path: Path, is_cr: bool
) -> None:
    spec = package.family.radiograph
    assert spec is not None
    plain = write(tmp_path / "plain" / "a.dcm", 90, 3)
    other = write(tmp_path / "other" / "a.dcm", 90, 3, is_inverted=True, is_cr=is_cr)
    assert np.allclose(
        prepared_radiograph(plain, CRITERIA, spec),
        prepared_radiograph(other, CRITERIA, spec),
        atol=1e-3,
    )


# --- categories -----------------------------------------------------------------------------------


def test_categories_are_named_as_the_paper_names_them() -> None:
    assert category_labels((0, 100, 400)) == HONG.categories.labels
    assert category_labels((0,)) == ("0", ">=1")


@pytest.mark.parametrize(
    ("answers", "index"),
    [((0.1, 0.1, 0.1), 0), ((0.5, 0.4, 0.1), 1), ((0.9, 0.8, 0.7), 3), ((0.2, 0.9, 0.1), 1)],
)
def test_every_network_is_taken_at_its_word(answers: tuple[float, ...], index: int) -> None:
    probabilities = dict(zip((0, 100, 400), answers, strict=True))
    assert category_index(probabilities, (0, 100, 400), 0.5) == index


def with_categories(*cut_offs: float) -> Protocol:
    labels = tuple(str(number) for number in range(len(cut_offs) + 1))
    scheme = CategoryScheme(cut_offs=cut_offs, labels=labels)
    kept = tuple(spec for spec in HONG.analyses if spec.id == "agreement")
    return HONG.model_copy(update={"categories": scheme, "analyses": kept})


def test_a_package_that_does_not_fit_is_refused_before_anything_is_read(
    package: ModelPackage,
) -> None:
    check_package_fits(HONG, package)
    check_package_fits(with_categories(1, 400), package)
    check_package_fits(load_shipped("demo-nongated"), demonstration_package())
    for protocol, other, code in (
        (load_shipped("demo-nongated"), package, "wrong_modality"),
        (HONG, demonstration_package(), "wrong_modality"),
        (with_categories(1, 10, 100), package, "wrong_thresholds"),
        (
            HONG.model_copy(update={"modality": load_shipped("demo-nongated").modality}),
            demonstration_package(),
            "no_probabilities",
        ),
    ):
        with pytest.raises(PackageError, match=code):
            check_package_fits(protocol, other)


# --- the database ---------------------------------------------------------------------------------


def test_a_database_of_the_release_before_keeps_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE exams (exam_key TEXT NOT NULL, package_digest TEXT NOT NULL, "
            "profile TEXT NOT NULL, attempts INTEGER NOT NULL, completions INTEGER NOT NULL, "
            "reason TEXT, total REAL, vessels TEXT, native_score REAL, seconds REAL, "
            "PRIMARY KEY (exam_key, package_digest, profile));"
            "INSERT INTO exams VALUES ('k', 'p', 'f', 1, 1, NULL, 12.5, '{}', 3.0, 0.1);"
            "PRAGMA user_version = 1;"
        )
    connection.close()
    for _ in range(2):
        store = SiteStore(path)
        (record,) = store.exams("p", "f").values()
        assert (record.total, record.native_score, record.probabilities) == (12.5, 3.0, {})
        assert record.native_category is None
        assert record.is_finished
        store.close()
    store = SiteStore(path)
    store.begin_exam("new", "p", "f")
    store.finish_exam("new", "p", "f", seconds=1.0, native_category="0", probabilities={0: 0.25})
    assert store.exams("p", "f")["new"].probabilities == {0: 0.25}
    store.close()


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(IntegrityError, match="schema_version"):
        SiteStore(path)
