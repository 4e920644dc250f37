"""The radiograph classifiers at a tiny width, and how a radiograph becomes their input."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load, save

from fedcac.errors import CohortError
from fedcac.models.hong2025 import HongNetwork
from fedcac.models.radiograph_input import RadiographInput

TINY = {"init_features": 8, "growth_rate": 4, "block_config": [1, 2, 1, 1]}


@pytest.fixture(scope="module")
def network() -> HongNetwork:
    torch.manual_seed(21)
    return HongNetwork(**TINY).eval()


def images(batch: int, rows: int = 64, columns: int = 48) -> torch.Tensor:
    return torch.rand((batch, 1, rows, columns), generator=torch.Generator().manual_seed(3))


def test_three_logits_per_radiograph_and_the_same_twice(network: HongNetwork) -> None:
    with torch.inference_mode():
        first, second = network(images(4)), network(images(4))
    assert first.shape == (4, 3)
    assert torch.equal(first, second)


def test_radiographs_do_not_see_each_other(network: HongNetwork) -> None:
    batch = images(3)
    with torch.inference_mode():
        alone = torch.cat([network(batch[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(network(batch), alone, rtol=1e-4, atol=1e-5)


def test_the_three_thresholds_share_no_weight(network: HongNetwork) -> None:
    torch.manual_seed(21)
    other = HongNetwork(**TINY).eval()
    with torch.no_grad():
        for parameter in other.classifiers[1].parameters():
            parameter.add_(0.5)
        changed = (other(images(2)) != network(images(2))).all(dim=0)
    assert changed.tolist() == [False, True, False]


def test_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(21)
    network = HongNetwork(**TINY).train()
    network(images(4)).square().sum().backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.any())
    ]
    assert without == []


def test_weights_survive_safetensors_strictly(network: HongNetwork) -> None:
    stored = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    torch.manual_seed(22)
    other = HongNetwork(**TINY).eval()
    other.load_state_dict(load(stored), strict=True)
    with torch.inference_mode():
        assert torch.equal(other(images(2)), network(images(2)))


def test_the_full_width_has_the_stated_parameters_and_downloads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a connection was opened"))
    with torch.device("meta"):
        network = HongNetwork()
    count = sum(parameter.numel() for parameter in network.parameters())
    # DenseNet-121 of Huang et al. 2017 has 7,978,856 for three channels and 1000 classes: less
    # two channels of the first 7 x 7 convolution and 999 classes of 1024 features and a bias.
    assert count == 3 * (7_978_856 - 2 * 49 * 64 - 999 * 1025)
    assert f"{count:,} parameters" in (HongNetwork.__doc__ or "")


@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 3, 64, 64), (1, 1, 31, 64)])
def test_other_shapes_are_refused(network: HongNetwork, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        network(torch.zeros(shape))


@pytest.mark.parametrize(
    "change", [{"block_config": [1, 1, 1]}, {"init_features": 0}, {"block_config": [1, 0, 1, 1]}]
)
def test_parameters_that_make_no_network_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="four blocks"):
        HongNetwork(**{**TINY, **change})  # type: ignore[arg-type]


# --- preparing a radiograph ---------------------------------------------------------------------


def disc(rows: int, columns: int, radius: float) -> NDArray[np.float64]:
    """A bright disc in the middle, 3000 on 100."""
    y, x = np.ogrid[:rows, :columns]
    inside = (y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2 <= radius**2
    return np.where(inside, 3000.0, 100.0)


@pytest.mark.parametrize(("rows", "columns"), [(400, 200), (200, 400), (60, 120), (256, 256)])
def test_a_disc_stays_round_in_the_middle(rows: int, columns: int) -> None:
    factor = 128 / max(rows, columns)
    made = RadiographInput(128, 128).prepare(disc(rows, columns, 0.3 * min(rows, columns)))[0, 0]
    assert made.shape == (128, 128)
    assert made.dtype == torch.float32
    bright = np.argwhere(made.numpy() > 0.5)
    extent = bright.max(axis=0) - bright.min(axis=0) + 1
    assert extent == pytest.approx([0.6 * min(rows, columns) * factor] * 2, abs=2)
    assert bright.mean(axis=0) == pytest.approx([63.5, 63.5], abs=1)


def test_what_is_added_is_dark_and_what_was_there_is_not_cut() -> None:
    image = np.linspace(100, 200, 50 * 100).reshape(50, 100)
    made = RadiographInput(64, 64, low=0, high=100).prepare(image)[0, 0]
    assert torch.equal(made[:16], torch.zeros(16, 64))
    assert torch.equal(made[48:], torch.zeros(16, 64))
    assert float(made[16:48].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(made[47, 63]) > 0.98


def test_a_radiograph_of_the_input_size_is_only_scaled() -> None:
    image = np.random.default_rng(1).integers(0, 4096, (64, 64))
    made = RadiographInput(64, 64, low=0, high=100).prepare(image)[0, 0].numpy()
    expected = (image - image.min()) / (image.max() - image.min())
    assert np.allclose(made, expected, atol=1e-6)


def test_a_marker_does_not_set_the_scale() -> None:
    plain = np.random.default_rng(1).uniform(1000, 2000, (100, 100))
    marked = plain.copy()
    marked[:5, :10] = 65535
    difference = RadiographInput(64, 64).prepare(marked) - RadiographInput(64, 64).prepare(plain)
    assert float(difference[..., 10:, 10:].abs().max()) < 0.02


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 90),
    st.integers(8, 90),
    st.floats(0.01, 1e4),
    st.floats(-1e5, 1e5),
    st.integers(0, 2**31),
)
def test_unit_and_offset_of_the_stored_values_do_not_matter(
    rows: int, columns: int, slope: float, intercept: float, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 4096, (rows, columns)).astype(float)
    spec = RadiographInput(64, 48)
    made = spec.prepare(image)
    assert made.shape == (1, 1, 64, 48)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    torch.testing.assert_close(spec.prepare(slope * image + intercept), made, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros(64), np.zeros((1, 64, 64)), np.zeros((0, 64)), np.full((64, 64), np.inf)],
)
def test_what_is_no_radiograph_is_refused(pixels: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="rows, columns"):
        RadiographInput().prepare(pixels)


def test_a_blank_radiograph_is_excluded_with_its_reason() -> None:
    with pytest.raises(CohortError) as caught:
        RadiographInput().prepare(np.full((64, 64), 7, dtype=np.uint16))
    assert caught.value.code == "cohort.inference_failed"


@pytest.mark.parametrize("change", [{"rows": 8}, {"low": 99.0, "high": 1.0}, {"high": 101.0}])
def test_specifications_that_cannot_be_meant_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="percentiles"):
        RadiographInput(**change)  # type: ignore[arg-type]
