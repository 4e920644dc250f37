"""DICOMweb against a real Orthanc over HTTPS, and against servers that misbehave."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orthanc_server import (
    WEB_PASSWORD,
    WEB_USER,
    Authority,
    Orthanc,
    free_port,
    started,
    tls_gateway,
)
from pacs.pulling import (
    CANARY,
    DAY,
    N_SLICES,
    fault_of,
    opened_over,
    series_of,
    write_three_exams,
)
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from site_agent.pacs.dicomweb import DicomWebClient
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import InstanceFolder
from site_agent.pacs.multipart import boundary_of, read_parts
from site_agent.pacs.query import StudyQuery
from site_agent.pacs.settings import DicomWebSettings
from site_agent.pacs.throttle import Throttle

opened = partial(opened_over, "dicomweb")


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Dataset]]:
    return write_three_exams(tmp_path_factory.mktemp("exams"))


def file_of(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def multipart(contents: list[bytes], boundary: str = "b", end: str = "--") -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    parts = [b"--" + boundary.encode() + b"\r\n" + head + part + b"\r\n" for part in contents]
    return b"".join(parts) + f"--{boundary}{end}".encode()


@pytest.fixture(scope="module")
def pacs(
    tmp_path_factory: pytest.TempPathFactory, exams: dict[str, list[Dataset]]
) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    with started(folder, DicomServerEnabled=False) as server:
        # STOW-RS (PS3.18 10.5), as a modality's gateway would.
        connection = HTTPConnection("127.0.0.1", server.http_port)
        pair = b64encode(f"{WEB_USER}:{WEB_PASSWORD}".encode()).decode()
        body = multipart([file_of(one) for datasets in exams.values() for one in datasets])
        headers = {
            "Authorization": f"Basic {pair}",
            "Accept": "application/dicom+json",
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
        }
        connection.request("POST", "/dicom-web/studies", body=body, headers=headers)
        assert connection.getresponse().status == 200
        connection.close()
        yield server


@pytest.fixture(scope="module")
def gateway(pacs: Orthanc) -> Iterator[str]:
    with tls_gateway(pacs) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def connection(pacs: Orthanc, gateway: str) -> dict[str, Any]:
    password = pacs.authority.folder / "password"
    password.write_text(WEB_PASSWORD, encoding="utf-8")
    password.chmod(0o600)
    return {
        "url": f"{gateway}/dicom-web",
        "user": WEB_USER,
        "password_file": str(password),
        "tls": {"ca_file": str(pacs.authority.ca_file)},
    }


def test_the_connection_can_be_checked(connection: dict[str, Any]) -> None:
    with opened(connection) as client:
        client.check()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"patient_id": CANARY}, {"chest"}),
        ({"accession_number": "A2"}, {"other"}),
        ({"patient_id": CANARY, "accession_number": "A2"}, set()),
        ({"first_day": DAY, "last_day": DAY}, {"chest"}),
        ({"first_day": date(2020, 4, 1)}, {"other"}),
        ({"last_day": date(2020, 4, 1)}, {"chest"}),
        ({"description": "CARDIAC*"}, {"other"}),
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
        assert client.find_studies(StudyQuery(modality="MR", **query)) == ()
    assert {one.study_uid for one in found} == {exams[key][0].StudyInstanceUID for key in expected}


def test_series_bring_the_evidence_for_selection(
    connection: dict[str, Any], exams: dict[str, list[Dataset]]
) -> None:
    with opened(connection) as client:
        found = client.find_series(exams["chest"][0].StudyInstanceUID)
    by_description = {one.description: one for one in found}
    assert set(by_description) == {"CaSc gated 3.0", "Chest routine 5.0"}
    gated = by_description["CaSc gated 3.0"]
    assert (gated.modality, gated.n_instances) == ("CT", N_SLICES)
    assert (gated.kernel, gated.slice_thickness_mm) == ("B35f", 3.0)
    assert gated.image_type[:1] == ("ORIGINAL",)


def test_a_series_is_pulled_and_half_a_one_completed(
    pacs: Orthanc, connection: dict[str, Any], exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    series = series_of(exams["gated"])
    folder = InstanceFolder(tmp_path / "s")
    with opened(connection) as client:
        assert (
            client.fetch_series(series, folder) == pacs.n_instances(series.series_uid) == N_SLICES
        )
        pulled = {str(one.SOPInstanceUID): one for one in map(dcmread, folder.path.iterdir())}
        for one in exams["gated"]:
            assert np.array_equal(pulled[one.SOPInstanceUID].pixel_array, one.pixel_array)
        assert client.fetch_series(series, folder) == 0
        kept = sorted(folder.path.iterdir())[5:]
        for path in sorted(folder.path.iterdir())[:5]:
            path.unlink()
        stamps = {path: path.stat().st_mtime_ns for path in kept}
        assert client.fetch_series(series, folder) == 5
    assert {path: path.stat().st_mtime_ns for path in kept} == stamps
    assert len(folder.held()) == N_SLICES


def test_who_is_not_let_in_and_who_is_not_believed(
    connection: dict[str, Any], gateway: str, tmp_path: Path
) -> None:
    def ask(changes: dict[str, Any]) -> str:
        with opened({**connection, **changes}) as client:
            return fault_of(client.check)

    wrong = tmp_path / "password"
    wrong.write_text("wrong", encoding="utf-8")
    wrong.chmod(0o600)
    assert ask({"password_file": str(wrong)}) == "http_401"
    assert ask({"user": None, "password_file": None}) == "http_401"
    assert ask({"url": f"{gateway}/elsewhere"}) == "http_404"
    # Orthanc's own page, not DICOMweb.
    assert ask({"url": f"{gateway}/app/explorer.html#"}) in ("not_dicomweb", "http_404")
    other = str(Authority(tmp_path / "ca").ca_file)
    assert ask({"tls": {"ca_file": other}}) == "tls_untrusted"
    named = {**connection["tls"], "server_name": "pacs.example.org"}
    assert ask({"tls": named}) == "tls_untrusted"
    assert ask({"tls": None}) == "tls_untrusted"
    assert ask({"url": f"https://127.0.0.1:{free_port()}"}) == "unreachable"


# Servers that misbehave

Reply = Callable[[BaseHTTPRequestHandler], None]


def saying(status: int, body: bytes = b"", **headers: str) -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return reply


@contextmanager
def misbehaving(reply: Reply) -> Iterator[tuple[dict[str, Any], list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            reply(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield {"url": f"http://127.0.0.1:{server.server_address[1]}/web"}, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, "http_other"),
        (302, "http_other"),
        (400, "http_other"),
        (401, "http_401"),
        (403, "http_403"),
        (404, "http_404"),
        (406, "http_406"),
        (415, "http_406"),
        (429, "http_429"),
        (500, "http_5xx"),
        (503, "http_5xx"),
    ],
)
def test_http_statuses(status: int, expected: str) -> None:
    away = saying(status, b"words", Location="http://127.0.0.1:1/elsewhere")
    with misbehaving(away) as (peer, asked), opened(peer) as client:
        assert fault_of(client.check) == expected
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (saying(200, b"<html>", Content_Type="text/html"), "not_dicomweb"),
        (saying(200, b"{}", Content_Type="application/dicom+json"), "not_dicomweb"),
        (saying(200, b"[1]", Content_Type="application/dicom+json"), "not_dicomweb"),
        (saying(200, b'[{"0020', Content_Type="application/dicom+json"), "truncated"),
        (lambda request: request.connection.close(), "connection_lost"),
        (lambda request: request.wfile.write(b"no http\r\n\r\n"), "not_dicomweb"),
    ],
)
def test_answers_that_are_no_answer(reply: Reply, expected: str) -> None:
    def once(request: BaseHTTPRequestHandler) -> None:
        reply(request)
        request.close_connection = True

    with misbehaving(once) as (peer, _), opened(peer) as client:
        assert fault_of(client.check) == expected


def test_a_server_that_says_nothing() -> None:
    waiting = threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        waiting.wait(20)
        request.close_connection = True

    with misbehaving(wait) as (peer, _), opened(peer, timeout_s=0.3) as client:
        assert fault_of(client.check) == "timeout"
        waiting.set()


def element(keyword_tag: str, *values: object) -> dict[str, Any]:
    return {keyword_tag: {"vr": "UI", "Value": list(values)}}


def instances_json(datasets: list[Dataset]) -> bytes:
    answers = [element("00080018", str(one.SOPInstanceUID)) for one in datasets]
    return json.dumps(answers).encode()


def serving(datasets: list[Dataset], series_reply: Reply) -> Reply:
    """Serve the instance list and single instances; the whole series by `series_reply`."""
    by_uid = {str(one.SOPInstanceUID): one for one in datasets}

    def reply(request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        if path.endswith("/instances"):
            saying(200, instances_json(datasets), Content_Type="application/dicom+json")(request)
        elif "/instances/" in path:
            body = multipart([file_of(by_uid[path.rsplit("/", 1)[1]])])
            saying(200, body, Content_Type=kind)(request)
        else:
            series_reply(request)

    return reply


@pytest.mark.parametrize("framing", ["length", "short", "chunked", "open end"])
def test_a_truncated_multipart_keeps_whole_parts_and_the_rest_is_asked_for(
    exams: dict[str, list[Dataset]], tmp_path: Path, framing: str
) -> None:
    datasets = exams["gated"][:6]
    body = multipart([file_of(one) for one in datasets])
    cut = body[: len(body) * 5 // 12]

    def series_reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", 'multipart/related; type="x"; boundary="b"')
        if framing == "length":
            request.send_header("Content-Length", str(len(cut)))
        elif framing == "short":
            request.send_header("Content-Length", str(len(body)))
        elif framing == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        if framing == "chunked":
            request.wfile.write(f"{len(body):x}\r\n".encode())
        request.wfile.write(cut)
        request.close_connection = True

    folder = InstanceFolder(tmp_path / "s")
    with misbehaving(serving(datasets, series_reply)) as (peer, asked), opened(peer) as client:
        series = series_of(datasets)
        assert fault_of(lambda: client.fetch_series(series, folder)) == "truncated"
        assert len(folder.held()) == 2
        asked.clear()
        assert client.fetch_series(series, folder) == 4
    assert len(folder.held()) == 6
    assert len([path for path in asked if "/instances/" in path]) == 4


def test_an_instance_of_another_series_is_not_kept(
    exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    asked, sent = exams["gated"][:3], exams["other"][:3]
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    for content in (file_of(sent[0]), b"no DICOM", b""):
        reply = saying(200, multipart([content]), Content_Type=kind)
        with misbehaving(serving(asked, reply)) as (peer, _), opened(peer) as client:
            folder = InstanceFolder(tmp_path / "s")
            found = fault_of(lambda client=client, folder=folder: client.fetch_series(
                series_of(asked), folder))  # fmt: skip
        assert found == "other_object"
        assert list(folder.path.iterdir()) == []


def test_fewer_instances_than_listed_are_no_series(
    exams: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    datasets = exams["gated"][:3]
    body = multipart([file_of(one) for one in datasets[:2]])
    reply = saying(200, body, Content_Type="multipart/related; boundary=b")
    with misbehaving(serving(datasets, reply)) as (peer, _), opened(peer) as client:
        folder = InstanceFolder(tmp_path / "s")
        assert fault_of(lambda: client.fetch_series(series_of(datasets), folder)) == "incomplete"
    assert len(folder.held()) == 2


def studies_json(first: int, number: int) -> bytes:
    items = [
        {**element("0020000D", f"1.2.{uid}"), **element("00080020", "20200301")}
        for uid in range(first, first + number)
    ]
    return json.dumps(items).encode()


@pytest.mark.parametrize("has_offset", [True, False])
def test_pages_are_read_to_the_end(has_offset: bool) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        query = request.path.partition("?")[2].split("&")
        offset = next((int(one[7:]) for one in query if one.startswith("offset=")), 0)
        first = offset if has_offset else 0
        left = max(0, min(40, 100 - first))
        more = {"Warning": '299 here "There are more results"'} if first + left < 100 else {}
        saying(200, studies_json(first, left), **more)(request)

    with misbehaving(reply) as (peer, asked), opened(peer) as client:
        found = client.find_studies(StudyQuery("CT"))
    assert len(found) == (100 if has_offset else 40)
    assert len(asked) == (3 if has_offset else 2)
    with (
        misbehaving(reply) as (peer, _),
        opened(peer, maximum_studies=30) as client,
    ):
        assert fault_of(lambda: client.find_studies(StudyQuery("CT"))) == "too_many_studies"


def test_answers_to_another_question_are_not_believed() -> None:
    reply = saying(200, studies_json(0, 3))
    with misbehaving(reply) as (peer, _), opened(peer) as client:
        assert client.find_studies(StudyQuery("CT", patient_id=CANARY)) == ()
        assert client.find_studies(StudyQuery("CT", first_day=date(2021, 1, 1))) == ()
        assert len(client.find_studies(StudyQuery("CT", last_day=date(2021, 1, 1)))) == 3


def test_every_connection_waits_for_its_turn() -> None:
    waits: list[float] = []
    throttle = Throttle(concurrent=1, pause_s=60.0, clock=lambda: 0.0, sleep=waits.append)
    with misbehaving(saying(204)) as (peer, asked):
        settings = DicomWebSettings(protocol="dicomweb", **peer)
        client = DicomWebClient(settings, throttle, timeout_s=10.0, maximum_studies=9, resolve=Path)
        client.check()
        client.find_studies(StudyQuery("CT"))
        client.find_series("1.2")
    assert len(asked) == 3
    # The first may begin at once.
    assert waits == [60.0, 60.0]


# Multipart


@given(
    contents=st.lists(st.binary(max_size=60), max_size=5),
    step=st.integers(min_value=1, max_value=40),
    preamble=st.sampled_from([b"", b"\r\n", b"some words\r\n"]),
)
def test_parts_come_out_as_they_went_in(contents: list[bytes], step: int, preamble: bytes) -> None:
    boundary = "=_a boundary_that is no content"
    if not contents:
        body = b"--" + boundary.encode() + b"--"
    else:
        body = multipart(contents, boundary)
    body = preamble + body + b"\r\nepilogue"
    stream = BytesIO(body)
    parts = read_parts(lambda size: stream.read(min(step, size)), boundary.encode())
    assert list(parts) == contents


@given(cut=st.integers(min_value=0, max_value=400))
def test_every_cut_is_noticed(cut: int) -> None:
    contents = [bytes(range(100)), b"\r\n--", b"x" * 50]
    body = multipart(contents, "limit")
    cut = min(cut, len(body) - 1)
    stream = BytesIO(body[:cut])
    found: list[bytes] = []
    with pytest.raises(PacsError) as caught:
        found.extend(_collected(read_parts(stream.read, b"limit"), found))
    assert caught.value.fault is PacsFault.TRUNCATED
    assert found == contents[: len(found)]


def _collected(parts: Iterator[bytes], into: list[bytes]) -> list[bytes]:
    for part in parts:
        into.append(part)
    return []


def test_a_part_without_header_lines_and_one_that_is_too_large() -> None:
    body = b"--b\r\n\r\ncontent\r\n--b--"
    assert list(read_parts(BytesIO(body).read, b"b")) == [b"content"]
    endless = BytesIO(b"--b\r\n\r\n" + bytes(5000))
    with pytest.raises(PacsError) as caught:
        list(read_parts(lambda size: endless.read(min(size, 100)), b"b", largest=1000))
    assert caught.value.fault is PacsFault.TOO_LARGE


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', b"a b"),
        ("Multipart/Related;boundary=x", b"x"),
        ("multipart/related", None),
        ("application/dicom", None),
        ("", None),
    ],
)
def test_boundaries(content_type: str, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(PacsError):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == boundary
