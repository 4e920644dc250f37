"""ONNX networks: what they compute against numpy and torch, and attacks refused with their code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from pydantic import ValidationError

from fedcac.errors import PackageError
from fedcac.models import onnx_checks, onnx_network
from fedcac.models.onnx_checks import OnnxSignature, OnnxTensor, checked_model
from fedcac.models.onnx_network import OnnxNetwork

IMAGES = OnnxTensor(name="images", dtype="float32", shape=("batch", 1, "rows", "columns"))
LOGITS = OnnxTensor(name="logits", dtype="float32", shape=("batch", 2, "rows", "columns"))
SIGNATURE = OnnxSignature(inputs=(IMAGES,), outputs=(LOGITS,))
KERNEL = np.random.default_rng(4).normal(size=(2, 1, 3, 3)).astype(np.float32)
HUGE = 1 << 40


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def stored(name: str, array: NDArray[Any]) -> Any:
    return onnx.numpy_helper.from_array(array, name)


def model(nodes: list[Any], tensors: list[Any] | None = None, output: Any = None) -> Any:
    graph = helper.make_graph(
        nodes,
        "network",
        [value("images", ["n", 1, "h", "w"])],
        [output or value("logits", ["n", 2, "h", "w"])],
        tensors or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolution() -> Any:
    node = helper.make_node("Conv", ["images", "kernel"], ["logits"], pads=[1, 1, 1, 1])
    return model([node], [stored("kernel", KERNEL)])


def identity_of(nodes: list[Any], tensors: list[Any] | None = None) -> Any:
    """The convolution after nodes that make `kernel` in another way."""
    node = helper.make_node("Conv", ["images", "kernel"], ["logits"], pads=[1, 1, 1, 1])
    return model([*nodes, node], tensors)


def network(made: Any, **options: Any) -> OnnxNetwork:
    return OnnxNetwork.from_bytes(made.SerializeToString(), SIGNATURE, **options)


def refused(made: Any, signature: OnnxSignature = SIGNATURE) -> str:
    payload = made if isinstance(made, bytes) else made.SerializeToString()
    with pytest.raises(PackageError) as caught:
        OnnxNetwork.from_bytes(payload, signature)
    return caught.value.code.removeprefix("package.")


def images(batch: int = 2, rows: int = 8, columns: int = 6) -> NDArray[np.float32]:
    rng = np.random.default_rng(9)
    return rng.normal(size=(batch, 1, rows, columns)).astype(np.float32)


# --- what it computes ---------------------------------------------------------------------------


def test_it_computes_what_torch_computes_for_tensors_and_arrays() -> None:
    onnx_side = network(convolution()).eval()
    batch = images()
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(batch), torch.from_numpy(KERNEL), padding=1
    )
    tensor = onnx_side(torch.from_numpy(batch))
    array = onnx_side(batch)
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(array, np.ndarray)
    torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(tensor.numpy(), array)
    assert np.array_equal(onnx_side(batch), array)


def test_it_is_moved_and_called_as_other_networks_are() -> None:
    made = network(convolution()).to("cpu").to(memory_format=torch.channels_last)
    assert list(made.parameters()) == []
    assert made.state_dict() == {}
    sideways = torch.from_numpy(images(1, 6, 8)).transpose(2, 3)
    with torch.inference_mode():
        given = made(sideways)
    torch.testing.assert_close(given, made(sideways.contiguous()), rtol=0, atol=0)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    graph = helper.make_graph(
        [helper.make_node("Sub", ["a", "b"], ["d"]), helper.make_node("Add", ["a", "b"], ["s"])],
        "two",
        [value("a", ["n"]), value("b", ["n"])],
        [value("s", ["n"]), value("d", ["n"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    parts = {n: OnnxTensor(name=n, dtype="float32", shape=("n",)) for n in "absd"}
    signature = OnnxSignature(inputs=(parts["a"], parts["b"]), outputs=(parts["s"], parts["d"]))
    a, b = np.float32([5, 7]), np.float32([1, 2])
    total, difference = OnnxNetwork.from_bytes(made.SerializeToString(), signature)(a, b)
    assert total.tolist() == [6, 9]
    assert difference.tolist() == [4, 5]
    with pytest.raises(ValueError, match="must be float32"):
        OnnxNetwork.from_bytes(made.SerializeToString(), signature)(a, np.float32([1]))


def test_what_the_runtime_sees_is_what_was_checked() -> None:
    made = convolution()
    helper.set_model_props(made, {"ort_config": '{"session_options": {}}'})
    # Field 99 does not exist: a reader that knows more than this one must not see it.
    payload = made.SerializeToString() + bytes([0x9A, 0x06, 3]) + b"abc"
    clean = checked_model(payload, SIGNATURE)
    assert clean == convolution().SerializeToString()


@pytest.mark.parametrize(
    "wrong",
    [
        images().astype(np.float64),
        images()[:, :, :, 0],
        np.repeat(images(), 2, axis=1),
        torch.zeros((2, 1, 8, 6), dtype=torch.bfloat16),
        torch.zeros((2, 1, 8, 6), dtype=torch.float16),
        "images",
        None,
    ],
)
def test_other_inputs_are_refused_before_the_run(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|inputs"):
        network(convolution())(wrong)


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(ValueError, match="takes 1 inputs"):
        network(convolution())(images(), images())


def test_only_named_providers_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(convolution())
    assert made._session.get_providers() == ["CPUExecutionProvider"]
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["AzureExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    assert onnx_network._providers("cpu") == ["CPUExecutionProvider"]
    chosen = [p if isinstance(p, str) else p[0] for p in onnx_network._providers("cuda:0")]
    assert chosen == ["CUDAExecutionProvider", "CPUExecutionProvider"]


# --- attacks on the file ------------------------------------------------------------------------


def hidden_in_if(node: Any) -> Any:
    """The node in the untaken branch of an If, within the taken branch of another."""
    kept = [helper.make_node("Identity", ["stored_kernel"], ["inner"])]
    inner_then = helper.make_graph(kept, "t", [], [value("inner", [2, 1, 3, 3])])
    inner_else = helper.make_graph([node], "e", [], [value("hidden", [2, 1, 3, 3])])
    inner_if = helper.make_node(
        "If", ["yes"], ["middle"], then_branch=inner_then, else_branch=inner_else
    )
    outer_then = helper.make_graph([inner_if], "t2", [], [value("middle", [2, 1, 3, 3])])
    outer_else = helper.make_graph(
        [helper.make_node("Identity", ["stored_kernel"], ["other"])],
        "e2",
        [],
        [value("other", [2, 1, 3, 3])],
    )
    outer = helper.make_node(
        "If", ["yes"], ["kernel"], then_branch=outer_then, else_branch=outer_else
    )
    return identity_of([outer], [stored("yes", np.array(True)), stored("stored_kernel", KERNEL)])


def hidden_in_loop(node: Any) -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), node],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL)],
        [value("go_on", [], TensorProto.BOOL), value("hidden", [2, 1, 3, 3])],
    )
    loop = helper.make_node("Loop", ["count", ""], ["scanned"], body=body)
    first = helper.make_node("Squeeze", ["scanned", "axes"], ["kernel"])
    return identity_of(
        [loop, first],
        [
            stored("count", np.int64(1)),
            stored("axes", np.int64([0])),
            stored("stored_kernel", KERNEL),
        ],
    )


def custom(domain: str = "evil.domain", op: str = "Anything") -> Any:
    return helper.make_node(op, ["stored_kernel"], ["hidden"], domain=domain)


def with_import(made: Any, domain: str) -> Any:
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def with_version(version: int) -> Any:
    made = convolution()
    made.opset_import[0].version = version
    return made


def with_function(domain: str, name: str) -> Any:
    made = convolution()
    body = [helper.make_node("Identity", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function(domain, name, ["x"], ["y"], body, opsets))
    return made


def flat_custom(domain: str, op: str) -> Any:
    node = helper.make_node(op, ["stored_kernel"], ["kernel"], domain=domain)
    return identity_of([node], [stored("stored_kernel", KERNEL)])


def with_training() -> Any:
    made = convolution()
    made.training_info.add()
    return made


def with_sparse() -> Any:
    made = convolution()
    sparse = helper.make_sparse_tensor(
        stored("values", np.float32([1])), stored("at", np.int64([0])), [2, 1, 3, 3]
    )
    made.graph.sparse_initializer.append(sparse)
    return made


def with_sizes(*sizes: int) -> Any:
    made = convolution()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(sizes)
    return made


def made_at_run_time(size: int) -> Any:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["stored_kernel", "sum"], ["kernel"]),
    ]
    return identity_of(nodes, [stored("size", np.int64([size])), stored("stored_kernel", KERNEL)])


def expanded_at_run_time() -> Any:
    node = helper.make_node("Expand", ["stored_kernel", "size"], ["big"])
    mean = helper.make_node("ReduceMean", ["big"], ["kernel"], axes=[0], keepdims=0)
    return identity_of(
        [node, mean],
        [stored("size", np.int64([1 << 34, 2, 1, 3, 3])), stored("stored_kernel", KERNEL)],
    )


def random_kernel(op: str, inputs: list[str], **attributes: Any) -> Any:
    node = helper.make_node(op, inputs, ["kernel"], **attributes)
    return identity_of([node], [stored("stored_kernel", KERNEL)])


def dropout_in_training() -> Any:
    node = helper.make_node("Dropout", ["stored_kernel", "", "on"], ["kernel"])
    return identity_of([node], [stored("stored_kernel", KERNEL), stored("on", np.array(True))])


def cyclic() -> Any:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return model([*nodes, convolution().graph.node[0]], [stored("kernel", KERNEL)])


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (lambda: b"", "bad_onnx"),
    "not protobuf": (lambda: b"\x80\x04pickle", "bad_onnx"),
    "onnxruntime's own format": (lambda: b"\x18\x00\x00\x00ORTM" + bytes(64), "bad_onnx"),
    "custom operator": (lambda: flat_custom("evil.domain", "Anything"), "unknown_operator"),
    "runtime's own operator": (lambda: flat_custom("com.microsoft", "Gelu"), "unknown_operator"),
    "unknown operator": (lambda: flat_custom("", "Anything"), "unknown_operator"),
    "preview operator": (
        lambda: flat_custom("ai.onnx.preview.training", "Adam"),
        "unknown_operator",
    ),
    "custom in If": (lambda: hidden_in_if(custom()), "unknown_operator"),
    "custom in Loop": (lambda: hidden_in_loop(custom()), "unknown_operator"),
    "custom in Loop, unnamed": (lambda: hidden_in_loop(custom("", "Python")), "unknown_operator"),
    "import of a domain": (lambda: with_import(convolution(), "evil"), "unknown_operator"),
    "function elsewhere": (lambda: with_function("evil", "F"), "unknown_operator"),
    "function over Conv": (lambda: with_function("", "Conv"), "unknown_operator"),
    "operators of the future": (lambda: with_version(999), "onnx_failed"),
    "training": (with_training, "bad_onnx"),
    "sparse": (with_sparse, "bad_onnx"),
    "oversized tensor": (lambda: with_sizes(HUGE, 1, 3, 3), "too_large"),
    "sizes that overflow": (lambda: with_sizes(1 << 62, 1 << 62, 4, 1), "too_large"),
    "negative size": (lambda: with_sizes(-2, -1, 3, 3), "bad_onnx"),
    "more than stored": (lambda: with_sizes(200, 1, 3, 3), "bad_onnx"),
    "oversized at run time": (lambda: made_at_run_time(HUGE), "too_large"),
    "expanded at run time": (expanded_at_run_time, "too_large"),
    "random": (lambda: random_kernel("RandomNormal", [], shape=[2, 1, 3, 3]), "not_deterministic"),
    "random like": (
        lambda: random_kernel("Bernoulli", ["stored_kernel"]),
        "not_deterministic",
    ),
    "dropout in training": (dropout_in_training, "not_deterministic"),
    "cycle": (cyclic, "bad_onnx"),
    "another type": (
        lambda: model(
            [helper.make_node("Cast", ["images"], ["logits"], to=TensorProto.INT64)],
            output=value("logits", ["n", 1, "h", "w"], TensorProto.INT64),
        ),
        "wrong_signature",
    ),
    "another name": (
        lambda: model(
            [helper.make_node("Concat", ["images", "images"], ["mask"], axis=1)],
            output=value("mask", ["n", 2, "h", "w"]),
        ),
        "wrong_signature",
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_one_fault_is_refused_with_its_code(fault: str) -> None:
    network(convolution())
    make, code = FAULTS[fault]
    assert refused(make()) == code


@pytest.mark.parametrize("hide", [hidden_in_if, hidden_in_loop])
def test_the_hiding_places_are_sound_without_what_they_hide(hide: Callable[[Any], Any]) -> None:
    kept = helper.make_node("Identity", ["stored_kernel"], ["hidden"])
    assert np.allclose(network(hide(kept))(images()), network(convolution())(images()), atol=1e-6)


def test_a_small_tensor_made_at_run_time_is_taken() -> None:
    assert np.allclose(
        network(made_at_run_time(8))(images()), network(convolution())(images()), atol=1e-6
    )


def external(made: Any, location: str, tensor: Any) -> Any:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return made


@pytest.mark.parametrize("place", ["initialiser", "attribute", "nested"])
@pytest.mark.parametrize("form", ["beside", "absolute", "above"])
def test_external_data_is_refused_before_anything_could_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, form: str
) -> None:
    (tmp_path / "inside").mkdir()
    secret = tmp_path / ("inside/secret.bin" if form == "beside" else "secret.bin")
    secret.write_bytes(KERNEL.tobytes())
    monkeypatch.chdir(tmp_path / "inside")
    location = {"beside": "secret.bin", "absolute": str(secret), "above": "../secret.bin"}[form]
    constant = helper.make_node("Constant", [], ["kernel"], value=stored("c", KERNEL))
    if place == "initialiser":
        made = convolution()
        external(made, location, made.graph.initializer[0])
    elif place == "attribute":
        made = identity_of([constant])
        external(made, location, made.graph.node[0].attribute[0].t)
    else:
        constant.output[0] = "hidden"
        made = hidden_in_if(constant)
        inner = made.graph.node[0].attribute[1].g.node[0].attribute[0].g
        assert inner.node[0].op_type == "Constant"
        external(made, location, inner.node[0].attribute[0].t)
    for native in (
        (onnx.checker, "check_model"),
        (onnx.shape_inference, "infer_shapes"),
        (onnxruntime, "InferenceSession"),
    ):
        monkeypatch.setattr(*native, lambda *_, **__: pytest.fail("the model was handed on"))
    assert refused(made) == "external_data"


def test_the_attack_is_real_for_a_reader_that_follows_it(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes((KERNEL + 1).tobytes())
    made = convolution()
    external(made, "secret.bin", made.graph.initializer[0])
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    followed = onnx.load(tmp_path / "model.onnx")
    assert np.array_equal(onnx.numpy_helper.to_array(followed.graph.initializer[0]), KERNEL + 1)


def test_external_data_is_refused_even_where_the_location_is_not_said() -> None:
    made = convolution()
    entry = made.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    assert refused(made) == "external_data"


def test_every_truncation_is_refused() -> None:
    payload = hidden_in_if(
        helper.make_node("Identity", ["stored_kernel"], ["hidden"])
    ).SerializeToString()
    for end in range(0, len(payload) - 1, 7):
        with pytest.raises(PackageError):
            checked_model(payload[:end], SIGNATURE)


def test_a_file_over_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = convolution().SerializeToString()
    monkeypatch.setattr(onnx_checks, "MAXIMUM_BYTES", len(payload) - 1)
    monkeypatch.setattr(onnx_checks, "_parse", lambda _: pytest.fail("the file was parsed"))
    assert refused(payload) == "too_large"


def framed(field: int, content: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    length, size = [], len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([field << 3 | 2, *length, size]) + content


@pytest.mark.parametrize("depth", [50, 3000])
def test_graphs_nested_without_end_are_refused(depth: int) -> None:
    # By hand, because no writer nests that far: ModelProto.graph is field 7, GraphProto.node 1,
    # NodeProto.attribute 5, AttributeProto.g 6.
    graph = b""
    for _ in range(depth):
        graph = framed(
            1, framed(4, b"If") + framed(5, framed(1, b"then_branch") + framed(6, graph))
        )
    assert refused(framed(8, b"\x10\x11") + framed(7, graph)) == "bad_onnx"


def test_damaged_files_are_refused_or_sound_and_nothing_else() -> None:
    payload = hidden_in_loop(
        helper.make_node("Identity", ["stored_kernel"], ["hidden"])
    ).SerializeToString()
    rng = np.random.default_rng(12)
    codes = set()
    for _ in range(400):
        damaged = bytearray(payload)
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        try:
            OnnxNetwork.from_bytes(bytes(damaged), SIGNATURE)
        except PackageError as error:
            codes.add(error.code)
    assert {"package.bad_onnx", "package.unknown_operator"} <= codes


# --- declarations and what comes out ------------------------------------------------------------


def signature(images_shape: tuple[Any, ...], logits_shape: tuple[Any, ...]) -> OnnxSignature:
    return OnnxSignature(
        inputs=(IMAGES.model_copy(update={"shape": images_shape}),),
        outputs=(LOGITS.model_copy(update={"shape": logits_shape}),),
    )


def test_a_fixed_size_must_be_declared_as_fixed() -> None:
    made = convolution()
    made.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 6
    free, fixed = ("n", 1, "h", "w"), ("n", 1, "h", 6)
    assert refused(made, signature(free, ("n", 2, "h", "w"))) == "wrong_signature"
    assert refused(made, signature(("n", 1, "h", 7), ("n", 2, "h", "w"))) == "wrong_signature"
    narrow = OnnxNetwork.from_bytes(made.SerializeToString(), signature(fixed, ("n", 2, "h", "w")))
    assert narrow(images()).shape == (2, 2, 8, 6)


def test_a_declared_rank_or_channel_count_must_be_the_graphs() -> None:
    made = convolution()
    assert refused(made, signature(("n", 1, "h"), LOGITS.shape)) == "wrong_signature"
    assert refused(made, signature(("n", 3, "h", "w"), LOGITS.shape)) == "wrong_signature"
    assert refused(made, signature(IMAGES.shape, ("n", 5, "h", "w"))) == "wrong_signature"


def claims(nodes: list[Any], tensors: list[Any] | None = None) -> OnnxNetwork:
    """A network whose graph leaves every size of its output open."""
    return network(model(nodes, tensors, output=value("logits", ["a", "b", "c", "d"])))


def failure(made: OnnxNetwork, batch: NDArray[Any]) -> str:
    with pytest.raises(PackageError) as caught:
        made(batch)
    return caught.value.code.removeprefix("package.")


def reshaped() -> OnnxNetwork:
    """Lay the pixels out in rows of 4 by a shape the file does not fix until it runs."""
    nodes = [
        helper.make_node("Shape", ["images"], ["size"]),
        helper.make_node("Gather", ["size", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["images", "target"], ["logits"]),
    ]
    return claims(nodes, [stored("first", np.int64([0])), stored("rest", np.int64([2, -1, 4]))])


def test_an_output_of_another_shape_is_refused_at_run_time() -> None:
    made = reshaped()
    # 8 pixels of 4 columns in two channels are 1 row: the words stand for other sizes then.
    assert failure(made, images(2, 8, 4)) == "wrong_output"
    assert failure(made, images(2, 8, 6)) == "wrong_output"


def test_an_output_that_is_no_number_is_refused() -> None:
    nodes = [
        helper.make_node("Concat", ["images", "images"], ["both"], axis=1),
        helper.make_node("Log", ["both"], ["logits"]),
    ]
    made = claims(nodes)
    assert made(np.abs(images()) + 1).shape == (2, 2, 8, 6)
    assert failure(made, images()) == "wrong_output"


def test_a_run_that_the_runtime_gives_up_is_a_coded_error() -> None:
    # 48 pixels cannot be laid out in rows of 5, which shows only when they are there.
    nodes = [helper.make_node("Reshape", ["images", "target"], ["logits"])]
    made = claims(nodes, [stored("target", np.int64([1, 2, -1, 5]))])
    assert failure(made, images(1)) == "onnx_failed"


def test_a_loop_without_end_is_stopped() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("go", [], TensorProto.BOOL),
            value("state", ["a", "b", "c", "d"]),
        ],
        [value("go_on", [], TensorProto.BOOL), value("next", ["a", "b", "c", "d"])],
    )
    loop = helper.make_node("Loop", ["count", "", "images"], ["logits"], body=body)
    made = network(
        model(
            [loop],
            [stored("count", np.int64(1 << 62))],
            output=value("logits", ["a", "b", "c", "d"]),
        ),
        time_limit_s=0.05,
    )
    assert failure(made, images()) == "time_limit"


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x", "dtype": "float32", "shape": [0]},
        {"name": "x", "dtype": "float32", "shape": [True]},
        {"name": "x", "dtype": "float32", "shape": ["../x"]},
        {"name": "x", "dtype": "complex64", "shape": [1]},
        {"name": "", "dtype": "float32", "shape": [1]},
        {"name": "x", "dtype": "float32", "shape": [1], "path": "weights.bin"},
    ],
)
def test_declarations_that_cannot_be_meant_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OnnxTensor.model_validate(document)


def test_a_signature_reads_from_a_manifests_json() -> None:
    assert OnnxSignature.model_validate_json(SIGNATURE.model_dump_json()) == SIGNATURE
    assert OnnxSignature.model_validate(SIGNATURE.model_dump(mode="json")) == SIGNATURE
