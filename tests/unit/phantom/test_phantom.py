"""Generated exam pairs: reproducible, exact in mass, and readable as DICOM."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pytest

from fedcac.cli import main
from fedcac.errors import UsageError
from fedcac.imaging import load_volume, read_manifest
from fedcac.phantom import (
    GATED,
    NON_GATED,
    chest_ct_folder,
    generate_hybrid_pair,
    generate_pair,
    write_cohort,
)
from fedcac.phantom.cohort import _Task, _write_patient
from fedcac.phantom.pairs import draw_target_score
from fedcac.phantom.plaques import HU_MM3_PER_MG, Plaque, move_points, splat_plaques
from fedcac.protocol import ImageCriteria
from fedcac.protocol.catalogue import load_shipped
from fedcac.site_table import read_clinical_table
from fedcac.vocabulary import Vessel


@pytest.mark.parametrize("grid", [GATED, NON_GATED])
def test_splatting_keeps_the_mass_exactly(grid: object) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform([-40, -40, 10], [40, 40, 80], (200, 3))
    plaque = Plaque(points, rng.uniform(0.01, 0.3, 200), Vessel.RCA)
    for placed in (plaque, move_points(rng, plaque)):
        added = splat_plaques(grid, [placed])  # type: ignore[arg-type]
        voxel_mm3 = np.prod(grid.spacing_mm)  # type: ignore[attr-defined]
        assert added.sum(dtype=np.float64) * voxel_mm3 == pytest.approx(
            plaque.mass_mg.sum() * HU_MM3_PER_MG, rel=1e-4
        )


@pytest.mark.parametrize("generate", [generate_pair, generate_hybrid_pair])
def test_same_state_same_pair(generate: object) -> None:
    one, other = (generate(np.random.default_rng(5), 300.0) for _ in range(2))  # type: ignore[operator]
    for name in ("gated", "non_gated"):
        assert np.array_equal(getattr(one, name).hu, getattr(other, name).hu)
        assert np.array_equal(getattr(one, name).vessel_map, getattr(other, name).vessel_map)
    assert one.reference_score == other.reference_score > 50
    exam = one.gated
    assert np.median(exam.hu[exam.vessel_map > 0]) > 130
    assert exam.hu.shape == exam.vessel_map.shape


def test_no_calcium_asked_none_placed() -> None:
    pair = generate_pair(np.random.default_rng(2), 0.0)
    assert pair.reference_score == 0
    assert not pair.gated.vessel_map.any()
    assert not pair.non_gated.vessel_map.any()


def test_the_population_spreads_over_every_category() -> None:
    rng = np.random.default_rng(9)
    targets = np.array([draw_target_score(rng) for _ in range(2000)])
    edges = [-1, 0.99, 10, 100, 400, 1e9]
    shares = np.histogram(targets, edges)[0] / targets.size
    assert shares.min() >= 0.08
    assert shares[0] == pytest.approx(0.3, abs=0.03)


def test_hybrid_pairs_keep_the_real_anatomy() -> None:
    plain, calcified = (
        generate_hybrid_pair(np.random.default_rng(4), score).non_gated for score in (0.0, 500.0)
    )
    real = load_volume(chest_ct_folder(), ImageCriteria()).hu
    assert real.shape == (64, 512, 512)
    # The cut-out is found again in the real series, up to the noise that is added.
    lung = plain.hu < -600
    assert 0.2 < lung.mean() < 0.7
    assert not plain.vessel_map.any()
    assert calcified.vessel_map.any()


def test_the_real_series_carries_its_attribution() -> None:
    text = (chest_ct_folder().parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "10.7937/TCIA.2020.NNC20461" in text
    assert "CC BY 4.0" in text


def test_cohort_is_reproducible_and_reads_back(tmp_path: Path) -> None:
    for name in ("one", "two"):
        names = write_cohort(tmp_path / name, n_sites=2, n_patients=2, seed=3, hybrid_share=0.0)
        assert names == ("site-1", "site-2")
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4 * (32 + 20) + 5
    for path in files:
        assert filecmp.cmp(tmp_path / "one" / path, tmp_path / "two" / path, shallow=False)

    site = tmp_path / "one" / "site-2"
    entries = read_manifest(site / "manifest.csv")
    assert [entry.role.value for entry in entries] == ["index", "reference"] * 2
    table = read_clinical_table(site / "clinical.csv", load_shipped("demo-nongated"))
    assert len(table.rows) == 2

    pair = generate_pair(np.random.default_rng((3, 1, 0)))
    volume = load_volume(entries[0].path, ImageCriteria())
    assert np.array_equal(volume.hu, pair.non_gated.hu)
    assert volume.spacing_mm == pytest.approx(pair.non_gated.spacing_mm, abs=1e-6)
    row = table.rows["P200001"]
    assert row["reference_score"] == pytest.approx(pair.reference_score, abs=1e-3)


def test_a_patient_is_written_alike_whatever_the_others_are(tmp_path: Path) -> None:
    task = _Task((tmp_path / "a").as_posix(), (3, 1, 0), "P200001", False)
    row = _write_patient(task)
    assert row["patient_id"] == "P200001"
    assert row["event"] in (0, 1)
    assert int(str(row["follow_up_days"])) >= 1


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        write_cohort(tmp_path, n_sites=1, n_patients=1, seed=1)
    arguments = ["phantom", "cohort", "--patients", "1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "folder_not_empty" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "precious"
