"""Two couriers without Flower between them: chunks, losses, order, replays, forgeries."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import coordinator.flower_courier.dispatch as dispatch_module
import fedcac.exchange.chunks as chunks_module
import site_agent.flower_courier.carrying as carrying_module
from coordinator.flower_courier.courier import FlowerCourier
from coordinator.flower_courier.dispatch import Answered, Dispatcher
from coordinator.flower_courier.journal import CourierJournal
from fedcac.errors import FedcacError, RoundError, SignatureError
from fedcac.exchange.chunks import ChunkStore, Manifest, digest_of
from fedcac.exchange.couriering import CourierKey, CourierPublicKey, Order, Receipt, Sealed
from fedcac.exchange.mailbox import MemoryMailbox
from fedcac.vocabulary import SiteName
from site_agent.flower_courier.carrying import SiteCarrier

LEAD, DUKE, YALE = CourierKey.generate(), CourierKey.generate(), CourierKey.generate()
CHUNK = 64


def noise(seed: int, n_bytes: int) -> bytes:
    return random.Random(seed).randbytes(n_bytes)  # noqa: S311


class Recorded(MemoryMailbox):
    """A mailbox that knows in which order its parcels came."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[str] = []

    def put(self, name: str, payload: bytes) -> None:
        super().put(name, payload)
        self.arrivals.append(name)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", CHUNK)
    for module in (dispatch_module, carrying_module):
        monkeypatch.setattr(module, "BODY_BYTES", 3 * CHUNK)
    monkeypatch.setattr(dispatch_module, "_UNASKED_BYTES", CHUNK)


class Site:
    """A site's carrier with its spool in memory."""

    def __init__(self, root: Path, name: str, key: CourierKey, limit_bytes: int = 10**9) -> None:
        self.inbox, self.outbox = Recorded(), MemoryMailbox()
        self.root, self.name, self.key, self.limit_bytes = root, name, key, limit_bytes
        self.restart()

    def restart(self) -> None:
        self.carrier = SiteCarrier(
            site=self.name,
            inbox=self.inbox,
            outbox=self.outbox,
            state=self.root / self.name,
            key=self.key,
            coordinator=LEAD.public,
            limit_bytes=self.limit_bytes,
            sleep=lambda seconds: None,
        )

    def answer(self, sealed: Sealed, bodies: Mapping[str, bytes]) -> Answered:
        try:
            return Answered(*self.carrier.answer(sealed, bodies))
        except FedcacError:
            return Answered(None, {})


class Network:
    """A link that delivers at once, or loses what a coin says."""

    def __init__(self, sites: Sequence[Site], draw: random.Random | None = None) -> None:
        self.sites = list(sites)
        self.draw = draw
        self.waiting: dict[str, Answered] = {}
        self.orders: list[tuple[Sealed, dict[str, bytes]]] = []
        self.offline: set[str] = set()

    def is_lost(self) -> bool:
        return self.draw is not None and self.draw.random() < 0.3

    def online(self) -> Mapping[str, int]:
        return {s.name: n for n, s in enumerate(self.sites) if s.name not in self.offline}

    def send(self, node: int, sealed: Sealed, bodies: Mapping[str, bytes]) -> str:
        self.orders.append((sealed, dict(bodies)))
        ticket = str(len(self.orders))
        if not self.is_lost():
            answered = self.sites[node].answer(sealed, bodies)
            self.waiting[ticket] = Answered(None, {}) if self.is_lost() else answered
        return ticket

    def poll(self, tickets: Sequence[str]) -> Mapping[str, Answered]:
        return {t: self.waiting.pop(t) for t in tickets if t in self.waiting}

    def n_body_bytes(self) -> int:
        return sum(len(chunk) for _, bodies in self.orders for chunk in bodies.values())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def dispatcher_of(journal: CourierJournal, link: Network) -> Dispatcher:
    return Dispatcher(
        journal=journal,
        link=link,
        roster={site.name: site.key.public for site in link.sites},
        key=LEAD,
        clock=Clock(),
    )


def run(dispatcher: Dispatcher, n_turns: int = 60) -> None:
    for _ in range(n_turns):
        dispatcher.turn()


def test_parcels_arrive_in_order_with_the_offer_last(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    package = noise(1, 20 * CHUNK + 7)
    courier = FlowerCourier(journal)
    courier.send(SiteName("duke"), "r-1.package.weights", package)
    courier.send(SiteName("duke"), "r-1.offer", b"offer")
    courier.send(SiteName("duke"), "r-2.offer", b"another round does not wait")
    run(dispatcher_of(journal, Network([site])))
    assert site.inbox.get("r-1.package.weights") == package
    assert site.inbox.arrivals == ["r-2.offer", "r-1.package.weights", "r-1.offer"]
    assert journal.pending("duke") == ()


def test_what_is_asked_for_comes_and_nothing_else_leaves(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    network, courier = Network([site]), FlowerCourier(journal)
    reply = noise(2, 11 * CHUNK + 1)
    site.outbox.put("r-1.reply-0001", reply)
    site.outbox.put("r-9.reply-0001", b"of a round nobody asked about")
    assert courier.collect(SiteName("duke"), "r-1.reply-0001") is None
    dispatcher = dispatcher_of(journal, network)
    run(dispatcher)
    assert courier.collect(SiteName("duke"), "r-1.reply-0001") == reply
    assert courier.collect(SiteName("duke"), "r-1.reply-0002") is None
    run(dispatcher)
    assert courier.collect(SiteName("duke"), "r-1.reply-0002") is None
    held = {digest_of(reply[start : start + CHUNK]) for start in range(0, len(reply), CHUNK)}
    assert {path.name for path in (tmp_path / "journal" / "chunks").iterdir()} == held


def test_a_site_may_take_days_and_no_order_is_sent_while_it_is_offline(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    network = Network([site])
    network.offline.add("duke")
    journal.add("duke", "r-1.offer", b"offer")
    journal.ask("duke", "r-1.acceptance")
    dispatcher = dispatcher_of(journal, network)
    run(dispatcher, 60)
    assert network.orders == []
    network.offline.clear()
    run(dispatcher, 100)
    n_orders = len(network.orders)
    assert site.inbox.get("r-1.offer") == b"offer"
    run(dispatcher, 200)
    # Nothing new: the pauses grow, so most turns send nothing.
    assert len(network.orders) - n_orders < 60
    site.outbox.put("r-1.acceptance", b"yes, after all")
    run(dispatcher, 100)
    assert journal.ask("duke", "r-1.acceptance") == b"yes, after all"


def test_an_interrupted_parcel_goes_on_where_it_stopped(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    package = noise(3, 30 * CHUNK)
    journal.add("duke", "r-1.package.weights", package)
    first = Network([site])
    run(dispatcher_of(journal, first), 4)
    assert 0 < first.n_body_bytes() < len(package)
    # Both couriers die; only what lies on disk is known afterwards.
    site.restart()
    second = Network([site])
    run(dispatcher_of(CourierJournal(tmp_path / "journal"), second))
    assert site.inbox.get("r-1.package.weights") == package
    assert first.n_body_bytes() + second.n_body_bytes() == len(package)


def test_the_same_package_in_another_round_is_not_sent_again(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    package = noise(4, 9 * CHUNK)
    network = Network([site])
    dispatcher = dispatcher_of(journal, network)
    journal.add("duke", "r-1.package.weights", package)
    run(dispatcher)
    n_bytes = network.n_body_bytes()
    journal.add("duke", "r-2.package.weights", package)
    run(dispatcher)
    assert site.inbox.get("r-2.package.weights") == package
    assert network.n_body_bytes() == n_bytes == len(package)


def test_a_parcel_too_large_for_the_site_goes_beside_flower(tmp_path: Path) -> None:
    site = Site(tmp_path, "duke", DUKE, limit_bytes=5 * CHUNK)
    journal = CourierJournal(tmp_path / "journal")
    package = noise(5, 6 * CHUNK)
    network = Network([site])
    dispatcher = dispatcher_of(journal, network)
    journal.add("duke", "r-1.package.weights", package)
    journal.add("duke", "r-1.offer", b"offer")
    run(dispatcher)
    assert journal.refusals("duke") == {"r-1.package.weights": "too_large"}
    assert network.n_body_bytes() <= CHUNK  # the offer's own bytes, held back
    assert "r-1.offer" not in site.inbox.names()
    # Brought by hand; the signed order holds the digest it must have.
    site.inbox.put("r-1.package.weights", package)
    run(dispatcher, 200)
    assert site.inbox.get("r-1.offer") == b"offer"
    assert journal.refusals("duke") == {}


def test_other_bytes_brought_by_hand_are_not_taken_for_the_parcel(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    site.inbox.put("r-1.protocol", b"other")
    journal.add("duke", "r-1.protocol", b"genuine")
    journal.add("duke", "r-1.offer", b"offer")
    run(dispatcher_of(journal, Network([site])))
    assert journal.refusals("duke") == {"r-1.protocol": "parcel_changed"}
    assert "r-1.offer" not in site.inbox.names()


def order(serial: int, site: str = "duke", **fields: object) -> Order:
    return Order.model_validate({"site": site, "serial": serial, **fields})


@pytest.mark.parametrize(
    ("sealed", "code"),
    [
        (order(9).seal(YALE), "signature.courier_signature"),
        (order(9, "yale").seal(LEAD), "round.wrong_address"),
        (order(5).seal(LEAD), "round.courier_replayed"),
        (
            Sealed(
                document=order(9).seal(LEAD).document[:-1] + b',"extra":1}',
                signature=order(9).seal(LEAD).signature,
            ),
            "signature.courier_signature",
        ),
        (
            Sealed(
                document=b'{"extra":1}',
                signature=LEAD.sign(Order.kind + b'{"extra":1}'),
            ),
            "round.malformed_courier_message",
        ),
        (Receipt(site="duke", serial=9).seal(LEAD), "signature.courier_signature"),
    ],
    ids=["other key", "other site", "replayed", "altered", "unknown field", "other kind"],
)
def test_an_order_with_one_fault_does_nothing(tmp_path: Path, sealed: Sealed, code: str) -> None:
    site = Site(tmp_path, "duke", DUKE)
    site.outbox.put("r-1.reply-0001", b"released")
    site.carrier.answer(order(5).seal(LEAD), {})
    with pytest.raises(FedcacError) as caught:
        site.carrier.answer(sealed, {digest_of(b"x"): b"x"})
    assert caught.value.code == code
    assert site.inbox.names() == ()
    assert list((tmp_path / "duke").glob("chunks/*")) == []


def test_a_replay_is_known_after_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, "duke", DUKE)
    asked = order(7, collect={"r-1.reply-0001": {}}).seal(LEAD)
    site.carrier.answer(asked, {})
    site.outbox.put("r-1.reply-0001", b"released")
    site.restart()
    with pytest.raises(RoundError, match="newer"):
        site.carrier.answer(asked, {})


def test_chunks_that_no_order_names_are_dropped(tmp_path: Path) -> None:
    site = Site(tmp_path, "duke", DUKE)
    site.carrier.answer(order(1).seal(LEAD), {digest_of(b"stray"): b"stray"})
    assert list((tmp_path / "duke" / "chunks").iterdir()) == []


@pytest.mark.parametrize("fault", ["another site's key", "another order", "altered chunk"])
def test_a_false_receipt_changes_nothing_and_the_genuine_one_still_counts(
    tmp_path: Path, fault: str
) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    site.outbox.put("r-1.reply-0001", b"genuine")
    journal.add("duke", "r-1.offer", b"offer")
    journal.ask("duke", "r-1.reply-0001")
    network = Network([site])
    dispatcher = dispatcher_of(journal, network)
    forged = b"forged"

    def forge(sealed: Sealed, bodies: Mapping[str, bytes]) -> Answered:
        asked = Order.open(sealed, LEAD.public)
        receipt = Receipt(
            site="duke",
            serial=asked.serial - (fault == "another order"),
            delivered=("r-1.offer",),
            collected={"r-1.reply-0001": Manifest.of(forged)},
        )
        chunk = b"not it" if fault == "altered chunk" else forged
        key = YALE if fault == "another site's key" else DUKE
        return Answered(receipt.seal(key), {digest_of(forged): chunk})

    site.answer = forge  # type: ignore[method-assign]
    run(dispatcher, 2)
    assert len(network.orders) >= 1
    assert journal.ask("duke", "r-1.reply-0001") is None
    assert [one.name for one in journal.pending("duke")] == ["r-1.offer"]
    del site.answer  # type: ignore[method-assign]
    run(dispatcher)
    assert journal.ask("duke", "r-1.reply-0001") == b"genuine"
    assert site.inbox.get("r-1.offer") == b"offer"


def test_bytes_that_the_engine_does_not_accept_are_fetched_anew(tmp_path: Path) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    dispatcher = dispatcher_of(journal, Network([site]))
    site.outbox.put("r-1.reply-0001", b"altered by a courier")
    journal.ask("duke", "r-1.reply-0001")
    run(dispatcher)
    assert journal.ask("duke", "r-1.reply-0001") == b"altered by a courier"
    assert journal.asked("duke") == {}
    journal.ask("duke", "r-1.reply-0001")
    site.outbox._parcels["r-1.reply-0001"] = b"genuine"
    run(dispatcher)
    assert journal.ask("duke", "r-1.reply-0001") == b"genuine"


def test_a_manifest_that_its_chunks_belie_does_not_stop_the_engine(tmp_path: Path) -> None:
    journal = CourierJournal(tmp_path / "journal")
    journal.ask("duke", "r-1.reply-0001")
    journal.chunks.put(digest_of(b"a"), b"a")
    false = Manifest(size=1, digest=digest_of(b"b"), chunks=(digest_of(b"a"),))
    journal.note_collected("duke", {"r-1.reply-0001": false})
    assert journal.ask("duke", "r-1.reply-0001") is None
    assert "r-1.reply-0001" in journal.asked("duke")


def test_a_parcel_is_written_once(tmp_path: Path) -> None:
    journal = CourierJournal(tmp_path / "journal")
    journal.add("duke", "r-1.offer", b"offer")
    journal.add("duke", "r-1.offer", b"offer")
    assert len(journal.pending("duke")) == 1
    with pytest.raises(RoundError, match="other bytes"):
        journal.add("duke", "r-1.offer", b"another")


def test_a_forgotten_round_is_carried_no_more_and_others_keep_their_chunks(
    tmp_path: Path,
) -> None:
    site, journal = Site(tmp_path, "duke", DUKE), CourierJournal(tmp_path / "journal")
    common, own = noise(6, 3 * CHUNK), noise(7, 2 * CHUNK)
    for name, payload in (("r-1.a", common), ("r-1.b", own), ("r-2.a", common)):
        journal.add("duke", name, payload)
    journal.ask("duke", "r-1.reply-0001")
    journal.ask("duke", "r-2.reply-0001")
    assert journal.forget("r-1") == 3
    assert len(list((tmp_path / "journal" / "chunks").iterdir())) == 3
    assert list(journal.asked("duke")) == ["r-2.reply-0001"]
    run(dispatcher_of(journal, Network([site])))
    assert site.inbox.names() == ("r-2.a",)
    # A round that was forgotten by mistake goes on.
    journal.add("duke", "r-1.b", own)
    run(dispatcher_of(journal, Network([site])))
    assert site.inbox.get("r-1.b") == own


def test_the_store_throws_out_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, limit_bytes=3)
    for chunk in (b"a", b"b", b"c"):
        store.put(digest_of(chunk), chunk)
    store.get(digest_of(b"a"))
    store.make_room(1, keep={digest_of(b"b")})
    assert [store.has(digest_of(chunk)) for chunk in (b"a", b"b", b"c")] == [True, True, False]
    with pytest.raises(RoundError, match="digest"):
        store.put(digest_of(b"a"), b"other")


def test_keys_are_read_back_and_others_refused(tmp_path: Path) -> None:
    LEAD.save(tmp_path / "courier.key")
    assert (tmp_path / "courier.key").stat().st_mode & 0o077 == 0
    loaded = CourierKey.load(tmp_path / "courier.key")
    public = CourierPublicKey.from_text((tmp_path / "courier.key.pub").read_text())
    public.verify(loaded.sign(b"message"), b"message")
    with pytest.raises(SignatureError):
        public.verify(loaded.sign(b"message"), b"another")
    with pytest.raises(SignatureError):
        CourierPublicKey.from_text("ssh-ed25519 AAAA")
    with pytest.raises(FileExistsError):
        LEAD.save(tmp_path / "courier.key")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_over_a_line_that_loses_a_third_everything_arrives_whole(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    sites = [Site(tmp_path, "duke", DUKE), Site(tmp_path, "yale", YALE)]
    journal = CourierJournal(tmp_path / "journal")
    sent, kept = {}, {}
    for site in sites:
        for number in range(2):
            name = f"r-{number}.protocol"
            sent[site.name, name] = draw.randbytes(draw.randrange(6 * CHUNK))
            journal.add(site.name, name, sent[site.name, name])
            kept[site.name, f"r-{number}.reply-0001"] = draw.randbytes(draw.randrange(6 * CHUNK))
            site.outbox.put(f"r-{number}.reply-0001", kept[site.name, f"r-{number}.reply-0001"])
            journal.ask(site.name, f"r-{number}.reply-0001")
    network = Network(sites, draw)
    for _ in range(4):
        # The coordinator's courier dies now and then, and knows only its journal.
        run(dispatcher_of(CourierJournal(tmp_path / "journal"), network), 25)
    network.draw = None
    run(dispatcher_of(journal, network), 60)
    for site in sites:
        for name in site.inbox.names():
            assert site.inbox.get(name) == sent.pop((site.name, name))
    assert sent == {}
    assert {key: journal.ask(*key) for key in kept} == kept
