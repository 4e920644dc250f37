"""What goes wrong with one exam, table or annotation, and what it costs: that one and no other."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from site_bench import Bench
from unit.models.reading import read

from fedcac.errors import CohortError, DicomError, FedcacError
from fedcac.imaging import ExamPair, PairingOutcome
from fedcac.models import demonstration_package
from fedcac.models.streams import StreamLimits
from fedcac.models.transport import Reading
from fedcac.phantom.radiograph_cohort import RadiographLabel, write_radiograph
from fedcac.protocol import Covariate, ImageCriteria
from fedcac.protocol.catalogue import load_shipped
from fedcac.site_table import ClinicalTable
from fedcac.vocabulary import ExclusionReason, Vessel
from site_agent.__main__ import main
from site_agent.exams import header_covariates, reference_scores
from site_agent.exams.dicom_source import DicomFiles, DicomSource
from site_agent.exams.dictionary import data_dictionary
from site_agent.exams.exam_pipeline import ExamPipeline, ExamScore
from site_agent.exams.radiograph_pipeline import prepared_radiograph, radiograph_pipeline
from site_agent.exams.reference_model import reference_key, references_by_model
from site_agent.exams.review_artefacts import plan_at
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue
from site_agent.exams.table_source import TableSource, WithScoredTable
from site_agent.state.store import SiteStore

LIMITS = StreamLimits(n_in_flight=3, n_workers=2, time_limit_s=120.0)
KEY = ("sha256:package", "agatston1990")


def pair(
    key: str, patient: str, reference: Path | None = None, days: int | None = None
) -> ExamPair:
    return ExamPair(key, Path(f"/data/{patient}"), reference, days, patient)


def table_of(*patients: str) -> ClinicalTable:
    return ClinicalTable(
        rows={patient: {"reference_score": 5.0} for patient in patients},
        columns=("reference_score",),
        excluded=frozenset(),
    )


# the source


def test_dicom_exams_need_a_package(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    files = DicomFiles.of_site(bench.folder, bench.folder.settings())
    store = SiteStore(":memory:")
    try:
        with pytest.raises(CohortError) as caught:
            DicomSource(files, store).collect(bench.protocol, None)
    finally:
        store.close()
    assert caught.value.code == "cohort.no_package"
    assert "--model" in caught.value.cure


def test_a_cohort_without_one_usable_exam_names_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "empty").mkdir()
    bench.folder.resolve("manifest.csv").write_text(
        f"path,role,patient_id\n{tmp_path / 'empty'},index,A\n", encoding="utf-8"
    )
    bench.folder.resolve("clinical.csv").write_text(
        "patient_id,reference_score\nA,12\n", encoding="utf-8"
    )
    assert main(["--home", str(bench.folder.root), "cohort", "check", bench.protocol.id]) != 0
    told = capsys.readouterr().err
    assert "cohort.empty" in told
    assert str(tmp_path / "empty") in told
    assert "0 of 1 patients can be scored." in told


def test_artefacts_are_planned_where_the_settings_ask_for_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    settings = bench.folder.settings()
    assert plan_at(bench.folder, settings) is None
    plan = plan_at(bench.folder, settings.model_copy(update={"artefacts": "overlay"}))
    assert plan is not None
    assert (plan.folder, plan.kinds) == (bench.folder.root / "artefacts", "overlay")


def test_a_table_whose_every_patient_is_excluded_is_no_cohort(tmp_path: Path) -> None:
    protocol = load_shipped("miller2023-ctac")
    entries = {entry.column: entry.example for entry in data_dictionary(protocol)}
    columns = [name for name in entries if name not in ("reference_date", "reference_annotation")]
    columns = [name for name in columns if not name.startswith("reference_l")]
    columns = [name for name in columns if name != "reference_rca"]
    excluded = {**entries, "patient_id": "A", "known_cad": "1"}
    table = tmp_path / "scored.csv"
    names = [*columns, "index_score"]
    excluded["index_score"] = "10"
    table.write_text(
        ",".join(names) + "\n" + ",".join(excluded[name] for name in names) + "\n",
        encoding="utf-8",
    )
    with pytest.raises(CohortError) as caught:
        TableSource(table).collect(protocol, None)
    assert caught.value.code == "cohort.empty"
    assert "fedcac protocol show" in caught.value.cure


def test_with_a_package_the_exams_are_scored_and_the_table_is_left_alone(tmp_path: Path) -> None:
    asked: list[Any] = []
    exams: Any = SimpleNamespace(collect=lambda *given: asked.append(given))
    source = WithScoredTable(exams, TableSource(tmp_path / "absent.csv"))
    package: Any = object()
    source.collect(load_shipped("eng2021-nongated"), package, None)
    assert [given[1] for given in asked] == [package]


# one exam


def test_an_exam_tells_nothing_of_its_path() -> None:
    assert repr(IndexExam("0af3", Path("/data/DOE^JANE"))) == "IndexExam(...)"


def restore(reading: Reading) -> np.ndarray[Any, Any]:
    array = reading.arrays["hu"]
    if array[0, 0, 0] == 3:
        raise ValueError("what was read quotes ZZCANARY")
    return array


def test_an_exam_that_cannot_be_put_together_costs_itself_and_is_looked_at_by_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reviewed: list[tuple[str, float, float | None]] = []
    pipeline: ExamPipeline[IndexExam] = ExamPipeline(
        read=read,
        restore=restore,
        segment=lambda volume: volume > 0,
        score=lambda volume, _: ExamScore(float(volume.mean()), {}),
        limits=LIMITS,
        review=lambda exam, volume, mask, score: reviewed.append(
            (exam.exam_key, float(mask.mean()), score.total)
        ),
    )
    store = SiteStore(":memory:")
    try:
        exams = [IndexExam(f"exam-{number}", Path(f"exam-{number}")) for number in (2, 3, 4)]
        records = ScoringQueue(store, *KEY, scorer=pipeline).run(exams)
    finally:
        store.close()
    assert {name: record.total for name, record in records.items()} == {
        "exam-2": 2.0,
        "exam-3": None,
        "exam-4": 4.0,
    }
    assert records["exam-3"].reason is ExclusionReason.INFERENCE_FAILED
    assert sorted(reviewed) == [("exam-2", 1.0, 2.0), ("exam-4", 1.0, 4.0)]
    assert "ZZCANARY" not in caplog.text


def test_a_radiograph_without_contrast_is_excluded(tmp_path: Path) -> None:
    label = RadiographLabel("A", date(2024, 1, 1), "2.25.91")
    rng = np.random.default_rng(1)
    path = tmp_path / "study" / "1.dcm"
    write_radiograph(path, np.full((64, 64), 700, dtype=np.uint16), label, rng)
    spec: Any = SimpleNamespace(has_contrast=lambda intensity: np.ptp(intensity) > 0)
    criteria = ImageCriteria(min_slices=1, choose_series=True)
    with pytest.raises(DicomError) as caught:
        prepared_radiograph(path.parent, criteria, spec)
    assert caught.value.code == "dicom.corrupt_pixels"


def test_a_package_of_volumes_reads_no_radiographs() -> None:
    with pytest.raises(ValueError, match="does not read radiographs"):
        radiograph_pipeline(demonstration_package(), object(), ImageCriteria(), LIMITS)  # type: ignore[arg-type]


# what the header and the reference say


def test_a_header_that_cannot_be_read_leaves_its_covariates_empty(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path, _: ImageCriteria) -> Any:
        raise DicomError(f"{path} quotes a patient", code="corrupt_pixels")

    monkeypatch.setattr(header_covariates, "read_acquisition", broken)
    monkeypatch.setattr(header_covariates, "header_covariates", lambda _: ["slice_thickness_mm"])
    pairing = PairingOutcome(pairs=(pair("k1", "A"),), exclusions=Counter(), losses=())
    protocol = load_shipped("demo-nongated")
    table = header_covariates.with_header_covariates(table_of("A", "B"), pairing, protocol, None)
    assert table.columns == ("reference_score", "slice_thickness_mm")
    assert all(math.isnan(row["slice_thickness_mm"]) for row in table.rows.values())
    assert table.rows["A"]["reference_score"] == 5.0
    assert caplog.messages == ["a header told no covariates: dicom.corrupt_pixels"]


def test_what_a_damaged_annotation_makes_a_library_raise_has_a_code() -> None:
    with pytest.raises(CohortError) as caught, reference_scores._coded():
        raise IndexError("DOE^JANE")
    assert caught.value.code == "cohort.bad_annotation"
    assert "IndexError" in caught.value.message
    assert "DOE" not in caught.value.message
    own = CohortError("Own words.", code="own")
    with pytest.raises(CohortError) as caught, reference_scores._coded():
        raise own
    assert caught.value is own


def test_an_annotation_of_an_exam_known_by_its_day_is_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_scores, "_check_author", lambda _: None)
    protocol = load_shipped("eng2021-nongated")
    with pytest.raises(CohortError) as caught:
        reference_scores._kept_or_scored(
            pair("k1", "A", days=4), tmp_path / "a.nii", protocol, None, None
        )
    assert caught.value.code == "cohort.no_reference_series"
    assert "in the manifest, as a reference" in caught.value.cure


def test_a_path_that_no_file_can_have_is_no_annotation(tmp_path: Path) -> None:
    with pytest.raises(FedcacError) as caught:
        reference_scores._resolve("a\0b.nii", tmp_path)
    assert caught.value.code == reference_scores.no_such_annotation().code
    assert reference_scores._resolve("x/../a.nii", tmp_path) == tmp_path / "a.nii"


def test_a_pair_without_a_reference_series_has_no_model_reading() -> None:
    asked: list[IndexExam] = []

    def run(exams: Any) -> dict[str, Any]:
        asked.extend(exams)
        scored = SimpleNamespace(total=80.0, reason=None, vessels={Vessel.LAD: 80.0})
        return {reference_key("k2"): scored}

    pairs = (pair("k1", "A"), pair("k2", "B", Path("/data/ref")))
    pairing = PairingOutcome(pairs=pairs, exclusions=Counter(), losses=())
    records: Any = {key: SimpleNamespace(is_scored=True) for key in ("k1", "k2")}
    queue: Any = SimpleNamespace(run=run)
    found = references_by_model(table_of("A", "B"), pairing, records, queue)
    assert [exam.exam_key for exam in asked] == [reference_key("k2")]
    assert found.failures == {"k1": ExclusionReason.NO_REFERENCE_EXAM}
    # An expert's score in its place would mix two standards.
    assert math.isnan(found.table.rows["A"]["reference_score"])
    assert found.table.rows["B"]["reference_score"] == 80.0


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        ({"maximum": 10}, "10 or less"),
        ({"minimum": 2}, "2 or more"),
        ({"minimum": 2, "maximum": 10}, "2 to 10"),
        ({}, "any finite number"),
    ],
)
def test_a_covariates_bounds_are_told_in_words(bounds: dict[str, float], allowed: str) -> None:
    from site_agent.exams.dictionary import _of_covariate

    covariate = Covariate(name="x", type="continuous", description="Some covariate", **bounds)
    kind, _, told, example = _of_covariate(covariate)
    assert (kind, told) == ("number", allowed)
    low, high = bounds.get("minimum", -math.inf), bounds.get("maximum", math.inf)
    assert low <= float(example) <= high
