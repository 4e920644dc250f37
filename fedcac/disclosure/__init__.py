"""The site's disclosure policy, its rules, the gate and the ledger."""

from __future__ import annotations

from fedcac.disclosure.gate import Contribution, Gate, Refusal, Release
from fedcac.disclosure.ledger import FileLedger, Ledger, LedgerEntry, MemoryLedger
from fedcac.disclosure.policy import (
    LikelihoodLimits,
    Policy,
    load_policy,
    shipped_profiles,
    stricter_of,
)
from fedcac.disclosure.question import FLOW, Question, analysis_digest, question_of

__all__ = [
    "FLOW",
    "Contribution",
    "FileLedger",
    "Gate",
    "Ledger",
    "LedgerEntry",
    "LikelihoodLimits",
    "MemoryLedger",
    "Policy",
    "Question",
    "Refusal",
    "Release",
    "analysis_digest",
    "load_policy",
    "question_of",
    "shipped_profiles",
    "stricter_of",
]
