"""A package's network made fast for one device, as long as its golden case still agrees.

Batch normalisation is folded into the convolutions, memory is laid out channels last, and
arithmetic is reduced to bfloat16 or float16 where the manifest allows it. Each step is taken only
if the golden case comes out within the manifest's tolerance on this very device; what is chosen
depends on the package and the machine, never on a timing, so the same exam gives the same mask.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fedcac.errors import PackageError
from fedcac.models.package import ModelPackage

__all__ = ["FastNetwork", "fold_batch_norms"]


class FastNetwork:
    """A verified network on a device. Call it with a block of the family's input.

    Raises
    ------
    PackageError
        `golden_mismatch` if even the plain network in float32 disagrees on this device.
    """

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        self._package = package
        self.device = device
        self.dtype = torch.float32
        self.is_folded = False
        plain = package.network()
        folded = fold_batch_norms(plain)
        reduced = _reduced_dtype(device) if package.manifest.precision == "reduced" else None
        for network, dtype in ((folded, reduced), (folded, torch.float32)):
            if dtype is not None and self._agrees(network, dtype):
                self.is_folded = folded is not plain
                return
        self._place(plain, torch.float32)
        with self._arithmetic():
            package.check_golden(self._network)

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the family's probabilities, on the device, for inputs that lie there."""
        with torch.inference_mode(), self._arithmetic():
            return self._package.outputs(self._network, inputs)

    def _place(self, network: nn.Module, dtype: torch.dtype) -> None:
        placed: nn.Module = network.to(self.device)
        self._network = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def _agrees(self, network: nn.Module, dtype: torch.dtype) -> bool:
        self._place(network, dtype)
        try:
            with self._arithmetic():
                self._package.check_golden(self._network)
        # Whatever a rewritten network raises, the plain one is there to be asked instead.
        except (PackageError, RuntimeError, TypeError, ValueError, AttributeError):
            return False
        return True

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Fix the kernels: no choice by timing, no TF32, reduced types only where verified."""
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                flags = torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                )
                stack.enter_context(flags)
            if self.dtype is not torch.float32:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.dtype))
            yield


def _reduced_dtype(device: torch.device) -> torch.dtype | None:
    if device.type != "cuda":
        return torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode without batch norms after convolutions.

    A network that has none is returned as it is.
    Parts whose flow of control depends on their input cannot be traced; their children are folded
    instead. What is not traced stays as it is.
    """
    if not _has_norms(network):
        return network
    return _folded(copy.deepcopy(network))


def _has_norms(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def _folded(module: nn.Module) -> nn.Module:
    if not _has_norms(module) or isinstance(module, _BatchNorm):
        return module
    try:
        traced = fx.symbolic_trace(module)
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError, AttributeError):
        for name, child in list(module.named_children()):
            setattr(module, name, _folded(child))
        return module
    _fold_graph(traced)
    return traced


def _fold_graph(traced: fx.GraphModule) -> None:
    modules = dict(traced.named_modules())
    uses = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], _BatchNorm):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        convolution, norm = modules[str(source.target)], modules[node.target]
        is_foldable = isinstance(convolution, _ConvNd) and norm.running_mean is not None
        if not is_foldable or len(source.users) > 1 or uses[source.target] > 1:
            continue
        is_transposed = isinstance(convolution, _ConvTransposeNd)
        if is_transposed and convolution.groups != 1:
            continue
        fused = fuse_conv_bn_eval(convolution, norm, transpose=is_transposed)
        traced.set_submodule(str(source.target), fused)
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
