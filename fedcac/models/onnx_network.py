"""Networks of any other architecture, as ONNX, behind the face of a `torch.nn.Module`.

A package whose architecture this release does not know may bring it as an ONNX graph of standard
operators. The graph is data that a runtime interprets: `fedcac.models.onnx_checks` says what is
refused before that, and this module holds the runtime to what the package declared.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.errors import PackageError
from fedcac.models.onnx_checks import OnnxSignature, OnnxTensor, checked_model

__all__ = ["OnnxNetwork"]

TIME_LIMIT_S = 600.0
"""Longest call: a graph may loop, and whether a loop ends cannot be told from its text."""

_FATAL = 4
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"

Array = NDArray[Any]
Sizes = dict[str, int]


class OnnxNetwork(nn.Module):
    """A checked ONNX graph that is called like any other network.

    Inputs and outputs are those of the signature, in its order: torch tensors give tensors on the
    first one's device, numpy arrays give arrays; one output comes bare, several as a tuple. There
    are no parameters and no gradient, and nothing to train. The same input gives the same output
    on the same machine. Make one with `from_bytes`.

    Notes
    -----
    Ambiguities that a signature cannot settle: what an output means (logits or probabilities, the
    order of channels) and how Hounsfield units are scaled; the manifest says both, and the golden
    case shows whether it is right. Between machines sums may differ in their last digits.
    Memory that depends on the input's values cannot be bounded beforehand. The time is, between
    one operator and the next.
    """

    def __init__(
        self, session: Any, signature: OnnxSignature, *, time_limit_s: float = TIME_LIMIT_S
    ) -> None:
        super().__init__()
        self._session = session
        self._signature = signature
        self._time_limit_s = time_limit_s

    @classmethod
    def from_bytes(
        cls,
        payload: bytes,
        signature: OnnxSignature,
        *,
        device: str = "cpu",
        time_limit_s: float = TIME_LIMIT_S,
    ) -> Self:
        """Check an ONNX file and make a session of it on the CPU, or on CUDA where it is present.

        Raises
        ------
        PackageError
            As `checked_model`, or `onnx_failed` if the runtime does not accept the graph.
        """
        stored = checked_model(payload, signature)
        try:
            session = onnxruntime.InferenceSession(
                stored, sess_options=_options(), providers=_providers(device)
            )
        # The runtime's errors have no common base below Exception.
        except Exception as error:
            raise _failed("The ONNX runtime does not accept the network") from error
        return cls(session, signature, time_limit_s=time_limit_s)

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs for inputs of the declared types and shapes.

        Raises
        ------
        ValueError
            If an input is not as declared.
        PackageError
            `wrong_output` if an output has another type or shape than declared, or is not finite;
            `time_limit` if the call took too long; `onnx_failed` if the runtime gave up.
        """
        arrays = [_as_array(value) for value in inputs]
        sizes = self._check_inputs(arrays)
        names = [tensor.name for tensor in self._signature.inputs]
        outputs = self._run(dict(zip(names, arrays, strict=True)))
        for tensor, output in zip(self._signature.outputs, outputs, strict=True):
            _check_output(tensor, output, sizes)
        device = next((v.device for v in inputs if isinstance(v, torch.Tensor)), None)
        given = [out if device is None else torch.from_numpy(out).to(device) for out in outputs]
        return given[0] if len(given) == 1 else tuple(given)

    def _check_inputs(self, arrays: Sequence[Array]) -> Sizes:
        declared = self._signature.inputs
        if len(arrays) != len(declared):
            raise ValueError(f"the network takes {len(declared)} inputs")
        sizes: Sizes = {}
        for tensor, array in zip(declared, arrays, strict=True):
            if array.dtype != tensor.numpy_dtype or not _fits(tensor, array, sizes):
                raise ValueError(f"'{tensor.name}' must be {tensor.dtype} {tensor.shape}")
        return sizes

    def _run(self, feeds: dict[str, Array]) -> list[Array]:
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        timer = threading.Timer(self._time_limit_s, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            names = [tensor.name for tensor in self._signature.outputs]
            outputs: list[Array] = self._session.run(names, feeds, options)
        except Exception as error:
            if options.terminate:
                raise PackageError(
                    f"The network ran longer than {self._time_limit_s:g} s.",
                    code="time_limit",
                    cure="Use a faster machine, or another package.",
                ) from error
            raise _failed("The ONNX runtime gave up on the network") from error
        finally:
            timer.cancel()
        return outputs


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Its messages quote names and values of the graph.
    options.log_severity_level = _FATAL
    # Otherwise the first bytes decide, and another format would be read unchecked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Threads that spin between calls take the cores from torch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: str) -> list[Any]:
    """Return the runtimes to use, never left to its own choice: one of them calls a cloud."""
    if device.startswith("cuda") and _CUDA in onnxruntime.get_available_providers():
        return [(_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}), _CPU]
    return [_CPU]


def _as_array(value: Any) -> Array:
    if isinstance(value, torch.Tensor) and value.dtype is not torch.bfloat16:
        return np.ascontiguousarray(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value)
    raise ValueError("inputs must be torch tensors or numpy arrays of a type that numpy knows")


def _fits(tensor: OnnxTensor, array: Array, sizes: Sizes) -> bool:
    """Return whether an array has the declared shape, noting what each word stands for."""
    if array.ndim != len(tensor.shape):
        return False
    return all(
        found == (sizes.setdefault(wanted, found) if isinstance(wanted, str) else wanted)
        for found, wanted in zip(array.shape, tensor.shape, strict=True)
    )


def _check_output(tensor: OnnxTensor, output: Any, sizes: Sizes) -> None:
    is_array = isinstance(output, np.ndarray) and output.dtype == tensor.numpy_dtype
    if not is_array or not _fits(tensor, output, sizes):
        reason = "does not have its declared type and shape"
    elif output.dtype.kind == "f" and not bool(np.isfinite(output).all()):
        # A comparison with a missing number is false: it would read as no calcium.
        reason = "is not finite"
    else:
        return
    raise PackageError(
        f"The network's output '{tensor.name}' {reason}.",
        code="wrong_output",
        cure="Do not use the package for such exams; tell whoever made it.",
    )


def _failed(message: str) -> PackageError:
    return PackageError(
        f"{message}.",
        code="onnx_failed",
        cure="Export the network for an operator set that this release's runtime knows.",
    )
