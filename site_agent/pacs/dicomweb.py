"""A PACS over DICOMweb: QIDO-RS and WADO-RS (PS3.18 10.4 and 10.6).

On the standard library's HTTP client: no redirect is followed and no proxy taken from the
environment, so a password goes to the configured host and nowhere else.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
    RemoteDisconnected,
)
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydicom.datadict import tag_for_keyword

from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.multipart import boundary_of, read_parts
from site_agent.pacs.query import (
    SERIES_KEYS,
    STUDY_KEYS,
    PacsClient,
    SeriesRecord,
    StudyQuery,
    StudyRecord,
)
from site_agent.pacs.settings import DicomWebSettings
from site_agent.pacs.throttle import Throttle
from site_agent.pacs.trust import Resolve, client_context, read_secret

__all__ = ["DicomWebClient"]

_JSON = "application/dicom+json"
# As stored: a server that had to decompress could not send what it cannot decode.
_INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 500
_LARGEST_ANSWER_BYTES = 64 << 20

_FAULTS = {
    401: PacsFault.NOT_AUTHENTICATED,
    403: PacsFault.FORBIDDEN,
    404: PacsFault.NOT_FOUND,
    406: PacsFault.NOT_ACCEPTABLE,
    415: PacsFault.NOT_ACCEPTABLE,
    429: PacsFault.TOO_MANY_REQUESTS,
}


class DicomWebClient(PacsClient):
    """One connection per question or series; every one waits for the throttle's turn."""

    def __init__(
        self,
        settings: DicomWebSettings,
        throttle: Throttle,
        *,
        timeout_s: float,
        maximum_studies: int,
        resolve: Resolve,
    ) -> None:
        parts = urlsplit(settings.url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._root = parts.path.rstrip("/")
        self._throttle = throttle
        self._timeout_s = timeout_s
        self._maximum_studies = maximum_studies
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = client_context(settings.tls, resolve)
        self._server_name = settings.tls.server_name if settings.tls else None
        self._headers = {"User-Agent": "fedcac-site"}
        if settings.user is not None and settings.password_file is not None:
            password = read_secret(resolve(settings.password_file))
            pair = f"{settings.user}:{password}".encode()
            self._headers["Authorization"] = "Basic " + b64encode(pair).decode("ascii")

    def close(self) -> None:
        """Nothing stays open between questions. See `PacsClient`."""

    def check(self) -> None:
        """Ask for one study of any patient."""
        with self._connected() as connection:
            self._page(connection, "/studies", {"limit": "1"}, 0)

    def find_studies(self, query: StudyQuery) -> tuple[StudyRecord, ...]:
        """QIDO-RS for studies. See `PacsClient`."""
        wanted = {
            "PatientID": query.patient_id,
            "AccessionNumber": query.accession_number,
            "StudyDate": query.date_range,
            "ModalitiesInStudy": query.modality,
        }
        # Patterns are matched here: whether case counts, and `*` at all, depends on the PACS.
        parameters = {key: value for key, value in wanted.items() if value}
        found = {
            study.study_uid: study
            for values in self._find("/studies", STUDY_KEYS, parameters, self._maximum_studies)
            if (study := StudyRecord.from_values(values)).study_uid and query.matches(study)
        }
        return tuple(found[uid] for uid in sorted(found))

    def find_series(self, study_uid: str) -> tuple[SeriesRecord, ...]:
        """QIDO-RS for the series of a study. See `PacsClient`."""
        path = f"/studies/{quote(study_uid, safe='')}/series"
        found = {
            values["SeriesInstanceUID"]: SeriesRecord.from_values(study_uid, values)
            for values in self._find(path, SERIES_KEYS, {})
            if values["SeriesInstanceUID"]
        }
        return tuple(found[uid] for uid in sorted(found))

    def find_instances(self, series: SeriesRecord) -> frozenset[str]:
        """QIDO-RS for the instances of a series. See `PacsClient`."""
        answers = self._find(f"{_series_path(series)}/instances", ("SOPInstanceUID",), {})
        return frozenset(values["SOPInstanceUID"] for values in answers) - {""}

    def _retrieve(
        self, series: SeriesRecord, missing: frozenset[str] | None, keep: Callable[[bytes], None]
    ) -> None:
        path = _series_path(series)
        paths = [path]
        if missing is not None:
            paths = [f"{path}/instances/{quote(uid, safe='')}" for uid in sorted(missing)]
        with self._connected() as connection:
            for one in paths:
                response = self._request(connection, one, _INSTANCES)
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                for content in read_parts(response.read1, boundary):
                    keep(content)
                # What follows the closing delimiter must not be taken for the next answer.
                response.read()

    def _find(
        self,
        path: str,
        keywords: Sequence[str],
        parameters: Mapping[str, str],
        maximum: int | None = None,
    ) -> list[dict[str, str]]:
        # Repeated, not joined by commas: not every server reads an encoded comma.
        asked = {**parameters, "includefield": tuple(keywords), "limit": str(_PAGE)}
        answers: list[dict[str, str]] = []
        seen: set[str] = set()
        with self._connected() as connection:
            while True:
                page, has_more = self._page(connection, path, asked, len(answers))
                # A server that ignores `offset` sends the same answers for ever.
                read = [_values(item, keywords) for item in page]
                new = [values for values in read if values[keywords[0]] not in seen]
                seen.update(values[keywords[0]] for values in new)
                answers += new
                if maximum is not None and len(answers) > maximum:
                    raise PacsError(PacsFault.TOO_MANY_STUDIES)
                if not new or not has_more:
                    return answers

    def _page(
        self, connection: HTTPConnection, path: str, parameters: Mapping[str, Any], offset: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return one page of answers, and whether there may be more."""
        asked = {**parameters, "offset": str(offset)} if offset else parameters
        response = self._request(connection, f"{path}?{urlencode(asked, doseq=True)}", _JSON)
        body = response.read(_LARGEST_ANSWER_BYTES + 1)
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise PacsError(PacsFault.TOO_LARGE)
        if response.status == 204 or not body:
            return [], False
        try:
            page = json.loads(body)
        except (ValueError, RecursionError) as error:
            is_json = "json" in response.headers.get("Content-Type", "")
            fault = PacsFault.TRUNCATED if is_json else PacsFault.NOT_DICOMWEB
            raise PacsError(fault) from error
        if not isinstance(page, list) or not all(isinstance(item, dict) for item in page):
            raise PacsError(PacsFault.NOT_DICOMWEB)
        # PS3.18 8.3.4.4: a server that stops short of all matches says so in a warning 299.
        is_cut = response.headers.get("Warning", "").lstrip().startswith("299")
        return page, is_cut or len(page) >= int(parameters["limit"])

    def _request(self, connection: HTTPConnection, path: str, accept: str) -> HTTPResponse:
        connection.request("GET", self._root + path, headers={**self._headers, "Accept": accept})
        response = connection.getresponse()
        if response.status in (200, 204, 206):
            return response
        if response.status >= 500:
            raise PacsError(PacsFault.SERVER_ERROR)
        raise PacsError(_FAULTS.get(response.status, PacsFault.HTTP_OTHER))

    @contextmanager
    def _connected(self) -> Iterator[HTTPConnection]:
        with self._throttle.turn():
            connection = self._connection()
            try:
                with _coded():
                    self._connect(connection)
                    yield connection
            finally:
                connection.close()

    def _connection(self) -> HTTPConnection:
        if self._context is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return _NamedConnection(
            self._host,
            self._port,
            timeout=self._timeout_s,
            context=self._context,
            server_name=self._server_name,
        )

    @staticmethod
    def _connect(connection: HTTPConnection) -> None:
        try:
            connection.connect()
        except (ssl.SSLError, TimeoutError):
            raise
        except ConnectionResetError as error:
            is_tls = isinstance(connection, HTTPSConnection)
            fault = PacsFault.TLS_FAILED if is_tls else PacsFault.CONNECTION_LOST
            raise PacsError(fault) from error
        except OSError as error:
            raise PacsError(PacsFault.UNREACHABLE) from error


class _NamedConnection(HTTPSConnection):
    """HTTPS to a host whose certificate may name it otherwise."""

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        timeout: float,
        context: ssl.SSLContext,
        server_name: str | None,
    ) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls = context
        self._server_name = server_name or host

    def connect(self) -> None:
        """Connect, and check the certificate against the configured name."""
        HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


@contextmanager
def _coded() -> Iterator[None]:
    """Turn what the HTTP client raises into coded errors."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise PacsError(PacsFault.TLS_UNTRUSTED) from error
    except ssl.SSLEOFError as error:
        raise PacsError(PacsFault.CONNECTION_LOST) from error
    except ssl.SSLError as error:
        raise PacsError(PacsFault.TLS_FAILED) from error
    except TimeoutError as error:
        raise PacsError(PacsFault.TIMEOUT) from error
    except IncompleteRead as error:
        raise PacsError(PacsFault.TRUNCATED) from error
    except (RemoteDisconnected, ConnectionError) as error:
        raise PacsError(PacsFault.CONNECTION_LOST) from error
    except HTTPException as error:
        raise PacsError(PacsFault.NOT_DICOMWEB) from error


def _series_path(series: SeriesRecord) -> str:
    study, one = quote(series.study_uid, safe=""), quote(series.series_uid, safe="")
    return f"/studies/{study}/series/{one}"


def _values(item: Mapping[str, Any], keywords: Sequence[str]) -> dict[str, str]:
    """Read one answer in the DICOM JSON model (PS3.18 annex F)."""
    return {keyword: _text(item.get(_tag(keyword))) for keyword in keywords}


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def _text(element: object) -> str:
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    return "\\".join("" if value is None else str(value).strip() for value in values)
