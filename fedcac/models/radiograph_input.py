"""How a radiograph becomes the input of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.errors import CohortError

__all__ = ["SMALLEST", "RadiographInput"]

SMALLEST = 32
"""Fewest rows or columns: the stride of a DenseNet."""

# No radiograph has more pixels to a side, and a package may not make a site run out of memory.
_LARGEST = 4096


@dataclass(frozen=True)
class RadiographInput:
    """How a radiograph becomes network input.

    The radiograph is shrunk or enlarged until it just fits in `rows` x `columns`, its aspect kept,
    and stands in the middle; the rest is 0, as dark as its darkest part. Its own percentiles `low`
    and `high` become 0 and 1, and values beyond them are cut.

    The abstract of Hong et al. 2025 says nothing of this. Percentiles, not the extremes, because
    markers and collimator edges are the extremes; of the image itself, because the stored values of
    radiographs have no unit. Pixels are taken as square: a radiograph whose PixelAspectRatio
    (0028,0034) is not 1:1 has to be resampled first.
    """

    rows: int = 512
    columns: int = 512
    low: float = 1.0
    high: float = 99.0

    def __post_init__(self) -> None:
        sides = (self.rows, self.columns)
        is_size = all(type(side) is int and SMALLEST <= side <= _LARGEST for side in sides)
        if not is_size or not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"rows and columns from {SMALLEST} to {_LARGEST}, and percentiles that rise"
            )

    def prepare(self, pixels: NDArray[np.floating] | NDArray[np.integer]) -> torch.Tensor:
        """Return a radiograph (rows, columns) as network input (1, 1, R, C), float32 in [0, 1].

        `pixels` rise with attenuation, as in MONOCHROME2 (PS3.3 C.7.6.3.1.2): bone is bright. What
        a MONOCHROME1 object stores has been inverted before.

        Raises
        ------
        ValueError
            If there are not two dimensions, or a pixel is not a finite number.
        CohortError
            `inference_failed` if the radiograph has no contrast to scale.
        """
        image = np.asarray(pixels, dtype=np.float64)
        if image.ndim != 2 or not image.size or not bool(np.isfinite(image).all()):
            raise ValueError("a radiograph must be (rows, columns) of finite numbers")
        low, high = self._range(image)
        if not high > low:
            raise CohortError(
                "The radiograph has no contrast.",
                code="inference_failed",
                cure="Look at the image; name another one of the patient, or leave the exam out.",
            )
        scaled = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
        return self._fit(torch.from_numpy(scaled)[None, None])

    def has_contrast(self, pixels: NDArray[np.floating] | NDArray[np.integer]) -> bool:
        """Say whether there is anything to see between the percentiles of a radiograph."""
        low, high = self._range(pixels)
        return bool(high > low)

    def _range(self, pixels: NDArray[Any]) -> tuple[float, float]:
        low, high = np.percentile(pixels, (self.low, self.high))
        return float(low), float(high)

    def _fit(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        factor = min(self.rows / height, self.columns / width)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        if size != (height, width):
            # Without the filter, thin lines of a large radiograph vanish or flicker.
            image = nn.functional.interpolate(
                image, size=size, mode="bilinear", antialias=True, align_corners=False
            ).clamp(0, 1)
        above, left = (self.rows - size[0]) // 2, (self.columns - size[1]) // 2
        padding = (left, self.columns - size[1] - left, above, self.rows - size[0] - above)
        return nn.functional.pad(image, padding)
