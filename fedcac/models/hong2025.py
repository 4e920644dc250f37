"""The radiograph classifiers of Hong et al. 2025 (J Cardiovasc Comput Tomogr 19:331-339).

From a chest radiograph, the probabilities that the coronary calcium score is above 0, at least
100 and at least 400. 'Three models were trained based on the CACS thresholds (0, 100, and 400)'
(abstract, Methods): three networks, each with its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import DenseNet121
from torch import nn

from fedcac.models.radiograph_input import SMALLEST

__all__ = ["THRESHOLDS", "HongNetwork"]

THRESHOLDS = (0, 100, 400)
"""Calcium scores that the three networks tell apart: > 0, >= 100, >= 400, in channel order."""


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
