"""The device that scoring uses: is it there, how much memory, does it calculate."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from fedcac.errors import UsageError

__all__ = ["DeviceFacts", "choose_device", "probe_device"]

_SIZE = 512


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is. Memory is in MB; `free_mb` is None for a CPU."""

    kind: str
    name: str
    memory_mb: int | None
    free_mb: int | None
    is_exact: bool
    seconds: float
    torch_version: str


def choose_device(device: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means on this machine.

    Raises
    ------
    UsageError
        `no_cuda` if CUDA is asked for and torch sees none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    if device == "cuda" and not has_cuda:
        raise UsageError(
            "No CUDA device is available.",
            code="no_cuda",
            cure="Use device 'auto' or 'cpu', or install the CUDA build of torch and its driver.",
        )
    return torch.device(device)


def probe_device(device: str) -> DeviceFacts:
    """Multiply two small matrices whose product is known on a device: `auto`, `cpu` or `cuda`.

    Raises
    ------
    UsageError
        As `choose_device`; `device_fault` if the device is there and cannot calculate.
    """
    chosen = choose_device(device)
    kind = chosen.type
    started = time.monotonic()
    try:
        is_exact = _multiplies(chosen)
    except RuntimeError as error:
        raise UsageError(
            f"The device is there and does not calculate ({type(error).__name__}).",
            code="device_fault",
            cure="Check the driver with `nvidia-smi`, and who else uses the memory; or set "
            "`device: cpu`.",
        ) from error
    seconds = time.monotonic() - started
    if kind == "cpu":
        name, memory_mb, free_mb = f"{os.cpu_count() or 1} cores", None, None
    else:
        free, total = torch.cuda.mem_get_info()
        name, memory_mb = torch.cuda.get_device_name(), total // 2**20
        free_mb = free // 2**20
    return DeviceFacts(kind, name, memory_mb, free_mb, is_exact, seconds, torch.__version__)


def _multiplies(device: torch.device) -> bool:
    # Small whole numbers are exact in any arithmetic that a device may choose, TF32 too.
    left = torch.ones((_SIZE, _SIZE), device=device)
    right = torch.full((_SIZE, _SIZE), 2.0, device=device)
    return bool((left @ right == 2.0 * _SIZE).all().item())
