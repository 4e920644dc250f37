"""The calcium network of AI-CAC: a Swin UNETR over the slices of a non-gated chest CT.

Source: Hagopian et al., NEJM AI 2025 (10.1056/AIoa2400937) and the code and weights published with
it under the MIT licence: MONAI's `SwinUNETR` in two dimensions, one channel in, one logit out.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinUNETR, compute_mask, get_window_size
from torch import nn

__all__ = ["PUBLISHED_ARCHITECTURE", "PUBLISHED_INPUT", "SwinUNETRNetwork"]

STRIDE = 32
"""A slice's rows and columns are multiples of this many pixels."""

SMALLEST = 64
"""Fewest rows or columns: instance normalisation needs two pixels at the coarsest level."""

PUBLISHED_ARCHITECTURE: MappingProxyType[str, Any] = MappingProxyType({"feature_size": 96})
"""What differs from MONAI's defaults in the published weights."""

PUBLISHED_INPUT: MappingProxyType[str, Any] = MappingProxyType(
    {"clip_hu": [-32768.0, 32767.0], "centre_hu": 0.0, "scale_hu": 1.0}
)
"""The published weights take Hounsfield units as stored in 16 bits, not clipped and not scaled."""


class SwinUNETRNetwork(nn.Module):
    """Slice-wise segmentation of coronary calcium, without vessels.

    Input (B, 1, H, W), Hounsfield units as `PUBLISHED_INPUT` says, H and W multiples of 32 and at
    least 64; output logits (B, 1, H, W). Calcium is where the logit is above 0, a probability
    above 0.5. With the published width, 96, there are 100,455,595 parameters.

    Parameters
    ----------
    feature_size
        Channels of the first level; a multiple of 12.
    depths, num_heads
        Blocks and attention heads of the four levels.
    window_size
        Pixels along the side of an attention window.
    drop_rate
        Share of tokens dropped in training, 0.2 there; nothing is dropped in evaluation.

    Raises
    ------
    ValueError
        If the parameters do not make such a network.

    Notes
    -----
    Instance normalisation and attention see the whole slice, so a cropped slice gives another mask
    even inside the crop: a package of this family should leave `field_of_view_mm` unset. Slices do
    not see each other, and the size of the batch changes nothing.

    Ambiguities: the published inference crops a slice that is not 512 x 512 about its middle or
    pads it with 0 HU, which is water and not air; here a slice keeps its size. Its score counts
    3-D objects by their 3-D peak, times SliceThickness / 3 mm, without asking for 130 HU in each
    voxel, and therefore differs from an Agatston score of the same mask. It was trained on whole
    fields of view and saw no gated exam.
    """

    def __init__(
        self,
        feature_size: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__()
        if not len(depths) == len(num_heads) == 4:
            raise ValueError("depths and num_heads must have four entries each")
        if min(feature_size, window_size, *depths, *num_heads) < 1:
            raise ValueError("widths, depths, heads and the window must be positive")
        if any(feature_size * 2**level % heads for level, heads in enumerate(num_heads)):
            raise ValueError("the heads of a level must divide its channels")
        self.network = SwinUNETR(
            in_channels=1,
            out_channels=1,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            feature_size=feature_size,
            drop_rate=drop_rate,
            spatial_dims=2,
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 1, H, W) for images (B, 1, H, W).

        Raises
        ------
        ValueError
            If the images do not have that shape.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError("images must be (batch, 1, rows, columns)")
        if any(size % STRIDE or size < SMALLEST for size in images.shape[2:]):
            raise ValueError(f"rows and columns must be multiples of {STRIDE}, from {SMALLEST} on")
        network = self.network
        levels = _levels(network.swinViT, images)
        features = network.encoder10(levels[4])
        features = network.decoder5(features, levels[3])
        features = network.decoder4(features, network.encoder4(levels[2]))
        features = network.decoder3(features, network.encoder3(levels[1]))
        features = network.decoder2(features, network.encoder2(levels[0]))
        logits: torch.Tensor = network.out(network.decoder1(features, network.encoder1(images)))
        return logits


def _levels(transformer: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the features (B, C, H, W) at /2, /4, /8, /16 and /32, normalised over channels.

    MONAI's own forward pass orders axes by `einops`, which nothing else here needs.
    """
    features = transformer.pos_drop(transformer.patch_embed(images)).permute(0, 2, 3, 1)
    levels = [features]
    for stage in (
        transformer.layers1,
        transformer.layers2,
        transformer.layers3,
        transformer.layers4,
    ):
        for layer in stage:
            features = _attend(layer, features)
        levels.append(features)
    return [
        nn.functional.layer_norm(level, level.shape[-1:]).permute(0, 3, 1, 2) for level in levels
    ]


def _attend(layer: Any, features: torch.Tensor) -> torch.Tensor:
    """Return features (B, H, W, C) after a stage's blocks: (B, H / 2, W / 2, 2 C)."""
    size = tuple(features.shape[1:3])
    window, shift = get_window_size(size, layer.window_size, layer.shift_size)
    whole_windows = [-(-pixels // side) * side for pixels, side in zip(size, window, strict=True)]
    mask = compute_mask(whole_windows, window, shift, features.device)
    for block in layer.blocks:
        features = block(features, mask)
    merged: torch.Tensor = layer.downsample(features)
    return merged
