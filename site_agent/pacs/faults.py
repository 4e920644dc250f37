"""What can go wrong between a site and its PACS: one code, one sentence and one cure each.

No message holds a name, an identifier, an address or anything that the PACS said.
"""

from __future__ import annotations

from enum import StrEnum

from fedcac.errors import CohortError

__all__ = ["PacsError", "PacsFault"]


class PacsFault(StrEnum):
    """Codes of faults; `docs/how-to/pull-from-pacs.md` lists each."""

    UNREACHABLE = "pacs_unreachable"
    TIMEOUT = "pacs_timeout"
    CONNECTION_LOST = "pacs_connection_lost"
    TLS_UNTRUSTED = "pacs_tls_untrusted"
    TLS_FAILED = "pacs_tls_failed"
    REJECTED = "pacs_rejected"
    CALLED_AE_UNKNOWN = "pacs_called_ae_unknown"
    CALLING_AE_UNKNOWN = "pacs_calling_ae_unknown"
    ABORTED_AT_ONCE = "pacs_aborted_at_once"
    NOT_OFFERED = "pacs_not_offered"
    QUERY_REFUSED = "pacs_query_refused"
    RETRIEVE_REFUSED = "pacs_retrieve_refused"
    MOVE_DESTINATION_UNKNOWN = "pacs_move_destination_unknown"
    LISTENER = "pacs_listener"
    SUB_OPERATIONS = "pacs_sub_operations"
    OUT_OF_RESOURCES = "pacs_out_of_resources"
    NOT_AUTHENTICATED = "pacs_http_401"
    FORBIDDEN = "pacs_http_403"
    NOT_FOUND = "pacs_http_404"
    NOT_ACCEPTABLE = "pacs_http_406"
    TOO_MANY_REQUESTS = "pacs_http_429"
    SERVER_ERROR = "pacs_http_5xx"
    HTTP_OTHER = "pacs_http_other"
    NOT_DICOMWEB = "pacs_not_dicomweb"
    TRUNCATED = "pacs_truncated"
    TOO_LARGE = "pacs_too_large"
    OTHER_OBJECT = "pacs_other_object"
    INCOMPLETE = "pacs_incomplete"
    TOO_MANY_STUDIES = "pacs_too_many_studies"
    NO_SUCH_PATIENT = "pacs_no_such_patient"
    NO_SUITABLE_SERIES = "pacs_no_suitable_series"
    UNREADABLE_SERIES = "pacs_unreadable_series"
    NOT_WRITTEN = "pacs_not_written"


_F = PacsFault
_WORDS: dict[PacsFault, tuple[str, str]] = {
    _F.UNREACHABLE: (
        "No connection to the PACS.",
        "Check `host`, `port` or `url` under `pacs` in site.yaml, and the firewall on the way.",
    ),
    _F.TIMEOUT: (
        "The PACS did not answer in time.",
        "Run the same command again, it goes on; if it happens often, raise `timeout_s`.",
    ),
    _F.CONNECTION_LOST: (
        "The PACS ended the connection in the middle of an answer.",
        "Run the same command again, it goes on; if it happens often, ask the PACS's people for "
        "the reason in their log.",
    ),
    _F.TLS_UNTRUSTED: (
        "The PACS's certificate is not trusted here, or names another host.",
        "Give the CA of the PACS as `tls.ca_file`, and the host exactly as its certificate "
        "names it.",
    ),
    _F.TLS_FAILED: (
        "The TLS handshake with the PACS failed.",
        "Check that the port speaks TLS 1.2 or newer, that `tls` is set if and only if it does, "
        "and that the PACS trusts the client certificate in `tls.certificate`.",
    ),
    _F.REJECTED: (
        "The PACS rejected the association.",
        "Ask the PACS's people whether it has free associations and admits this computer's "
        "address.",
    ),
    _F.CALLED_AE_UNKNOWN: (
        "The PACS rejected the association: it does not go by the called AE title.",
        "Correct `called_ae_title` in site.yaml; upper and lower case differ.",
    ),
    _F.CALLING_AE_UNKNOWN: (
        "The PACS rejected the association: it does not know this computer's AE title.",
        "Have `calling_ae_title` registered in the PACS, with this computer's address.",
    ),
    _F.ABORTED_AT_ONCE: (
        "The PACS accepted the association and ended it at the first question.",
        "Most often it does not let this AE title ask: have `calling_ae_title` registered with "
        "query and retrieve. Otherwise the reason is in the PACS's log.",
    ),
    _F.NOT_OFFERED: (
        "The PACS does not offer this service to this computer.",
        "Have query (C-FIND) and the retrieve service chosen (`retrieve: get` or `move`) enabled "
        "for this AE title, or choose the other one.",
    ),
    _F.QUERY_REFUSED: (
        "The PACS refused the query.",
        "Have queries of the Study Root model enabled for this AE title.",
    ),
    _F.RETRIEVE_REFUSED: (
        "The PACS refused to hand over a series.",
        "Have retrieval enabled for this AE title; a series may also be offline or archived.",
    ),
    _F.MOVE_DESTINATION_UNKNOWN: (
        "The PACS does not know where to send: the move destination is unknown to it.",
        "Have `move.ae_title`, this computer's address and `move.port` registered in the PACS as "
        "a storage destination.",
    ),
    _F.LISTENER: (
        "This computer cannot listen for what the PACS sends.",
        "Choose a free `move.port` above 1023, and check `move.address`.",
    ),
    _F.SUB_OPERATIONS: (
        "The PACS could not send every instance of a series.",
        "Run the same command again: only what is missing is asked for. If it stays, the series "
        "is damaged in the PACS, or is stored in a form that it cannot send here.",
    ),
    _F.OUT_OF_RESOURCES: (
        "The PACS is out of resources.",
        "Run the same command again at a quieter time, or lower `concurrent` and raise `pause_s`.",
    ),
    _F.NOT_AUTHENTICATED: (
        "The PACS's web server asks for another user or password (HTTP 401).",
        "Correct `user` and the contents of `password_file`.",
    ),
    _F.FORBIDDEN: (
        "The PACS's web server does not allow this user to do this (HTTP 403).",
        "Have the user allowed to search (QIDO-RS) and retrieve (WADO-RS).",
    ),
    _F.NOT_FOUND: (
        "The PACS's web server has nothing at this address (HTTP 404).",
        "Check the path in `url`: it is the DICOMweb root, for example https://host/dicom-web.",
    ),
    _F.NOT_ACCEPTABLE: (
        "The PACS's web server cannot answer in a DICOMweb form (HTTP 406 or 415).",
        "Check that `url` is a DICOMweb root and that its WADO-RS sends application/dicom.",
    ),
    _F.TOO_MANY_REQUESTS: (
        "The PACS's web server asks to be spared (HTTP 429).",
        "Lower `concurrent` and raise `pause_s`, then run the same command again.",
    ),
    _F.SERVER_ERROR: (
        "The PACS's web server failed (HTTP 5xx).",
        "Run the same command again, it goes on; if it stays, the cause is in that server's log.",
    ),
    _F.HTTP_OTHER: (
        "The PACS's web server gave an answer that this client does not follow.",
        "Give the final address as `url`: redirections are not followed, because they would "
        "carry the password along.",
    ),
    _F.NOT_DICOMWEB: (
        "The answer is not DICOMweb.",
        "Check that `url` is the DICOMweb root, not a viewer's or a login page's address.",
    ),
    _F.TRUNCATED: (
        "The PACS's answer ends too early.",
        "Run the same command again: whole instances are kept. If it stays, look for a proxy "
        "with a limit on size or time.",
    ),
    _F.TOO_LARGE: (
        "The PACS sends an instance larger than this client takes.",
        "Narrow `rules` so that such series are not chosen.",
    ),
    _F.OTHER_OBJECT: (
        "The PACS sent an instance that was not asked for; it was not kept.",
        "Report it to the PACS's people: an answer must belong to the series asked for.",
    ),
    _F.INCOMPLETE: (
        "Fewer instances came than the PACS says the series has.",
        "Run the same command again: only what is missing is asked for. If it stays, the PACS's "
        "own count is wrong or an instance is offline.",
    ),
    _F.TOO_MANY_STUDIES: (
        "More studies match than the site allows one query to return.",
        "Narrow the dates or the description, or raise `maximum_studies`.",
    ),
    _F.NO_SUCH_PATIENT: (
        "No study in the PACS matches.",
        "Check the patient identifier, accession number, date and modality of that line.",
    ),
    _F.NO_SUITABLE_SERIES: (
        "The study holds no series that the rules choose.",
        "Look at its series with `fedcac-site pacs find`, and widen `rules` in site.yaml.",
    ),
    _F.UNREADABLE_SERIES: (
        "A pulled series cannot be read as one DICOM series.",
        "Have the series mended in the PACS, or exclude it.",
    ),
    _F.NOT_WRITTEN: (
        "What the PACS sent cannot be written.",
        "Make room on the disk of `pacs.folder`, and let the site agent's user write there.",
    ),
}

_TRANSIENT = frozenset(
    {
        _F.TIMEOUT,
        _F.CONNECTION_LOST,
        _F.TRUNCATED,
        _F.INCOMPLETE,
        _F.SUB_OPERATIONS,
        _F.OUT_OF_RESOURCES,
        _F.TOO_MANY_REQUESTS,
        _F.SERVER_ERROR,
    }
)
"""Faults after which asking again may help."""

_ENDING = frozenset(
    {
        _F.UNREACHABLE,
        _F.TLS_UNTRUSTED,
        _F.TLS_FAILED,
        _F.REJECTED,
        _F.CALLED_AE_UNKNOWN,
        _F.CALLING_AE_UNKNOWN,
        _F.NOT_OFFERED,
        _F.MOVE_DESTINATION_UNKNOWN,
        _F.LISTENER,
        _F.NOT_AUTHENTICATED,
        _F.TOO_MANY_REQUESTS,
        _F.NOT_DICOMWEB,
        _F.NOT_WRITTEN,
    }
)
"""Faults that the next series would meet too; after any other a pull goes on with the next."""


class PacsError(CohortError):
    """The PACS cannot be asked, or did not give what was asked for; exit code 6."""

    def __init__(self, fault: PacsFault) -> None:
        message, cure = _WORDS[fault]
        super().__init__(message, code=fault.value, cure=cure)
        self.fault = fault

    @property
    def is_transient(self) -> bool:
        """Say whether asking again may help."""
        return self.fault in _TRANSIENT

    @property
    def ends_pull(self) -> bool:
        """Say whether the next series would meet the same fault."""
        return self.fault in _ENDING
