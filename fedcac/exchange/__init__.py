"""Requests, replies, spools and the courier interface."""

from __future__ import annotations

from fedcac.exchange.courier import Courier, MailboxCourier, Spool
from fedcac.exchange.mailbox import DirectoryMailbox, Mailbox, MemoryMailbox
from fedcac.exchange.messages import (
    Acceptance,
    Answer,
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
    "Courier",
    "DirectoryMailbox",
    "Mailbox",
    "MailboxCourier",
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
