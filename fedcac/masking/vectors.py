"""A site's vectors: checked and encoded, then masked for one exchange."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedcac.masking.errors import MaskingError
from fedcac.masking.fixed_point import Words, add, encode, negate
from fedcac.masking.keys import AgreementKey, mask_of, pair_mask_key, self_mask_key
from fedcac.masking.messages import Block, ExchangePlan

__all__ = ["encoded_vectors", "masked_vectors"]


def encoded_vectors(
    blocks: Iterable[Block], values: Mapping[str, Iterable[float]]
) -> dict[str, Words]:
    """Return one encoded vector per block; MaskingError `bad_length`, or as `encode`."""
    lengths = {block.analysis: block.n_numbers for block in blocks}
    if set(values) != set(lengths):
        raise MaskingError("The vectors are not those that are summed.", code="bad_length")
    encoded = {block.analysis: encode(values[block.analysis], block.bound) for block in blocks}
    if any(len(words) != lengths[name] for name, words in encoded.items()):
        raise MaskingError("A vector has another length than planned.", code="bad_length")
    return encoded


def masked_vectors(
    site: str,
    mask_key: AgreementKey,
    seed: bytes,
    plan: ExchangePlan,
    encoded: Mapping[str, Words],
) -> dict[str, Words]:
    """Return encoded vectors plus the site's own mask and the mask it has with every member."""
    context = plan.context()
    common = {key.site: mask_key.agree(key.public_key) for key in plan.keys if key.site != site}
    masked = {}
    for block in plan.blocks:
        name, length = block.analysis, block.n_numbers
        if name not in encoded:
            continue
        total = add(encoded[name], mask_of(self_mask_key(seed, context, name, site), length))
        for peer in block.members:
            if peer != site:
                key = pair_mask_key(common[peer], context, name, (site, peer))
                mask = mask_of(key, length)
                # The one whose name comes first adds, the other subtracts: they cancel.
                total = add(total, mask if site < peer else negate(mask))
        masked[name] = total
    return masked
