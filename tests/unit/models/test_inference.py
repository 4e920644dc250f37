"""The inference engine: deterministic, bounded in memory, and never outside its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.models import InferenceEngine, ModelPackage
from fedcac.models.blocks import VolumeBlocks
from fedcac.models.eng2021 import EngNetwork

SPACING = (3.0, 0.7, 0.7)


def exam(shape: tuple[int, int, int] = (6, 70, 50), seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(100, 120, shape).astype(np.float32)


def engine_of(folder: Path) -> InferenceEngine:
    return InferenceEngine(ModelPackage.from_folder(folder), device="cpu")


def open_threshold(folder: Path) -> ModelPackage:
    """Return the package with a threshold that random weights pass about half of the time."""
    package = ModelPackage.from_folder(folder)
    with torch.inference_mode():
        calcium, _ = package.probabilities(package.network(), torch.from_numpy(exam()[:, :64, :32]))
    middle = float(calcium.median())
    manifest = package.manifest.model_copy(update={"calcium_threshold": middle})
    return ModelPackage(manifest, package.manifest_file, package.weights_file, package.golden_file)


def test_same_exam_same_mask_and_only_where_calcium_can_be(folder: Path) -> None:
    package = open_threshold(folder)
    hu = exam()
    one = InferenceEngine(package, device="cpu").predict(hu, SPACING).vessel_map
    other = InferenceEngine(package, device="cpu").predict(hu, SPACING).vessel_map
    assert one.shape == hu.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)
    assert one.max() <= 4
    assert 0 < np.count_nonzero(one) < np.count_nonzero(hu >= 130)
    assert not np.any(one[hu < 130])


def test_batch_size_does_not_change_the_mask(folder: Path) -> None:
    package = open_threshold(folder)
    large, small = (InferenceEngine(package, device="cpu") for _ in range(2))
    small._batch = 1
    hu = exam()
    assert np.array_equal(
        large.predict(hu, SPACING).vessel_map, small.predict(hu, SPACING).vessel_map
    )


def test_slices_without_candidates_are_not_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(folder)
    monkeypatch.setattr(engine, "_segment", lambda *_: pytest.fail("the network ran"))
    assert not engine.predict(np.zeros((4, 40, 40), np.float32), SPACING).vessel_map.any()


def test_out_of_memory_halves_the_batch_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = open_threshold(folder)
    hu = exam()
    expected = InferenceEngine(package, device="cpu").predict(hu, SPACING).vessel_map
    engine = InferenceEngine(package, device="cpu")
    original, sizes = engine._segment, []

    def short_of_memory(blocks: VolumeBlocks, indices: NDArray[np.intp]) -> torch.Tensor:
        sizes.append(indices.size)
        if indices.size > 1:
            raise torch.cuda.OutOfMemoryError("simulated")
        return original(blocks, indices)

    monkeypatch.setattr(engine, "_lanes", None)
    monkeypatch.setattr(engine, "_segment", short_of_memory)
    assert np.array_equal(engine.predict(hu, SPACING).vessel_map, expected)
    assert sizes[:3] == [4, 2, 1]
    assert sizes[3:] == [1] * 5
    monkeypatch.setattr(engine, "_segment", _always_short)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine.predict(hu, SPACING)


def _always_short(*_: object) -> torch.Tensor:
    raise torch.cuda.OutOfMemoryError("simulated")


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is present")
    with pytest.raises(UsageError, match="no_cuda"):
        InferenceEngine(object(), device="cuda")  # type: ignore[arg-type]


def test_volumes_that_make_no_sense(folder: Path) -> None:
    engine = engine_of(folder)
    with pytest.raises(ValueError, match="slices, rows, columns"):
        engine.predict(np.zeros((4, 4), np.float32), SPACING)
    with pytest.raises(ValueError, match="positive spacing"):
        engine.predict(np.zeros((4, 4, 4), np.float32), (0.0, 1.0, 1.0))


def test_the_full_width_network_is_se_resnext_50_with_the_papers_decoder() -> None:
    with torch.device("meta"):
        network = EngNetwork()
        logits = network.eval()(torch.zeros(2, 1, 512, 512))
        finer = EngNetwork(output_stride=1)
        fine_logits = finer.eval()(torch.zeros(2, 1, 512, 512))
    assert logits.shape == fine_logits.shape == (2, 5, 512, 512)
    # One more decoder block, from 64 to 32 channels, and a head on 32 channels instead of 64.
    assert len(finer.decoder) == len(network.decoder) + 1
    assert finer.heads.in_channels == 32
    encoder = sum(
        p.numel() for name, p in network.named_parameters() if name.startswith(("stem", "stages"))
    )
    # SE-ResNeXt-50 (32x4d) has 27.56 M parameters, 2.05 M of them in its classifier.
    assert encoder == pytest.approx(25.5e6, rel=0.01)


def test_only_the_middle_of_a_wide_slice_is_looked_at(folder: Path) -> None:
    package = open_threshold(folder)
    spec = package.manifest.input.model_copy(update={"field_of_view_mm": 96.0})
    manifest = package.manifest.model_copy(update={"input": spec})
    narrow = ModelPackage(
        manifest, package.manifest_file, package.weights_file, package.golden_file
    )
    hu = exam((2, 160, 70))
    mask = InferenceEngine(narrow, device="cpu").predict(hu, (3.0, 1.0, 1.0)).vessel_map
    assert mask[:, 32:128].any()
    assert not mask[:, :32].any()
    assert not mask[:, 128:].any()
    middle = InferenceEngine(package, device="cpu").predict(hu[:, 32:128], (3.0, 1.0, 1.0))
    assert np.array_equal(mask[:, 32:128], middle.vessel_map)


def is_interpolated(logits: torch.Tensor) -> bool:
    """Say whether columns are a bilinear x2 of half as many.

    Pixels lie a quarter of a grid step beside their grid point: a step across a grid point is the
    mean of the two steps within grid cells beside it.
    """
    steps = logits[..., 2:-1] - logits[..., 1:-2]
    within, across = steps[..., 0::2], steps[..., 1::2]
    expected = (within[..., :-1] + within[..., 1:]) / 2
    return torch.allclose(across, expected, rtol=1e-3, atol=1e-6)


def test_output_strides_differ_in_the_last_step_alone() -> None:
    """At stride 2 four neighbours are interpolated from one grid of half the size."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "planes": [4, 4, 4, 4],
        "blocks": [1, 1, 1, 1],
        "groups": 1,
        "base_width": 64,
    }
    images = torch.randn(1, 1, 64, 96)
    with torch.inference_mode():
        coarse = EngNetwork(**sizes, decoder=[4, 4, 4, 4]).eval()(images)
        fine = EngNetwork(**sizes, decoder=[4, 4, 4, 4, 4], output_stride=1).eval()(images)
    assert coarse.shape == fine.shape == (1, 5, 64, 96)
    assert is_interpolated(coarse)
    assert not is_interpolated(fine)
    for wrong in ({"output_stride": 4}, {"decoder": [4, 4, 4, 4], "output_stride": 1}):
        with pytest.raises(ValueError, match="output"):
            EngNetwork(**sizes, **wrong)
