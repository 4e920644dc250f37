"""Checkpoints of AI-CAC's layout, made small: what converts, and what is refused with its code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from fedcac.canonical import sha256_hex
from fedcac.errors import PackageError
from fedcac.models.conversion import AI_CAC_LAYOUT, CheckpointLayout, convert_checkpoint
from fedcac.models.swinunetr import SwinUNETRNetwork

TINY = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2}
NAME = "module.encoder1.layer.conv1.conv.weight"
INDEX = "module.swinViT.layers1.0.blocks.0.attn.relative_position_index"


@pytest.fixture(scope="module")
def trained() -> SwinUNETRNetwork:
    torch.manual_seed(11)
    return SwinUNETRNetwork(**TINY).eval()


@pytest.fixture(scope="module")
def fresh() -> SwinUNETRNetwork:
    torch.manual_seed(12)
    return SwinUNETRNetwork(**TINY).eval()


def checkpoint(network: SwinUNETRNetwork) -> dict[str, Any]:
    """What AI-CAC's training code saves, of a network of that class."""
    state = nn.DataParallel(network.network).state_dict()
    moments = {"step": torch.tensor(9.0), "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}
    return {
        "epoch": 4,
        "model_state_dict": OrderedDict((name, t.clone()) for name, t in state.items()),
        "optimizer_state_dict": {
            "state": {0: moments},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
        },
    }


def saved(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "model.pth"
    torch.save(content, path, **options)
    return path


def refused(path: Path, network: nn.Module) -> str:
    with pytest.raises(PackageError) as caught:
        convert_checkpoint(path, network, AI_CAC_LAYOUT)
    return caught.value.code


def test_a_published_checkpoint_becomes_the_same_network(
    tmp_path: Path, trained: SwinUNETRNetwork, fresh: SwinUNETRNetwork
) -> None:
    path = saved(tmp_path, checkpoint(trained))
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    made = convert_checkpoint(path, fresh, AI_CAC_LAYOUT)
    assert made.dropped == ("epoch", "optimizer_state_dict")
    assert made.source == sha256_hex(path.read_bytes())
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    other = SwinUNETRNetwork(**TINY).eval()
    other.load_state_dict(load(made.to_bytes()), strict=True)
    images = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(1)) * 300
    with torch.inference_mode():
        assert torch.equal(other(images), trained(images))
    assert not torch.equal(
        before["network.out.conv.conv.weight"], other.network.out.conv.conv.weight
    )


def test_names_without_the_wrappers_prefix_are_taken(
    tmp_path: Path, trained: SwinUNETRNetwork, fresh: SwinUNETRNetwork
) -> None:
    path = saved(tmp_path, {"model_state_dict": trained.network.state_dict()})
    made = convert_checkpoint(path, fresh, AI_CAC_LAYOUT)
    assert made.dropped == ()
    assert all(torch.equal(made.tensors[n], t) for n, t in trained.state_dict().items())


def test_a_bare_state_needs_no_layout(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    made = convert_checkpoint(saved(tmp_path, network.state_dict()), network, CheckpointLayout())
    assert list(made.tensors) == ["weight", "bias"]


def test_tensors_that_share_memory_become_separate(tmp_path: Path) -> None:
    shared = torch.arange(8.0)
    path = saved(tmp_path, {"weight": shared.view(2, 4), "bias": shared[:2]})
    made = convert_checkpoint(path, nn.Linear(4, 2), CheckpointLayout())
    assert torch.equal(load(made.to_bytes())["bias"], torch.tensor([0.0, 1.0]))


def drop(state: dict[str, Any]) -> None:
    del state[NAME]


def add(state: dict[str, Any]) -> None:
    state["module.extra"] = torch.zeros(1)


def rename_one(state: dict[str, Any]) -> None:
    state[NAME.removeprefix("module.")] = state.pop(NAME)


def reshape(state: dict[str, Any]) -> None:
    state[NAME] = state[NAME].flatten()


def halve(state: dict[str, Any]) -> None:
    state[NAME] = state[NAME].half()


def make_sparse(state: dict[str, Any]) -> None:
    state[NAME] = state[NAME].to_sparse()


def other_index(state: dict[str, Any]) -> None:
    state[INDEX] = state[INDEX].flip(0)


def beyond_index(state: dict[str, Any]) -> None:
    state[INDEX] = state[INDEX] + 1_000_000


def not_a_number(state: dict[str, Any]) -> None:
    state[NAME][0, 0, 0, 0] = float("nan")


def a_list(state: dict[str, Any]) -> None:
    state[NAME] = [1.0, 2.0]


def expand(state: dict[str, Any]) -> None:
    # A view of one number that claims 2 TB.
    state[NAME] = torch.zeros(1).expand(1 << 39)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (drop, "wrong_tensors"),
        (add, "wrong_tensors"),
        (rename_one, "wrong_tensors"),
        (reshape, "wrong_tensors"),
        (halve, "wrong_tensors"),
        (make_sparse, "bad_checkpoint"),
        (other_index, "wrong_tensors"),
        (beyond_index, "wrong_tensors"),
        (expand, "wrong_tensors"),
        (not_a_number, "not_finite"),
        (a_list, "bad_checkpoint"),
    ],
)
def test_one_fault_in_the_weights_is_refused(
    tmp_path: Path,
    trained: SwinUNETRNetwork,
    fresh: SwinUNETRNetwork,
    change: Callable[[dict[str, Any]], None],
    code: str,
) -> None:
    content = checkpoint(trained)
    change(content["model_state_dict"])
    assert refused(saved(tmp_path, content), fresh) == f"package.{code}"


def test_the_refusal_names_what_is_missing_and_what_is_unknown(
    tmp_path: Path, trained: SwinUNETRNetwork
) -> None:
    other = SwinUNETRNetwork(**{**TINY, "depths": [2, 1, 1, 1]})
    with pytest.raises(PackageError, match=r"0 unknown; 14 missing: network\.swinViT\.layers1"):
        convert_checkpoint(saved(tmp_path, checkpoint(trained)), other, AI_CAC_LAYOUT)


class _Runs:
    """Unpickling this writes a file: the proof that a pickle was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "run"))


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_that_would_run_code_runs_none(
    tmp_path: Path, fresh: SwinUNETRNetwork, is_zip: bool
) -> None:
    witness = tmp_path / "witness"
    content = {"model_state_dict": {NAME: torch.zeros(1)}, "epoch": _Runs(witness)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=is_zip)
    assert refused(path, fresh) == "package.bad_checkpoint"
    assert not witness.exists()


def test_a_bare_pickle_and_a_missing_file_are_refused(
    tmp_path: Path, fresh: SwinUNETRNetwork
) -> None:
    path = tmp_path / "model.pth"
    assert refused(path, fresh) == "package.bad_checkpoint"
    path.write_bytes(pickle.dumps(_Runs(tmp_path / "witness")))
    assert refused(path, fresh) == "package.bad_checkpoint"
    assert not (tmp_path / "witness").exists()


def test_a_compressed_archive_is_refused_before_it_unfolds(
    tmp_path: Path, trained: SwinUNETRNetwork, fresh: SwinUNETRNetwork
) -> None:
    path = saved(tmp_path, checkpoint(trained))
    packed = tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(PackageError, match="an entry is compressed"):
        convert_checkpoint(packed, fresh, AI_CAC_LAYOUT)


def test_a_storage_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(64, 64).state_dict())
    short = tmp_path / "short.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(short, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry.filename, content[:64] if "/data/" in entry.filename else content)
    with pytest.raises(PackageError) as caught:
        convert_checkpoint(short, nn.Linear(64, 64), CheckpointLayout())
    assert caught.value.code == "package.bad_checkpoint"


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(
    tmp_path: Path, trained: SwinUNETRNetwork, fresh: SwinUNETRNetwork, keep: float
) -> None:
    path = saved(tmp_path, checkpoint(trained))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert refused(path, fresh) == "package.bad_checkpoint"


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {"model_state_dict": 3}, {}])
def test_another_structure_is_refused(
    tmp_path: Path, fresh: SwinUNETRNetwork, content: Any
) -> None:
    assert refused(saved(tmp_path, content), fresh) == "package.bad_checkpoint"


def test_a_file_over_the_limit_is_refused_unread(
    tmp_path: Path, fresh: SwinUNETRNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, {"model_state_dict": {NAME: torch.zeros(100)}})
    monkeypatch.setattr("fedcac.models.checkpoint_reader.MAXIMUM_BYTES", 100)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("the file was read"))
    assert refused(path, fresh) == "package.too_large"
