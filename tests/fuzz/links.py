"""Parsers at the ends of lines: PACS answers, Flower's messages, the spool, the status page."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pydicom
from fuzz.engine import CANARY, Parser, register
from fuzz.messages import COURIER, LEAD, SITE_COURIER, parcels, without_chance
from fuzz.mutations import damage_bytes, damage_dicom, damage_json, damage_numbers, damage_text
from pydicom.dataset import Dataset
from site_bench import Bench

from coordinator.flower_courier.dispatch import Answered, Dispatcher
from coordinator.flower_courier.journal import CourierJournal
from fedcac.exchange import MemoryMailbox
from fedcac.exchange.chunks import Manifest, chunks_of
from fedcac.exchange.couriering import Receipt, Sealed
from fedcac.exchange.parcels import rounds_in
from site_agent.flower_courier.carrying import SiteCarrier
from site_agent.pacs.dicomweb import DicomWebClient
from site_agent.pacs.dimse import _values
from site_agent.pacs.multipart import boundary_of, read_parts
from site_agent.pacs.query import SERIES_KEYS, STUDY_KEYS, SeriesRecord, StudyQuery, StudyRecord
from site_agent.pacs.settings import DicomWebSettings
from site_agent.pacs.throttle import Throttle
from site_agent.status_page.server import make_server

# a PACS over DICOMweb


class RawServer:
    """Sends the given bytes to whoever connects, whatever is asked, and hangs up."""

    def __init__(self) -> None:
        self.payload = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(5)
                try:
                    asked = connection.recv(65536)
                    if asked:
                        connection.sendall(self.payload)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    continue


@cache
def _server() -> RawServer:
    return RawServer()


@cache
def _client() -> DicomWebClient:
    settings = DicomWebSettings.model_validate(
        {"protocol": "dicomweb", "url": f"http://127.0.0.1:{_server().port}/dicom-web"}
    )
    return DicomWebClient(
        settings,
        Throttle(concurrent=1, pause_s=0.0),
        timeout_s=20.0,
        maximum_studies=50,
        resolve=Path,
    )


def _http(body: bytes, kind: str = "application/dicom+json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _studies() -> list[bytes]:
    one = {
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00100020": {"vr": "LO", "Value": [CANARY]},
        "00080050": {"vr": "SH", "Value": ["A1"]},
        "00080020": {"vr": "DA", "Value": ["20200101"]},
        "00081030": {"vr": "LO", "Value": ["Chest"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    }
    series = {
        "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00201209": {"vr": "IS", "Value": [120]},
        "00180050": {"vr": "DS", "Value": [2.5]},
        "00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY"]},
        "00181210": {"vr": "SH", "Value": ["B30f"]},
        "00180010": {"vr": "LO", "Value": []},
    }
    return [json.dumps([one]).encode(), json.dumps([series, {}]).encode()]


def _ask(payload: bytes, folder: Path) -> None:
    _server().payload = _http(payload)
    try:
        found = _client().find_studies(StudyQuery("CT"))
    finally:
        listed = _client().find_series("1.2.3")
    for study in found:
        assert study.study_uid
    for series in listed:
        assert series.n_instances is None or series.n_instances >= 0


register(
    Parser(
        name="dicomweb",
        writer="a PACS",
        entry="site_agent.pacs.dicomweb.DicomWebClient.find_studies",
        promise="studies and series with a UID",
        seeds=_studies,
        parse=_ask,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        n_cases=150,
    )
)


def _responses() -> list[bytes]:
    return [_http(body) for body in _studies()]


def _ask_raw(payload: bytes, folder: Path) -> None:
    _server().payload = payload
    for study in _client().find_studies(StudyQuery("CT")):
        assert study.study_uid


register(
    Parser(
        name="dicomweb-response",
        writer="a PACS, or whatever else listens on its port",
        entry="site_agent.pacs.dicomweb.DicomWebClient.find_studies",
        promise="studies with a UID",
        seeds=_responses,
        parse=_ask_raw,
        mutators=(damage_bytes, damage_text, damage_numbers),
        n_cases=150,
    )
)


def _parts() -> list[bytes]:
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\nfirst\r\n--x\r\n\r\nsecond\r\n--x--\r\n"
    return [b'multipart/related; type="application/dicom"; boundary=x\n' + body]


def _read_parts(payload: bytes, folder: Path) -> None:
    kind, _, body = payload.partition(b"\n")
    stream = BytesIO(body)
    found = list(read_parts(stream.read, boundary_of(kind.decode("latin-1")), 1 << 20))
    assert sum(map(len, found)) <= len(body)


register(
    Parser(
        name="multipart",
        writer="a PACS",
        entry="site_agent.pacs.multipart.read_parts",
        promise="parts that together are no longer than what came",
        seeds=_parts,
        parse=_read_parts,
        mutators=(damage_bytes, damage_text),
        n_cases=300,
    )
)


@cache
def _answers() -> tuple[bytes, ...]:
    made = []
    for keywords in (STUDY_KEYS, SERIES_KEYS):
        dataset = Dataset()
        for keyword in keywords:
            setattr(
                dataset, keyword, {"StudyDate": "20200101", "PatientID": CANARY}.get(keyword, "1")
            )
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        stream = BytesIO()
        stream.write(bytes(128) + b"DICM")
        pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=True)
        made.append(stream.getvalue())
    return tuple(made)


def _read_answer(payload: bytes, folder: Path) -> None:
    from pynetdicom.dsutils import decode

    try:
        dataset = decode(BytesIO(payload[132:]), False, True)
        dataset = pydicom.Dataset(dataset)
    except Exception:
        # pynetdicom decodes before this project sees anything, and answers a fault of its own.
        return
    study = StudyRecord.from_values(_values(dataset, STUDY_KEYS))
    series = SeriesRecord.from_values("1", _values(dataset, SERIES_KEYS))
    assert series.n_instances is None or series.n_instances >= 0
    assert study.patient_id == "" or study.patient_id not in repr(study).partition("description")[0]


register(
    Parser(
        name="c-find-answer",
        writer="a PACS",
        entry="site_agent.pacs.dimse.DimseClient.find_studies",
        promise="what cannot be read is as empty",
        seeds=lambda: _answers(),
        parse=_read_answer,
        mutators=(damage_dicom, damage_dicom, damage_bytes),
        n_cases=300,
    )
)


# couriers over Flower


def _receipts() -> list[bytes]:
    receipt = Receipt(
        site="north",
        serial=1,
        delivered=("r-1.offer",),
        missing={"r-1.protocol": ("0" * 64,)},
        refused={"r-1.package": "too_large"},
        collected={"r-1.reply-0001": Manifest.of(b"an answer")},
    )
    return [receipt.model_dump_json().encode()]


class _Link:
    """A link over which exactly one receipt comes."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def online(self) -> dict[str, int]:
        return {"north": 1}

    def send(self, node: int, sealed: Sealed, bodies: Any) -> str:
        return "ticket"

    def poll(self, tickets: Sequence[str]) -> dict[str, Answered]:
        sealed = Sealed(document=self._payload, signature=SITE_COURIER.sign(_KIND + self._payload))
        return {"ticket": Answered(sealed, dict(chunks_of(b"an answer")))}


_KIND = Receipt.kind


def _take_receipt(payload: bytes, folder: Path) -> None:
    shutil.rmtree(folder / "journal", ignore_errors=True)
    journal = CourierJournal(folder / "journal")
    heard: list[str] = []
    clock = iter(range(0, 10_000, 100))
    try:
        journal.add("north", "r-1.offer", b"an offer")
        assert journal.ask("north", "r-1.reply-0001") is None
        dispatcher = Dispatcher(
            journal=journal,
            link=_Link(payload),
            roster={"north": SITE_COURIER.public},
            key=COURIER,
            say=heard.append,
            clock=lambda: float(next(clock)),
        )
        for _ in range(4):
            dispatcher.turn()
        found = journal.ask("north", "r-1.reply-0001")
        assert found in (None, b"an answer"), "another parcel was taken"
    except StopIteration:
        raise AssertionError("the dispatcher does not come to an end") from None


def _records() -> list[bytes]:
    whole = {"order": {"document": "AAAA", "signature": "AAAA"}, "chunks": {"0": "AAAA"}}
    return [json.dumps(whole).encode()]


@cache
def _flower() -> SimpleNamespace:
    # Flower's own imports warn of what it uses.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from flwr import app
        from flwr.supercore.task_identity import TaskIdentity

        from coordinator.flower_courier.adapter import _answered
        from site_agent.flower_courier.adapter import MESSAGE_TYPE, FlowerTasks
    # Message() reads who it is from these process-wide fields.
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    return SimpleNamespace(
        app=app, answered=_answered, message_type=MESSAGE_TYPE, tasks=FlowerTasks
    )


def _message(payload: bytes, name: str) -> Any:
    """Return a Flower message whose content was made by a stranger."""
    app = _flower().app
    content = app.RecordDict()
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        told = payload
    if isinstance(told, dict):
        for key, value in told.items():
            if key == "chunks":
                continue
            for kind in (app.ConfigRecord, app.MetricRecord):
                try:
                    content[name if key == "order" else key] = kind(value)
                    break
                except (TypeError, ValueError, AttributeError, KeyError):
                    continue
        if isinstance(told.get("chunks"), dict):
            content["chunks"] = app.ArrayRecord(
                {
                    str(key): app.Array("uint8", (1,), "raw", str(one).encode("utf-8", "replace"))
                    for key, one in told["chunks"].items()
                }
            )
    return app.Message(content, 1, _flower().message_type)


def _answer_order(payload: bytes, folder: Path) -> None:
    carrier = SiteCarrier(
        site="north",
        inbox=MemoryMailbox(),
        outbox=MemoryMailbox(),
        state=folder / "state",
        key=SITE_COURIER,
        coordinator=COURIER.public,
        limit_bytes=2**20,
    )
    tasks = _flower().tasks.__new__(_flower().tasks)
    tasks._carrier = carrier
    reply = tasks.answer(_message(payload, "order"))
    assert reply.has_error() or _flower().answered(reply).sealed is not None


register(
    Parser(
        name="flower-order",
        writer="a SuperLink, or who took it over",
        entry="site_agent.flower_courier.adapter.FlowerTasks.answer",
        promise="a signed receipt, or an error that says nothing",
        seeds=_records,
        parse=_answer_order,
        mutators=(damage_json, damage_json, damage_bytes),
    )
)


def _answered_message(payload: bytes, folder: Path) -> None:
    found = _flower().answered(_message(payload, "receipt"))
    assert found.sealed is None or isinstance(found.sealed, Sealed)


register(
    Parser(
        name="flower-answer",
        writer="a SuperNode of an enrolled site",
        entry="coordinator.flower_courier.adapter._answered",
        promise="a sealed document, or none",
        seeds=_records,
        parse=_answered_message,
        mutators=(damage_json, damage_json, damage_bytes),
    )
)
register(
    Parser(
        name="courier-receipt",
        writer="a site's courier, or whoever has its key",
        entry="coordinator.flower_courier.dispatch.Dispatcher.turn",
        promise="no other parcel than the one that its manifest names; dropped otherwise",
        seeds=_receipts,
        parse=_take_receipt,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
        n_cases=25,
    )
)

# the spool of a site


class Site:
    """A site with a spool, made anew for every case from the same folder."""

    def __init__(self) -> None:
        self.home = TemporaryDirectory(prefix="fuzz-site-")
        with without_chance():
            self.bench = Bench(Path(self.home.name), approval="auto", lead=LEAD, n_exams=4)


@cache
def _site() -> Site:
    return Site()


def _parcel_sets() -> list[bytes]:
    """Parcels as JSON: names and Latin-1 text."""
    texts = {name: one.decode("latin-1") for name, one in parcels().inbox.items()}
    return [json.dumps(texts).encode()]


_ODD_NAMES = (
    "a..offer",
    ".offer",
    "x.offer",
    "x.request-9999999999",
    "x.package...",
    "consortium.notice-0001",
    "fuzz-0001.offer-0002",
    "fuzz-0001.closing",
    "fuzz-0001.plan-0001",
    "UPPER.offer",
    "fuzz-0001.request-1",
)


def _damage_parcels(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    box = json.loads(payload)
    name = rng.choice(sorted(box))
    kind = rng.randrange(5)
    part = box[name].encode("latin-1")
    if kind == 0:
        box[name] = damage_bytes(rng, part, [part]).decode("latin-1")
    elif kind == 1:
        box[name] = damage_json(rng, part, [part]).decode("latin-1")
    elif kind == 2:
        box[rng.choice(_ODD_NAMES)] = box[name]
    elif kind == 3:
        box[name] = rng.choice(sorted(box.values()))
    elif len(box) > 1:
        del box[name]
    return json.dumps(box).encode()


def _look_at_spool(payload: bytes, folder: Path) -> None:
    bench = _site().bench
    spool = bench.folder.spool_path
    for path in [*spool.glob("*/*"), *bench.folder.root.glob("state.sqlite*")]:
        path.unlink()
    for path in bench.folder.root.glob("ledger.*"):
        path.unlink()
    for name, text in json.loads(payload).items():
        (spool / "inbox").mkdir(parents=True, exist_ok=True)
        (spool / "inbox" / name).write_bytes(text.encode("latin-1"))
    bench.ask("good-0001")
    bench.offer("good-0001")
    before = {path.name: path.read_bytes() for path in (spool / "inbox").iterdir()}
    with bench.agent() as agent:
        agent.step()
        problems = dict(agent.problems)
    assert set(problems) <= set(rounds_in(bench.spool.inbox))
    assert "good-0001" not in problems
    assert "good-0001.reply-0001" in bench.outbox(), "one round's parcels stopped another"
    after = {path.name: path.read_bytes() for path in (spool / "inbox").iterdir()}
    assert after == before, "a parcel was lost or altered"
    for error in problems.values():
        raise error


register(
    Parser(
        name="spool",
        writer="a courier, or whoever can write to the spool",
        entry="site_agent.rounds.agent.SiteAgent.step",
        promise="another round of the same spool is answered, and no parcel is lost",
        seeds=_parcel_sets,
        parse=_look_at_spool,
        mutators=(_damage_parcels,),
        n_cases=20,
    )
)

# the status page


class Page:
    """The server of the status page of a site that has not written yet."""

    def __init__(self) -> None:
        self.home = TemporaryDirectory(prefix="fuzz-page-")
        self.server = make_server(Path(self.home.name) / "standing.json", 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@cache
def _page() -> Page:
    return Page()


def _requests() -> list[bytes]:
    host = b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n"
    return [
        b"GET /?still HTTP/1.1\r\n" + host,
        b"GET /status.json HTTP/1.1\r\n" + host,
        b"HEAD /style.css?a=1&b=2 HTTP/1.1\r\nSec-Fetch-Site: none\r\n" + host,
    ]


def _ask_page(payload: bytes, folder: Path) -> None:
    server = _page().server
    faults: list[Any] = []
    with (
        patch.object(server, "handle_error", lambda *about: faults.append(_fault())),
        socket.create_connection(server.server_address[:2], timeout=20) as connection,
    ):
        answer = b""
        # The server may hang up before everything was sent.
        with suppress(OSError):
            connection.sendall(payload)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while part := connection.recv(65536):
                answer += part
    assert not faults, f"the server failed: {faults[0]}"
    assert CANARY.encode() not in answer
    first = answer.partition(b"\r\n")[0]
    assert not first.startswith(b"HTTP/1.1 500")
    assert not list(Path(_page().home.name).iterdir())


def _fault() -> str | None:
    error = sys.exc_info()[1]
    return None if isinstance(error, OSError) else repr(error)


register(
    Parser(
        name="status-page",
        writer="another program on the same computer",
        entry="site_agent.status_page.server.make_server",
        promise="an answer that is no fault of the server; nothing is written",
        seeds=_requests,
        parse=_ask_page,
        mutators=(damage_bytes, damage_text),
        n_cases=150,
    )
)
