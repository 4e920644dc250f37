"""A round of masked sums in memory, with every secret drawn from a fixed seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcac.canonical import canonical_bytes
from fedcac.masking import (
    Block,
    MaskedInput,
    MaskedSum,
    MaskingCoordinator,
    MaskingExchange,
    MaskingSite,
    UnmaskRequest,
)
from fedcac.masking.messages import MaskingMessage
from fedcac.signing import SigningKey

M = TypeVar("M", bound=MaskingMessage)
Vectors = Mapping[str, Sequence[float]]

ROUND = "masked-round"
BOUND = 1e9


def fixed_random(seed: str) -> Callable[[int], bytes]:
    """Return a reproducible source of bytes, for tests alone."""
    drawn = 0

    def random(n_bytes: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(f"{seed}/{drawn}".encode()).digest(n_bytes)

    return random


def over_the_wire(message: M) -> M:
    """Return the message as the other side reads it."""
    return type(message).from_document(json.loads(canonical_bytes(message.to_document())))


class Round:
    """Sites and coordinator after the exchange of channel keys."""

    def __init__(self, n_sites: int, threshold: int | None = None, seed: str = "s") -> None:
        self.names = [f"site{number:03d}" for number in range(n_sites)]
        self.threshold = n_sites // 2 + 1 if threshold is None else threshold
        keys = {
            name: SigningKey(
                Ed25519PrivateKey.from_private_bytes(fixed_random(f"{seed}/{name}/sign")(32))
            )
            for name in self.names
        }
        self.keys = keys
        self.enrolled = {name: key.public for name, key in keys.items()}
        self.sites = {
            name: MaskingSite(
                round_id=ROUND,
                site=name,
                key=keys[name],
                enrolled=self.enrolled,
                threshold=self.threshold,
                random=fixed_random(f"{seed}/{name}"),
            )
            for name in self.names
        }
        self.coordinator = MaskingCoordinator(
            round_id=ROUND, enrolled=self.enrolled, threshold=self.threshold
        )

    def introduce(self, names: Iterable[str] | None = None) -> Round:
        """Exchange channel keys among the sites that came."""
        present = self.names if names is None else list(names)
        adverts = [over_the_wire(self.sites[name].advertise()) for name in present]
        channels = over_the_wire(self.coordinator.list_channels(adverts))
        for name in present:
            self.sites[name].accept_channels(channels)
        return self

    def block(self, n_numbers: int, names: Iterable[str] | None = None, **changes: object) -> Block:
        """Return a block over some sites, all by default."""
        members = tuple(self.names if names is None else sorted(names))
        values = {"analysis": "cox", "n_numbers": n_numbers, "bound": BOUND, "members": members}
        return Block.model_validate({**values, **changes})

    def open(self, exchange: int, *blocks: Block) -> MaskingExchange:
        """Prepare the members' keys and open the exchange."""
        members = sorted({name for block in blocks for name in block.members})
        keys = [over_the_wire(self.sites[name].prepare(exchange)) for name in members]
        return self.coordinator.open(exchange, keys, blocks)

    def masked(
        self, opened: MaskingExchange, vectors: Vectors, lost: Iterable[str] = ()
    ) -> list[MaskedInput]:
        """Return the masked inputs of the sites that are not lost."""
        inputs = []
        for name, delivery in opened.deliveries().items():
            if name not in set(lost):
                blocks = [block for block in delivery.plan.blocks if name in block.members]
                values = {block.analysis: vectors[name] for block in blocks}
                given = self.sites[name].mask(over_the_wire(delivery), values)
                inputs.append(over_the_wire(given))
        return inputs

    def certified(
        self, opened: MaskingExchange, inputs: list[MaskedInput], silent: Iterable[str] = ()
    ) -> UnmaskRequest:
        """Return the survivor list, signed by all survivors but the silent ones."""
        survivors = over_the_wire(opened.close(inputs))
        signers = [name for name in survivors.survivors if name not in set(silent)]
        signatures = [over_the_wire(self.sites[name].sign_survivors(survivors)) for name in signers]
        return over_the_wire(opened.certify(signatures))

    def sums(
        self, opened: MaskingExchange, request: UnmaskRequest, silent: Iterable[str] = ()
    ) -> tuple[MaskedSum, ...]:
        """Unmask with every survivor that is not silent."""
        names = [name for name in request.survivors.survivors if name not in set(silent)]
        return opened.sums([over_the_wire(self.sites[name].unmask(request)) for name in names])

    def total(self, exchange: int, vectors: Vectors, lost: Iterable[str] = ()) -> MaskedSum:
        """Run one exchange of one block and return its sum."""
        length = len(next(iter(vectors.values())))
        opened = self.open(exchange, self.block(length, vectors))
        request = self.certified(opened, self.masked(opened, vectors, lost))
        return self.sums(opened, request)[0]


@pytest.fixture(scope="session")
def make_round() -> Callable[..., Round]:
    return lambda *arguments, **named: Round(*arguments, **named).introduce()


@pytest.fixture(scope="session")
def make_strangers() -> Callable[..., Round]:
    """Return rounds before the exchange of channel keys."""
    return Round


@pytest.fixture(scope="session")
def random_of() -> Callable[[str], Callable[[int], bytes]]:
    return fixed_random
