"""The ConvLSTM cascade: its equations, its context and its mask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedcac.models.conv_lstm import ConvLstm, ConvLstmCell, ConvLstmSegmenter
from fedcac.models.miller2023 import MillerNetwork, MillerOutput
from fedcac.training.miller2023 import focal_loss

TINY: dict[str, Any] = {
    "hidden": 2,
    "lstm_layers": 2,
    "init_features": 4,
    "growth_rate": 3,
    "blocks": [1, 2],
}
Floats = NDArray[np.float64]


def tiny_network(seed: int = 0, **changes: Any) -> MillerNetwork:
    """A reduced network whose batch normalisation holds the statistics of noise."""
    torch.manual_seed(seed)
    network = MillerNetwork(**(TINY | changes))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(2, network.window, 32, 32))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def logistic(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def correlate(image: Floats, kernel: Floats) -> Floats:
    """One image (H, W) under one odd kernel, zeros outside."""
    half = kernel.shape[0] // 2
    padded = np.pad(image, half)
    out = np.zeros_like(image)
    for row, column in np.ndindex(*image.shape):
        patch = padded[row : row + kernel.shape[0], column : column + kernel.shape[1]]
        out[row, column] = (patch * kernel).sum()
    return out


def shi_equations(sequence: Floats, weight: Floats, bias: Floats, hidden: int) -> list[Floats]:
    """Equation 3 of Shi et al. 2015 without peepholes; returns H and C after the last step.

    `sequence` (D, C, H, W); `weight` (4 hidden, C + hidden, k, k) in the order I, F, O, candidate.
    """
    n_inputs = sequence.shape[1]
    h = np.zeros((hidden, *sequence.shape[2:]))
    c = np.zeros_like(h)
    for x in sequence:
        gates = np.zeros((4, *h.shape))
        for gate, unit in np.ndindex(4, hidden):
            kernels = weight[gate * hidden + unit]
            from_x = sum(correlate(x[i], kernels[i]) for i in range(n_inputs))
            from_h = sum(correlate(h[j], kernels[n_inputs + j]) for j in range(hidden))
            gates[gate, unit] = from_x + from_h + bias[gate * hidden + unit]
        enter, keep, emit = (logistic(gates[gate]) for gate in range(3))
        c = keep * c + enter * np.tanh(gates[3])
        h = emit * np.tanh(c)
    return [h, c]


@pytest.mark.parametrize(("n_inputs", "hidden", "kernel_size"), [(1, 3, 3), (2, 2, 5), (3, 1, 1)])
def test_the_cell_follows_the_equations(n_inputs: int, hidden: int, kernel_size: int) -> None:
    torch.manual_seed(1)
    cell = ConvLstmCell(n_inputs, hidden, kernel_size).double()
    sequence = torch.randn(4, n_inputs, 6, 5, dtype=torch.float64)
    state = None
    with torch.no_grad():
        for features in sequence:
            state = cell(features[None], state)
    expected = shi_equations(
        sequence.numpy(),
        cell.gates.weight.detach().numpy(),
        cell.gates.bias.detach().numpy(),
        hidden,
    )
    assert state is not None
    for ours, oracle in zip(state, expected, strict=True):
        np.testing.assert_allclose(ours[0].numpy(), oracle, atol=1e-12)


def test_layers_read_the_hidden_states_below() -> None:
    torch.manual_seed(2)
    lstm = ConvLstm(1, 2, layers=2).double()
    sequence = torch.randn(3, 1, 5, 4, dtype=torch.float64)
    lower, upper = (cast("ConvLstmCell", cell).gates for cell in lstm.cells)
    below = np.stack(
        [
            shi_equations(
                sequence[: step + 1].numpy(),
                lower.weight.detach().numpy(),
                lower.bias.detach().numpy(),
                2,
            )[0]
            for step in range(3)
        ]
    )
    top = shi_equations(below, upper.weight.detach().numpy(), upper.bias.detach().numpy(), 2)[0]
    with torch.no_grad():
        np.testing.assert_allclose(lstm(sequence[None])[0].numpy(), top, atol=1e-12)


@pytest.mark.parametrize("arguments", [(0, 1, 3), (1, 0, 3), (1, 1, 2)])
def test_a_cell_refuses_impossible_sizes(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="kernel_size odd"):
        ConvLstmCell(*arguments)


@pytest.mark.parametrize(
    ("changes", "stride"),
    [
        ({}, 8),
        ({"blocks": [2]}, 4),
        ({"blocks": [1, 1, 1], "init_features": 5}, 16),
        ({"window": 5, "hidden": 1, "lstm_layers": 1}, 8),
        ({"window": 1, "calcium_merge": "sum"}, 8),
    ],
)
def test_logits_have_the_shape_of_the_slice(changes: dict[str, Any], stride: int) -> None:
    network = tiny_network(**changes)
    assert network.stride == stride
    with torch.inference_mode():
        logits = network(torch.randn(2, network.window, 2 * stride, stride))
    assert logits.heart.shape == (2, 2, 2 * stride, stride)
    assert logits.calcium.shape == (2, 3, 2 * stride, stride)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 2},
        {"window": 0},
        {"blocks": []},
        {"blocks": [0]},
        {"hidden": 0},
        {"lstm_layers": 0},
        {"calcium_merge": "product"},
    ],
)
def test_parameters_that_make_no_network(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        MillerNetwork(**(TINY | wrong))


@pytest.mark.parametrize("shape", [(1, 5, 16, 16), (1, 3, 16, 12), (1, 3, 9, 16), (3, 16, 16)])
def test_windows_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        tiny_network()(torch.zeros(shape))


def test_the_two_results_are_merged_by_attention() -> None:
    network = tiny_network(4)
    window = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        for part, merge in ((network.heart, torch.add), (network.calcium, torch.maximum)):
            state = part.sequence(window[:, :, None])
            attention = 1 / (1 + torch.exp(-part.attention(state)))
            coarse = part.slice_head(part.trunk(window[:, 1:2]))
            fine = nn.Upsample(scale_factor=8, mode="bilinear")(coarse)
            expected = merge((1 - attention) * part.sequence_head(state), attention * fine)
            torch.testing.assert_close(part(window), expected)
        summed = tiny_network(4, calcium_merge="sum")
        assert not torch.allclose(summed(window).calcium, network(window).calcium)


def test_neighbours_and_their_order_matter() -> None:
    network = tiny_network(5)
    window = torch.randn(1, 3, 16, 16)
    reversed_ = window.flip(1)
    shuffled = window.clone()
    shuffled[0, 0] = window[0, 0].flatten()[torch.randperm(256)].reshape(16, 16)
    with torch.inference_mode():
        plain, backwards, other = network(window), network(reversed_), network(shuffled)
    for logits, changed in (*zip(plain, backwards, strict=True), *zip(plain, other, strict=True)):
        assert (logits - changed).abs().max() > 1e-3


def by_hand(network: MillerNetwork, windows: torch.Tensor) -> list[torch.Tensor]:
    """Heart, masked coronary and masked non-coronary, from the logits of one window at a time."""
    slices = []
    with torch.inference_mode():
        for window in windows:
            logits = network(window[None])
            heart = torch.softmax(logits.heart, 1)[0, 1]
            calcium = torch.softmax(logits.calcium, 1)[0, 1:]
            slices.append(torch.stack([heart, *(calcium * (heart > 0.5))]))
    return list(torch.stack(slices, dim=1))


@pytest.mark.parametrize(("window", "size"), [(3, (16, 16)), (3, (8, 24)), (5, (16, 8))])
def test_windows_of_a_batch_are_answered_one_by_one(window: int, size: tuple[int, int]) -> None:
    network = tiny_network(7, window=window)
    torch.manual_seed(8)
    windows = torch.randn(4, window, *size)
    with torch.inference_mode():
        output = network.probabilities(windows)
    for ours, oracle in zip(_parts(output), by_hand(network, windows), strict=True):
        assert ours.shape == (4, *size)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, oracle, atol=1e-5, rtol=0)


def test_the_mask_is_zero_outside_the_heart_and_changes_nothing_within() -> None:
    network = tiny_network(9)
    windows = torch.randn(4, 3, 24, 24)
    with torch.inference_mode():
        masked = network.probabilities(windows)
        free = torch.softmax(network(windows).calcium, 1)
    is_heart = masked.heart > 0.5
    assert 0 < is_heart.float().mean() < 1
    for part, whole in ((masked.coronary, free[:, 1]), (masked.non_coronary, free[:, 2])):
        assert (whole[~is_heart] > 0).all()
        assert (part[~is_heart] == 0).all()
        torch.testing.assert_close(part[is_heart], whole[is_heart])
    total = masked.coronary + masked.non_coronary
    assert (total >= 0).all()
    assert (total <= 1 + 1e-6).all()


def test_a_window_without_a_heart_has_no_calcium() -> None:
    network = tiny_network(10)
    with torch.no_grad():
        cast("nn.Conv2d", network.heart.sequence_head[2]).weight.zero_()
        cast("nn.Conv2d", network.heart.slice_head[2]).weight.zero_()
        output = network.probabilities(torch.randn(3, 3, 16, 16))
    torch.testing.assert_close(output.heart, torch.full((3, 16, 16), 0.5))
    assert not output.coronary.any()
    assert not output.non_coronary.any()


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 5, 16, 16), (1, 3, 16, 15)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        tiny_network().probabilities(torch.zeros(shape))


@pytest.mark.parametrize("merge", ["sum", "maximum"])
def test_every_parameter_learns(merge: str) -> None:
    network = tiny_network(14, calcium_merge=merge).train()
    torch.manual_seed(15)
    heart = torch.randint(0, 2, (2, 24, 24))
    calcium = torch.randint(0, 3, (2, 24, 24))
    logits = network(torch.randn(2, 3, 24, 24))
    loss = focal_loss(logits.heart, heart, 0.0) + focal_loss(logits.calcium, calcium, 2.0)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_tiny_network_learns_one_window_by_heart() -> None:
    torch.manual_seed(3)
    window = 0.1 * torch.randn(1, 3, 16, 16)
    window[:, :, 3:15, 3:15] += 0.5
    calcium = torch.zeros(1, 16, 16, dtype=torch.long)
    # The same brightness everywhere: only the place tells one kind of calcium from the other.
    for row, column, label in ((4, 4, 1), (5, 11, 1), (11, 10, 2), (0, 0, 0)):
        window[:, :, row : row + 2, column : column + 2] = 2.0
        calcium[:, row : row + 2, column : column + 2] = label
    network = ConvLstmSegmenter(3, (6, 1), (4, 4, (1,)), "maximum")
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-2)
    for _ in range(80):
        logits = network(window)
        if torch.equal(logits.argmax(1), calcium):
            return
        loss = focal_loss(logits, calcium, 2.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail("one window of 16 x 16 is not learnt in 80 steps")


def test_weights_survive_safetensors(tmp_path: Path) -> None:
    network = tiny_network(17)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = tiny_network(18)
    windows = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected = network(windows)
        assert not torch.equal(other(windows).heart, expected.heart)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
        for ours, reference in zip(other(windows), expected, strict=True):
            assert torch.equal(ours, reference)


def test_the_stated_size_of_the_full_network() -> None:
    """On the meta device: shapes and counts without memory or arithmetic."""
    with torch.device("meta"):
        network = MillerNetwork()
        counter = FlopCounterMode(display=False)
        with counter:
            network.eval()(torch.empty(1, 3, 512, 512))
    counts = [
        sum(parameter.numel() for parameter in part.parameters())
        for part in (network, network.heart, network.calcium)
    ]
    stated = re.search(
        r"([\d,]+) parameters \(([\d,]+) heart, ([\d,]+) calcium\); ([\d.]+) GFLOP",
        MillerNetwork.__doc__ or "",
    )
    assert stated is not None
    assert counts == [int(count.replace(",", "")) for count in stated.groups()[:3]]
    assert f"{counter.get_total_flops() / 1e9:.1f}" == stated[4]


def _parts(output: MillerOutput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return output.heart, output.coronary, output.non_coronary
