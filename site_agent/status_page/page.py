"""The status page: one document without scripts, assets from elsewhere, or forms."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from site_agent.status.standing import AgentNote, DoctorNote, Standing
from site_agent.status.standing_words import (
    age_words,
    duration_words,
    progress_words,
    silence_of,
    state_words,
)

__all__ = ["CONTENT_POLICY", "page_of"]


def _text(name: str) -> str:
    return files("site_agent.status_page").joinpath(name).read_text(encoding="utf-8")


_STYLE = _text("page.css")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode("utf-8")).digest()).decode("ascii")
CONTENT_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may do with the page: nothing but apply the one style sheet in it."""

_MARKS = {"ok": "✓", "warning": "!", "failed": "✕", "skipped": "-"}


def page_of(standing: Standing | None, *, now: datetime, refresh_s: int) -> str:
    """Return the page; `standing` None says that no agent has written yet.

    `refresh_s` is after how many seconds the browser loads it again; 0 for never.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals.update(
        state_words=state_words,
        progress_words=progress_words,
        age_words=lambda moment: age_words(moment, now),
        marks=_MARKS,
    )
    return environment.from_string(_text("page.html.j2")).render(
        standing=standing,
        style=_STYLE,
        refresh_s=refresh_s,
        agent=None if standing is None else _agent(standing.agent, now),
        n_waiting=0 if standing is None else _n_waiting(standing),
        doctor=None if standing is None else _doctor(standing.doctor),
        n_failed=0 if standing is None else _n_failed(standing.doctor),
    )


def _n_waiting(standing: Standing) -> int:
    return len(standing.held) + sum(bool(note.waits_for) for note in standing.rounds)


def _n_failed(note: DoctorNote | None) -> int:
    return 0 if note is None else sum(line.status == "failed" for line in note.lines)


def _agent(agent: AgentNote | None, now: datetime) -> tuple[str, str]:
    """Return (status, words) of the agent's process."""
    if agent is None:
        return "warning", "No agent runs as a service; the last look was by hand."
    if agent.state == "stopped":
        return "failed", f"The agent was stopped {age_words(agent.at, now)}."
    silence_s = silence_of(agent, now)
    if silence_s is not None:
        return "failed", f"No sign of life of the agent for {duration_words(silence_s)}."
    if agent.state == "paused":
        return "warning", "The agent has paused; it goes on by itself once the cause is gone."
    since = duration_words((now - agent.since).total_seconds())
    return "ok", f"The agent is {agent.state}, since {since}."


def _doctor(note: DoctorNote | None) -> dict[str, object] | None:
    if note is None:
        return None
    order = ("failed", "warning", "skipped", "ok")
    lines = sorted(note.lines, key=lambda line: order.index(line.status))
    return {
        "at": note.at,
        "bad": [line for line in lines if line.status in ("failed", "warning")],
        "rest": [line for line in lines if line.status in ("skipped", "ok")],
    }
