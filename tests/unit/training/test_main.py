"""`python -m fedcac.training` from data to a checked package, on very little of everything."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import plistlib
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fedcac.training.__main__ as module
import fedcac.training.generated as generated
import fedcac.training.plans as plans
from fedcac.models import InferenceEngine, ModelPackage
from fedcac.phantom.anatomy import sample_anatomy
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.phantom.grid import Grid, PhantomExam
from fedcac.training.__main__ import main
from fedcac.training.generated import generate_exam, generate_radiograph, heart_map
from fedcac.training.judging import heart_dice, judge_masks, judge_probabilities
from fedcac.training.plans import Width

SMALL = Grid(12, 64, 3.125, 8.0, psf_sigma_mm=0.7, noise_hu=16.0)
TINY = {
    "eng2021": {
        "planes": [4, 4, 4, 4],
        "blocks": [1, 1, 1, 1],
        "groups": 1,
        "base_width": 16,
        "decoder": [4, 4, 4, 4],
    },
    "miller2023": {"init_features": 4, "growth_rate": 2, "blocks": [1, 1]},
    "hong2025": {"init_features": 4, "growth_rate": 2, "block_config": [1, 1, 1, 1]},
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_grid", lambda _: SMALL)
    # Few pixels show little calcium: much of it, or none.
    monkeypatch.setattr(generated, "draw_target_score", lambda rng: 9000.0 * (rng.random() < 0.6))
    tiny = {(family, Width.REDUCED): value for family, value in TINY.items()}
    monkeypatch.setattr(plans, "_ARCHITECTURES", tiny)
    monkeypatch.setitem(plans._REDUCED_ENG, "iterations_per_epoch", 4)


def run(capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--out", str(out), "--seed", "3", "--device", "cpu", "--format", "json"]
    if "--data" not in words:
        arguments += ["--data", "generated", "--patients", "5"]
    code = main([*arguments, *words])
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["exit_code"] == code, envelope
    return code, envelope["data"]


def curves(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "curves.csv").read_text())))


@pytest.mark.parametrize("family", ["eng2021", "miller2023", "hong2025"])
def test_a_family_is_trained_measured_and_packaged(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, data = run(capsys, tmp_path, "--family", family, "--epochs", "1")
    assert code == 0, data
    package = ModelPackage.from_folder(tmp_path / "package")
    assert package.digest == data["package"]
    assert package.manifest.family == family
    stored = load_file(tmp_path / "weights.safetensors")
    network = package.network().state_dict()
    assert all(torch.equal(stored[name], tensor) for name, tensor in network.items())
    card = package.manifest.card
    assert card.is_demonstration
    assert "Not for clinical use" in card.intended_use
    text = (tmp_path / "package" / "MODEL_CARD.md").read_text()
    assert card.intended_use in text
    assert [m.name for m in card.measurements] == [m["name"] for m in data["measurements"]]
    for measurement in card.measurements:
        assert measurement.n_exams == 2
        assert f"| {measurement.name} | {measurement.value:.3f} |" in text
    rows = curves(tmp_path)
    assert len(rows) == data["epochs"] == (2 if family == "miller2023" else 1)
    assert rows[-1]["n_held_out"] == "2"
    if family != "hong2025":
        # What the site's engine finds with the package is what the last epoch's curve says.
        by_name = {m.name.split()[0]: m.value for m in card.measurements}
        if rows[-1]["dice"]:
            assert float(rows[-1]["dice"]) == pytest.approx(by_name["Dice"], abs=1e-3)
        exam = generate_exam(np.random.default_rng(9), SMALL, is_moving=False)
        engine = InferenceEngine(package, device="cpu")
        assert engine.predict(exam.hu, exam.spacing_mm).vessel_map.shape == exam.hu.shape
        engine.close()


class Killed(Exception):
    """Stands for a signal."""


def test_a_stopped_command_given_again_ends_with_the_same_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--family", "hong2025", "--epochs", "3")
    _, whole = run(capsys, tmp_path / "whole", *words)

    def judged(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return original(*arguments)

    calls: list[int] = []
    original = plans.judge_probabilities
    with monkeypatch.context() as patch:
        patch.setattr(plans, "judge_probabilities", judged)
        with pytest.raises(Killed):
            run(capsys, tmp_path / "parts", *words)
    capsys.readouterr()
    code, problem = run(capsys, tmp_path / "parts", *words)
    assert (code, problem["code"]) == (2, "usage.folder_in_use")
    _, parts = run(capsys, tmp_path / "parts", *words, "--resume")
    assert parts == whole
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")
    code, problem = run(capsys, tmp_path / "parts", *words, "--resume", "--seed", "4")
    assert (code, problem["code"]) == (2, "usage.other_run")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--family", "eng2021", "--data", "mine"), "usage.unknown_data"),
        (("--family", "hong2025", "--data", "coca:/nowhere"), "usage.no_radiographs"),
        (("--family", "eng2021", "--data", "coca:/nowhere"), "usage.no_coca"),
        (("--family", "eng2021", "--epochs", "0"), "usage.bad_count"),
        (("--family", "eng2021", "--cross-entropy", "nan"), "usage.bad_count"),
    ],
)
def test_what_cannot_be_meant(
    words: tuple[str, ...], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, problem = run(capsys, tmp_path / "out", *words)
    assert (exit_code, problem["code"]) == (2, code)
    assert problem["cure"]
    assert not (tmp_path / "out" / "package").exists()


# --- COCA -----------------------------------------------------------------------------------

REGION = ["(20, 20)", "(28, 20)", "(28, 26)", "(20, 26)"]


@pytest.fixture(scope="module")
def coca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coca")
    (root / "calcium_xml").mkdir()
    (root / "patient").mkdir()
    for number in range(5):
        hu = np.random.default_rng(number).normal(40, 8, (5, 64, 64)).round().astype(np.float32)
        hu[3, 20:26, 20:28] = 350
        exam = PhantomExam(hu, np.zeros(hu.shape, np.uint8), (3.0, 0.7, 0.7), 3.0)
        label = ExamLabel(str(number), date(1900, 1, 1), is_gated=True)
        folder = root / "patient" / str(number)
        write_series(folder, exam, label, np.random.default_rng(number))
        region = {"Name": "Right Coronary Artery", "Point_px": REGION, "Max": 350.0}
        images = {"Images": [{"ImageIndex": 1, "ROIs": [region]}]}
        content = plistlib.dumps(images) if number else b"<plist>"
        (root / "calcium_xml" / f"{number}.xml").write_bytes(content)
    return root


def test_eng_on_coca(coca: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--family", "eng2021", "--data", f"coca:{coca}", "--epochs", "1")
    code, data = run(capsys, tmp_path, *words)
    assert code == 0, data
    assert (tmp_path / "problems.csv").read_text().splitlines()[1:] == ["0,bad_annotation,true"]
    manifest = ModelPackage.from_folder(tmp_path / "package").manifest
    assert "not to be redistributed" in manifest.licence
    assert "COCA" in manifest.card.training_data
    # Path, patients and their pixels stay on the machine.
    golden = load_file(tmp_path / "package" / "golden.safetensors")["hu"].numpy()
    stored = (tmp_path / "slices" / name / "hu.raw" for name in ("training", "held_out"))
    slices = [part for file in stored for part in np.fromfile(file, np.int16).reshape(-1, 64, 64)]
    assert len(slices) == 20
    assert golden.shape == (2, 64, 64)
    assert all(np.abs(part - image).mean() > 10 for part in golden for image in slices)
    assert str(coca) not in manifest.to_bytes().decode()
    training = np.fromfile(tmp_path / "slices" / "training" / "vessel_map.raw", np.uint8)
    assert set(np.unique(training)) == {0, 4}
    assert int((training > 0).sum()) % 48 == 0
    assert run(capsys, tmp_path, *words, "--resume") == (0, data)


def test_miller_on_coca_needs_a_heart_from_elsewhere(
    coca: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--family", "miller2023", "--data", f"coca:{coca}", "--epochs", "1")
    code, problem = run(capsys, tmp_path / "a", *words)
    assert (code, problem["code"]) == (2, "usage.no_heart_annotation")
    run(capsys, tmp_path / "heart", "--family", "miller2023", "--epochs", "1")
    heart = tmp_path / "heart" / "package"
    code, data = run(capsys, tmp_path / "b", *words, "--heart", str(heart))
    assert code == 0, data
    everywhere = ("--heart", str(heart), "--background-per-calcium", "0")
    run(capsys, tmp_path / "c", *words, *everywhere)
    assert curves(tmp_path / "c")[0]["loss"] != curves(tmp_path / "b")[0]["loss"]
    found = load_file(tmp_path / "b" / "weights.safetensors")
    given = load_file(tmp_path / "heart" / "weights.safetensors")
    is_same = {name: torch.equal(found[name], given[name]) for name in found}
    assert all(same for name, same in is_same.items() if name.startswith("heart."))
    assert not all(same for name, same in is_same.items() if name.startswith("calcium."))


def test_the_studys_page_and_figure_are_drawn_from_its_csv() -> None:
    folder = Path(__file__).parents[3] / "docs" / "studies"
    spec = importlib.util.spec_from_file_location("learning_curves", folder / "learning_curves.py")
    assert spec is not None
    assert spec.loader is not None
    study = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["learning_curves"] = study
    spec.loader.exec_module(study)
    rows = study.read(folder / "learning_curves.csv")
    assert {row["run"] for row in rows} == {arm.name for arm in study.ARMS}
    assert study.table(rows) in (folder / "learning_curves.md").read_text(encoding="utf-8")
    assert study.figure(rows) == (folder / "learning_curves.svg").read_text(encoding="utf-8")


# --- generated exams and figures ---------------------------------------------------------------


@pytest.mark.parametrize("is_moving", [False, True])
def test_generated_maps_fit_the_anatomy(is_moving: bool) -> None:
    grid = Grid(24, 128, 1.5625, 4.0, psf_sigma_mm=0.7, noise_hu=10.0)
    n_coronary = n_other = 0
    for seed in range(8):
        exam = generate_exam(np.random.default_rng(seed), grid, is_moving=is_moving)
        again = generate_exam(np.random.default_rng(seed), grid, is_moving=is_moving)
        np.testing.assert_array_equal(exam.hu, again.hu)
        assert exam.heart_map is not None
        assert exam.non_coronary_map is not None
        is_heart = exam.heart_map == 1
        coronary, other = exam.vessel_map > 0, exam.non_coronary_map > 0
        assert not np.any(coronary & other)
        assert exam.hu[other].min(initial=3000) >= 130
        # Every coronary plaque lies in the heart, and next to no air does.
        assert (coronary & ~is_heart).sum() <= 0.02 * coronary.sum()
        assert (exam.hu[is_heart] < -500).mean() < 0.03
        assert 0.1 < is_heart.mean() < 0.4
        n_coronary, n_other = n_coronary + coronary.sum(), n_other + other.sum()
    assert n_coronary > 100
    assert n_other > 10


def test_the_heart_moves_with_the_anatomy() -> None:
    anatomy = sample_anatomy(np.random.default_rng(1))
    here = heart_map(SMALL, anatomy)
    anatomy.shift_mm[0] += 2 * SMALL.pixel_mm
    for path in anatomy.paths_mm.values():
        path[:, 0] += 2 * SMALL.pixel_mm
    np.testing.assert_array_equal(heart_map(SMALL, anatomy)[:, :, 2:], here[:, :, :-2])


def test_a_projection_rises_with_attenuation() -> None:
    image, score = generate_radiograph(np.random.default_rng(2), SMALL)
    assert image.shape == (SMALL.n_slices, SMALL.matrix)
    assert score >= 0
    middle, lung = image[:, 30:34].mean(), image[:, 14:18].mean()
    assert middle > 1.3 * lung > 0


def test_figures_by_hand() -> None:
    exam = generate_exam(np.random.default_rng(5), SMALL, is_moving=False)
    hu = np.zeros((1, 8, 8), np.float32)
    hu[0, :2, :4], hu[0, 4:6, :4] = 300, 300
    truth, found = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8)
    truth[0, :3, :4], found[0, 1:3, :2], found[0, 4, :2] = 3, 5, 5
    exam = type(exam)(hu, truth, (3.0, 1.0, 1.0), heart_map=truth // 3)
    judged = judge_masks([exam], lambda _: found)
    # Over 130 HU: eight true voxels, four found, of which two are true.
    assert judged.dice == pytest.approx(2 * 2 / (8 + 4))
    assert judge_masks([exam], lambda _: truth).dice == 1
    assert heart_dice([exam], lambda _: found > 0) == pytest.approx(2 * 4 / (12 + 6))
    none = type(exam)(hu, truth, (3.0, 1.0, 1.0))
    assert heart_dice([none], lambda _: found > 0) is None

    labels = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], bool)
    values = np.array([[0.1, 0, 0], [0.6, 0.2, 0], [0.7, 0.9, 0], [0.05, 0.1, 0]])
    aucs = judge_probabilities(values, labels).aucs
    assert aucs[0] is not None
    assert aucs[0].estimate == pytest.approx(2 / 3)
    assert aucs[1] is not None
    assert aucs[1].estimate == pytest.approx((2 + 1) / 4)
    assert aucs[2] is None
