"""`fedcac model pack` and `convert`: from weights to a package that opens."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save
from tiny_packages import TINY_ENG, tiny_manifest

from fedcac.cli import main
from fedcac.models import ModelPackage, build_network, swinunetr

MANIFEST = tiny_manifest(name="our-own")


def written(folder: Path, **changes: Any) -> list[str]:
    torch.manual_seed(1)
    network = build_network("eng2021", dict(TINY_ENG))
    (folder / "weights.safetensors").write_bytes(save(dict(network.state_dict())))
    (folder / "manifest.yaml").write_text(yaml.safe_dump(MANIFEST | changes), encoding="utf-8")
    return [
        "model",
        "pack",
        str(folder / "manifest.yaml"),
        "--weights",
        str(folder / "weights.safetensors"),
        "--out",
        str(folder / "package"),
        "--format",
        "json",
    ]


def test_own_weights_become_a_package_that_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(written(tmp_path)) == 0
    digest = json.loads(capsys.readouterr().out)["data"]["digest"]
    package = ModelPackage.from_folder(tmp_path / "package")
    assert package.digest == digest
    assert main(["model", "check", str(tmp_path / "package")]) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"architecture": TINY_ENG | {"planes": [8, 4, 4, 4]}}, "package.wrong_tensors"),
        ({"family": "resnet"}, "package.unknown_family"),
        ({"calcium_threshold": 2.0}, "package.bad_manifest"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], code: str
) -> None:
    assert main(written(tmp_path, **changes)) == 5
    assert code in capsys.readouterr().out
    assert not (tmp_path / "package" / "manifest.json").exists()


def test_a_folder_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "package").mkdir()
    assert main(written(tmp_path)) == 2
    assert "usage.folder_not_empty" in capsys.readouterr().out


def test_a_checkpoint_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pth").write_bytes(b"not a checkpoint")
    out = ["--layout", "ai-cac", "--out", str(tmp_path / "w.safetensors"), "--format", "json"]
    assert main(["model", "convert", str(tmp_path / "x.pth"), *out]) == 5
    assert "package.bad_checkpoint" in capsys.readouterr().out
    assert not (tmp_path / "w.safetensors").exists()


def test_a_published_checkpoint_becomes_weights_of_the_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    monkeypatch.setattr(swinunetr, "PUBLISHED_ARCHITECTURE", {**tiny, "window_size": 2})
    torch.manual_seed(2)
    network = swinunetr.SwinUNETRNetwork(**tiny, window_size=2)
    state = torch.nn.DataParallel(network.network).state_dict()
    torch.save({"epoch": 4, "model_state_dict": OrderedDict(state)}, tmp_path / "model.pth")
    out = tmp_path / "weights.safetensors"
    words = ["model", "convert", str(tmp_path / "model.pth"), "--layout", "ai-cac"]
    assert main([*words, "--out", str(out), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["dropped"] == ["epoch"]
    stored = load_file(out)
    assert len(stored) == data["tensors"]
    assert all(torch.equal(stored[name], tensor) for name, tensor in network.state_dict().items())
    assert main([*words, "--out", str(out)]) == 2
    assert "usage.folder_not_empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML."), ("- a list", "does not describe a package."), ("name: x", "does")],
)
def test_a_manifest_that_is_none(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = written(tmp_path)
    (tmp_path / "manifest.yaml").write_text(text, encoding="utf-8")
    assert main(words) == 5
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["code"] == "package.bad_manifest"
    assert message in data["message"]


def test_weights_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    assert main(words) == 2
    assert "usage.no_file" in capsys.readouterr().out


def test_a_package_is_checked_against_a_case_of_its_makers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hu = torch.linspace(-500, 900, 32 * 32).reshape(1, 32, 32)
    (tmp_path / "golden.safetensors").write_bytes(save({"hu": hu}))
    assert main([*written(tmp_path), "--golden", str(tmp_path / "golden.safetensors")]) == 0
    capsys.readouterr()
    packed = load_file(tmp_path / "package" / "golden.safetensors")
    assert torch.equal(packed["hu"], hu)
