"""A PACS over DIMSE: C-FIND and C-GET or C-MOVE of the Study Root model (PS3.4 annex C)."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext

from site_agent.pacs.dimse_faults import (
    find_fault,
    refused_association_fault,
    retrieve_fault,
)
from site_agent.pacs.dimse_storage import (
    STORAGE_CLASSES,
    TRANSFER_SYNTAX_GROUPS,
    Expected,
    Listener,
    limit_handler,
    store_handler,
)
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import PARSING
from site_agent.pacs.query import (
    SERIES_KEYS,
    STUDY_KEYS,
    PacsClient,
    SeriesRecord,
    StudyQuery,
    StudyRecord,
)
from site_agent.pacs.settings import DimseSettings
from site_agent.pacs.throttle import Throttle
from site_agent.pacs.trust import Resolve, client_context, server_context

__all__ = ["DimseClient"]

# pynetdicom tells logs about peers and identifiers; what matters becomes a coded error here.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
logging.getLogger("pynetdicom").propagate = False

_VERIFICATION = UID("1.2.840.10008.1.1")
# The Study Root Query/Retrieve Information Model, PS3.4 C.6.2.
_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")

_MAXIMUM_PDU = 131072
_UIDS_PER_REQUEST = 200
"""A list of this many UIDs stays far below the 64 KiB that an explicit-VR UI element holds."""

_SUCCESS = 0x0000
_PENDING = (0xFF00, 0xFF01)


class DimseClient(PacsClient):
    """One association per question; every one waits for the throttle's turn."""

    def __init__(
        self,
        settings: DimseSettings,
        throttle: Throttle,
        *,
        timeout_s: float,
        maximum_studies: int,
        resolve: Resolve,
    ) -> None:
        self._settings = settings
        self._throttle = throttle
        self._timeout_s = timeout_s
        self._maximum_studies = maximum_studies
        self._tls = None
        if settings.tls:
            name = settings.tls.server_name or settings.host
            self._tls = (client_context(settings.tls, resolve), name)
        self._expected = Expected()
        self._listener: Listener | None = None
        if settings.move:
            self._listener = Listener(
                settings.move,
                sender=settings.move.sender_ae_title or settings.called_ae_title,
                expected=self._expected,
                timeout_s=timeout_s,
                context=server_context(settings.tls, resolve) if settings.tls else None,
            )

    def close(self) -> None:
        """Stop listening. See `PacsClient`."""
        if self._listener:
            self._listener.stop()

    def check(self) -> None:
        """C-ECHO (PS3.4 annex A), and negotiate the services that a pull needs."""
        needed = [_VERIFICATION, _FIND, _MOVE if self._settings.move else _GET]
        with self._associated([build_context(uid) for uid in needed]) as association:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            if not accepted.issuperset(needed):
                raise PacsError(PacsFault.NOT_OFFERED)
            status = association.send_c_echo()
            if status.get("Status") != _SUCCESS:
                raise PacsError(PacsFault.CONNECTION_LOST)

    def find_studies(self, query: StudyQuery) -> tuple[StudyRecord, ...]:
        """C-FIND at study level. See `PacsClient`."""
        identifier = _identifier("STUDY", STUDY_KEYS)
        identifier.PatientID = query.patient_id
        identifier.AccessionNumber = query.accession_number
        identifier.StudyDate = query.date_range
        identifier.ModalitiesInStudy = query.modality
        if not (query.patient_id + query.accession_number).isascii():
            # Only where it is needed: not every PACS takes queries in UTF-8.
            identifier.SpecificCharacterSet = "ISO_IR 192"
        # Patterns are matched here: whether case counts, and `*` at all, depends on the PACS.
        found = {
            study.study_uid: study
            for values in self._find(identifier, STUDY_KEYS, self._maximum_studies)
            if (study := StudyRecord.from_values(values)).study_uid and query.matches(study)
        }
        return tuple(found[uid] for uid in sorted(found))

    def find_series(self, study_uid: str) -> tuple[SeriesRecord, ...]:
        """C-FIND at series level. See `PacsClient`."""
        identifier = _identifier("SERIES", SERIES_KEYS)
        identifier.StudyInstanceUID = study_uid
        found = {
            values["SeriesInstanceUID"]: SeriesRecord.from_values(study_uid, values)
            for values in self._find(identifier, SERIES_KEYS)
            if values["SeriesInstanceUID"]
        }
        return tuple(found[uid] for uid in sorted(found))

    def find_instances(self, series: SeriesRecord) -> frozenset[str]:
        """C-FIND at image level. See `PacsClient`."""
        identifier = _identifier("IMAGE", ("SOPInstanceUID",))
        identifier.StudyInstanceUID = series.study_uid
        identifier.SeriesInstanceUID = series.series_uid
        answers = self._find(identifier, ("SOPInstanceUID",))
        return frozenset(values["SOPInstanceUID"] for values in answers) - {""}

    def _find(
        self, identifier: Dataset, keywords: Sequence[str], maximum: int | None = None
    ) -> list[dict[str, str]]:
        answers: list[dict[str, str]] = []
        with self._associated([build_context(_FIND)]) as association:
            _check_offered(association, _FIND)
            clock = _Clock(self._timeout_s)
            for status, answer in association.send_c_find(identifier, _FIND):
                code = status.get("Status")
                if code is None:
                    raise PacsError(clock.fault())
                clock.restart()
                if code not in _PENDING:
                    if code != _SUCCESS:
                        raise PacsError(find_fault(code))
                    break
                if answer is None:
                    raise PacsError(PacsFault.QUERY_REFUSED)
                answers.append(_values(answer, keywords))
                if maximum is not None and len(answers) > maximum:
                    association.abort()
                    raise PacsError(PacsFault.TOO_MANY_STUDIES)
        return answers

    def _retrieve(
        self, series: SeriesRecord, missing: frozenset[str] | None, keep: Callable[[bytes], None]
    ) -> None:
        with self._expected.series(series.series_uid, keep) as failures:
            handlers: list[EventHandlerType] = []
            if self._listener:
                self._listener.start()
                contexts, roles = [build_context(_MOVE)], []
            else:
                contexts = [build_context(_GET), *_storage_contexts()]
                roles = [build_role(uid, scp_role=True) for uid in STORAGE_CLASSES]
                handlers.append((evt.EVT_C_STORE, store_handler(self._expected)))
            with self._associated(contexts, roles, handlers) as association:
                model = _MOVE if self._listener else _GET
                _check_offered(association, model)
                for identifier in _requests(series, missing):
                    self._run_retrieval(association, identifier, failures)

    def _run_retrieval(
        self, association: Association, identifier: Dataset, failures: list[Exception]
    ) -> None:
        move = self._settings.move
        if move:
            answers = association.send_c_move(identifier, move.ae_title, _MOVE)
        else:
            answers = association.send_c_get(identifier, _GET)
        clock = _Clock(self._timeout_s)
        for status, _ in answers:
            if failures:
                association.abort()
                raise failures[0]
            code = status.get("Status")
            if code is None:
                raise PacsError(clock.fault())
            clock.restart()
            if code in _PENDING:
                continue
            if code != _SUCCESS:
                raise PacsError(retrieve_fault(code))

    @contextmanager
    def _associated(
        self,
        contexts: list[PresentationContext],
        roles: Sequence[object] = (),
        handlers: Sequence[EventHandlerType] = (),
    ) -> Iterator[Association]:
        settings = self._settings
        entity = AE(ae_title=settings.calling_ae_title)
        entity.connection_timeout = self._timeout_s
        entity.acse_timeout = self._timeout_s
        entity.dimse_timeout = self._timeout_s
        entity.network_timeout = self._timeout_s
        with self._throttle.turn():
            clock = _Clock(self._timeout_s)
            try:
                association = entity.associate(
                    settings.host,
                    settings.port,
                    contexts=contexts,
                    ae_title=settings.called_ae_title,
                    max_pdu=_MAXIMUM_PDU,
                    ext_neg=list(roles),  # type: ignore[arg-type]
                    tls_args=self._tls,
                    evt_handlers=[
                        (evt.EVT_CONN_OPEN, limit_handler(self._timeout_s)),
                        *handlers,
                    ],
                )
            except OSError as error:
                raise PacsError(PacsFault.UNREACHABLE) from error
            if not association.is_established:
                if clock.is_silent():
                    raise PacsError(PacsFault.TIMEOUT)
                fault = refused_association_fault(
                    association, settings.host, settings.port, self._tls, self._timeout_s
                )
                raise PacsError(fault)
            try:
                yield association
            except RuntimeError as error:
                # pynetdicom's word for a peer that ended the association before the question.
                if association.is_established:
                    raise
                raise PacsError(PacsFault.ABORTED_AT_ONCE) from error
            finally:
                if association.is_established:
                    association.release()


class _Clock:
    """Tells silence from a lost connection: pynetdicom reports both as an empty status."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since = time.monotonic()
        self._has_answered = False

    def restart(self) -> None:
        self._since = time.monotonic()
        self._has_answered = True

    def is_silent(self) -> bool:
        return time.monotonic() - self._since >= self._timeout_s

    def fault(self) -> PacsFault:
        if self.is_silent():
            return PacsFault.TIMEOUT
        return PacsFault.CONNECTION_LOST if self._has_answered else PacsFault.ABORTED_AT_ONCE


def _check_offered(association: Association, model: str) -> None:
    if not any(context.abstract_syntax == model for context in association.accepted_contexts):
        raise PacsError(PacsFault.NOT_OFFERED)


def _storage_contexts() -> list[PresentationContext]:
    # One context per class and compression, so that what is stored is sent as it is stored.
    return [
        build_context(uid, list(group))
        for uid in STORAGE_CLASSES
        for group in TRANSFER_SYNTAX_GROUPS
    ]


def _identifier(level: str, keywords: Sequence[str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword in keywords:
        setattr(identifier, keyword, "")
    return identifier


def _requests(series: SeriesRecord, missing: frozenset[str] | None) -> Iterator[Dataset]:
    uids = sorted(missing or ())
    parts = [uids[at : at + _UIDS_PER_REQUEST] for at in range(0, len(uids), _UIDS_PER_REQUEST)]
    for part in parts or [[]]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE" if part else "SERIES"
        identifier.StudyInstanceUID = series.study_uid
        identifier.SeriesInstanceUID = series.series_uid
        if part:
            identifier.SOPInstanceUID = part
        yield identifier


def _values(answer: Dataset, keywords: Sequence[str]) -> dict[str, str]:
    with PARSING, warnings.catch_warnings():
        # A warning of pydicom's quotes the value.
        warnings.simplefilter("ignore")
        return {keyword: _text(answer, keyword) for keyword in keywords}


def _text(answer: Dataset, keyword: str) -> str:
    try:
        value = answer.get(keyword)
        if value is None:
            return ""
        if isinstance(value, MultiValue | list):
            return "\\".join(str(part).strip() for part in value)
        return str(value).strip()
    except Exception:
        # What pydicom raises at a value of another type than its element has no common class.
        return ""
