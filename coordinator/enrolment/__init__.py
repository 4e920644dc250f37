"""Who is in the consortium: startup kits, enrolments, renewals and revocations."""

from __future__ import annotations
