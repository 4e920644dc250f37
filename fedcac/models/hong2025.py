"""The radiograph classifiers of Hong et al. 2025 (J Cardiovasc Comput Tomogr 19:331-339).

From a chest radiograph, the probabilities that the coronary calcium score is above 0, at least
100 and at least 400. 'Three models were trained based on the CACS thresholds (0, 100, and 400)'
(abstract, Methods): three networks, each with its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets import DenseNet121
from numpy.typing import NDArray
from torch import nn

from fedcac.errors import CohortError

__all__ = ["THRESHOLDS", "HongNetwork", "RadiographInput", "threshold_probabilities"]

THRESHOLDS = (0, 100, 400)
"""Calcium scores that the three networks tell apart: > 0, >= 100, >= 400, in channel order."""

SMALLEST = 32
"""Fewest rows or columns: the stride of a DenseNet."""


class HongNetwork(nn.Module):
    """Three radiograph classifiers side by side, each a DenseNet-121 without pretrained weights.

    Input (B, 1, H, W), as `RadiographInput.prepare` makes it, H and W at least 32; output logits
    (B, 3), of > 0, >= 100 and >= 400. At full width there are 20,845,827 parameters.

    Parameters
    ----------
    init_features, growth_rate, block_config
        Width of the first convolution, channels that each layer adds, and layers of the four
        blocks. (64, 32, (6, 12, 24, 16)) is DenseNet-121; smaller ones make a reduced network.
    dropout_rate
        Share of channels dropped in training; nothing is dropped in evaluation.

    Raises
    ------
    ValueError
        If the parameters do not make such a network.

    Notes
    -----
    Ambiguities: what was read of the paper is its abstract. The backbone, the size and scaling of
    its input, pretraining and augmentation are not stated there and no weights are public; the
    choices here are this project's, and a package made of them is 'after Hong et al. 2025', not a
    reproduction. The three probabilities come from separate networks and need not fall as the
    threshold rises; they are left as they are, because each is judged at its own threshold.

    How the integration models join age, sex and body mass index to the radiograph is not stated
    either. No clinical factor enters this network: the `fusion` analysis fits a logistic model of
    each probability with clinical factors over all sites.
    """

    def __init__(
        self,
        init_features: int = 64,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(block_config) != 4 or min(init_features, growth_rate, *block_config) < 1:
            raise ValueError("four blocks, and positive widths and depths")
        self.classifiers = nn.ModuleList(
            DenseNet121(
                spatial_dims=2,
                in_channels=1,
                out_channels=1,
                init_features=init_features,
                growth_rate=growth_rate,
                block_config=tuple(block_config),
                pretrained=False,
                dropout_prob=dropout_rate,
            )
            for _ in THRESHOLDS
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 3) for radiographs (B, 1, H, W).

        Raises
        ------
        ValueError
            If the images do not have that shape.
        """
        if images.ndim != 4 or images.shape[1] != 1 or min(images.shape[2:]) < SMALLEST:
            raise ValueError(f"images must be (batch, 1, rows, columns), from {SMALLEST} pixels on")
        return torch.cat([classifier(images) for classifier in self.classifiers], dim=1)


def threshold_probabilities(logits: torch.Tensor) -> dict[int, NDArray[np.float64]]:
    """Return, for each threshold, the probability (B,) of a calcium score above it.

    The keys are those of the site table's columns `index_probability_0`, `_100` and `_400`. Logits
    are (B, 3).

    Raises
    ------
    ValueError
        If there are not three logits, or one is not finite.
    """
    if logits.ndim != 2 or logits.shape[1] != len(THRESHOLDS):
        raise ValueError(f"logits must be (batch, {len(THRESHOLDS)})")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("a logit is not finite")
    # In double precision, so that high logits keep their order.
    columns = torch.sigmoid(logits.detach().double()).cpu().numpy().T
    return dict(zip(THRESHOLDS, columns, strict=True))


@dataclass(frozen=True)
class RadiographInput:
    """How a radiograph becomes network input.

    The radiograph is shrunk or enlarged until it just fits in `rows` x `columns`, its aspect kept,
    and stands in the middle; the rest is 0, as dark as its darkest part. Its own percentiles `low`
    and `high` become 0 and 1, and values beyond them are cut.

    The paper's abstract says nothing of this. Percentiles, not the extremes, because markers and
    collimator edges are the extremes; of the image itself, because the stored values of
    radiographs have no unit. Pixels are taken as square: a radiograph whose
    PixelAspectRatio (0028,0034) is not 1:1 has to be resampled first.
    """

    rows: int = 512
    columns: int = 512
    low: float = 1.0
    high: float = 99.0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < SMALLEST or not 0 <= self.low < self.high <= 100:
            raise ValueError("rows and columns from 32 on, and percentiles that rise")

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
        low, high = np.percentile(image, (self.low, self.high))
        if not high > low:
            raise CohortError(
                "The radiograph has no contrast.",
                code="inference_failed",
                cure="Look at the image; name another one of the patient, or leave the exam out.",
            )
        scaled = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
        return self._fit(torch.from_numpy(scaled)[None, None])

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
