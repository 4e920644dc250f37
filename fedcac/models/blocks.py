"""A volume as the blocks a network takes: which slices, which neighbours, which padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedcac.models.family import Family
from fedcac.vocabulary import VESSEL_UNKNOWN

__all__ = ["THRESHOLD_HU", "VolumeBlocks", "label_voxels"]

THRESHOLD_HU = 130.0
"""Calcium is not looked for below this attenuation: no profile would score it."""

_AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class VolumeBlocks:
    """The part of a volume that a network sees.

    Attributes
    ----------
    hu
        Hounsfield units of the field of view, (slices, rows, columns).
    rows, columns
        Where the field of view lies in the volume.
    candidates
        Slices that hold a voxel over the threshold; in the others nothing could be scored.
    """

    hu: NDArray[np.float32]
    rows: slice
    columns: slice
    candidates: NDArray[np.intp]
    family: Family

    @classmethod
    def of(
        cls,
        hu: NDArray[np.float32],
        spacing_mm: tuple[float, float, float],
        family: Family,
        field_of_view_mm: float | None,
    ) -> VolumeBlocks:
        """Cut the field of view out of a volume (slices, rows, columns)."""
        rows, columns = (
            _window(hu.shape[axis], spacing_mm[axis], field_of_view_mm, family.divisor)
            for axis in (1, 2)
        )
        seen = hu[:, rows, columns]
        # A maximum needs no array of Booleans as large as the volume.
        candidates = np.flatnonzero(seen.max(axis=(1, 2), initial=_AIR_HU) >= THRESHOLD_HU)
        return cls(seen, rows, columns, candidates, family)

    def block(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the input for some slices: (B, H, W), or (B, 2 x halo + 1, H, W) for windows.

        H and W are padded with air below and to the right.
        """
        if self.family.halo:
            steps = np.arange(-self.family.halo, self.family.halo + 1)
            indices = np.clip(indices[:, None] + steps, 0, self.hu.shape[0] - 1)
        chosen = self.hu[indices]
        padding = [(0, 0)] * chosen.ndim
        padding[-2:] = [(0, self._missing(size)) for size in chosen.shape[-2:]]
        if not any(after for _, after in padding):
            return np.ascontiguousarray(chosen)
        return np.pad(chosen, padding, constant_values=_AIR_HU)

    def _missing(self, size: int) -> int:
        return max(-size % self.family.divisor, self.family.smallest - size)


def _window(size: int, pixel_mm: float, field_mm: float | None, divisor: int) -> slice:
    """Return the middle of an axis that the field of view covers."""
    if field_mm is None or size * pixel_mm <= field_mm:
        return slice(0, size)
    # Whole strides, so that nothing is padded.
    width = max(divisor, int(field_mm / pixel_mm) // divisor * divisor)
    start = max(0, (size - width) // 2)
    return slice(start, min(size, start + width))


def label_voxels(
    outputs: dict[str, torch.Tensor], hu: torch.Tensor, calcium_threshold: float
) -> torch.Tensor:
    """Return labels uint8 (B, H, W) of slices `hu` (B, H, W): 0 none, the vessel 1 to 4, or 5.

    5 (`VESSEL_UNKNOWN`) stands for coronary calcium where the outputs tell no vessel.
    """
    is_calcium = (outputs["calcium"] > calcium_threshold) & (hu >= THRESHOLD_HU)
    vessels = outputs.get("vessels")
    if vessels is None:
        return is_calcium.to(torch.uint8) * VESSEL_UNKNOWN
    if hu.device.type == "cuda":
        # On a GPU the arg-max costs little, and counting voxels would make the host wait.
        return (vessels.argmax(dim=1) + 1).to(torch.uint8) * is_calcium
    # On a CPU an arg-max over every voxel of a slice would cost as much as the network.
    image, row, column = is_calcium.nonzero(as_tuple=True)
    label = torch.zeros(hu.shape, dtype=torch.uint8, device=hu.device)
    label[image, row, column] = (vessels[image, :, row, column].argmax(dim=1) + 1).to(torch.uint8)
    return label
