"""Requests, replies, spools and the courier interface."""

from __future__ import annotations

from fedcac.exchange.courier import Courier, MailboxCourier, Spool
from fedcac.exchange.mailbox import DirectoryMailbox, Mailbox, MemoryMailbox
from fedcac.exchange.messages import Answer, Message, Offer, PolicySummary, Query, Reply, Request

__all__ = [
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
]
