"""Which fault a DIMSE status, a rejected association or a failed handshake is."""

from __future__ import annotations

import socket
import ssl

from pynetdicom.association import Association

from site_agent.pacs.faults import PacsFault

__all__ = ["find_fault", "refused_association_fault", "retrieve_fault"]

_SERVICE_USER = 1
_CALLING_UNKNOWN, _CALLED_UNKNOWN = 3, 7
"""PS3.8 table 9-21: reasons of a rejection by the service user."""

_HANDSHAKE_WAIT_S = 1.0
_FAILURE_CLASS_RESOURCES = 0xA700
_NOT_AUTHORISED = 0x0124
_MOVE_DESTINATION_UNKNOWN = 0xA801
_SUB_OPERATIONS_FAILED = 0xB000
_SUB_OPERATIONS_IMPOSSIBLE = 0xA702


def find_fault(status: int) -> PacsFault:
    """Return the fault of a final C-FIND status (PS3.4 table C.4-1)."""
    if status == _FAILURE_CLASS_RESOURCES:
        return PacsFault.OUT_OF_RESOURCES
    return PacsFault.QUERY_REFUSED


def retrieve_fault(status: int) -> PacsFault:
    """Return the fault of a final C-GET or C-MOVE status (PS3.4 tables C.4-2 and C.4-3)."""
    if status == _MOVE_DESTINATION_UNKNOWN:
        return PacsFault.MOVE_DESTINATION_UNKNOWN
    if status in (_SUB_OPERATIONS_FAILED, _SUB_OPERATIONS_IMPOSSIBLE):
        return PacsFault.SUB_OPERATIONS
    if status == _NOT_AUTHORISED:
        return PacsFault.NOT_OFFERED
    if status & 0xFF00 == _FAILURE_CLASS_RESOURCES:
        return PacsFault.OUT_OF_RESOURCES
    return PacsFault.RETRIEVE_REFUSED


def refused_association_fault(
    association: Association,
    host: str,
    port: int,
    tls: tuple[ssl.SSLContext, str] | None,
    timeout_s: float,
) -> PacsFault:
    """Say why there is no association. Connects once more where pynetdicom does not tell."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        source = getattr(answer, "result_source", None)
        reason = getattr(answer, "diagnostic", None)
        if source == _SERVICE_USER and reason == _CALLED_UNKNOWN:
            return PacsFault.CALLED_AE_UNKNOWN
        if source == _SERVICE_USER and reason == _CALLING_UNKNOWN:
            return PacsFault.CALLING_AE_UNKNOWN
        return PacsFault.REJECTED
    if association.rejected_contexts and not association.accepted_contexts:
        return PacsFault.NOT_OFFERED
    return _probe(host, port, tls, timeout_s)


def _probe(
    host: str, port: int, tls: tuple[ssl.SSLContext, str] | None, timeout_s: float
) -> PacsFault:
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as plain:
            return _probe_tls(plain, *tls) if tls else PacsFault.CONNECTION_LOST
    except TimeoutError:
        return PacsFault.TIMEOUT
    except OSError:
        return PacsFault.UNREACHABLE


def _probe_tls(plain: socket.socket, context: ssl.SSLContext, name: str) -> PacsFault:
    try:
        with context.wrap_socket(plain, server_hostname=name) as secured:
            # In TLS 1.3 a refused client certificate is told only after the handshake; a
            # PACS that is content says nothing before it is asked.
            secured.settimeout(_HANDSHAKE_WAIT_S)
            return PacsFault.CONNECTION_LOST if secured.recv(1) else PacsFault.TLS_FAILED
    except ssl.SSLCertVerificationError:
        return PacsFault.TLS_UNTRUSTED
    except TimeoutError:
        return PacsFault.CONNECTION_LOST
    except OSError:
        return PacsFault.TLS_FAILED
