"""Parsers of what travels between the lead and the sites: signed documents, parcels, couriers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fuzz.engine import Parser, register
from fuzz.mutations import damage_bytes, damage_json, damage_lines, damage_numbers, damage_text
from site_bench import NAME, START, Bench

from coordinator.reports.release_records import record_of
from coordinator.rounds.intake import typed_answer
from fedcac.aggregate import Aggregate, parse_aggregate
from fedcac.canonical import canonical_bytes
from fedcac.errors import FedcacError
from fedcac.exchange import (
    Acceptance,
    MaskingNote,
    MemoryMailbox,
    Message,
    Offer,
    Reply,
    Request,
    parcel_name,
)
from fedcac.exchange.chunks import ChunkStore, Manifest, chunks_of
from fedcac.exchange.couriering import (
    Asked,
    CourierKey,
    CourierPublicKey,
    Delivery,
    Order,
    Receipt,
    Sealed,
)
from fedcac.exchange.mailbox import DirectoryMailbox
from fedcac.exchange.messages import Closing
from fedcac.masking import messages as masking
from fedcac.masking.fixed_point import words_from_bytes, words_to_bytes
from fedcac.masking.shamir import combine, split
from fedcac.protocol.signing import PAYLOAD_TYPE, open_protocol
from fedcac.signing import PublicKey, SigningKey, open_envelope, seal, trusted
from site_agent.flower_courier.carrying import SiteCarrier

LEAD = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
LEAD_KEYS = trusted([LEAD.public])
SITE = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
SITE_KEYS = trusted([SITE.public])
ROUND = "fuzz-0001"


class SteadyKey(CourierKey):
    """A courier's key whose signatures are the same every time, so that seeds are."""

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))


COURIER = SteadyKey(ec.derive_private_key(7, ec.SECP384R1()))
SITE_COURIER = SteadyKey(ec.derive_private_key(11, ec.SECP384R1()))


@contextmanager
def without_chance() -> Iterator[None]:
    """Draw the same keys and secrets every time."""
    with (
        patch.object(SigningKey, "generate", lambda: SITE),
        patch("secrets.token_bytes", lambda n: bytes(range(n))),
        patch("os.urandom", lambda n: bytes(range(n))),
    ):
        yield


class Parcels:
    """The parcels of one small round that really was: in the inbox and in the outbox of a site."""

    def __init__(self) -> None:
        with TemporaryDirectory() as folder, without_chance():
            bench = Bench(Path(folder), approval="auto", lead=LEAD, n_exams=40)
            bench.offer(ROUND)
            with bench.agent() as agent:
                agent.step()
                bench.ask(ROUND)
                agent.step()
            inbox = bench.spool.inbox
            self.inbox = {name: inbox.get(name) or b"" for name in inbox.names()}
            site = trusted([SigningKey.load(bench.folder.key_path).public])
            outbox = bench.outbox()
            self.ledger = bench.folder.ledger_path.read_bytes()
            self.protocol = bench.protocol
            self.acceptance = Acceptance.open(outbox[f"{ROUND}.acceptance"], site)[0]
            self.reply = Reply.open(outbox[parcel_name(ROUND, "reply", 1)], site)[0]
        self.offer = Offer.open(self.inbox[f"{ROUND}.offer"], LEAD_KEYS)[0]
        self.request = Request.open(self.inbox[parcel_name(ROUND, "request", 1)], LEAD_KEYS)[0]


@cache
def parcels() -> Parcels:
    return Parcels()


# envelopes


def _open_envelope(payload: bytes, folder: Path) -> None:
    document, key = open_envelope(payload, PAYLOAD_TYPE, LEAD_KEYS)
    assert key == LEAD.public
    assert document == _protocol_body(), "a signature holds for other bytes"


def _protocol_body() -> bytes:
    return canonical_bytes(parcels().protocol.model_dump(mode="json"))


register(
    Parser(
        name="envelope",
        writer="whoever writes to a spool or an outbox",
        entry="fedcac.signing.open_envelope",
        promise="the payload is, byte for byte, the one that was signed",
        seeds=lambda: [seal(_protocol_body(), PAYLOAD_TYPE, LEAD)],
        parse=_open_envelope,
        mutators=(damage_bytes, damage_json, damage_text),
    )
)


def _open_protocol(payload: bytes, folder: Path) -> None:
    found = open_protocol(seal(payload, PAYLOAD_TYPE, LEAD), LEAD_KEYS, newest_seen={})
    again = canonical_bytes(found.model_dump(mode="json"))
    assert type(found).model_validate_json(again) == found


register(
    Parser(
        name="signed-protocol",
        writer="a lead's program of another release, or one that means harm",
        entry="fedcac.protocol.signing.open_protocol",
        promise="its canonical form reads as the same protocol",
        seeds=lambda: [_protocol_body()],
        parse=_open_protocol,
        mutators=(damage_json, damage_json, damage_numbers),
    )
)


# messages inside a signature that holds


def _opener(kind: type[Message], key: SigningKey) -> Callable[[bytes, Path], Any]:
    keys = trusted([key.public])

    def parse(payload: bytes, folder: Path) -> Any:
        envelope = seal(payload, kind.payload_type, key)
        message, signer = kind.open(envelope, keys)
        assert signer == key.public
        # What was taken can be written: a store, a ledger and a report do so.
        again = message.seal(key)
        assert kind.open(again, keys)[0] == message
        assert message.issued_at.tzinfo is not None, "no comparison with a clock is possible"
        return message

    return parse


def _open_offer(payload: bytes, folder: Path) -> None:
    offer = _opener(Offer, LEAD)(payload, folder)
    assert offer.expires_at > START or offer.expires_at <= START


def _open_request(payload: bytes, folder: Path) -> None:
    request = _opener(Request, LEAD)(payload, folder)
    assert request.expires_at > START or request.expires_at <= START


def _open_reply(payload: bytes, folder: Path) -> None:
    reply = _opener(Reply, SITE)(payload, folder)
    for answer in reply.answers.values():
        typed = typed_answer(answer)
        if isinstance(typed, Aggregate):
            assert parse_aggregate(typed.to_payload()) == typed
    envelope = seal(payload, Reply.payload_type, SITE)
    document = reply.model_dump(mode="json")
    record = record_of("reply", document, envelope, exchange=reply.exchange, site=reply.site)
    canonical_bytes(record.model_dump(mode="json"))


def _bodies(message: Message) -> Callable[[], Sequence[bytes]]:
    return lambda: [canonical_bytes(message.model_dump(mode="json"))]


def _note() -> list[bytes]:
    note = MaskingNote(
        round_id=ROUND, issued_at=START, site=NAME, exchange=1, step="plan", document={"a": [1.5]}
    )
    return [canonical_bytes(note.model_dump(mode="json"))]


def _closing() -> list[bytes]:
    closing = Closing(round_id=ROUND, issued_at=START, outcome="closed")
    return [canonical_bytes(closing.model_dump(mode="json"))]


def _acceptance() -> list[bytes]:
    return [canonical_bytes(parcels().acceptance.model_dump(mode="json"))]


_MESSAGES: tuple[tuple[str, str, type[Message], Callable[..., Any], Callable[[], Any]], ...] = (
    ("offer", "the lead", Offer, _open_offer, lambda: _bodies(parcels().offer)()),
    ("request", "the lead", Request, _open_request, lambda: _bodies(parcels().request)()),
    ("closing", "the lead", Closing, _opener(Closing, LEAD), _closing),
    ("acceptance", "a site", Acceptance, _opener(Acceptance, SITE), _acceptance),
    ("reply", "a site", Reply, _open_reply, lambda: _bodies(parcels().reply)()),
    ("masking-note", "the lead or a site", MaskingNote, _opener(MaskingNote, SITE), _note),
)
for _name, _writer, _kind, _parse, _made in _MESSAGES:
    register(
        Parser(
            name=_name,
            writer=f"{_writer}, whose signature holds",
            entry=f"fedcac.exchange.{_kind.__name__}.open",
            promise="can be sealed and opened again; its times can be compared",
            seeds=_made,
            parse=_parse,
            mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        )
    )


# masked sums


def _masking_seeds() -> list[bytes]:
    raw32, raw64 = "A" * 43 + "=", "A" * 86 + "=="
    digest = "sha256:" + "0" * 64
    channel = {"round_id": ROUND, "site": "north", "public_key": raw32, "signature": raw64}
    keys = [{**channel, "site": site} for site in ("north", "south", "west")]
    mask = {
        "round_id": ROUND, "exchange": 1, "channels": digest, "site": "north",
        "public_key": raw32, "seed_digest": raw32, "signature": raw64,
    }  # fmt: skip
    block = {"analysis": "agreement", "n_numbers": 4, "bound": 8.0, "members": ["north", "south"]}
    plan = {
        "round_id": ROUND, "exchange": 1, "channels": digest,
        "keys": [mask, {**mask, "site": "south"}], "blocks": [block],
    }  # fmt: skip
    documents = {
        "ChannelKey": channel,
        "ChannelList": {"round_id": ROUND, "threshold": 2, "keys": keys},
        "ExchangeKeys": {"key": mask, "shares": {"south": "AAAA"}},
        "ExchangePlan": plan,
        "PlanDelivery": {"plan": plan, "shares": {"south": "AAAA"}},
        "MaskedInput": {
            "round_id": ROUND, "exchange": 1, "plan": digest, "site": "north",
            "values": {"agreement": "A" * 86 + "=="},
        },
    }  # fmt: skip
    return [canonical_bytes({"type": name, "document": one}) for name, one in documents.items()]


def _parse_masking(payload: bytes, folder: Path) -> None:
    try:
        told = json.loads(payload)
        kind = getattr(masking, told["type"])
        document = told["document"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if not isinstance(kind, type) or not issubclass(kind, masking.MaskingMessage):
        return
    message = kind.from_document(document)
    again = json.loads(canonical_bytes(message.to_document()))
    assert kind.from_document(again) == message
    if isinstance(message, masking.MaskedInput):
        for raw in message.values.values():
            assert words_to_bytes(words_from_bytes(raw)) == raw


register(
    Parser(
        name="masked-sum",
        writer="the lead or a site, whose signature holds",
        entry="fedcac.masking.messages.MaskingMessage.from_document",
        promise="written again, it reads as the same message; vectors keep every byte",
        seeds=_masking_seeds,
        parse=_parse_masking,
        mutators=(damage_json, damage_json, damage_numbers),
    )
)


def _share_seeds() -> list[bytes]:
    shares = split(bytes(range(32)), 4, 3, lambda n: bytes(n))
    return [b"".join(shares[index] for index in (1, 2, 3, 4))]


def _combine(payload: bytes, folder: Path) -> None:
    shares = {n + 1: payload[33 * n : 33 * n + 33] for n in range(-(-len(payload) // 33))}
    assert len(combine(shares, 3)) == 32


register(
    Parser(
        name="shares",
        writer="a site, under another site's channel key",
        entry="fedcac.masking.shamir.combine",
        promise="a secret of 32 bytes that all shares agree on",
        seeds=_share_seeds,
        parse=_combine,
        mutators=(damage_bytes,),
    )
)


def _parse_aggregate(payload: bytes, folder: Path) -> None:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return
    found = parse_aggregate(document)
    assert parse_aggregate(json.loads(json.dumps(found.to_payload()))) == found


def _aggregate_seeds() -> list[bytes]:
    reply = parcels().reply
    released = [one.release for one in (*reply.answers.values(), reply.flow) if one.release]
    assert released
    return [canonical_bytes(one) for one in released]


register(
    Parser(
        name="aggregate",
        writer="a site",
        entry="fedcac.aggregate.parse_aggregate",
        promise="its payload reads as the same aggregate",
        seeds=_aggregate_seeds,
        parse=_parse_aggregate,
        mutators=(damage_json, damage_json, damage_numbers),
        n_cases=300,
    )
)


# keys


def _parse_key(payload: bytes, folder: Path) -> None:
    key = PublicKey.from_text(payload.decode("utf-8", "surrogateescape"))
    assert PublicKey.from_text(key.to_text()) == key
    assert not key.verify(bytes(64), b"message")


def _parse_courier_key(payload: bytes, folder: Path) -> None:
    key = CourierPublicKey.from_text(payload.decode("utf-8", "surrogateescape"))
    assert CourierPublicKey.from_text(key.to_text()).to_text() == key.to_text()


def _load_key(payload: bytes, folder: Path) -> None:
    path = folder / "key.pem"
    path.write_bytes(payload)
    key = SigningKey.load(path)
    assert key.public.verify(key.sign(b"x"), b"x")


def _load_courier_key(payload: bytes, folder: Path) -> None:
    path = folder / "node.key"
    path.write_bytes(payload)
    key = CourierKey.load(path)
    key.public.verify(key.sign(b"x"), b"x")


def _saved(save: Callable[[Path], None], name: str) -> Callable[[], list[bytes]]:
    def made() -> list[bytes]:
        with TemporaryDirectory() as folder, without_chance():
            save(Path(folder) / name)
            return [(Path(folder) / name).read_bytes()]

    return made


register(
    Parser(
        name="key-line",
        writer="a site or the lead, by mail",
        entry="fedcac.signing.PublicKey.from_text",
        promise="written again, it is the same key, and verifies no empty signature",
        seeds=lambda: [LEAD.public.to_text().encode(), SITE.public.to_text().encode() + b"\n"],
        parse=_parse_key,
        mutators=(damage_bytes, damage_text),
        n_cases=300,
    )
)
register(
    Parser(
        name="courier-key-line",
        writer="a site's or the lead's courier, by mail",
        entry="fedcac.exchange.couriering.CourierPublicKey.from_text",
        promise="written again, it is the same key",
        seeds=lambda: [COURIER.public.to_text().encode(), SITE_COURIER.public.to_text().encode()],
        parse=_parse_courier_key,
        mutators=(damage_bytes, damage_text),
        n_cases=300,
    )
)
register(
    Parser(
        name="key-file",
        writer="an operator, from a backup",
        entry="fedcac.signing.SigningKey.load",
        promise="signs what its public half verifies",
        seeds=_saved(LEAD.save, "lead.key"),
        parse=_load_key,
        mutators=(damage_bytes, damage_lines),
        names_path=True,
    )
)
register(
    Parser(
        name="courier-key-file",
        writer="an operator, from a backup",
        entry="fedcac.exchange.couriering.CourierKey.load",
        promise="signs what its public half verifies",
        seeds=_saved(COURIER.save, "node.key"),
        parse=_load_courier_key,
        mutators=(damage_bytes, damage_lines),
    )
)


# parcels and couriers


def _parse_name(payload: bytes, folder: Path) -> None:
    name = payload.decode("utf-8", "surrogateescape")
    box = DirectoryMailbox(folder / "box")
    before = {path.name for path in folder.iterdir()}
    try:
        box.put(name, b"parcel")
        assert box.get(name) == b"parcel"
        assert name in box.names()
        (folder / "box" / name).unlink()
    finally:
        assert {path.name for path in folder.iterdir()} == before, "a file outside of the box"
        assert not list((folder / "box").iterdir())


register(
    Parser(
        name="parcel-name",
        writer="whoever carries parcels",
        entry="fedcac.exchange.DirectoryMailbox.put",
        promise="one file in the box and nowhere else",
        seeds=lambda: [parcel_name(ROUND, "request", 3).encode(), b"a.package.weights.safetensors"],
        parse=_parse_name,
        mutators=(damage_bytes, damage_text),
        n_cases=300,
    )
)


def _parse_manifest(payload: bytes, folder: Path) -> None:
    try:
        manifest = Manifest.model_validate_json(payload)
    except ValueError:
        return
    store = ChunkStore(folder / "chunks", 2**20)
    for digest, chunk in chunks_of(b"parcel"):
        store.put(digest, chunk)
    whole = store.assemble(manifest)
    assert whole is None or Manifest.of(whole).digest == manifest.digest
    assert set(store.missing(manifest)) <= set(manifest.chunks)


register(
    Parser(
        name="chunk-manifest",
        writer="a courier",
        entry="fedcac.exchange.chunks.ChunkStore.assemble",
        promise="only bytes of the digest that is named, or a chunk is missing",
        seeds=lambda: [Manifest.of(text).model_dump_json().encode() for text in (b"parcel", b"")],
        parse=_parse_manifest,
        mutators=(damage_json, damage_numbers),
    )
)


def _order_seeds() -> list[bytes]:
    whole = b"a parcel"
    order = Order(
        site="north",
        serial=1,
        deliver=(Delivery(name="r-1.offer", manifest=Manifest.of(whole)),),
        collect={"r-1.reply-0001": Asked()},
    )
    return [order.model_dump_json().encode()]


def _carry_order(payload: bytes, folder: Path) -> None:
    inbox, outbox = MemoryMailbox(), MemoryMailbox()
    outbox.put("r-1.reply-0001", b"an answer")
    serial = folder / "state" / "last-serial"
    serial.unlink(missing_ok=True)
    carrier = SiteCarrier(
        site="north",
        inbox=inbox,
        outbox=outbox,
        state=folder / "state",
        key=SITE_COURIER,
        coordinator=COURIER.public,
        limit_bytes=2**20,
        sleep=lambda seconds: None,
    )
    sealed = Sealed(document=payload, signature=COURIER.sign(Order.kind + payload))
    try:
        receipt, _ = carrier.answer(sealed, dict(chunks_of(b"a parcel")))
    except FedcacError:
        assert not inbox.names(), "a refused order left something"
        raise
    read = Receipt.open(receipt, SITE_COURIER.public)
    assert set(read.delivered) == set(inbox.names())


register(
    Parser(
        name="courier-order",
        writer="the coordinator's courier, or whoever has its key",
        entry="site_agent.flower_courier.carrying.SiteCarrier.answer",
        promise="a signed receipt of exactly what lies in the inbox; nothing after a refusal",
        seeds=_order_seeds,
        parse=_carry_order,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
    )
)
