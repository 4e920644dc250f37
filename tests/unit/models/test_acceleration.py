"""Rewritten networks: the same answers, or the plain network instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedcac.errors import PackageError
from fedcac.models import ModelPackage, acceleration
from fedcac.models.acceleration import FastNetwork, fold_batch_norms
from fedcac.models.blocks import label_voxels
from fedcac.models.lanes import Lanes

CPU = torch.device("cpu")


def with_statistics(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics that matter; fresh ones are the identity."""
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, least in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight, 0.5),
                (module.bias, -0.5),
            ):
                assert tensor is not None
                tensor.data = least + torch.rand(tensor.shape, generator=generator)
    return network.eval()


class Branching(nn.Module):
    """A network whose flow depends on its input, so that only its parts can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(3, 2, 4, 2, bias=False), nn.BatchNorm2d(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images)
        return self.up(features) if features.mean() > -1e9 else features


class Shared(nn.Module):
    """One convolution used twice, once without the norm: folding it would change the other use."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(self.convolution(images)))


@pytest.mark.parametrize(("network", "left"), [(Branching, 0), (Shared, 1)])
def test_folding_changes_no_answer(network: type[nn.Module], left: int) -> None:
    torch.manual_seed(2)
    plain = with_statistics(network())
    images = torch.randn(2, 1, 12, 12)
    with torch.inference_mode():
        expected = plain(images)
        folded = fold_batch_norms(plain)
        assert torch.allclose(folded(images), expected, atol=1e-5)
        assert torch.equal(plain(images), expected)
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == left


def test_a_package_runs_folded_in_float32_unless_it_allows_less(folder: Path) -> None:
    package = ModelPackage.from_folder(folder)
    fast = FastNetwork(package, CPU)
    assert (fast.is_folded, fast.dtype) == (True, torch.float32)
    hu = torch.randn(2, 64, 64) * 200
    with torch.inference_mode():
        calcium, vessels = package.probabilities(package.network(), hu)
    found = fast({"hu": hu})
    assert torch.allclose(found["calcium"], calcium, atol=1e-5)
    assert torch.allclose(found["vessels"], vessels, atol=1e-5)


def allowing_less(package: ModelPackage, tolerance: float) -> ModelPackage:
    manifest = package.manifest.model_copy(
        update={"schema_version": 2, "precision": "reduced", "golden_tolerance": tolerance}
    )
    return ModelPackage(manifest, b"", package.weights_file, package.golden_file)


def test_reduced_arithmetic_only_within_the_golden_tolerance(folder: Path) -> None:
    package = ModelPackage.from_folder(folder)
    assert FastNetwork(allowing_less(package, 0.1), CPU).dtype is torch.bfloat16
    assert FastNetwork(allowing_less(package, 1e-5), CPU).dtype is torch.float32


def test_a_rewrite_that_disagrees_or_fails_gives_way_to_the_plain_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModelPackage.from_folder(folder)

    def shifted(network: nn.Module) -> nn.Module:
        damaged: Any = package.network()
        damaged.heads.bias.data += 0.5
        return damaged

    for rewrite in (shifted, lambda _: nn.Identity(), lambda _: nn.Linear(3, 3)):
        monkeypatch.setattr(acceleration, "fold_batch_norms", rewrite)
        assert not FastNetwork(package, CPU).is_folded


def test_a_network_that_disagrees_on_the_device_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModelPackage.from_folder(folder)
    other = package.network()
    other.heads.bias.data += 0.5  # type: ignore[union-attr, operator]
    monkeypatch.setattr(ModelPackage, "network", lambda _: other)
    with pytest.raises(PackageError, match="golden_mismatch"):
        FastNetwork(package, CPU)


def test_labels_on_a_gpu_are_labels_on_a_cpu() -> None:
    """The branch for GPUs is run here through a tensor that says it lies on one."""
    generator = torch.Generator().manual_seed(6)
    outputs = {
        "calcium": torch.rand(3, 20, 30, generator=generator),
        "vessels": torch.rand(3, 4, 20, 30, generator=generator),
    }
    hu = torch.rand(3, 20, 30, generator=generator) * 300
    sparse = label_voxels(outputs, hu, 0.5)

    class OnGpu(torch.Tensor):
        device = torch.device("cuda")

    dense = label_voxels(outputs, hu.as_subclass(OnGpu), 0.5)
    assert np.array_equal(sparse.numpy(), dense.as_subclass(torch.Tensor).numpy())
    assert set(np.unique(sparse.numpy())) == {0, 1, 2, 3, 4}
    unknown = label_voxels({"calcium": outputs["calcium"]}, hu, 0.5)
    assert np.array_equal(unknown.numpy(), np.where(sparse.numpy() > 0, 5, 0))


def test_lanes_answer_in_order_and_leave_this_thread_its_cores() -> None:
    before = torch.get_num_threads()
    lanes = Lanes()
    assert lanes.map(lambda number: (number, torch.get_num_threads()), range(9)) == [
        (number, 1) for number in range(9)
    ]
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        lanes.map(lambda number: 1 // number, [1, 0])
    lanes.close()
