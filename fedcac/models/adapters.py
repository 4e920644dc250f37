"""How each architecture of this release fits the frame of `fedcac.models.family`.

Networks are imported when a package asks for them: a site that runs one family does not load the
libraries of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from fedcac.models.family import Family, InputKind, Outputs, scaled
from fedcac.models.manifest import ONNX_FILE, InputSpec
from fedcac.models.radiograph_input import RadiographInput

__all__ = ["eng2021", "hong2025", "miller2023", "onnx", "swinunetr"]

_CALCIUM = "probability of coronary calcium, (B, H, W)"
_VESSELS = "probabilities of LM, LAD, LCX and RCA given calcium, (B, 4, H, W)"
_CHANNELS = {1: {"calcium": _CALCIUM}, 5: {"calcium": _CALCIUM, "vessels": _VESSELS}}


def eng2021(**architecture: Any) -> Family:
    """Slice-wise calcium and vessel (Eng et al. 2021)."""
    from fedcac.models.eng2021 import EngNetwork

    return Family(
        name="eng2021",
        build=lambda _: EngNetwork(**architecture),
        infer=_infer_channels,
        input_kind=InputKind.SLICES,
        outputs=_CHANNELS[5],
    )


def swinunetr(**architecture: Any) -> Family:
    """Slice-wise calcium without vessels (AI-CAC)."""
    from fedcac.models.swinunetr import SMALLEST, STRIDE, SwinUNETRNetwork

    return Family(
        name="swinunetr",
        build=lambda _: SwinUNETRNetwork(**architecture),
        infer=_infer_channels,
        input_kind=InputKind.SLICES,
        outputs=_CHANNELS[1],
        divisor=STRIDE,
        smallest=SMALLEST,
        is_cropping=False,
    )


def miller2023(**architecture: Any) -> Family:
    """Heart and calcium of a slice within its window of slices (Miller et al. 2023)."""
    from fedcac.models.miller2023 import MillerNetwork

    # On the meta device only the shapes are made: what window and stride come of the parameters.
    with torch.device("meta"):
        shapes = MillerNetwork(**architecture)
    return Family(
        name="miller2023",
        build=lambda _: MillerNetwork(**architecture),
        infer=_infer_cascade,
        input_kind=InputKind.WINDOWS,
        outputs={
            "calcium": "probability of coronary calcium, zero outside the heart's mask, (B, H, W)",
            "non_coronary": "the same of non-coronary calcium, (B, H, W)",
            "heart": "probability of the heart, (B, H, W)",
        },
        halo=shapes.window // 2,
        divisor=int(shapes.stride),
        smallest=int(shapes.stride),
    )


def hong2025(image: Mapping[str, Any] | None = None, **architecture: Any) -> Family:
    """Three thresholds of the calcium score from a chest radiograph (Hong et al. 2025).

    `image` has the parameters of `RadiographInput`: the size that the network was trained at, and
    the percentiles that become black and white.

    Raises
    ------
    TypeError, ValueError
        If a parameter has no meaning.
    """
    from fedcac.models.hong2025 import THRESHOLDS, HongNetwork
    from fedcac.models.radiograph_input import SMALLEST

    return Family(
        name="hong2025",
        build=lambda _: HongNetwork(**architecture),
        infer=_infer_thresholds,
        input_kind=InputKind.RADIOGRAPH,
        inputs={"image": "radiographs as `RadiographInput.prepare` makes them, (B, R, C)"},
        outputs={"positive": "probabilities of a score > 0, >= 100 and >= 400, (B, 3)"},
        divisor=1,
        smallest=SMALLEST,
        radiograph=RadiographInput(**(image or {})),
        thresholds=THRESHOLDS,
    )


def onnx(
    *,
    signature: Mapping[str, Any],
    output: str = "logits",
    divisor: int = 32,
    is_cropping: bool = True,
) -> Family:
    """A network that brings its own graph.

    One float32 input (batch, slices, rows, columns), an odd number of slices of which the middle
    one is answered, and one output (batch, 1 or 5, rows, columns): calcium, then LM, LAD, LCX and
    RCA where it tells vessels; `output` says whether as 'logits' or as 'probabilities'.

    Raises
    ------
    ValueError
        If the signature is another one, or a parameter has no meaning.
    """
    from fedcac.models.onnx_checks import OnnxSignature

    declared = OnnxSignature.model_validate(_as_tuples(signature))
    slices, channels = _onnx_shape(declared)
    if output not in ("logits", "probabilities") or divisor < 1:
        raise ValueError("output is 'logits' or 'probabilities', and divisor positive")

    def build(payload: bytes) -> nn.Module:
        from fedcac.models.onnx_network import OnnxNetwork

        return OnnxNetwork.from_bytes(payload, declared)

    return Family(
        name="onnx",
        build=build,
        infer=_infer_channels if output == "logits" else _infer_probabilities,
        input_kind=InputKind.SLICES if slices == 1 else InputKind.WINDOWS,
        outputs=_CHANNELS[channels],
        halo=slices // 2,
        divisor=divisor,
        smallest=divisor,
        is_cropping=is_cropping,
        weights_file=ONNX_FILE,
    )


def _as_tuples(value: Any) -> Any:
    # The signature's own model is strict, and JSON knows lists only.
    if isinstance(value, Mapping):
        return {name: _as_tuples(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_as_tuples(part) for part in value)
    return value


def _onnx_shape(signature: Any) -> tuple[int, int]:
    """Return the slices of a window and the channels of the answer."""
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise ValueError("a calcium network has one input and one output")
    (source,), (target,) = signature.inputs, signature.outputs
    if source.dtype != "float32" or target.dtype != "float32":
        raise ValueError("input and output must be float32")
    if len(source.shape) != 4 or len(target.shape) != 4:
        raise ValueError("input and output must be (batch, channels, rows, columns)")
    slices, channels = source.shape[1], target.shape[1]
    if not isinstance(slices, int) or slices % 2 == 0 or channels not in _CHANNELS:
        raise ValueError("slices must be odd, and channels 1 or 5")
    return slices, cast("int", channels)


def _with_channels(hu: torch.Tensor) -> torch.Tensor:
    # Slices (B, H, W) are one channel; windows (B, D, H, W) have their slices as channels.
    return hu[:, None] if hu.ndim == 3 else hu


def _infer_channels(
    network: nn.Module, inputs: Mapping[str, torch.Tensor], spec: InputSpec
) -> Outputs:
    """Logits: channel 0 calcium, the others the vessels."""
    logits = network(_with_channels(scaled(inputs["hu"], spec))).float()
    found = {"calcium": torch.sigmoid(logits[:, 0])}
    if logits.shape[1] > 1:
        found["vessels"] = torch.softmax(logits[:, 1:], dim=1)
    return found


def _infer_thresholds(
    network: nn.Module, inputs: Mapping[str, torch.Tensor], spec: InputSpec
) -> Outputs:
    logits = network(_with_channels(scaled(inputs["image"], spec))).float()
    return {"positive": torch.sigmoid(logits)}


def _infer_probabilities(
    network: nn.Module, inputs: Mapping[str, torch.Tensor], spec: InputSpec
) -> Outputs:
    probabilities = network(_with_channels(scaled(inputs["hu"], spec))).float()
    found = {"calcium": probabilities[:, 0]}
    if probabilities.shape[1] > 1:
        found["vessels"] = probabilities[:, 1:]
    return found


def _infer_cascade(network: Any, inputs: Mapping[str, torch.Tensor], spec: InputSpec) -> Outputs:
    found = network.probabilities(scaled(inputs["hu"], spec))
    return {"calcium": found.coronary, "non_coronary": found.non_coronary, "heart": found.heart}
