"""The inference engine: slices of a volume through a package's network, in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.errors import UsageError
from fedcac.models.package import ModelPackage

__all__ = ["InferenceEngine", "Prediction"]

_STRIDE = 32
_AIR_HU = -1000.0
# Slices per batch: enough to fill a GPU; on a CPU more only costs memory.
_BATCH = {"cuda": 32, "cpu": 4}


@dataclass(frozen=True, eq=False)
class Prediction:
    """The model's mask of one exam.

    `vessel_map` is uint8 of the volume's shape: 0 none, 1 to 4 LM, LAD, LCX, RCA.
    """

    vessel_map: NDArray[np.uint8]
    seconds: float


class InferenceEngine:
    """Runs one package on one device. The same exam gives the same mask on every run.

    The network is fully convolutional and sees slices at their native pixel spacing. Slices that
    hold no voxel over the calcium threshold need no network and are skipped: nothing could be
    scored in them.
    """

    threshold_hu = 130.0

    def __init__(self, package: ModelPackage, *, device: str = "auto") -> None:
        self._package = package
        self.device = _choose_device(device)
        self._batch = _BATCH[self.device.type]
        network = package.network().to(self.device)
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(
        self, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> Prediction:
        """Return the calcium mask of a volume (slices, rows, columns) in Hounsfield units.

        A voxel is calcium where the calcium probability exceeds the package's threshold and the
        voxel reaches 130 HU; its vessel is the most probable one.

        Raises
        ------
        ValueError
            If the volume is not three-dimensional or a spacing is not positive.
        """
        if hu.ndim != 3 or min(spacing_mm) <= 0:
            raise ValueError("hu must be (slices, rows, columns) with positive spacing")
        started = time.monotonic()
        vessel_map = np.zeros(hu.shape, dtype=np.uint8)
        rows, columns = (
            self._window(hu.shape[1], spacing_mm[1]),
            self._window(hu.shape[2], spacing_mm[2]),
        )
        hu, inside = hu[:, rows, columns], vessel_map[:, rows, columns]
        candidates = np.flatnonzero(np.any(hu >= self.threshold_hu, axis=(1, 2)))
        position = 0
        while position < candidates.size:
            indices = candidates[position : position + self._batch]
            try:
                inside[indices] = self._segment(hu[indices])
            except torch.cuda.OutOfMemoryError:
                if self._batch == 1:
                    raise
                self._batch //= 2
                torch.cuda.empty_cache()
                continue
            position += indices.size
        return Prediction(vessel_map=vessel_map, seconds=time.monotonic() - started)

    def _window(self, size: int, pixel_mm: float) -> slice:
        """Return the middle of an axis that the package's field of view covers."""
        field_mm = self._package.manifest.input.field_of_view_mm
        if field_mm is None or size * pixel_mm <= field_mm:
            return slice(0, size)
        # Whole strides, so that nothing is padded.
        width = max(_STRIDE, int(field_mm / pixel_mm) // _STRIDE * _STRIDE)
        start = (size - width) // 2
        return slice(start, start + width)

    def _segment(self, hu: NDArray[np.float32]) -> NDArray[np.uint8]:
        rows, columns = hu.shape[1:]
        padding = ((0, 0), (0, -rows % _STRIDE), (0, -columns % _STRIDE))
        padded = np.pad(hu, padding, constant_values=_AIR_HU) if any(map(sum, padding)) else hu
        slices = torch.from_numpy(np.ascontiguousarray(padded)).to(self.device)
        with torch.inference_mode():
            calcium, vessels = self._package.probabilities(self._network, slices)
            is_calcium = (calcium > self._package.manifest.calcium_threshold) & (
                slices >= self.threshold_hu
            )
            # The vessel matters in the few calcium voxels alone; an arg-max over every voxel of a
            # slice would cost as much as the network.
            image, row, column = is_calcium.nonzero(as_tuple=True)
            label = torch.zeros(slices.shape, dtype=torch.uint8, device=self.device)
            vessel = vessels[image, :, row, column].argmax(dim=1) + 1
            label[image, row, column] = vessel.to(torch.uint8)
        result: NDArray[np.uint8] = label[:, :rows, :columns].cpu().numpy()
        return result


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "No CUDA device is available.",
            code="no_cuda",
            cure="Use device 'auto' or 'cpu', or install the CUDA build of torch and its driver.",
        )
    return torch.device(device)
