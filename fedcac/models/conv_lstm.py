"""Convolutional LSTM, and a segmentation network that reads a slice with its neighbours through it.

The recurrence is that of Shi et al. 2015 (NIPS 28, Section 3.1, equation 3): hidden and cell state
of every pixel, gates that are convolutions over input and hidden state. It carries what it saw in
one slice on to the next. The network is one half of the cascade of Miller 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.densenet import DenseNet
from torch import nn

__all__ = ["ConvLstm", "ConvLstmCell", "ConvLstmSegmenter", "Merge"]

Merge = Literal["sum", "maximum"]
"""How a segmenter merges what the sequence says with what the slice says."""

State = tuple[torch.Tensor, torch.Tensor]

_N_GATES = 4


class ConvLstmCell(nn.Module):
    """One step of a convolutional LSTM.

    With * a convolution and o a product by element, from input X, hidden state H and cell state C::

        I = sigmoid(W_xi * X + W_hi * H + b_i)        input gate
        F = sigmoid(W_xf * X + W_hf * H + b_f)        forget gate
        O = sigmoid(W_xo * X + W_ho * H + b_o)        output gate
        C' = F o C + I o tanh(W_xc * X + W_hc * H + b_c)
        H' = O o tanh(C')

    The eight kernels are one convolution of the stacked (X, H), its outputs in the order I, F, O,
    candidate. Outside the image X and H are zero.

    Parameters
    ----------
    in_channels, hidden
        Channels of the input and of both states.
    kernel_size
        Side of every kernel in pixels; odd, so that a state keeps the image's size.

    Notes
    -----
    Shi's equation 3 adds peepholes W_c o C to the gates. Those weights have the image's size and
    would tie a network to one matrix; they are left out here, as in the networks of Miller 2023.

    Raises
    ------
    ValueError
        If `kernel_size` is even or a count is not positive.
    """

    def __init__(self, in_channels: int, hidden: int, kernel_size: int = 3) -> None:
        super().__init__()
        if min(in_channels, hidden, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ValueError("channels must be positive and kernel_size odd")
        self.hidden = hidden
        self.gates = nn.Conv2d(
            in_channels + hidden, _N_GATES * hidden, kernel_size, padding=kernel_size // 2
        )
        nn.init.xavier_normal_(self.gates.weight)

    def forward(self, features: torch.Tensor, state: State | None = None) -> State:
        """Return hidden and cell state, each (B, hidden, H, W), after one more slice.

        `features` is (B, in_channels, H, W); without a `state` both states begin at zero.
        """
        if state is None:
            zero = features.new_zeros(features.shape[0], self.hidden, *features.shape[2:])
            state = (zero, zero)
        hidden, cell = state
        stacked = self.gates(torch.cat([features, hidden], dim=1))
        enter, keep, emit, candidate = stacked.chunk(_N_GATES, dim=1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(emit) * torch.tanh(cell), cell


class ConvLstm(nn.Module):
    """Stacked convolutional LSTM cells over a sequence of slices.

    Parameters
    ----------
    in_channels, hidden, kernel_size
        As for a cell; every layer after the first reads `hidden` channels.
    layers
        How many cells lie on top of each other.

    Raises
    ------
    ValueError
        If `layers` is not positive, or as for a cell.
    """

    def __init__(
        self, in_channels: int, hidden: int, layers: int = 1, kernel_size: int = 3
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError("layers must be positive")
        self.cells = nn.ModuleList(
            ConvLstmCell(in_channels if index == 0 else hidden, hidden, kernel_size)
            for index in range(layers)
        )

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the top layer's hidden state (B, hidden, H, W) after the last slice.

        `sequence` is (B, D, in_channels, H, W), read from its first slice to its last.
        """
        states: list[State | None] = [None] * len(self.cells)
        for features in sequence.unbind(dim=1):
            for index, cell in enumerate(self.cells):
                hidden, memory = cell(features, states[index])
                states[index] = (hidden, memory)
                features = hidden
        return features


class ConvLstmSegmenter(nn.Module):
    """One network of the cascade: windows (B, D, H, W) -> logits (B, n_classes, H, W).

    With s the logits from the sequence, m those from the middle slice and a in (0, 1) the
    attention, per class and pixel: logits = (1 - a) s + a m, or the larger of the two terms.

    Parameters
    ----------
    n_classes
        Classes, background first.
    lstm
        Hidden channels and layers of the convolutional LSTM.
    trunk
        First width, growth rate and layers per dense block.
    merge
        'sum' or 'maximum' of the two weighted results.

    Raises
    ------
    ValueError
        If `trunk` has no dense block, a count is not positive or `merge` is unknown.
    """

    def __init__(
        self,
        n_classes: int,
        lstm: tuple[int, int],
        trunk: tuple[int, int, tuple[int, ...]],
        merge: Merge,
    ) -> None:
        super().__init__()
        init_features, growth_rate, blocks = trunk
        if merge not in ("sum", "maximum"):
            raise ValueError("merge must be 'sum' or 'maximum'")
        if not blocks or min(init_features, growth_rate, *blocks) < 1:
            raise ValueError("a trunk needs a dense block, and every width must be positive")
        self._takes_maximum = merge == "maximum"
        # The first convolution and its pooling halve twice, every transition once more.
        self.stride = 4 * 2 ** (len(blocks) - 1)
        hidden, layers = lstm
        self.sequence = ConvLstm(1, hidden, layers)
        self.sequence_head = _head(hidden, n_classes)
        self.attention = _head(hidden, n_classes)
        self.trunk, channels = _trunk(init_features, growth_rate, blocks)
        self.slice_head = _head(channels, n_classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return logits (B, n_classes, H, W) of the middle slice of windows (B, D, H, W).

        Raises
        ------
        ValueError
            If H or W is not a multiple of `stride`.
        """
        if windows.shape[2] % self.stride or windows.shape[3] % self.stride:
            raise ValueError(f"rows and columns must be multiples of {self.stride}")
        state = self.sequence(windows[:, :, None])
        attention = torch.sigmoid(self.attention(state))
        middle = windows.shape[1] // 2
        of_slice = nn.functional.interpolate(
            self.slice_head(self.trunk(windows[:, middle, None])),
            size=windows.shape[2:],
            mode="bilinear",
            align_corners=False,
        )
        from_sequence = (1 - attention) * self.sequence_head(state)
        from_slice = attention * of_slice
        if self._takes_maximum:
            return torch.maximum(from_sequence, from_slice)
        logits: torch.Tensor = from_sequence + from_slice
        return logits


def _head(channels: int, n_classes: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with batch norm and leaky ReLU, and a 1 x 1 convolution."""
    leaky = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})
    layers: list[nn.Module] = [
        Convolution(2, channels, channels, kernel_size=3, act=leaky, norm="batch", bias=False)
        for _ in range(2)
    ]
    layers.append(nn.Conv2d(channels, n_classes, kernel_size=1, bias=False))
    head = nn.Sequential(*layers)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
    return head


def _trunk(
    init_features: int, growth_rate: int, blocks: tuple[int, ...]
) -> tuple[nn.Sequential, int]:
    """Return a DenseNet's layers up to its last dense block, and how many channels leave it."""
    features = DenseNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        init_features=init_features,
        growth_rate=growth_rate,
        block_config=blocks,
    ).features
    layers = OrderedDict(features.named_children())
    del layers["norm5"]
    channels = init_features
    for index, n_layers in enumerate(blocks):
        # A transition before every block but the first halves the channels.
        channels = (channels if index == 0 else channels // 2) + n_layers * growth_rate
    return nn.Sequential(layers), channels
