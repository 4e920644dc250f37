"""How a hospital joins a consortium: startup kits, enrolment requests, notices about keys.

What both ends agree on; the coordinator's half is in `coordinator.enrolment`, a site's in
`site_agent.joining`. Every document here is signed, and people compare fingerprints at both ends.
"""

from __future__ import annotations

from fedcac.joining.fingerprints import compared, fingerprint_of
from fedcac.joining.kits import Kit, KitManifest, open_kit, seal_kit
from fedcac.joining.notices import Notice, is_notice_name, notice_name
from fedcac.joining.requests import CheckedRequest, EnrolmentRequest, RequestKeys, open_request

__all__ = [
    "CheckedRequest",
    "EnrolmentRequest",
    "Kit",
    "KitManifest",
    "Notice",
    "RequestKeys",
    "compared",
    "fingerprint_of",
    "is_notice_name",
    "notice_name",
    "open_kit",
    "open_request",
    "seal_kit",
]
