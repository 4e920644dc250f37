"""DIMSE against a real Orthanc over mutual TLS, and against peers that misbehave."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orthanc_server import Authority, Orthanc, free_port, started, write_exam
from pacs.pulling import (
    CANARY,
    DAY,
    N_SLICES,
    fault_of,
    opened_over,
    series_of,
    write_three_exams,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, build_context, evt

from fedcac.imaging import read_header
from site_agent.pacs.dimse import DimseClient
from site_agent.pacs.folder import InstanceFolder
from site_agent.pacs.query import SeriesRecord, StudyQuery
from site_agent.pacs.settings import DimseSettings, PacsSettings
from site_agent.pacs.throttle import Throttle

# pynetdicom leaves the socket of a failed connection to the garbage collector: closing follows a
# shutdown that fails where nothing is connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2."
FIND, MOVE, GET = STUDY_ROOT + "1", STUDY_ROOT + "2", STUDY_ROOT + "3"
opened = partial(opened_over, "dimse")


@pytest.fixture(scope="module", autouse=True)
def _no_socket_is_left_to_other_tests() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Dataset]]:
    root = tmp_path_factory.mktemp("exams")
    radiograph = write_exam(root / "d", "P3", DAY, is_gated=True, seed=4, n_slices=1, Modality="CR")
    packed = write_exam(root / "e", "P4", DAY, is_gated=True, seed=5, n_slices=2, Modality="PT")
    for one in packed:
        one.compress(RLELossless, generate_instance_uid=False)
    return {
        **write_three_exams(root),
        "radiograph": radiograph,
        "packed": packed,
    }


@pytest.fixture(scope="module")
def move_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def pacs(
    tmp_path_factory: pytest.TempPathFactory, exams: dict[str, list[Dataset]], move_port: int
) -> Iterator[Orthanc]:
    def modality(title: str, port: int) -> dict[str, Any]:
        return {"AET": title, "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}

    with started(
        tmp_path_factory.mktemp("orthanc"),
        DicomTlsEnabled=True,
        DicomModalities={"site": modality("SITE", move_port)},
    ) as server:
        store_all(server, [one for datasets in exams.values() for one in datasets])
        yield server


def store_all(server: Orthanc, datasets: list[Dataset]) -> None:
    import ssl

    certificate, key = server.authority.issue("scanner")
    context = ssl.create_default_context(cafile=server.authority.ca_file)
    context.load_cert_chain(certificate, key)
    scanner = AE(ae_title="SCANNER")
    association = scanner.associate(
        "127.0.0.1",
        server.dicom_port,
        contexts=[
            build_context(CTImageStorage, ExplicitVRLittleEndian),
            build_context(CTImageStorage, RLELossless),
        ],
        ae_title="PACS",
        tls_args=(context, "localhost"),
    )
    assert association.is_established
    assert {association.send_c_store(one).Status for one in datasets} == {0}
    association.release()


@pytest.fixture(scope="module")
def connection(pacs: Orthanc) -> dict[str, Any]:
    certificate, key = pacs.authority.issue("site")
    return {
        "host": "127.0.0.1",
        "port": pacs.dicom_port,
        "called_ae_title": "PACS",
        "calling_ae_title": "SITE",
        "tls": {
            "ca_file": str(pacs.authority.ca_file),
            "certificate": str(certificate),
            "key": str(key),
        },
    }


@pytest.fixture(scope="module")
def move(connection: dict[str, Any], move_port: int) -> dict[str, Any]:
    listener = {"ae_title": "SITE", "port": move_port, "address": "127.0.0.1"}
    return {**connection, "retrieve": "move", "move": listener}


def pixels_by_uid(folder: Path) -> dict[str, Any]:
    return {str(one.SOPInstanceUID): one.pixel_array for one in map(dcmread, folder.glob("*.dcm"))}


def test_the_connection_can_be_checked(connection: dict[str, Any], move: dict[str, Any]) -> None:
    for one in (connection, move):
        with opened(one) as client:
            client.check()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"patient_id": CANARY}, {"chest"}),
        ({"accession_number": "A2"}, {"other"}),
        ({"patient_id": CANARY, "accession_number": "A2"}, set()),
        ({"first_day": DAY, "last_day": DAY}, {"chest"}),
        ({"first_day": date(2020, 1, 1), "last_day": date(2020, 12, 31)}, {"chest", "other"}),
        ({"first_day": date(2020, 4, 1)}, {"other"}),
        ({"last_day": date(2020, 4, 1)}, {"chest"}),
        ({"description": "cardiac*"}, {"other"}),
        ({"patient_id": "nobody"}, set()),
    ],
)
def test_studies_are_found_by_what_is_asked(
    connection: dict[str, Any],
    exams: dict[str, list[Dataset]],
    query: dict[str, Any],
    expected: set[str],
) -> None:
    with opened(connection) as client:
        found = client.find_studies(StudyQuery(modality="CT", **query))
    assert {one.study_uid for one in found} == {exams[key][0].StudyInstanceUID for key in expected}


def test_modality_is_asked(connection: dict[str, Any], exams: dict[str, list[Dataset]]) -> None:
    with opened(connection) as client:
        (found,) = client.find_studies(StudyQuery(modality="CR"))
    assert found.study_uid == exams["radiograph"][0].StudyInstanceUID
    assert found.modalities == ("CR",)


def test_too_many_studies_end_the_query(connection: dict[str, Any]) -> None:
    with opened(connection, maximum_studies=1) as client:
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "too_many_studies"


def test_series_bring_the_evidence_for_selection(
    connection: dict[str, Any], exams: dict[str, list[Dataset]]
) -> None:
    with opened(connection) as client:
        found = client.find_series(exams["chest"][0].StudyInstanceUID)
    by_description = {one.description: one for one in found}
    assert set(by_description) == {"CaSc gated 3.0", "Chest routine 5.0"}
    gated = by_description["CaSc gated 3.0"]
    assert (gated.modality, gated.n_instances) == ("CT", N_SLICES)
    assert gated.kernel == "B35f"
    assert gated.slice_thickness_mm == 3.0
    assert gated.image_type[:1] == ("ORIGINAL",)
    assert not gated.has_contrast


@pytest.mark.parametrize("way", ["get", "move"])
def test_a_series_is_pulled_and_half_a_one_completed(
    request: pytest.FixtureRequest,
    pacs: Orthanc,
    exams: dict[str, list[Dataset]],
    tmp_path: Path,
    way: str,
) -> None:
    settings = request.getfixturevalue("move" if way == "move" else "connection")
    series = series_of(exams["gated"])
    folder = InstanceFolder(tmp_path / "s")
    with opened(settings) as client:
        assert (
            client.fetch_series(series, folder) == pacs.n_instances(series.series_uid) == N_SLICES
        )
        stored = {str(one.SOPInstanceUID): one.pixel_array for one in exams["gated"]}
        pulled = pixels_by_uid(folder.path)
        assert pulled.keys() == stored.keys()
        assert all(np.array_equal(pulled[uid], stored[uid]) for uid in stored)
        assert read_header(folder.path).n_instances == N_SLICES

        assert client.fetch_series(series, folder) == 0
        kept = sorted(folder.path.iterdir())[5:]
        for path in sorted(folder.path.iterdir())[:5]:
            path.unlink()
        stamps = {path: path.stat().st_mtime_ns for path in kept}
        assert client.fetch_series(series, folder) == 5
    assert len(folder.held()) == N_SLICES
    assert {path: path.stat().st_mtime_ns for path in kept} == stamps


def test_what_is_stored_compressed_is_pulled_as_it_is_stored(
    connection: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    folder = InstanceFolder(tmp_path / "s")
    with opened(connection) as client:
        assert client.fetch_series(series_of(exams["packed"]), folder) == 2
    pulled = {str(one.SOPInstanceUID): one for one in map(dcmread, folder.path.iterdir())}
    for one in exams["packed"]:
        same = pulled[one.SOPInstanceUID]
        assert same.file_meta.TransferSyntaxUID == RLELossless
        assert np.array_equal(same.pixel_array, one.pixel_array)


def test_every_association_waits_for_its_turn(
    pacs: Orthanc, connection: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    waits: list[float] = []
    throttle = Throttle(concurrent=1, pause_s=60.0, clock=lambda: 0.0, sleep=waits.append)
    settings = PacsSettings.model_validate(
        {"connection": {"protocol": "dimse", **connection}, "rules": {"index": {}}}
    ).connection
    assert isinstance(settings, DimseSettings)
    client = DimseClient(settings, throttle, timeout_s=10.0, maximum_studies=9, resolve=Path)
    client.check()
    client.find_studies(StudyQuery("CT"))
    client.fetch_series(series_of(exams["packed"]), InstanceFolder(tmp_path / "s"))
    # Four associations: the first may begin at once.
    assert waits == [60.0, 60.0, 60.0]


def test_a_count_above_what_is_listed_is_no_complete_series(
    connection: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    with opened(connection) as client:
        series = series_of(exams["gated"], n_instances=N_SLICES + 1)
        folder = InstanceFolder(tmp_path / "s")
        assert fault_of(lambda: client.fetch_series(series, folder)) == "incomplete"
        assert len(folder.held()) == N_SLICES
        gone = SeriesRecord(series.study_uid, "1.2.3", "CT", "", N_SLICES)
        other = InstanceFolder(tmp_path / "t")
        assert fault_of(lambda: client.fetch_series(gone, other)) == "incomplete"


def test_a_move_destination_that_the_pacs_does_not_know(
    move: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    unknown = {**move, "move": {**move["move"], "ae_title": "NOWHERE"}}
    with opened(unknown) as client:
        folder = InstanceFolder(tmp_path / "s")
        found = fault_of(lambda: client.fetch_series(series_of(exams["gated"]), folder))
    # Orthanc 1.10 answers 0xC000 where PS3.4 table C.4-2 asks for 0xA801.
    assert found in ("move_destination_unknown", "retrieve_refused")


def test_a_listener_whose_port_is_taken(
    move: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path, move_port: int
) -> None:
    with socket.socket() as taken:
        # Connections of an earlier retrieval may still wait for their end on this port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", move_port))
        taken.listen()
        with opened(move) as client:
            folder = InstanceFolder(tmp_path / "s")
            series = series_of(exams["gated"])
            assert fault_of(lambda: client.fetch_series(series, folder)) == "listener"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"called_ae_title": "pacs"}, {"called_ae_unknown"}),
        (
            {"calling_ae_title": "STRANGER"},
            {"aborted_at_once", "calling_ae_unknown", "not_offered"},
        ),
        ({"port": "free"}, {"unreachable"}),
        ({"tls": None}, {"connection_lost", "tls_failed"}),
        ({"tls": "other authority"}, {"tls_untrusted"}),
        ({"tls": "other name"}, {"tls_untrusted"}),
        ({"tls": "no certificate"}, {"tls_failed"}),
    ],
)
def test_why_there_is_no_association(
    connection: dict[str, Any],
    tmp_path: Path,
    changes: dict[str, Any],
    expected: set[str],
) -> None:
    tls = connection["tls"]
    wrong = {
        "other authority": lambda: {**tls, "ca_file": str(Authority(tmp_path / "ca").ca_file)},
        "other name": lambda: {**tls, "server_name": "pacs.example.org"},
        "no certificate": lambda: {"ca_file": tls["ca_file"]},
    }
    document = {**connection, **changes}
    if document["port"] == "free":
        document["port"] = free_port()
    if isinstance(document["tls"], str):
        document["tls"] = wrong[document["tls"]]()
    with opened(document) as client:
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) in expected


# Peers that misbehave


@contextmanager
def misbehaving(
    handlers: dict[Any, Callable[[evt.Event], Any]],
) -> Iterator[dict[str, Any]]:
    entity = AE(ae_title="BAD")
    for model in (FIND, GET, MOVE, "1.2.840.10008.1.1"):
        entity.add_supported_context(model)
    entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=list(handlers.items())
    )
    try:
        yield {
            "host": "127.0.0.1",
            "port": port,
            "called_ae_title": "BAD",
            "calling_ae_title": "SITE",
        }
    finally:
        server.shutdown()


def answering(*answers: tuple[int, Dataset | None]) -> Callable[[evt.Event], Iterator[Any]]:
    def handle(_: evt.Event) -> Iterator[Any]:
        yield from answers

    return handle


def instance_answers(datasets: list[Dataset]) -> Callable[[evt.Event], Iterator[Any]]:
    found = []
    for one in datasets:
        answer = Dataset()
        answer.SOPInstanceUID = one.SOPInstanceUID
        found.append((0xFF00, answer))
    return answering(*found)


def handing_over(
    datasets: list[Dataset], then: Callable[[evt.Event], Any] = lambda _: None
) -> Callable[[evt.Event], Iterator[Any]]:
    """Answer C-GET with all but the last of the data sets, and then something."""

    def handle(event: evt.Event) -> Iterator[Any]:
        yield len(datasets)
        for one in datasets[:-1]:
            yield 0xFF00, one
        last = then(event)
        if last is not None:
            yield last

    return handle


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0xA700, "out_of_resources"), (0xA900, "query_refused"), (0xC001, "query_refused")],
)
def test_queries_that_end_in_a_failure(status: int, expected: str) -> None:
    with (
        misbehaving({evt.EVT_C_FIND: answering((status, None))}) as peer,
        opened(peer) as client,
    ):
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == expected


def test_a_peer_that_aborts_and_one_that_says_nothing() -> None:
    def abort(event: evt.Event) -> Iterator[Any]:
        event.assoc.abort()
        yield 0x0000, None

    waiting = threading.Event()

    def wait(_: evt.Event) -> Iterator[Any]:
        waiting.wait(20)
        yield 0x0000, None

    with misbehaving({evt.EVT_C_FIND: abort}) as peer, opened(peer) as client:
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "aborted_at_once"
    with misbehaving({evt.EVT_C_FIND: wait}) as peer, opened(peer, timeout_s=0.5) as client:
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "timeout"
        waiting.set()


@pytest.mark.parametrize("when", ["associating", "answering"])
def test_a_peer_that_stalls_in_the_middle_of_a_pdu(when: str) -> None:
    waiting = threading.Event()

    def stall(event: evt.Event) -> Iterator[Any]:
        # The head of a P-DATA-TF PDU of 16 KiB (PS3.8 9.3.5), and nothing after it.
        event.assoc.dul.socket.socket.sendall(bytes((4, 0, 0, 0, 64, 0, 1, 2)))
        waiting.wait(20)
        yield 0x0000, None

    def half_acceptance(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendall(bytes((2, 0, 0, 0, 1, 0, 1, 2)))
            waiting.wait(20)

    threads = set(threading.enumerate())
    with socket.socket() as raw, misbehaving({evt.EVT_C_FIND: stall}) as peer:
        if when == "associating":
            raw.bind(("127.0.0.1", 0))
            raw.listen()
            peer = {**peer, "port": raw.getsockname()[1]}
            threading.Thread(target=half_acceptance, args=(raw,)).start()
        with opened(peer, timeout_s=0.5) as client:
            fault = fault_of(lambda: client.find_studies(StudyQuery("CT")))
        waiting.set()
    assert fault == "timeout"
    # pynetdicom's thread that reads is no daemon: left behind, it would keep the process alive.
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_port_where_nobody_speaks_dicom(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        peer = {"host": "127.0.0.1", "port": port, "called_ae_title": "B", "calling_ae_title": "S"}
        with opened(peer, timeout_s=0.5) as client:
            assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "timeout"
        tls = {"ca_file": str(Authority(tmp_path).ca_file)}
        with opened({**peer, "tls": tls}, timeout_s=0.5) as client:
            assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "timeout"


def test_answers_to_another_question_are_not_believed() -> None:
    answer = Dataset()
    answer.StudyInstanceUID = "1.2.3"
    answer.PatientID = "another patient"
    answer.StudyDate = "20200301"
    with (
        misbehaving({evt.EVT_C_FIND: answering((0xFF00, answer))}) as peer,
        opened(peer) as client,
    ):
        assert client.find_studies(StudyQuery("CT", patient_id=CANARY)) == ()
        assert client.find_studies(StudyQuery("CT", first_day=date(2021, 1, 1))) == ()
        assert len(client.find_studies(StudyQuery("CT", patient_id="another patient"))) == 1


def test_an_abort_keeps_what_came_and_the_next_pull_asks_for_the_rest(
    exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    datasets = exams["gated"]
    asked: list[int] = []

    def get(event: evt.Event) -> Iterator[Any]:
        wanted = event.identifier.get("SOPInstanceUID")
        asked.append(len(wanted) if wanted else len(datasets))
        if wanted:
            yield len(wanted)
            for one in datasets:
                if one.SOPInstanceUID in wanted:
                    yield 0xFF00, one
            return
        yield len(datasets)
        for one in datasets[:5]:
            yield 0xFF00, one
        event.assoc.abort()

    folder = InstanceFolder(tmp_path / "s")
    handlers = {evt.EVT_C_FIND: instance_answers(datasets), evt.EVT_C_GET: get}
    with misbehaving(handlers) as peer, opened(peer) as client:
        series = series_of(datasets)
        assert fault_of(lambda: client.fetch_series(series, folder)) == "connection_lost"
        n_first = len(folder.held())
        assert 0 < n_first <= 5
        assert client.fetch_series(series, folder) == N_SLICES - n_first
    assert asked == [N_SLICES, N_SLICES - n_first]


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (lambda _: None, "incomplete"),
        (lambda _: (0xC511, None), "retrieve_refused"),
        (lambda _: (0xA702, None), "sub_operations"),
        (lambda _: (0xA701, None), "out_of_resources"),
        (lambda _: (0xA801, None), "move_destination_unknown"),
    ],
)
def test_retrievals_that_lack_an_instance(
    exams: dict[str, list[Dataset]], tmp_path: Path, then: Callable[[Any], Any], expected: str
) -> None:
    datasets = exams["gated"][:4]
    handlers = {
        evt.EVT_C_FIND: instance_answers(datasets),
        evt.EVT_C_GET: handing_over(datasets, then),
    }
    with misbehaving(handlers) as peer, opened(peer) as client:
        folder = InstanceFolder(tmp_path / "s")
        assert fault_of(lambda: client.fetch_series(series_of(datasets), folder)) == expected
    assert len(folder.held()) == 3


def test_an_instance_of_another_series_is_not_kept(
    exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    asked, sent = exams["gated"][:3], exams["other"][:3]
    handlers = {evt.EVT_C_FIND: instance_answers(asked), evt.EVT_C_GET: handing_over(sent)}
    with misbehaving(handlers) as peer, opened(peer) as client:
        folder = InstanceFolder(tmp_path / "s")
        found = fault_of(lambda: client.fetch_series(series_of(asked), folder))
    assert found in ("incomplete", "sub_operations")
    assert list(folder.path.iterdir()) == []


def test_the_listener_takes_awaited_series_from_the_pacs_only(
    exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    asked, foreign = exams["gated"][:3], exams["other"][:2]
    listening = free_port()
    answers: dict[str, int | None] = {}

    def push(title: str, called: str, datasets: list[Dataset]) -> int | None:
        association = AE(ae_title=title).associate(
            "127.0.0.1", listening, contexts=[build_context(CTImageStorage)], ae_title=called
        )
        if not association.is_established:
            return None
        status = max(association.send_c_store(one).Status for one in datasets)
        association.release()
        return int(status)

    def serve(_: evt.Event) -> Iterator[Any]:
        answers["stranger"] = push("EVIL", "SITE", asked)
        answers["other title"] = push("BAD", "OTHER", asked)
        answers["foreign series"] = push("BAD", "SITE", foreign)
        yield "127.0.0.1", listening, {"contexts": [build_context(CTImageStorage)]}
        yield len(asked)
        for one in asked:
            yield 0xFF00, one

    handlers = {evt.EVT_C_FIND: instance_answers(asked), evt.EVT_C_MOVE: serve}
    folder = InstanceFolder(tmp_path / "s")
    with misbehaving(handlers) as peer:
        listener = {"ae_title": "SITE", "port": listening, "address": "127.0.0.1"}
        with opened({**peer, "retrieve": "move", "move": listener}) as client:
            assert client.fetch_series(series_of(asked), folder) == 3
            assert push("BAD", "SITE", asked) == 0xA900
    assert push("BAD", "SITE", asked) is None
    assert answers == {"stranger": None, "other title": None, "foreign series": 0xA900}
    assert set(pixels_by_uid(folder.path)) == {str(one.SOPInstanceUID) for one in asked}


def test_a_peer_without_query_or_retrieve(exams: dict[str, list[Dataset]], tmp_path: Path) -> None:
    entity = AE(ae_title="BAD")
    entity.add_supported_context("1.2.840.10008.1.1")
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False)
    peer = {"host": "127.0.0.1", "port": port, "called_ae_title": "B", "calling_ae_title": "S"}
    try:
        with opened(peer) as client:
            assert fault_of(client.check) == "not_offered"
            assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "not_offered"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        ({"calling_ae_title": "OTHER"}, "calling_ae_unknown"),
        ({"called_ae_title": "OTHER"}, "called_ae_unknown"),
        ({}, "rejected"),
    ],
)
def test_rejected_associations(titles: dict[str, str], expected: str) -> None:
    entity = AE(ae_title="BAD")
    entity.add_supported_context(FIND)
    entity.require_called_aet = True
    entity.require_calling_aet = ["SITE"]
    entity.maximum_associations = 1
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False)
    peer = {"host": "127.0.0.1", "port": port, "called_ae_title": "BAD", "calling_ae_title": "SITE"}
    occupied = None
    try:
        if not titles:
            busy = AE(ae_title="SITE")
            occupied = busy.associate("127.0.0.1", port, [build_context(FIND)], ae_title="BAD")
            assert occupied.is_established
        with opened({**peer, **titles}) as client:
            assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == expected
    finally:
        if occupied is not None:
            occupied.release()
        server.shutdown()


class _Lines(logging.Handler):
    """What an application's own logging would write."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def test_nothing_that_names_a_patient_is_logged_or_warned(
    connection: dict[str, Any],
    exams: dict[str, list[Dataset]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    handler, root = _Lines(), logging.getLogger()
    series = series_of(exams["gated"])
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("heard").debug("this line is heard")
        with opened(connection) as client:
            client.find_studies(StudyQuery("CT", patient_id=CANARY))
            client.fetch_series(series, InstanceFolder(tmp_path / "s"))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    output = capfd.readouterr()
    assert "this line is heard" in handler.lines
    text = "\n".join(handler.lines) + output.out + output.err
    assert CANARY not in text
    assert series.series_uid not in text
    assert CANARY not in repr(StudyQuery("CT", patient_id=CANARY))
    assert series.series_uid not in repr(series)
    names = " ".join(str(path) for path in tmp_path.rglob("*"))
    assert CANARY not in names
    assert series.series_uid not in names
