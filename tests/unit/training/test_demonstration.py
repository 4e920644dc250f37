"""The demonstration package's trainer, on a network and a phantom of next to nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_packages import TINY_ENG

import fedcac.training.demonstration as module
from fedcac.errors import PackageError
from fedcac.models import ModelPackage, demonstration_package
from fedcac.phantom import PhantomExam, PhantomPair
from fedcac.scoring import profile_named, score_volume
from fedcac.training.demonstration import main, make_pairs
from fedcac.training.recipe import Recipe

SHAPE = (5, 192, 192)
SPACING_MM = (3.0, 1.0, 1.0)


def drawn_exam(rng: np.random.Generator, width: int) -> PhantomExam:
    hu = rng.normal(40, 10, SHAPE).astype(np.float32)
    vessel_map = np.zeros(SHAPE, np.uint8)
    vessel_map[1:4, 90 : 90 + width, 90:100] = 2
    hu[vessel_map > 0] = 400
    return PhantomExam(hu, vessel_map, SPACING_MM, 3.0)


def drawn_pair(rng: np.random.Generator) -> PhantomPair:
    """A bar of calcium of one of four widths, the first of them 0."""
    width = int(rng.choice([0, 1, 4, 20]))
    gated, non_gated = drawn_exam(rng, width), drawn_exam(rng, width)
    profile = profile_named("agatston1990")
    reference = score_volume(gated.hu, gated.vessel_map, SPACING_MM, profile)
    return PhantomPair(gated, non_gated, {}, reference)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(module, "worker_pool", lambda: ThreadPoolExecutor(2))
    monkeypatch.setattr(module, "generate_pair", drawn_pair)
    monkeypatch.setattr(module, "generate_hybrid_pair", drawn_pair)
    monkeypatch.setattr(module, "_ARCHITECTURE", TINY_ENG)
    monkeypatch.setattr(module, "_RECIPE", Recipe(epochs=1, iterations_per_epoch=2, batch=2))
    monkeypatch.setattr(module, "_N_TRAINING", 6)
    monkeypatch.setattr(module, "_N_HELD_OUT", 8)
    monkeypatch.setattr(module, "say", texts.append)
    monkeypatch.setattr(torch, "set_num_threads", lambda n_threads: None)
    return texts


def test_the_trainer_writes_a_package_with_its_held_out_figures(
    tmp_path: Path, said: list[str]
) -> None:
    out = tmp_path / "made"
    assert main(["--out", str(out), "--seed", "4"]) == 0
    package = ModelPackage.from_folder(out)
    card = package.manifest.card
    assert card.is_demonstration
    assert "Not for clinical use" in card.intended_use
    assert [one.name.split(", ")[1] for one in card.measurements] == [
        "gated against the true score",
        "non-gated against the true score",
    ]
    for one in card.measurements:
        assert one.n_exams == 8
        assert one.ci_low is not None
        assert one.ci_high is not None
        assert one.ci_low <= one.value <= one.ci_high
        line = f"| {one.name} | {one.value:.3f} |"
        assert line in (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert [text.split(":")[0] for text in said[-2:]] == ["gated", "non-gated"]
    golden = load_file(out / "golden.safetensors")
    # A case in which there is calcium to be found: the richest pair's, not any pair's.
    assert golden["hu"].shape == (3, 128, 128)
    assert float(golden["hu"].max()) == 400


def test_the_same_seed_gives_the_same_package_and_another_seed_another(
    tmp_path: Path, said: list[str]
) -> None:
    digests = []
    for number, seed in enumerate(("4", "4", "5")):
        main(["--out", str(tmp_path / str(number)), "--seed", seed])
        digests.append(ModelPackage.from_folder(tmp_path / str(number)).digest)
    assert digests[0] == digests[1] != digests[2]


def test_pairs_that_do_not_differ_measure_nothing(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = iter(((4, 1), (4, 2)))

    def pairs(seed: int, stream: int, n_pairs: int) -> list[PhantomPair]:
        assert (seed, stream) == next(streams)
        rng = np.random.default_rng(stream)
        made = drawn_pair if stream == 1 else lambda _: same
        return [made(rng) for _ in range(n_pairs)]

    empty = drawn_exam(np.random.default_rng(1), 0)
    profile = profile_named("agatston1990")
    none = score_volume(empty.hu, empty.vessel_map, SPACING_MM, profile)
    same = PhantomPair(empty, empty, {}, none)
    monkeypatch.setattr(module, "make_pairs", pairs)
    with pytest.raises(PackageError) as caught:
        main(["--out", str(tmp_path), "--seed", "4"])
    assert caught.value.code == "package.unmeasured"
    assert "another seed" in caught.value.cure


def test_streams_of_one_seed_share_no_patient(said: list[str]) -> None:
    first, again, other = (make_pairs(7, stream, 3) for stream in (1, 1, 2))
    images = [[pair.gated.hu for pair in pairs] for pairs in (first, again, other)]
    assert all(np.array_equal(a, b) for a, b in zip(images[0], images[1], strict=True))
    assert not any(np.array_equal(a, b) for a in images[0] for b in images[2])


def test_a_share_of_the_pairs_lies_in_a_real_chest_ct(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid: list[Any] = []

    def counted(rng: np.random.Generator) -> PhantomPair:
        hybrid.append(rng)
        return drawn_pair(rng)

    monkeypatch.setattr(module, "generate_hybrid_pair", counted)
    make_pairs(7, 1, 60)
    assert 8 <= len(hybrid) <= 28


def test_the_shipped_package_is_what_this_trainer_describes() -> None:
    manifest = demonstration_package().manifest
    described = module._manifest({}, torch.nn.Identity(), [])
    assert dict(manifest.architecture) == dict(described.architecture)
    assert manifest.input == described.input
    assert manifest.calcium_threshold == described.calcium_threshold
    assert manifest.card.limitations == described.card.limitations
    assert [one.n_exams for one in manifest.card.measurements] == [module._N_HELD_OUT] * 2
