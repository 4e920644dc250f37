"""The ConvLSTM cascade of Miller et al. 2023 (J Nucl Med 64:652-658), after Pieszko et al. 2022.

Two networks of one design, one for the heart's silhouette and one for calcium. Each reads a slice
with its neighbours: a convolutional LSTM over the sequence, and a truncated DenseNet-121 over the
slice of interest alone. Attention computed from the sequence weighs the two results per pixel. The
heart's mask is applied to the calcium at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from fedcac.models.conv_lstm import ConvLstmSegmenter, Merge

__all__ = [
    "HEART_THRESHOLD",
    "MillerLogits",
    "MillerNetwork",
    "MillerOutput",
]

N_HEART_CLASSES = 2
"""Background, heart."""

N_CALCIUM_CLASSES = 3
"""Background, coronary calcium, non-coronary calcium."""

HEART_THRESHOLD = 0.5
"""A voxel is heart above this probability: the arg-max of two classes (Figure 1)."""


class MillerLogits(NamedTuple):
    """Logits of one batch for the slices of interest.

    `heart` is (B, 2, H, W): background, heart. `calcium` is (B, 3, H, W): background, coronary,
    non-coronary calcium. A softmax over the second axis makes probabilities of each.
    """

    heart: torch.Tensor
    calcium: torch.Tensor


@dataclass(frozen=True, eq=False)
class MillerOutput:
    """Probabilities of every voxel, each float32 of shape (B, H, W); B slices of interest.

    `coronary` and `non_coronary` are zero outside the heart's mask; `heart` is not masked.
    """

    heart: torch.Tensor
    coronary: torch.Tensor
    non_coronary: torch.Tensor


class MillerNetwork(nn.Module):
    """Both networks of the cascade, for one window of slices.

    Input (B, D, H, W): D = `window` consecutive slices in the order of the volume, H and W
    multiples of `stride` (8 at full width). Output `MillerLogits` of the middle slice alone: the
    paper gives the neighbours as context and scores the slice of interest, and a voxel scored once
    needs no rule that merges overlapping windows.

    Parameters
    ----------
    window
        Slices per window, odd; 3 in the paper ('Model Architecture': 3 slices to both).
    hidden, lstm_layers
        Channels and layers of the convolutional LSTM.
    init_features, growth_rate, blocks
        Width of the first convolution, growth, and layers per dense block of the trunk. (6, 12)
        are the first two blocks of DenseNet-121. Smaller ones make a reduced network of the same
        family.
    calcium_merge
        How the calcium network merges its two weighted results: by their 'maximum' or their 'sum'.

    Notes
    -----
    Measured at full width: 12,029,302 parameters (6,014,392 heart, 6,014,910 calcium); 120.7 GFLOP
    for both networks per 512 x 512 slice of a window of 3, a multiply-add counted as two.

    Sources: 'Model Architecture' in the paper and in its Supplement state the cascade, three
    slices, the attention-weighted combination, the softmax over background, coronary and
    non-coronary calcium, and the mask. They state no layer and no width; those are facts of the
    baseline the authors published later (github.com/qimagingAI/CLSTM_CAC, its model definition and
    figure). Training data, weights and preprocessing are not public, so this is a network after
    that description and no reproduction of the model that was evaluated.

    Ambiguities, and how they are read:

    - Trunk: the authors' figure shows one dense block, their definition keeps two. Two; `blocks` =
      (6,) gives the figure's.
    - Merging: text and figure add the weighted results; the definition adds for the heart and
      takes the maximum for calcium. As the definition; `calcium_merge` = 'sum' gives the text's.
    - Direction of the sequence: not said. The volume's own order, from its first slice on; weights
      are bound to it.
    - Upsampling of the trunk's logits is bilinear with pixel centres aligned. The definition aligns
      corners, but then a feature's place depends on the size of the matrix, hence on padding.
    - Whether the trunk was pretrained, and the scale of the input, are not said. The package's
      manifest holds the scale; the slice's spacing is native.
    - Only the final prediction is masked by the heart; the calcium network sees whole slices.

    Raises
    ------
    ValueError
        If `window` is even, `blocks` is empty, a count is not positive or a merge is unknown.
    """

    def __init__(
        self,
        window: int = 3,
        hidden: int = 3,
        lstm_layers: int = 2,
        init_features: int = 64,
        growth_rate: int = 32,
        blocks: Sequence[int] = (6, 12),
        calcium_merge: Merge = "maximum",
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError("window must be odd, so that it has a middle slice")
        self.window = window
        lstm, trunk = (hidden, lstm_layers), (init_features, growth_rate, tuple(blocks))
        self.heart = ConvLstmSegmenter(N_HEART_CLASSES, lstm, trunk, "sum")
        self.calcium = ConvLstmSegmenter(N_CALCIUM_CLASSES, lstm, trunk, calcium_merge)
        self.stride = self.heart.stride

    def forward(self, windows: torch.Tensor) -> MillerLogits:
        """Return the logits of the middle slice of windows (B, D, H, W).

        Raises
        ------
        ValueError
            If D is not `window`, or H or W is not a multiple of `stride`.
        """
        self._check_windows(windows)
        return MillerLogits(self.heart(windows), self.calcium(windows))

    def probabilities(self, windows: torch.Tensor) -> MillerOutput:
        """Return the probabilities (B, H, W) of the middle slices, calcium masked by the heart.

        The mask is the heart's probability above `HEART_THRESHOLD`, without morphology: the paper
        names none. The calcium network, half of the cost, runs only on slices where the mask is
        not empty, which changes no value. `windows` as for the forward pass, whose errors are
        raised here too.
        """
        self._check_windows(windows)
        heart = self.heart(windows).float().softmax(dim=1)[:, 1]
        is_heart = heart > HEART_THRESHOLD
        is_seen = is_heart.flatten(1).any(dim=1)
        calcium = heart.new_zeros(2, *heart.shape)
        if bool(is_seen.any()):
            probability = self.calcium(windows[is_seen]).float().softmax(dim=1)
            calcium[:, is_seen] = probability[:, 1:].transpose(0, 1)
        coronary, non_coronary = calcium * is_heart
        return MillerOutput(heart=heart, coronary=coronary, non_coronary=non_coronary)

    def _check_windows(self, windows: torch.Tensor) -> None:
        if windows.ndim != 4 or windows.shape[1] != self.window:
            raise ValueError(f"windows must be (B, {self.window}, H, W)")
