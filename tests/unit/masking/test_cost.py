"""The cost that the documentation states is the cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcac.canonical import canonical_bytes
from fedcac.masking.messages import MaskingMessage

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "secure-sums.md"
ROWS = {
    numbers[0]: numbers
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if len(numbers := [int(word) for word in re.findall(r"(?<=\| )\d+(?= \|)", line)]) == 9
}


def size(message: MaskingMessage) -> int:
    return len(canonical_bytes(message.to_document()))


@pytest.mark.parametrize("n_sites", [3, 10, 50])
def test_bytes_per_exchange(make_round: Callable[..., Any], n_sites: int) -> None:
    _, threshold, keys, masked, signature, shares, sent, received, everything = ROWS[n_sites]
    group = make_round(n_sites, threshold=threshold)
    block = group.block(66)
    prepared = [site.prepare(1) for site in group.sites.values()]
    opened = group.coordinator.open(1, prepared, [block])
    deliveries = opened.deliveries()
    inputs = [
        site.mask(deliveries[name], {"cox": [1.0] * 66}) for name, site in group.sites.items()
    ]
    survivors = opened.close(inputs)
    signatures = [site.sign_survivors(survivors) for site in group.sites.values()]
    request = opened.certify(signatures)
    answer = group.sites["site000"].unmask(request)
    up = [size(one) for one in (prepared[0], inputs[0], signatures[0], answer)]
    down = [size(one) for one in (deliveries["site000"], survivors, request)]
    assert up == [keys, masked, signature, shares]
    assert (sum(up), sum(down)) == (sent, received)
    assert everything == n_sites * (sent + received)


def test_all_four_sizes_are_documented() -> None:
    assert sorted(ROWS) == [3, 10, 50, 100]
