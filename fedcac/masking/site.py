"""A site's side of masked sums.

Reused in a round: the signing key and the channel key, under which other sites encrypt shares to
this one, each exchange and direction with its own derived key. Never reused: the mask key, the
self-mask seed and their shares, which are fresh in every exchange. A mask key that served two
exchanges would expose the first: its seed was revealed then for a site that stayed, and the key is
revealed in the second if that site drops out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Self

from fedcac.masking import checks
from fedcac.masking.errors import MaskingError
from fedcac.masking.fixed_point import words_to_bytes
from fedcac.masking.keys import AgreementKey, commitment_of
from fedcac.masking.messages import (
    ChannelKey,
    ChannelList,
    ExchangeKeys,
    MaskedInput,
    MaskKey,
    PlanDelivery,
    SurvivorList,
    SurvivorSignature,
    UnmaskRequest,
    UnmaskShares,
)
from fedcac.masking.shamir import SECRET_BYTES, RandomBytes, split
from fedcac.masking.shares import SharePair, open_shares, seal_shares
from fedcac.masking.state import ExchangeSecrets, SiteState
from fedcac.masking.vectors import encoded_vectors, masked_vectors
from fedcac.signing import SigningKey

__all__ = ["MaskingSite"]

_NO_SIGNATURE = bytes(64)


class MaskingSite:
    """One site in one round. Each exchange: `prepare`, `mask`, `sign_survivors`, `unmask`.

    Parameters
    ----------
    enrolled
        Every site's signing key, this one's too. They come with the signed offer, not from the
        coordinator's messages of the exchange.
    threshold
        Sites needed to unmask; above half of `enrolled`, and the same everywhere.
    random
        Source of secrets; anything but the default is for tests.

    Raises
    ------
    MaskingError
        If the threshold or the number of sites does not do, or this site is not enrolled.
    """

    def __init__(
        self,
        *,
        round_id: str,
        site: str,
        key: SigningKey,
        enrolled: checks.EnrolledKeys,
        threshold: int,
        random: RandomBytes = secrets.token_bytes,
    ) -> None:
        checks.check_threshold(threshold, len(enrolled))
        if enrolled.get(site) != key.public:
            raise MaskingError("This site is not enrolled with its key.", code="unknown_site")
        self._round_id = round_id
        self._site = site
        self._key = key
        self._enrolled = dict(enrolled)
        self._threshold = threshold
        self._random = random
        self._channel_key = AgreementKey(random(SECRET_BYTES))
        self._channels: ChannelList | None = None
        self._common: dict[str, bytes] = {}
        self._exchanges: dict[int, ExchangeSecrets] = {}
        self._newest = 0

    def to_state(self) -> SiteState:
        """Return everything that the next step needs, secrets included."""
        return SiteState(
            round_id=self._round_id,
            site=self._site,
            threshold=self._threshold,
            channel_key=self._channel_key.secret,
            channels=self._channels,
            newest=self._newest,
            exchanges=tuple(self._exchanges.values()),
        )

    @classmethod
    def from_state(
        cls,
        state: SiteState,
        *,
        key: SigningKey,
        enrolled: checks.EnrolledKeys,
        random: RandomBytes = secrets.token_bytes,
    ) -> Self:
        """Return the site as it was when `to_state` was called."""
        site = cls(
            round_id=state.round_id,
            site=state.site,
            key=key,
            enrolled=enrolled,
            threshold=state.threshold,
            random=random,
        )
        site._channel_key = AgreementKey(state.channel_key)
        if state.channels is not None:
            site.accept_channels(state.channels)
        site._exchanges = {one.exchange: one for one in state.exchanges}
        site._newest = state.newest
        return site

    # once per round

    def advertise(self) -> ChannelKey:
        """Return this site's signed channel key."""
        bare = ChannelKey(
            round_id=self._round_id,
            site=self._site,
            public_key=self._channel_key.public,
            signature=_NO_SIGNATURE,
        )
        return bare.model_copy(update={"signature": self._key.sign(bare.statement())})

    def accept_channels(self, channels: ChannelList) -> None:
        """Check and keep the round's list of channel keys; another list is refused afterwards."""
        if self._channels is not None:
            if channels != self._channels:
                raise MaskingError("The list of keys has changed.", code="channels_changed")
            return
        checks.check_channels(channels, self._round_id, self._threshold, self._enrolled)
        if self.advertise() not in channels.keys:
            raise MaskingError("This site's key is not in the list.", code="unknown_site")
        self._common = {
            key.site: self._channel_key.agree(key.public_key)
            for key in channels.keys
            if key.site != self._site
        }
        self._channels = channels

    # once per exchange

    def prepare(self, exchange: int) -> ExchangeKeys:
        """Return a fresh mask key for an exchange, with shares of it and of a fresh seed.

        May be called ahead, for several exchanges, in rising order and once for each.
        """
        channels = self._accepted()
        if exchange <= self._newest:
            raise MaskingError("This exchange was prepared before.", code="exchange_used")
        self._newest = exchange
        mask_key = AgreementKey(self._random(SECRET_BYTES))
        seed = self._random(SECRET_BYTES)
        key = self._signed_mask_key(exchange, channels, mask_key, seed)
        n_sites = len(channels.keys)
        key_shares = split(mask_key.secret, n_sites, self._threshold, self._random)
        seed_shares = split(seed, n_sites, self._threshold, self._random)
        pairs = {
            peer: SharePair(of_key=key_shares[index], of_seed=seed_shares[index])
            for peer, index in channels.index_of.items()
        }
        held = {self._site: pairs.pop(self._site)}
        self._exchanges[exchange] = ExchangeSecrets(
            exchange=exchange, mask_key=mask_key.secret, seed=seed, held=held
        )
        return ExchangeKeys(key=key, shares=seal_shares(key, pairs, self._common, self._random))

    def _signed_mask_key(
        self, exchange: int, channels: ChannelList, mask_key: AgreementKey, seed: bytes
    ) -> MaskKey:
        bare = MaskKey(
            round_id=self._round_id,
            exchange=exchange,
            channels=channels.digest(),
            site=self._site,
            public_key=mask_key.public,
            seed_digest=commitment_of(seed),
            signature=_NO_SIGNATURE,
        )
        return bare.model_copy(update={"signature": self._key.sign(bare.statement())})

    def mask(self, delivery: PlanDelivery, values: Mapping[str, Iterable[float]]) -> MaskedInput:
        """Return this site's masked vectors of an exchange; given once.

        Parameters
        ----------
        values
            One vector per block of the plan that has this site as a member, by analysis.

        Raises
        ------
        MaskingError
            If the plan is not one of this round and exchange, a share does not open, or a vector
            is missing or has another length (`bad_length`) or numbers that `encode` refuses.
        """
        plan, channels = delivery.plan, self._accepted()
        checks.check_plan(plan, channels, self._enrolled)
        state = self._state(plan.exchange)
        if state.plan is not None:
            raise MaskingError("This exchange was answered before.", code="exchange_used")
        own_keys = [key.public_key for key in plan.keys if key.site == self._site]
        mask_key = AgreementKey(state.mask_key)
        if own_keys != [mask_key.public]:
            raise MaskingError("The plan does not hold this site's key.", code="unknown_site")
        blocks = [block for block in plan.blocks if self._site in block.members]
        encoded = encoded_vectors(blocks, values)
        held = open_shares(delivery, self._site, self._common)
        masked = masked_vectors(self._site, mask_key, state.seed, plan, encoded)
        # Kept last: after a refusal above, a corrected plan may follow.
        self._exchanges[plan.exchange] = state.model_copy(
            update={"held": {**state.held, **held}, "plan": plan}
        )
        return MaskedInput(
            round_id=self._round_id,
            exchange=plan.exchange,
            plan=plan.digest(),
            site=self._site,
            values={name: words_to_bytes(words) for name, words in masked.items()},
        )

    def sign_survivors(self, survivors: SurvivorList) -> SurvivorSignature:
        """Sign the survivor list of an exchange: one list only, with this site and enough others.

        As every site signs one list and the threshold is above half, no second list of the same
        exchange can be signed by enough sites: nobody can be a survivor and a dropout.
        """
        state = self._state(survivors.exchange)
        if state.plan is None:
            raise MaskingError("This site gave no masked input.", code="wrong_exchange")
        checks.check_survivors(survivors, state.plan, self._threshold)
        if self._site not in survivors.survivors:
            raise MaskingError("This site is not among the survivors.", code="unknown_site")
        if state.signed not in (None, survivors):
            raise MaskingError(
                "Another survivor list of this exchange was signed before.",
                code="second_survivor_list",
                cure="The coordinator must not change the list; treat it as an attack.",
            )
        self._exchanges[survivors.exchange] = state.model_copy(update={"signed": survivors})
        return SurvivorSignature(
            round_id=self._round_id,
            exchange=survivors.exchange,
            plan=survivors.plan,
            site=self._site,
            signature=self._key.sign(survivors.statement()),
        )

    def unmask(self, request: UnmaskRequest) -> UnmaskShares:
        """Return, for each other site, either its seed share or its key share: never both."""
        survivors = request.survivors
        state = self._state(survivors.exchange)
        if state.plan is None or state.signed != survivors:
            raise MaskingError(
                "This is not the survivor list that this site signed.",
                code="second_survivor_list",
                cure="The coordinator must not change the list; treat it as an attack.",
            )
        checks.check_certificate(request, self._threshold, self._enrolled)
        stayed = set(survivors.survivors)
        return UnmaskShares(
            round_id=self._round_id,
            exchange=survivors.exchange,
            plan=survivors.plan,
            site=self._site,
            seed_shares={
                name: state.held[name].of_seed for name in state.plan.sites if name in stayed
            },
            key_shares={
                name: state.held[name].of_key for name in state.plan.sites if name not in stayed
            },
        )

    def forget(self, exchange: int) -> None:
        """Drop the secrets of an exchange; it can be neither answered nor unmasked afterwards."""
        self._exchanges.pop(exchange, None)

    def _accepted(self) -> ChannelList:
        if self._channels is None:
            raise MaskingError("There is no list of channel keys yet.", code="no_channels")
        return self._channels

    def _state(self, exchange: int) -> ExchangeSecrets:
        state = self._exchanges.get(exchange)
        if state is None:
            raise MaskingError("This exchange was not prepared here.", code="wrong_exchange")
        return state
