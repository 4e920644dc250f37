"""Every family through one frame: a tiny package made, verified, signed, opened and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import xgboost
from onnx import TensorProto, helper
from safetensors.torch import load, save
from tiny_packages import TINY_ENG, TINY_INPUT, tiny_manifest, tiny_second_stage

from fedcac.canonical import canonical_bytes
from fedcac.errors import PackageError, UsageError
from fedcac.models import (
    InferenceEngine,
    InputKind,
    ModelPackage,
    build_network,
    demonstration_package,
    families,
    open_package,
    seal_package,
)
from fedcac.models.assembly import assemble_package
from fedcac.models.manifest import PackageManifest
from fedcac.models.second_stage_features import FEATURE_NAMES, summarise_exam
from fedcac.signing import SigningKey, trusted

DEMONSTRATION_DIGEST = "sha256:f76762fe1b7774e686e71f42e1ab3d91898fd7393e67ed3c1b33a7ec2fc6650c"
SPACING = (5.0, 0.7, 0.7)
ONNX_SIGNATURE = {
    "inputs": [{"name": "hu", "dtype": "float32", "shape": ["batch", 3, "rows", "columns"]}],
    "outputs": [{"name": "p", "dtype": "float32", "shape": ["batch", 1, "rows", "columns"]}],
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "eng2021": TINY_ENG,
    "hong2025": {"init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1, 1]},
    "miller2023": {
        "hidden": 1,
        "lstm_layers": 1,
        "init_features": 4,
        "growth_rate": 2,
        "blocks": [1],
    },
    "onnx": {"signature": ONNX_SIGNATURE, "output": "logits", "divisor": 4},
    "swinunetr": {"feature_size": 12, "num_heads": [1, 1, 1, 1], "depths": [1, 1, 1, 1]},
}


def graph() -> bytes:
    """A 'network' whose logit is the middle slice of its window plus a tenth of its neighbours."""
    kernel = np.array([0.1, 1.0, 0.1], dtype=np.float32).reshape(1, 3, 1, 1)
    made = helper.make_graph(
        [helper.make_node("Conv", ["hu", "kernel"], ["p"])],
        "network",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def document(family: str, **changes: Any) -> dict[str, Any]:
    return tiny_manifest(family, ARCHITECTURES[family], **changes)


def golden_inputs(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (2, 3, 64, 64) if family in ("miller2023", "onnx") else (2, 64, 64)
    if family == "hong2025":
        return {"image": torch.rand(shape, generator=generator)}
    return {"hu": torch.randn(shape, generator=generator) * 150 + 60}


def made(folder: Path, family: str, **parts: Any) -> ModelPackage:
    torch.manual_seed(3)
    weights = graph() if family == "onnx" else build_network(family, ARCHITECTURES[family])
    return assemble_package(
        folder,
        document=parts.pop("document", None) or document(family),
        weights=weights,
        golden_inputs=golden_inputs(family),
        **parts,
    )


@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_package_round_trip(family: str, tmp_path: Path) -> None:
    package = made(tmp_path, family)
    key = SigningKey.generate()
    opened = open_package(seal_package(tmp_path, key).files(), trusted([key.public]))
    assert opened.digest == package.digest
    assert opened.manifest == package.manifest
    golden, network = load(opened.golden_file), opened.network()
    opened.check_golden(network)
    assert set(golden) == {*opened.family.inputs, *opened.family.outputs}
    for name in opened.family.outputs:
        assert 0 <= float(golden[name].min()) <= float(golden[name].max()) <= 1
        damaged = save({**golden, name: golden[name] + 0.01})
        package = ModelPackage(opened.manifest, b"", opened.weights_file, damaged)
        with pytest.raises(PackageError, match="golden_mismatch"):
            package.check_golden(network)
    with pytest.raises(PackageError, match="bad_golden_case"):
        ModelPackage(opened.manifest, b"", b"", save({"hu": torch.zeros(1, 32, 32)})).check_golden(
            network
        )


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("hong2025", (2, 8, 8)),
        ("miller2023", (2, 3, 63, 64)),
        ("miller2023", (2, 5, 64, 64)),
        ("onnx", (2, 5, 64, 64)),
        ("swinunetr", (2, 64, 63)),
    ],
)
def test_golden_inputs_of_a_size_that_the_network_does_not_read_are_refused(
    family: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    package = made(tmp_path, family)
    name = next(iter(package.family.inputs))
    golden = save({**load(package.golden_file), name: torch.zeros(shape)})
    changed = ModelPackage(package.manifest, b"", package.weights_file, golden)
    with pytest.raises(PackageError, match="bad_golden_case"):
        changed.check_golden(package.network())


def test_every_family_has_its_round_trip() -> None:
    assert set(ARCHITECTURES) == set(families())


def at_median(package: ModelPackage, hu: np.ndarray[Any, Any]) -> ModelPackage:
    """Return the package with a threshold that random weights pass here and there."""
    inputs = {"hu": torch.from_numpy(hu)}
    with torch.inference_mode():
        calcium = package.outputs(package.network(), inputs)["calcium"]
    inside = calcium[calcium > 0]
    manifest = package.manifest.model_copy(update={"calcium_threshold": float(inside.median())})
    return ModelPackage(manifest, b"", package.weights_file, package.golden_file)


@pytest.mark.parametrize("family", ["miller2023", "onnx", "swinunetr"])
def test_masks_of_whole_volumes_are_those_of_the_network_alone(family: str, tmp_path: Path) -> None:
    """Slices, padding, windows and batches by the engine, against one call per slice."""
    package = made(tmp_path, family)
    kind = package.family.input_kind
    assert kind is (InputKind.SLICES if family == "swinunetr" else InputKind.WINDOWS)
    hu = np.random.default_rng(8).normal(90, 120, (7, 70, 66)).astype(np.float32)
    hu[4] = -900.0
    rows, columns = (-size % package.family.divisor for size in (70, 66))
    padded = np.pad(hu, ((0, 0), (0, rows), (0, columns)), constant_values=-1000.0)
    if kind is InputKind.WINDOWS:
        order = [[max(0, k - 1), k, min(6, k + 1)] for k in range(7)]
        padded = np.stack([padded[index] for index in order])
    package = at_median(package, padded)
    mask = InferenceEngine(package, device="cpu").predict(hu, SPACING).vessel_map
    network = package.network()
    with torch.inference_mode():
        calcium = np.concatenate(
            [
                package.outputs(network, {"hu": torch.from_numpy(padded[k : k + 1])})["calcium"]
                for k in range(7)
            ]
        )[:, :70, :66]
    expected = (calcium > package.manifest.calcium_threshold) & (hu >= 130)
    assert 50 < expected.sum() < expected.size / 2
    assert set(np.unique(mask)) == {0, 5}
    # Arithmetic in another order may move a voxel that lies on the threshold itself.
    close = np.abs(calcium - package.manifest.calcium_threshold) < 1e-5
    assert np.array_equal((mask == 5) & ~close, expected & ~close)


def test_radiographs_are_classified_and_volumes_refused(tmp_path: Path) -> None:
    engine = InferenceEngine(made(tmp_path, "hong2025"), device="cpu")
    golden = load((tmp_path / "golden.safetensors").read_bytes())
    found = engine.classify({"image": golden["image"].numpy()})
    assert np.allclose(found["positive"], golden["positive"].numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="wrong_input_kind"):
        engine.predict(np.zeros((2, 64, 64), np.float32), SPACING)
    with pytest.raises(ValueError, match="image"):
        engine.classify({})
    with pytest.raises(UsageError, match="wrong_input_kind"):
        InferenceEngine(made(tmp_path / "ct", "eng2021"), device="cpu").classify({})


def test_a_second_stage_gives_the_models_own_score(tmp_path: Path) -> None:
    package = made(tmp_path, "eng2021", second_stage=tiny_second_stage())
    key = SigningKey.generate()
    opened = open_package(seal_package(tmp_path, key).files(), trusted([key.public]))
    stage = opened.second_stage()
    assert stage is not None
    hu = np.random.default_rng(8).normal(90, 120, (6, 64, 64)).astype(np.float32)
    mask = (hu > 200).astype(np.uint8)
    score = stage.native_score(hu, mask, SPACING)
    booster = xgboost.Booster()
    booster.load_model(bytearray(tiny_second_stage()))
    features = summarise_exam(hu, mask, SPACING)[None]
    expected = booster.predict(xgboost.DMatrix(features, feature_names=[*FEATURE_NAMES]))
    assert score == pytest.approx(float(np.expm1(expected[0])), rel=1e-5)
    # The vessel is no feature, and trees for 5 mm slices have no say on 3 mm ones.
    assert stage.native_score(hu, mask * 5, SPACING) == score
    assert stage.native_score(hu, mask, (3.0, 0.7, 0.7)) is None
    assert stage.category(hu, mask, (3.0, 0.7, 0.7)) is None
    assert package.digest != made(tmp_path / "without", "eng2021").digest
    assert made(tmp_path / "other", "eng2021").second_stage() is None


def other_features() -> bytes:
    content = json.loads(tiny_second_stage())
    names = content["learner"]["feature_names"]
    content["learner"]["feature_names"] = [*names[1:], names[0]]
    return json.dumps(content).encode()


@pytest.mark.parametrize("payload", [b"{}", b"\x80\x04K\x01.", other_features()])
def test_a_second_stage_of_another_kind_is_refused(payload: bytes, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="second_stage"):
        made(tmp_path, "eng2021", second_stage=payload)


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"][new] = manifest["files"].pop(old)
    path.write_bytes(canonical_bytes(manifest))


HOSTILE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "unnamed second stage": (
        "eng2021",
        lambda f: (f / "second_stage.json").write_bytes(tiny_second_stage()) and None,
        "surplus_file",
    ),
    "unnamed graph": (
        "eng2021",
        lambda f: (f / "model.onnx").write_bytes(graph()) and None,
        "surplus_file",
    ),
    "graph in the place of weights": (
        "eng2021",
        lambda f: rename(f, "weights.safetensors", "model.onnx"),
        "missing_file",
    ),
    "weights in the place of a graph": (
        "onnx",
        lambda f: rename(f, "model.onnx", "weights.safetensors"),
        "missing_file",
    ),
    "altered graph": (
        "onnx",
        lambda f: (f / "model.onnx").write_bytes(graph() + b"\0") and None,
        "wrong_digest",
    ),
}


@pytest.mark.parametrize("fault", sorted(HOSTILE))
def test_hostile_packages_are_refused(fault: str, tmp_path: Path) -> None:
    family, change, code = HOSTILE[fault]
    made(tmp_path, family)
    change(tmp_path)
    with pytest.raises(PackageError) as caught:
        ModelPackage.from_folder(tmp_path)
    assert caught.value.code == f"package.{code}"


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        (
            "swinunetr",
            {"document": document("swinunetr", input={**TINY_INPUT, "field_of_view_mm": 200.0})},
        ),
        ("hong2025", {"second_stage": tiny_second_stage()}),
    ],
)
def test_what_a_family_cannot_mean_is_refused(
    family: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match="bad_manifest"):
        made(tmp_path, family, **parts)


@pytest.mark.parametrize(
    "change",
    [
        {"output": "scores"},
        {"divisor": 0},
        {"signature": {**ONNX_SIGNATURE, "outputs": ONNX_SIGNATURE["inputs"]}},
        {"signature": {**ONNX_SIGNATURE, "inputs": ONNX_SIGNATURE["inputs"] * 2}},
        {"hook": "x"},
    ],
)
def test_onnx_signatures_that_are_no_calcium_network(change: dict[str, Any]) -> None:
    with pytest.raises(PackageError, match="bad_architecture"):
        build_network("onnx", {**ARCHITECTURES["onnx"], **change}, graph())


# --- versions of the manifest ---------------------------------------------------------------------


def test_the_shipped_package_keeps_its_digest() -> None:
    package = demonstration_package()
    assert package.digest == DEMONSTRATION_DIGEST
    assert package.manifest.schema_version == 1
    assert package.manifest.to_bytes() == package.manifest_file
    assert package.manifest.precision == "float32"


def test_version_2_says_its_precision_and_version_1_cannot(folder: Path, tmp_path: Path) -> None:
    newer = made(tmp_path / "newer", "eng2021", document=document("eng2021", precision="reduced"))
    assert json.loads(newer.manifest.to_bytes())["precision"] == "reduced"
    older = json.loads((folder / "manifest.json").read_bytes())
    assert older["schema_version"] == 1
    read = PackageManifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert "precision" not in json.loads(read.to_bytes())
    digest = "sha256:" + "0" * 64
    for change in (
        {"precision": "float32"},
        {"files": {**older["files"], "second_stage.json": digest}},
        {"schema_version": 3},
    ):
        (folder / "manifest.json").write_bytes(canonical_bytes({**older, **change}))
        with pytest.raises(PackageError, match="bad_manifest"):
            ModelPackage.from_folder(folder)
