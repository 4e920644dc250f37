"""How the site stands, in words for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from site_agent.status.standing import AgentNote, ProblemNote, Progress, RoundNote, Standing

__all__ = [
    "age_words",
    "duration_words",
    "progress_words",
    "silence_of",
    "standing_text",
    "state_words",
]

_STALE_AFTER_S = 120.0
"""An agent that is so late with its next sign of life is said to be silent."""

_STATES = {
    "offered": "waits for approval",
    "approved": "approved: exams are scored before the first question is answered",
    "answering": "answers the lead's questions",
    "refused": "refused",
    "closed": "closed by the lead",
    "not_taken": "offered, but cannot be taken yet",
}


def state_words(note: RoundNote) -> str:
    """Return a round's state as a sentence's end."""
    words = _STATES.get(note.state, note.state)
    return f"{words} ({note.refusal})" if note.refusal else words


def duration_words(seconds: float) -> str:
    """Return a duration to two units: `3 h 20 min`."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"


def age_words(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was."""
    return f"{duration_words((now - moment).total_seconds())} ago"


def silence_of(agent: AgentNote, now: datetime) -> float | None:
    """Return for how many seconds an agent has been silent, None where it is not overdue."""
    silence_s = (now - agent.at).total_seconds()
    return silence_s if silence_s > _STALE_AFTER_S + agent.next_look_s else None


def progress_words(progress: Progress) -> str:
    """Return how far long work is, how fast, and how long it will take."""
    share = progress.finished / max(1, progress.total)
    words = f"{progress.description}: {progress.finished} of {progress.total} ({share:.0%})"
    if progress.rate_per_minute:
        words += f", {progress.rate_per_minute:.3g} a minute"
    if progress.remaining_s is not None:
        words += f", about {duration_words(progress.remaining_s)} left"
    return words


def standing_text(standing: Standing, *, is_running: bool | None, now: datetime) -> str:
    """Return everything of a standing in words; `is_running` None leaves the agent out."""
    lines = [
        f"Site {standing.site}, fedcac {standing.software}. Policy: {standing.policy}. "
        f"Approval: {standing.approval}.",
    ]
    if is_running is not None:
        lines.append(_agent_line(standing.agent, is_running=is_running, now=now))
    if standing.progress is not None and is_running:
        lines.append(progress_words(standing.progress))
    lines += _problem_lines(standing.problem)
    for note in standing.rounds:
        lines.append("")
        lines += _round_lines(note)
    for held in standing.held:
        lines += ["", f"Held: round {held.round_id}, exchange {held.exchange}, {held.digest}"]
        lines += [f"  {command}" for command in held.commands]
    if not standing.rounds:
        lines += ["", "No round has been offered."]
    lines += ["", f"Ledger: {standing.ledger.entries} entries, head {standing.ledger.head}"]
    lines += _doctor_lines(standing, now)
    return "\n".join(lines)


def _agent_line(agent: AgentNote | None, *, is_running: bool, now: datetime) -> str:
    if not is_running:
        return "The agent is not running; `fedcac-site run` starts it."
    if agent is None:
        return "An agent is running."
    silence_s = silence_of(agent, now)
    words = f"The agent is {agent.state} (process {agent.process}, since "
    words += f"{duration_words((now - agent.since).total_seconds())})."
    if silence_s is not None:
        words += f" Its last sign of life was {duration_words(silence_s)} ago."
    return words


def _problem_lines(problem: ProblemNote | None, indent: str = "") -> Iterable[str]:
    if problem is None:
        return []
    lines = [f"{indent}Problem: {problem.message} [{problem.code}]"]
    if problem.cure:
        lines.append(f"{indent}  What to do: {problem.cure}")
    return lines


def _round_lines(note: RoundNote) -> list[str]:
    title = f" - {note.title}" if note.title else ""
    lines = [f"{note.round_id}: {state_words(note)}{title}"]
    if note.waits_for:
        lines.append(f"  Waits until {note.waits_for}:")
        lines += [f"    {command}" for command in note.commands]
    if note.scored or note.excluded or note.under_way:
        lines.append(
            f"  Exams under this package: {note.scored} scored, {note.excluded} excluded, "
            f"{note.under_way} begun. Exchanges answered: {note.answered}."
        )
    if note.exclusions:
        listed = ", ".join(f"{reason} {n}" for reason, n in note.exclusions.items())
        lines.append(f"  Excluded: {listed}")
    return [*lines, *_problem_lines(note.problem, "  ")]


def _doctor_lines(standing: Standing, now: datetime) -> list[str]:
    if standing.doctor is None:
        return ["Doctor: never run; `fedcac-site doctor` checks this installation."]
    counts = dict.fromkeys(("ok", "warning", "failed", "skipped"), 0)
    for line in standing.doctor.lines:
        counts[line.status] += 1
    words = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    return [f"Doctor, {age_words(standing.doctor.at, now)}: {words}."]
