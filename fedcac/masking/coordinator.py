"""The coordinator's side of masked sums: it routes shares, adds masked vectors and unmasks sums.

Everything here is a function of the messages alone: fed the same ones again after a crash, it
asks the same and ends in the same sums. A message that does not fit raises an error and changes
nothing, so a caller can leave it out and go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcac.masking import checks
from fedcac.masking.errors import MaskingError
from fedcac.masking.fixed_point import (
    NUMBER_BYTES,
    Vector,
    Words,
    add,
    decode_sum,
    negate,
    words_from_bytes,
)
from fedcac.masking.keys import AgreementKey, commitment_of, mask_of, pair_mask_key, self_mask_key
from fedcac.masking.messages import (
    MINIMUM_SITES,
    Block,
    ChannelKey,
    ChannelList,
    ExchangeKeys,
    ExchangePlan,
    MaskedInput,
    PlanDelivery,
    SurvivorList,
    SurvivorSignature,
    UnmaskRequest,
    UnmaskShares,
)
from fedcac.masking.shamir import combine

__all__ = ["MaskedSum", "MaskingCoordinator", "MaskingExchange"]


@dataclass(frozen=True)
class MaskedSum:
    """All that a masked exchange tells of one analysis: the sum, shape (n,), and over whom."""

    analysis: str
    sites: tuple[str, ...]
    values: Vector


class MaskingCoordinator:
    """One round. `open` begins an exchange; exchanges are independent of one another."""

    def __init__(self, *, round_id: str, enrolled: checks.EnrolledKeys, threshold: int) -> None:
        checks.check_threshold(threshold, len(enrolled))
        self._round_id = round_id
        self._enrolled = dict(enrolled)
        self._threshold = threshold
        self._channels: ChannelList | None = None

    def list_channels(self, keys: Iterable[ChannelKey]) -> ChannelList:
        """Return the list of channel keys that goes to every site; fixed for the round."""
        if self._channels is not None:
            raise MaskingError("The round has its list of keys.", code="channels_changed")
        ordered = tuple(sorted(keys, key=lambda key: key.site))
        if len(ordered) < max(MINIMUM_SITES, self._threshold):
            raise MaskingError("There are fewer sites than the threshold.", code="too_few_sites")
        channels = ChannelList(round_id=self._round_id, threshold=self._threshold, keys=ordered)
        checks.check_channels(channels, self._round_id, self._threshold, self._enrolled)
        self._channels = channels
        return channels

    def open(
        self, exchange: int, keys: Iterable[ExchangeKeys], blocks: Sequence[Block]
    ) -> MaskingExchange:
        """Begin an exchange over the sites whose keys came and who are members of a block."""
        if self._channels is None:
            raise MaskingError("There is no list of channel keys yet.", code="no_channels")
        members = {site for block in blocks for site in block.members}
        given = {sent.key.site: sent for sent in keys if sent.key.site in members}
        if set(given) != members:
            raise MaskingError("A member of a sum sent no key.", code="missing_shares")
        plan = ExchangePlan(
            round_id=self._round_id,
            exchange=exchange,
            channels=self._channels.digest(),
            keys=tuple(given[site].key for site in sorted(given)),
            blocks=tuple(blocks),
        )
        checks.check_plan(plan, self._channels, self._enrolled)
        for site, sent in given.items():
            if set(sent.shares) != set(self._channels.index_of) - {site}:
                raise MaskingError("A site's shares are not complete.", code="missing_shares")
        return MaskingExchange(plan, self._channels, self._enrolled, given)


class MaskingExchange:
    """One exchange, in the order `deliveries`, `close`, `certify`, `sums`."""

    def __init__(
        self,
        plan: ExchangePlan,
        channels: ChannelList,
        enrolled: checks.EnrolledKeys,
        sent: Mapping[str, ExchangeKeys],
    ) -> None:
        self.plan = plan
        self._address = (plan.round_id, plan.exchange, plan.digest())
        self._keys = {key.site: key for key in plan.keys}
        self._index_of = channels.index_of
        self._threshold = channels.threshold
        self._enrolled = enrolled
        self._sent = dict(sent)
        self._inputs: dict[str, dict[str, Words]] = {}
        self._survivors: SurvivorList | None = None

    def deliveries(self) -> dict[str, PlanDelivery]:
        """Return what every site of the exchange gets: the plan and the shares for it."""
        return {
            site: PlanDelivery(
                plan=self.plan,
                shares={
                    peer: sent.shares[site] for peer, sent in self._sent.items() if peer != site
                },
            )
            for site in self.plan.sites
        }

    def close(self, inputs: Iterable[MaskedInput]) -> SurvivorList:
        """Return the list of the sites whose masked vectors came, for all of them to sign."""
        if self._survivors is not None:
            raise MaskingError("The exchange is closed.", code="exchange_used")
        taken = {message.site: self._checked(message) for message in inputs}
        if len(taken) < self._threshold:
            raise MaskingError("Too few sites stayed for a sum.", code="too_few_survivors")
        round_id, exchange, plan = self._address
        survivors = SurvivorList(
            round_id=round_id, exchange=exchange, plan=plan, survivors=tuple(sorted(taken))
        )
        checks.check_survivors(survivors, self.plan, self._threshold)
        self._inputs, self._survivors = taken, survivors
        return survivors

    def fits(self, message: MaskedInput) -> bool:
        """Say whether a masked input is of this exchange and whole, so that `close` takes it."""
        try:
            self._checked(message)
        except MaskingError:
            return False
        return message.site in self._keys

    def _checked(self, message: MaskedInput) -> dict[str, Words]:
        if message.address != self._address:
            raise MaskingError("A masked input is of another exchange.", code="wrong_exchange")
        lengths = {
            block.analysis: block.n_numbers * NUMBER_BYTES
            for block in self.plan.blocks
            if message.site in block.members
        }
        if not lengths or {name: len(raw) for name, raw in message.values.items()} != lengths:
            raise MaskingError("A masked input has another length.", code="bad_length")
        return {name: words_from_bytes(raw) for name, raw in message.values.items()}

    def certify(self, signatures: Iterable[SurvivorSignature]) -> UnmaskRequest:
        """Return the survivor list with its signatures, for the survivors to unmask."""
        survivors = self._closed()
        given = {}
        for signature in signatures:
            checks.check_address(signature.address, survivors)
            given[signature.site] = signature.signature
        request = UnmaskRequest(survivors=survivors, signatures=given)
        checks.check_certificate(request, self._threshold, self._enrolled)
        return request

    def is_signed(self, signature: SurvivorSignature) -> bool:
        """Say whether a survivor signed the list of survivors of this exchange."""
        survivors, key = self._closed(), self._enrolled.get(signature.site)
        return (
            key is not None
            and signature.site in survivors.survivors
            and signature.address == survivors.address
            and key.verify(signature.signature, survivors.statement())
        )

    def sums(self, answers: Iterable[UnmaskShares]) -> tuple[MaskedSum, ...]:
        """Return the sum of every block over its surviving members.

        Raises
        ------
        MaskingError
            If fewer than `threshold` survivors answered (`too_few_shares`), a secret that their
            shares give is not the one announced (`shares_disagree`), or a sum is beyond what the
            bounds allow (`sum_out_of_bounds`).
        """
        survivors = self._closed()
        stayed = set(survivors.survivors)
        by_site = {answer.site: answer for answer in answers}
        for site, answer in by_site.items():
            self._check_answer(site, answer, stayed)
        # The same sites for every secret, and no more than needed.
        helpers = [by_site[site] for site in sorted(by_site)][: self._threshold]
        seeds = {site: self._seed(site, helpers) for site in survivors.survivors}
        dropped = {
            site: self._mask_key(site, helpers) for site in self.plan.sites if site not in stayed
        }
        return tuple(self._sum_of(block, seeds, dropped) for block in self.plan.blocks)

    def _check_answer(self, site: str, answer: UnmaskShares, stayed: set[str]) -> None:
        if answer.address != self._address:
            raise MaskingError("Shares are of another exchange.", code="wrong_exchange")
        if site not in stayed:
            raise MaskingError("Shares are by a site that is no survivor.", code="unknown_site")
        gone = set(self.plan.sites) - stayed
        if set(answer.seed_shares) != stayed or set(answer.key_shares) != gone:
            raise MaskingError("A site's shares are not complete.", code="missing_shares")

    def _seed(self, site: str, helpers: Sequence[UnmaskShares]) -> bytes:
        shares = {self._index_of[one.site]: one.seed_shares[site] for one in helpers}
        seed = combine(shares, self._threshold)
        if commitment_of(seed) != self._keys[site].seed_digest:
            raise _wrong_secret()
        return seed

    def _mask_key(self, site: str, helpers: Sequence[UnmaskShares]) -> AgreementKey:
        shares = {self._index_of[one.site]: one.key_shares[site] for one in helpers}
        key = AgreementKey(combine(shares, self._threshold))
        if key.public != self._keys[site].public_key:
            raise _wrong_secret()
        return key

    def _sum_of(
        self, block: Block, seeds: Mapping[str, bytes], dropped: Mapping[str, AgreementKey]
    ) -> MaskedSum:
        context, name, length = self.plan.context(), block.analysis, block.n_numbers
        stayed = tuple(site for site in block.members if site in seeds)
        total = np.zeros((length, 2), dtype=np.uint64)
        for site in stayed:
            own = mask_of(self_mask_key(seeds[site], context, name, site), length)
            total = add(total, add(self._inputs[site][name], negate(own)))
        for site in block.members:
            if site in dropped:
                for peer in stayed:
                    common = dropped[site].agree(self._keys[peer].public_key)
                    mask = mask_of(pair_mask_key(common, context, name, (site, peer)), length)
                    # Undo what the peer did with the mask that the dropout would have cancelled.
                    total = add(total, negate(mask) if peer < site else mask)
        return MaskedSum(name, stayed, decode_sum(total, len(stayed), block.bound))

    def _closed(self) -> SurvivorList:
        if self._survivors is None:
            raise MaskingError("The exchange is not closed.", code="wrong_exchange")
        return self._survivors


def _wrong_secret() -> MaskingError:
    return MaskingError(
        "The shares of a secret do not give the one that its site announced.",
        code="shares_disagree",
        cure="A site sent a wrong share; repeat the exchange without it.",
    )
