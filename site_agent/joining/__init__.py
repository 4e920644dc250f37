"""How this site joins a consortium: kit, keys, enrolment request, notices about other sites."""

from __future__ import annotations
