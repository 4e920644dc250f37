"""The Swin UNETR of AI-CAC at a tiny width: shapes, gradients, weights as data, independence."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from fedcac.models.manifest import InputSpec
from fedcac.models.swinunetr import PUBLISHED_ARCHITECTURE, PUBLISHED_INPUT, SwinUNETRNetwork

TINY = {"feature_size": 12, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(5)
    return SwinUNETRNetwork(**TINY).eval()


def images(batch: int, rows: int = 64, columns: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((batch, 1, rows, columns), generator=generator) * 300


def test_one_logit_per_pixel_and_the_same_twice(network: nn.Module) -> None:
    with torch.inference_mode():
        first, second = network(images(2)), network(images(2))
    assert first.shape == (2, 1, 64, 64)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


AXES = {
    "b c h w -> b h w c": (0, 2, 3, 1),
    "b h w c -> b c h w": (0, 3, 1, 2),
    "n c h w -> n h w c": (0, 2, 3, 1),
    "n h w c -> n c h w": (0, 3, 1, 2),
}


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_it_computes_what_monai_computes(
    network: SwinUNETRNetwork, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    # The four orders of axes that MONAI asks of einops, which is not installed.
    monkeypatch.setattr(
        "monai.networks.nets.swin_unetr.rearrange",
        lambda tensor, pattern: tensor.permute(*AXES[pattern]),
    )
    batch = images(1, *size)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), network.network(batch), rtol=0, atol=0)


def test_slices_do_not_see_each_other(network: nn.Module) -> None:
    batch = images(2)
    with torch.inference_mode():
        together = network(batch)
        alone = torch.cat([network(batch[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_crop_is_seen_differently_as_the_notes_say(network: nn.Module) -> None:
    whole = images(1, 64, 128)
    with torch.inference_mode():
        difference = network(whole)[..., :64] - network(whole[..., :64])
    assert float(difference.abs().max()) > 1e-3


def test_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(5)
    network = SwinUNETRNetwork(**TINY, drop_rate=0.0).train()
    network(images(1)).square().mean().backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.any())
    ]
    assert without == []


def test_weights_survive_safetensors_strictly(network: nn.Module) -> None:
    stored = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    torch.manual_seed(6)
    other = SwinUNETRNetwork(**TINY).eval()
    other.load_state_dict(load(stored), strict=True)
    with torch.inference_mode():
        assert torch.equal(other(images(1)), network(images(1)))


def test_dropout_is_for_training_only(network: nn.Module) -> None:
    torch.manual_seed(5)
    without = SwinUNETRNetwork(**TINY, drop_rate=0.0).eval()
    with torch.inference_mode():
        assert torch.equal(without(images(1)), network(images(1)))


def test_the_published_width_has_the_stated_number_of_parameters() -> None:
    # Built for real: MONAI reads a number out of a tensor while it builds, which the meta device
    # cannot do.
    network = SwinUNETRNetwork(**PUBLISHED_ARCHITECTURE)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count:,}" == "100,455,595"
    assert f"{count:,} parameters" in (SwinUNETRNetwork.__doc__ or "")


def test_the_published_input_changes_no_stored_value() -> None:
    spec = InputSpec.model_validate_json(
        '{"clip_hu": [-32768.0, 32767.0], "centre_hu": 0.0, "scale_hu": 1.0}'
    )
    assert spec.model_dump(exclude_defaults=True) == {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in PUBLISHED_INPUT.items()
    }
    hu = torch.arange(-32768.0, 32768.0)
    assert torch.equal((hu.clamp(*spec.clip_hu) - spec.centre_hu) / spec.scale_hu, hu)


@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 2, 64, 64), (1, 1, 64, 80), (1, 1, 32, 64)])
def test_other_shapes_are_refused(network: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        network(torch.zeros(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"depths": [2, 2, 2]},
        {"num_heads": [3, 6, 12, 24, 48]},
        {"feature_size": 10},
        {"feature_size": 0},
        {"window_size": 0},
        {"depths": [0, 1, 1, 1]},
        {"num_heads": [5, 5, 5, 5]},
        {"drop_rate": 2.0},
    ],
)
def test_parameters_that_make_no_network_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SwinUNETRNetwork(**{**TINY, **change})  # type: ignore[arg-type]
