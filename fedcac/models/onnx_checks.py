"""What an ONNX file must be before a runtime sees it: standard operators, nothing outside itself.

Source: the ONNX specification (IR.md, ExternalData.md). `onnx.checker` accepts nodes of unknown
domains and looks for external files, and onnxruntime would open them: so the structure is walked
here first, through every nested graph, and only then given to native code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field

from fedcac.errors import PackageError

__all__ = ["MAXIMUM_BYTES", "OnnxSignature", "OnnxTensor", "checked_model"]

MAXIMUM_BYTES = 1024**3
"""Largest file; protobuf itself ends at 2 GiB."""

MAXIMUM_TENSOR_BYTES = 2 * 1024**3
"""Largest tensor whose size the file itself fixes."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator domains of the ONNX standard; "" and "ai.onnx" are the same one."""

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_TRAINING_MODE = 2
"""Position of the input of `Dropout` that switches it on."""

_ELEMENTS = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "float16": onnx.TensorProto.FLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "uint8": onnx.TensorProto.UINT8,
    "bool": onnx.TensorProto.BOOL,
}

Size = Annotated[int, Field(ge=1, strict=True)] | Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OnnxTensor(_Part):
    """One input or output of a network.

    `shape` holds a number where the size is fixed, and a word where it is not. The same word means
    the same size wherever it stands: an output ("batch", 1, "rows", "columns") has the rows of the
    input that is declared with them.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    dtype: Literal["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]
    shape: Annotated[tuple[Size, ...], Field(max_length=8)]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The same type in numpy's words."""
        return np.dtype(self.dtype)


class OnnxSignature(_Part):
    """Every input and output of a network, in its order."""

    inputs: Annotated[tuple[OnnxTensor, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[OnnxTensor, ...], Field(min_length=1, max_length=16)]


def checked_model(payload: bytes, signature: OnnxSignature) -> bytes:
    """Return the model as it was checked, serialised anew without metadata and unknown fields.

    Raises
    ------
    PackageError
        `too_large` by bytes or by a tensor's declared size; `bad_onnx` if it is no valid model;
        `external_data` if a tensor lies in another file; `unknown_operator` for an operator,
        function or domain outside the standard, however deep; `not_deterministic` for random
        operators; `wrong_signature` if inputs or outputs are not the declared ones.
    """
    if len(payload) > MAXIMUM_BYTES:
        raise _error("too_large", f"The network is larger than {MAXIMUM_BYTES} bytes")
    model = _parse(payload)
    _check_domains(model)
    for graph in _graphs(model.graph):
        _check_graph(graph)
    stored = model.SerializeToString()
    _check_standard(stored)
    _check_values(stored)
    _check_signature(model.graph, signature)
    return bytes(stored)


def _parse(payload: bytes) -> Any:
    try:
        model = onnx.ModelProto.FromString(payload)
    except (DecodeError, RecursionError) as error:
        raise _error("bad_onnx", "The file is not an ONNX model, or ends too early") from error
    # Nothing reaches the runtime that was not looked at: it can be configured through metadata.
    model.DiscardUnknownFields()
    del model.metadata_props[:]
    return model


def _check_domains(model: Any) -> None:
    domains = {entry.domain for entry in model.opset_import}
    if not domains <= DOMAINS:
        raise _error("unknown_operator", "The network imports operators outside the ONNX standard")
    # Even in a standard domain a function would put its own meaning in an operator's place.
    if len(model.functions):
        raise _error("unknown_operator", "The network defines functions of its own")
    if len(model.training_info):
        raise _error("bad_onnx", "The network carries instructions for training")


def _graphs(outermost: Any) -> Iterator[Any]:
    """Yield the graph and every graph nested in it (If, Loop, Scan, SequenceMap)."""
    waiting = [outermost]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                # Whatever type the attribute claims to have.
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _check_graph(graph: Any) -> None:
    if len(graph.sparse_initializer):
        raise _error("bad_onnx", "Sparse tensors are not accepted")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node)
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors):
                raise _error("bad_onnx", "Sparse tensors are not accepted")
            if attribute.HasField("t"):
                _check_tensor(attribute.t)
            for tensor in attribute.tensors:
                _check_tensor(tensor)


def _check_node(node: Any) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    # What is not UTF-8 stays bytes.
    is_named = isinstance(node.op_type, str) and domain in DOMAINS
    if node.overload or not (is_named and onnx.defs.has(node.op_type, domain)):
        raise _error(
            "unknown_operator",
            f"The network uses '{node.op_type[:60]}', which is no operator of the ONNX standard",
        )
    is_dropout = node.op_type == "Dropout" and any(node.input[_TRAINING_MODE:])
    if domain == "" and (node.op_type in RANDOM or is_dropout):
        raise _error("not_deterministic", f"The network draws random numbers ('{node.op_type}')")


def _check_tensor(tensor: Any) -> None:
    is_external = tensor.data_location != onnx.TensorProto.DEFAULT or len(tensor.external_data)
    if is_external:
        raise _error("external_data", "A tensor of the network lies in another file")
    _check_size(tensor.data_type, tensor.dims)


def _check_size(element_type: int, sizes: Any) -> None:
    # A text counts as its pointer; eight bytes is the widest number but for complex ones.
    width = 4 if element_type == onnx.TensorProto.FLOAT else 8
    if any(size < 0 for size in sizes):
        raise _error("bad_onnx", "A tensor has a negative size")
    if math.prod(sizes) * width > MAXIMUM_TENSOR_BYTES:
        raise _error("too_large", f"A tensor is larger than {MAXIMUM_TENSOR_BYTES} bytes")


def _check_standard(stored: bytes) -> None:
    try:
        onnx.checker.check_model(stored, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _error("bad_onnx", "The network breaks the ONNX specification") from error


def _check_values(stored: bytes) -> None:
    """Refuse a model whose intermediate values have a fixed size that no memory would hold."""
    try:
        inferred = onnx.shape_inference.infer_shapes(stored, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise _error("bad_onnx", "The shapes of the network contradict each other") from error
    for graph in _graphs(inferred.graph):
        for value in (*graph.value_info, *graph.output):
            described = value.type.tensor_type
            # A size that is not fixed counts as one.
            sizes = [size.dim_value for size in described.shape.dim if size.HasField("dim_value")]
            _check_size(described.elem_type, sizes)


def _check_signature(graph: Any, signature: OnnxSignature) -> None:
    # Before IR version 4, initialisers were listed among the inputs.
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    for kind, values, declared in (
        ("inputs", inputs, signature.inputs),
        ("outputs", list(graph.output), signature.outputs),
    ):
        if [value.name for value in values] != [tensor.name for tensor in declared]:
            raise _error("wrong_signature", f"The network's {kind} have other names or order")
        for value, tensor in zip(values, declared, strict=True):
            if not _agrees(value.type, tensor, is_input=kind == "inputs"):
                raise _error(
                    "wrong_signature",
                    f"'{tensor.name}' is not declared with the network's type and shape",
                )


def _agrees(described: Any, declared: OnnxTensor, *, is_input: bool) -> bool:
    if described.WhichOneof("value") != "tensor_type":
        return False
    tensor = described.tensor_type
    if tensor.elem_type != _ELEMENTS[declared.dtype]:
        return False
    if not tensor.HasField("shape"):
        return not is_input
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    if len(sizes) != len(declared.shape):
        return False
    # A network that takes one size alone must not be declared to take any.
    return all(
        found is None or found == wanted or (isinstance(wanted, str) and not is_input)
        for found, wanted in zip(sizes, declared.shape, strict=True)
    )


def _error(code: str, message: str) -> PackageError:
    return PackageError(
        f"{message}.",
        code=code,
        cure="Export the network with standard operators, weights inside and fixed names; "
        "otherwise do not use it.",
    )
