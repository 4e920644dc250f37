"""Requests, replies, spools and the courier interface."""

from __future__ import annotations

from fedcac.exchange.courier import Courier, MailboxCourier, Spool
from fedcac.exchange.mailbox import DirectoryMailbox, Mailbox, MemoryMailbox
from fedcac.exchange.messages import (
    Acceptance,
    Answer,
    Closing,
    MaskingNote,
    MaskingTerms,
    Message,
    Offer,
    PolicySummary,
    Query,
    Reply,
    Request,
)
from fedcac.exchange.parcels import package_parcels, parcel_name

__all__ = [
    "Acceptance",
    "Answer",
    "Closing",
    "Courier",
    "DirectoryMailbox",
    "Mailbox",
    "MailboxCourier",
    "MaskingNote",
    "MaskingTerms",
    "MemoryMailbox",
    "Message",
    "Offer",
    "PolicySummary",
    "Query",
    "Reply",
    "Request",
    "Spool",
    "package_parcels",
    "parcel_name",
]
