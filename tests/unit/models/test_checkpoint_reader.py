"""The checkpoint reader against torch's own, and against structures that mean harm."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedcac.errors import PackageError
from fedcac.models.checkpoint_reader import Checkpoint, StoredTensor, open_checkpoint


def saved(folder: Path, content: Any) -> Path:
    path = folder / "model.pt"
    torch.save(content, path)
    return path


def filled(checkpoint: Checkpoint, value: Any) -> Any:
    """The content with every tensor read."""
    if isinstance(value, StoredTensor):
        return checkpoint.tensor(value)
    if isinstance(value, dict):
        return {key: filled(checkpoint, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(checkpoint, inner) for inner in value)
    return value


def read(path: Path) -> Any:
    with open_checkpoint(path) as checkpoint:
        return filled(checkpoint, checkpoint.content)


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        pairs = zip(found, expected, strict=True)
        return type(found) is type(expected) and all(same(a, b) for a, b in pairs)
    return bool(found == expected) and type(found) is type(expected)


def contents() -> dict[str, Any]:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Linear(4, 2))
    moments = [torch.rand_like(parameter) for parameter in network.parameters()]
    shared = torch.arange(24.0)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    return {
        "training": {
            "epoch": 70_000,
            "model_state_dict": nn.DataParallel(network).state_dict(),
            "optimizer_state_dict": {
                "state": {i: {"momentum_buffer": m} for i, m in enumerate(moments)},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}],
            },
        },
        "plain values": [1, -5, 3000, 1 << 40, -(1 << 70), 2.5, True, None, "Körper", (), (1, [2])],
        "one": torch.tensor(3.5),
        "views": {
            "whole": shared,
            "part": shared[5:9],
            "turned": shared.view(4, 6).T,
            "every third": shared[::3],
            "repeated": shared[:1].expand(7),
            "none": torch.empty(0, 3),
        },
        "kinds": [torch.tensor([0, 1, 100]).to(kind) for kind in kinds]
        + [torch.tensor([True, False]), torch.tensor([-3], dtype=torch.int8)]
        + [torch.tensor([250], dtype=torch.uint8)],
        "parameter": OrderedDict(a=nn.Parameter(torch.ones(2, 2))),
    }


@pytest.mark.parametrize("name", ["training", "plain values", "one", "views", "kinds", "parameter"])
def test_it_reads_what_torch_reads(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, contents()[name])
    assert same(read(path), torch.load(path, weights_only=True))


def test_what_it_gives_is_a_copy_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path, contents()["views"])
    found = read(path)
    assert all(tensor.is_contiguous() for tensor in found.values())
    found["whole"].zero_()
    assert torch.equal(found["part"], torch.arange(5.0, 9.0))


def refused(path: Path) -> str:
    with pytest.raises(PackageError) as caught:
        read(path)
    return caught.value.code


def with_structure(folder: Path, program: bytes, **entries: bytes) -> Path:
    """A checkpoint whose structure is this program, with one storage of four numbers."""
    path = folder / "made.pt"
    members = {"data.pkl": program, "version": b"3\n", "data/0": bytes(16), **entries}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


class _Calls:
    def __init__(self, function: Any, *values: Any) -> None:
        self.call = (function, values)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_no_call_is_made_whatever_the_protocol(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    program = pickle.dumps({"a": _Calls(Path.touch, witness)}, protocol=protocol)
    assert refused(with_structure(tmp_path, program)) == "package.bad_checkpoint"
    assert not witness.exists()
    pickle.loads(program)  # noqa: S301 - the same bytes do run where a pickle is run
    assert witness.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02}}.",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02h\x05.",
        b"\x80\x02(K\x01.",
        b"\x80\x02t.",
        b"\x80\x02\x86.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01}b.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"\x80\x02cbuiltins\neval\n)R.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nK\x01\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02" + b"(" * 3000 + b"t" * 3000 + b"K\x01\x86\x85Q.",
        b"\x80\x02}" + b"(" * 3000 + b"t" * 3000 + b"K\x01s.",
    ],
)
def test_broken_and_hostile_structures_are_refused(tmp_path: Path, program: bytes) -> None:
    assert refused(with_structure(tmp_path, program)) == "package.bad_checkpoint"


def described(key: str, n: int, offset: int, size: int, stride: int, kind: str) -> bytes:
    """A program for one tensor, as torch writes it."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + (storage + number(n) + b"tQ")
        + (number(offset) + number(size) + b"\x85" + number(stride) + b"\x85")
        + b"\x89)tR."
    )


def test_the_description_is_as_torch_writes_it(tmp_path: Path) -> None:
    made = with_structure(tmp_path, described("0", 4, 1, 2, 1, "FloatStorage"))
    assert torch.equal(read(made), torch.zeros(2))
    assert torch.equal(torch.load(made, weights_only=True), torch.zeros(2))


@pytest.mark.parametrize(
    "claim",
    [
        ("0", 4, 3, 2, 1, "FloatStorage"),
        ("0", 4, 0, 3, 2, "FloatStorage"),
        ("0", 4, -1, 2, 1, "FloatStorage"),
        ("0", 4, 0, -2, 1, "FloatStorage"),
        ("0", 4, 3, 2, -1, "FloatStorage"),
        ("0", 4, 0, 1 << 61, 1 << 61, "FloatStorage"),
        ("0", 1 << 40, 0, 4, 1, "FloatStorage"),
        ("0", 3, 0, 3, 1, "FloatStorage"),
        ("0", 4, 0, 4, 1, "DoubleStorage"),
        ("0", 4, 0, 4, 1, "QInt8Storage"),
        ("1", 4, 0, 4, 1, "FloatStorage"),
        ("../data.pkl", 4, 0, 4, 1, "FloatStorage"),
    ],
)
def test_a_tensor_that_claims_what_is_not_there_is_refused(
    tmp_path: Path, claim: tuple[str, int, int, int, int, str]
) -> None:
    assert refused(with_structure(tmp_path, described(*claim))) == "package.bad_checkpoint"


@pytest.mark.parametrize("order", [b"big", b"", b"little\n"])
def test_another_byte_order_is_refused(tmp_path: Path, order: bytes) -> None:
    path = with_structure(tmp_path, b"\x80\x02}.", byteorder=order)
    assert refused(path) == "package.bad_checkpoint"
    assert read(with_structure(tmp_path, b"\x80\x02}.", byteorder=b"little")) == {}


def test_two_structures_are_refused(tmp_path: Path) -> None:
    path = with_structure(tmp_path, b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02}.")
    assert refused(path) == "package.bad_checkpoint"


def test_damaged_files_are_refused_or_read_as_torch_would(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.arange(6.0), "epoch": 3})
    sound, expected = path.read_bytes(), read(path)
    rng = np.random.default_rng(8)
    n_refused = 0
    for _ in range(400):
        damaged = bytearray(sound)
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert same(read(path), expected)
        except PackageError:
            n_refused += 1
    assert n_refused > 100


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    assert refused(saved(tmp_path, nn.Linear(2, 2))) == "package.bad_checkpoint"
