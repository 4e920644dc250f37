"""Where DIMSE puts what it retrieves: C-STORE handlers, and the listener that C-MOVE needs."""

from __future__ import annotations

import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.uid import (
    JPEG2000,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import PARSING
from site_agent.pacs.settings import MoveSettings

__all__ = [
    "STORAGE_CLASSES",
    "TRANSFER_SYNTAX_GROUPS",
    "Expected",
    "Keep",
    "Listener",
    "limit_handler",
    "store_handler",
]

Keep = Callable[[bytes], None]

STORAGE_CLASSES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
)

# What imaging decodes; the uncompressed ones are alternatives of one context, since every PACS
# can write them.
TRANSFER_SYNTAX_GROUPS = (
    (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian),
    (DeflatedExplicitVRLittleEndian,),
    (JPEGLossless, JPEGLosslessSV1),
    (JPEGLSLossless, JPEGLSNearLossless),
    (JPEG2000Lossless, JPEG2000),
    (RLELossless,),
)

# PS3.4 annex B.2.3
_STORED = 0x0000
_NOT_STORED = 0xA700
_NOT_ASKED_FOR = 0xA900


class Expected:
    """Which series are awaited now, and who takes their instances; others are refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._takers: dict[str, tuple[Keep, list[Exception]]] = {}

    @contextmanager
    def series(self, series_uid: str, keep: Keep) -> Iterator[list[Exception]]:
        """Await one series; what goes wrong while storing is in the yielded list, and raised."""
        failures: list[Exception] = []
        with self._lock:
            self._takers[series_uid] = (keep, failures)
        try:
            yield failures
        except PacsError:
            # What this side could not store is the cause of what the PACS then reports.
            if failures:
                raise failures[0] from None
            raise
        finally:
            with self._lock:
                del self._takers[series_uid]
        if failures:
            raise failures[0]

    def taker(self, series_uid: str) -> tuple[Keep, list[Exception]] | None:
        """Return who takes a series' instances; None if it is not awaited."""
        with self._lock:
            return self._takers.get(series_uid)


def limit_handler(timeout_s: float) -> Callable[[evt.Event], None]:
    """Return the handler of opened connections that limits how long one read or write waits.

    pynetdicom's own timeouts do not end a read in the middle of a PDU: a peer that stalls there
    would hold its thread, and with it the process, for ever.
    """

    def handle(event: evt.Event) -> None:
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.settimeout(timeout_s)

    return handle


def store_handler(expected: Expected) -> Callable[[evt.Event], int]:
    """Return the handler of C-STORE requests for awaited series."""

    def handle(event: evt.Event) -> int:
        taker = expected.taker(_series_of(event))
        if taker is None:
            return _NOT_ASKED_FOR
        keep, failures = taker
        try:
            keep(event.encoded_dataset())
        except Exception as error:
            # This is pynetdicom's thread, which would only log it: the asking thread raises it.
            failures.append(error)
            return _NOT_STORED
        return _STORED

    return handle


def _series_of(event: evt.Event) -> str:
    with PARSING, warnings.catch_warnings():
        # A warning of pydicom's quotes the value.
        warnings.simplefilter("ignore")
        try:
            return str(event.dataset.get("SeriesInstanceUID", ""))
        except Exception:
            # Whatever cannot be parsed is nothing that was asked for.
            return ""


class Listener:
    """Takes associations from the PACS only, and only instances of awaited series."""

    def __init__(
        self,
        settings: MoveSettings,
        *,
        sender: str,
        expected: Expected,
        timeout_s: float,
        context: ssl.SSLContext | None,
    ) -> None:
        self._settings = settings
        self._expected = expected
        self._context = context
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None
        self._entity = AE(ae_title=settings.ae_title)
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = [sender]
        self._entity.acse_timeout = timeout_s
        self._entity.dimse_timeout = timeout_s
        self._entity.network_timeout = timeout_s
        syntaxes = [syntax for group in TRANSFER_SYNTAX_GROUPS for syntax in group]
        for uid in STORAGE_CLASSES:
            self._entity.add_supported_context(uid, syntaxes)

    def start(self) -> None:
        """Listen from now on.

        Raises
        ------
        PacsError
            `pacs_listener` if the port is taken or not allowed.
        """
        with self._lock:
            if self._server is not None:
                return
            try:
                self._server = self._entity.start_server(
                    (self._settings.address, self._settings.port),
                    block=False,
                    ssl_context=self._context,
                    evt_handlers=[
                        (evt.EVT_CONN_OPEN, limit_handler(self._timeout_s)),
                        (evt.EVT_C_STORE, store_handler(self._expected)),
                    ],
                )
            except OSError as error:
                raise PacsError(PacsFault.LISTENER) from error

    def stop(self) -> None:
        """Listen no longer."""
        with self._lock:
            if self._server is not None:
                self._server.shutdown()
                self._server = None
