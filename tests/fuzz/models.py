"""Parsers of model packages: manifests, tensors, graphs, trees, published checkpoints."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xgboost
from fuzz.engine import Parser, register
from fuzz.messages import LEAD, LEAD_KEYS
from fuzz.mutations import (
    damage_archive,
    damage_bytes,
    damage_json,
    damage_numbers,
    damage_safetensors,
    damage_yaml,
    packed,
)
from onnx import TensorProto, helper, numpy_helper

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.cli.model_making import _document
from fedcac.models.checkpoint_reader import Checkpoint, StoredTensor, open_checkpoint
from fedcac.models.manifest import MANIFEST_FILE, PAYLOAD_TYPE
from fedcac.models.onnx_checks import OnnxSignature, OnnxTensor, checked_model
from fedcac.models.package import ModelPackage, open_package
from fedcac.models.package_files import demonstration_package_folder, parse_manifest
from fedcac.models.second_stage import SecondStage
from fedcac.models.second_stage_document import read_booster
from fedcac.models.second_stage_features import FEATURE_NAMES
from fedcac.signing import seal

_GOLDEN, _WEIGHTS = "golden.safetensors", "weights.safetensors"


@cache
def _package() -> dict[str, bytes]:
    folder = demonstration_package_folder()
    return ModelPackage.from_folder(folder).files()


def _parse_manifest(payload: bytes, folder: Path) -> None:
    manifest = parse_manifest(payload)
    assert parse_manifest(manifest.to_bytes()) == manifest
    assert manifest.digest() == parse_manifest(manifest.to_bytes()).digest()


register(
    Parser(
        name="package-manifest",
        writer="whoever made a model package",
        entry="fedcac.models.package_files.parse_manifest",
        promise="written again, it is the same manifest with the same digest",
        seeds=lambda: [_package()[MANIFEST_FILE]],
        parse=_parse_manifest,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        n_cases=50,
    )
)


def _open_with(files: dict[str, bytes]) -> None:
    """Open a package whose manifest is signed and names the digests of these files."""
    manifest = json.loads(files[MANIFEST_FILE])
    named = {name: sha256_hex(one) for name, one in files.items() if name != MANIFEST_FILE}
    body = canonical_bytes(manifest | {"files": named})
    package = open_package({**files, MANIFEST_FILE: seal(body, PAYLOAD_TYPE, LEAD)}, LEAD_KEYS)
    answers = package.outputs(package.network(), {"hu": torch.zeros(1, 32, 32)})
    assert all(bool(torch.isfinite(answer).all()) for answer in answers.values())


def _open_manifest(payload: bytes, folder: Path) -> None:
    envelope = seal(payload, PAYLOAD_TYPE, LEAD)
    package = open_package({**_package(), MANIFEST_FILE: envelope}, LEAD_KEYS)
    assert set(package.files()) == set(_package())


register(
    Parser(
        name="signed-manifest",
        writer="whoever made a model package that the lead signed",
        entry="fedcac.models.open_package",
        promise="the network gives the golden case",
        seeds=lambda: [_package()[MANIFEST_FILE]],
        parse=_open_manifest,
        mutators=(damage_json, damage_json, damage_numbers),
        n_cases=40,
    )
)


def _open_weights(payload: bytes, folder: Path) -> None:
    _open_with({**_package(), _WEIGHTS: payload})


def _open_golden(payload: bytes, folder: Path) -> None:
    _open_with({**_package(), _GOLDEN: payload})


for _name, _file, _parse in (
    ("weights", _WEIGHTS, _open_weights),
    ("golden-case", _GOLDEN, _open_golden),
):
    register(
        Parser(
            name=_name,
            writer="whoever made a model package that the lead signed",
            entry="fedcac.models.open_package",
            promise="the network gives the golden case, and finite numbers",
            seeds=lambda file=_file: [_package()[file]],  # type: ignore[misc]
            parse=_parse,
            mutators=(damage_safetensors,),
            n_cases=20,
        )
    )


# second stage


@cache
def _boosters() -> tuple[bytes, ...]:
    rng = np.random.default_rng(8)
    features = np.where(rng.random((60, 20)) < 0.3, 0.0, rng.gamma(1.0, 150.0, (60, 20)))
    scores = features[:, 0]
    made = []
    for objective, labels, more in (
        ("multi:softprob", np.digitize(scores, [1, 10, 100, 400]), {"num_class": 5}),
        ("reg:absoluteerror", np.log1p(scores), {}),
    ):
        matrix = xgboost.DMatrix(features, label=labels, feature_names=list(FEATURE_NAMES))
        options = {"objective": objective, "max_depth": 2, "nthread": 1, **more}
        booster = xgboost.train(options, matrix, num_boost_round=1)
        booster.set_attr(slice_increment_mm="5")
        made.append(bytes(booster.save_raw("json")))
    return tuple(made)


def _read_stage(payload: bytes, folder: Path) -> None:
    document = read_booster(payload)
    assert read_booster(document.to_bytes()) == document
    verdicts = SecondStage.from_bytes(payload).predict(np.ones((3, 20)), np.full(3, 5.0))
    numbers = verdicts.scores if verdicts.scores is not None else verdicts.probabilities
    assert numbers is not None
    assert np.isfinite(numbers).all()
    assert (numbers >= 0).all()


register(
    Parser(
        name="second-stage",
        writer="whoever made a model package that the lead signed",
        entry="fedcac.models.second_stage.SecondStage.from_bytes",
        promise="finite scores or probabilities for any exam",
        seeds=_boosters,
        parse=_read_stage,
        mutators=(damage_json, damage_json, damage_numbers),
    )
)


# graphs


@cache
def _graph() -> bytes:
    kernel = np.random.default_rng(4).normal(size=(2, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "kernel"], ["logits"], pads=[1, 1, 1, 1])],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


_SIGNATURE = OnnxSignature(
    inputs=(OnnxTensor(name="images", dtype="float32", shape=("batch", 1, "rows", "columns")),),
    outputs=(OnnxTensor(name="logits", dtype="float32", shape=("batch", 2, "rows", "columns")),),
)


def _check_graph(payload: bytes, folder: Path) -> None:
    stored = checked_model(payload, _SIGNATURE)
    assert checked_model(stored, _SIGNATURE) == stored


register(
    Parser(
        name="onnx",
        writer="whoever made a model package that the lead signed",
        entry="fedcac.models.onnx_checks.checked_model",
        promise="checked again, it is the same graph",
        seeds=lambda: [_graph()],
        parse=_check_graph,
        mutators=(damage_bytes,),
    )
)


# checkpoints


@cache
def _checkpoint() -> bytes:
    torch.manual_seed(1)
    stream = io.BytesIO()
    torch.save({"a": torch.rand(3, 4), "b": [torch.arange(4), "word", 2.5]}, stream)
    with zipfile.ZipFile(stream) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    return packed(members, zipfile.ZIP_STORED)


def _read_checkpoint(payload: bytes, folder: Path) -> None:
    path = folder / "model.pt"
    path.write_bytes(payload)
    with open_checkpoint(path) as checkpoint:
        _tensors(checkpoint, checkpoint.content)


def _tensors(checkpoint: Checkpoint, value: object) -> None:
    if isinstance(value, StoredTensor):
        assert isinstance(checkpoint.tensor(value), torch.Tensor)
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _tensors(checkpoint, inner)


register(
    Parser(
        name="checkpoint",
        writer="whoever published weights",
        entry="fedcac.models.checkpoint_reader.open_checkpoint",
        promise="tensors and plain values; nothing of the file is run",
        seeds=lambda: [_checkpoint()],
        parse=_read_checkpoint,
        mutators=(damage_archive, damage_bytes),
        names_path=True,
    )
)


def _read_description(payload: bytes, folder: Path) -> None:
    path = folder / "package.yaml"
    path.write_bytes(payload)
    assert {"family", "architecture", "input"} <= set(_document(path))


register(
    Parser(
        name="package-description",
        writer="whoever makes a model package, by hand",
        entry="fedcac.cli.model_making.pack",
        promise="the keys that say what the network is",
        seeds=lambda: [
            b"name: a\nversion: 1.0.0\nfamily: eng2021\narchitecture:\n  width: 8\n"
            b"input:\n  clip_hu: [-1000, 1000]\ncalcium_threshold: 0.5\ncard: |\n  words\n"
        ],
        parse=_read_description,
        mutators=(damage_yaml, damage_yaml, damage_bytes),
        n_cases=40,
        names_path=True,
    )
)
