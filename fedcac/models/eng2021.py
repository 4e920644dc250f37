"""The calcium network of Eng et al. 2021 (npj Digital Medicine 4:88, Methods, 'CNN architecture').

An SE-ResNeXt-50 encoder, skip connections at three levels, and a decoder of four blocks, each a
4 x 4 transposed convolution of stride 2 between two 3 x 3 convolutions; one binary calcium head
and one head for the four vessels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.squeeze_and_excitation import SEResNeXtBottleneck
from monai.networks.layers.factories import Norm
from torch import nn

__all__ = ["EngNetwork"]

_EXPANSION = SEResNeXtBottleneck.expansion
_SE_REDUCTION = 16
N_VESSELS = 4
_N_SKIPS = 3
# Channels of the decoder blocks by output stride.
_DECODERS: dict[int, tuple[int, ...]] = {2: (256, 128, 64, 64), 1: (256, 128, 64, 64, 32)}


class EngNetwork(nn.Module):
    """Slice-wise segmentation of calcium and its vessel.

    Input (B, 1, H, W), H and W multiples of 32; output logits (B, 5, H, W): channel 0 calcium,
    channels 1-4 the vessels LM (the paper's LCA), LAD, LCX, RCA.

    Parameters
    ----------
    planes, blocks
        Width and number of bottlenecks of the four encoder stages. (64, 128, 256, 512) and
        (3, 4, 6, 3) are SE-ResNeXt-50; smaller ones make a reduced network of the same family.
    groups, base_width
        Cardinality and width of the grouped convolutions (32 and 4 in SE-ResNeXt-50).
    decoder
        Channels of the decoder blocks: four, or five at output stride 1. The paper does not state
        them.
    output_stride
        Stride of the decoder's last features. 2: the heads' logits are upsampled bilinearly. 1: a
        fifth decoder block gains the last factor 2 before the heads.

    Raises
    ------
    ValueError
        If a count of entries does not fit, or the stride is neither 1 nor 2.

    Notes
    -----
    Ambiguities of the paper: four x2 blocks after an encoder of stride 32 end at stride 2, and how
    the last factor 2 is gained is not said; `output_stride` has both readings. The scale of the
    zero-centred input, the decoder's widths and its normalisation are not said either.
    """

    def __init__(
        self,
        planes: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (3, 4, 6, 3),
        groups: int = 32,
        base_width: int = 4,
        decoder: Sequence[int] | None = None,
        output_stride: int = 2,
    ) -> None:
        super().__init__()
        if output_stride not in _DECODERS:
            raise ValueError("output_stride must be 1 or 2")
        decoder = _DECODERS[output_stride] if decoder is None else decoder
        if len(decoder) != len(_DECODERS[output_stride]):
            raise ValueError("decoder must have four entries, or five at output stride 1")
        if not len(planes) == len(blocks) == 4:
            raise ValueError("planes and blocks must have four entries each")
        self.output_stride = output_stride
        self.stem = nn.Sequential(
            nn.Conv2d(1, planes[0], kernel_size=7, stride=2, padding=3, bias=False),
            _norm(planes[0]),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = planes[0]
        stages = []
        for index, (width, count) in enumerate(zip(planes, blocks, strict=True)):
            stride = 1 if index == 0 else 2
            stages.append(_stage(channels, width, count, groups, base_width, stride))
            channels = width * _EXPANSION
        self.stages = nn.ModuleList(stages)
        skips = [planes[2] * _EXPANSION, planes[1] * _EXPANSION, planes[0] * _EXPANSION, 0, 0]
        ups = []
        for width, skip in zip(decoder, skips, strict=False):
            ups.append(_DecoderBlock(channels, width))
            channels = width + skip
        self.decoder = nn.ModuleList(ups)
        self.heads = nn.Conv2d(channels, 1 + N_VESSELS, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 5, H, W) for images (B, 1, H, W)."""
        features = self.pool(self.stem(images))
        levels = []
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        for index, block in enumerate(self.decoder):
            features = block(features)
            if index < _N_SKIPS:
                features = torch.cat([features, levels[_N_SKIPS - 1 - index]], dim=1)
        logits: torch.Tensor = self.heads(features)
        if self.output_stride == 1:
            return logits
        return nn.functional.interpolate(
            logits, scale_factor=2, mode="bilinear", align_corners=False
        )


class _DecoderBlock(nn.Module):
    """3 x 3 convolution, 4 x 4 transposed convolution of stride 2, 3 x 3 convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            _norm(channels),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False),
            _norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _norm(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(features)
        return output


def _norm(channels: int) -> nn.Module:
    layer: nn.Module = Norm[Norm.BATCH, 2](channels)
    return layer


def _stage(
    in_channels: int, planes: int, count: int, groups: int, base_width: int, stride: int
) -> nn.Sequential:
    out_channels = planes * _EXPANSION
    downsample = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), _norm(out_channels)
    )
    layers = []
    for index in range(count):
        layers.append(
            SEResNeXtBottleneck(
                spatial_dims=2,
                inplanes=in_channels if index == 0 else out_channels,
                planes=planes,
                groups=groups,
                reduction=_SE_REDUCTION,
                stride=stride if index == 0 else 1,
                downsample=downsample if index == 0 else None,
                base_width=base_width,
            )
        )
    return nn.Sequential(*layers)
