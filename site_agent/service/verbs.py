"""`fedcac-site run` and `fedcac-site status`."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from site_agent.faults import MINIMUM_FREE_MB, as_problem
from site_agent.opening import opened
from site_agent.service.lock import agent_lock, running_agent
from site_agent.service.logs import kept_log
from site_agent.service.loop import AgentService
from site_agent.service.notify import Notifier
from site_agent.service.stopping import Stopper
from site_agent.settings import SiteFolder
from site_agent.status.standing import Standing, read_note, write_note
from site_agent.status.standing_reader import StandingReader, problem_note, standing_path
from site_agent.status.standing_words import progress_words, standing_text

__all__ = ["add_service_verbs"]


def add_service_verbs(verbs: Any) -> None:
    """Add `run` and `status`."""
    run = verbs.add_parser("run", help="verify, score and answer whatever the inbox asks")
    run.add_argument("--once", action="store_true", help="do what can be done now and end")
    run.add_argument("--interval", type=_seconds, default=5.0, help="seconds between looks (5)")
    run.add_argument(
        "--minimum-free-mb",
        type=int,
        default=MINIMUM_FREE_MB,
        metavar="MB",
        help=f"pause while a disk has less room than this ({MINIMUM_FREE_MB})",
    )
    run.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="form of a line of the service's log",
    )
    run.add_argument(
        "--log-file",
        type=_log_file,
        help="log there, in six files of 10 MB at most, one after another",
    )
    add_format(run, _run)
    status = verbs.add_parser(
        "status", help="show every round, what waits for whom, progress and problems"
    )
    add_format(status, _status)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("not a number of seconds up to an hour")
    return seconds


def _log_file(text: str) -> Path:
    path = Path(text)
    # os.path: a folder that this user may not look into is none here.
    if not os.path.isdir(path.parent):
        raise argparse.ArgumentTypeError("there is no folder to keep this file in")
    return path


def _run(arguments: argparse.Namespace) -> Outcome:
    folder = SiteFolder(arguments.home)
    try:
        folder.settings()
        with agent_lock(folder.lock_path):
            return _run_once(folder) if arguments.once else _serve(folder, arguments)
    except (OSError, sqlite3.Error) as error:
        raise as_problem(error) from error


def _run_once(folder: SiteFolder) -> Outcome:
    with opened(folder.root) as (agent, _):
        agent.step()
        problems = dict(agent.problems)
    standing = StandingReader(folder).read(
        problems={name: problem_note(problem) for name, problem in problems.items()}
    )
    write_note(standing_path(folder), standing)
    codes = [problem.exit_code for problem in problems.values()]
    text = "\n".join(
        # A person at this terminal may read the whole message.
        [f"{round_id} cannot go on: {problem}" for round_id, problem in problems.items()]
        + [standing_text(standing, is_running=None, now=datetime.now(UTC))]
    )
    return Outcome(text, _content(standing), codes[0] if codes else 0)


def _serve(folder: SiteFolder, arguments: argparse.Namespace) -> Outcome:
    stopper, notifier = Stopper(), Notifier()
    terminal = sys.stderr if sys.stderr.isatty() and arguments.log_file is None else None
    tell: Callable[[Standing], None] = _silent
    with ExitStack() as stack:
        stack.enter_context(stopper.installed())
        # A person at a terminal sees what goes wrong there; a service's log is read by many.
        if terminal is None or arguments.log_format == "json":
            stack.enter_context(kept_log((arguments.log_format, arguments.log_file)))
        else:
            tell = _Teller().tell
        AgentService(
            folder,
            stopper,
            notifier,
            interval_s=arguments.interval,
            minimum_free_mb=arguments.minimum_free_mb,
            tell=tell,
        ).run()
    return Outcome("Stopped; `fedcac-site run` goes on where it stopped.", {"stopped": True})


def _silent(_: Standing) -> None:
    """The log says it."""


class _Teller:
    """Writes the standing to a terminal whenever it has changed."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, standing: Standing) -> None:
        now = datetime.now(UTC)
        rest = standing.model_copy(update={"agent": None, "progress": None})
        texts = [standing_text(rest, is_running=None, now=now) + "\n"]
        if standing.progress is not None:
            texts.append(progress_words(standing.progress))
        for text in texts:
            if text not in self._told:
                sys.stderr.write(text + "\n")
        self._told = set(texts)


def _status(arguments: argparse.Namespace) -> Outcome:
    folder = SiteFolder(arguments.home)
    written = read_note(standing_path(folder), Standing)
    problems = {
        note.round_id: note.problem for note in (written.rounds if written else ()) if note.problem
    }
    try:
        standing = StandingReader(folder).read(
            agent=written.agent if written else None,
            progress=written.progress if written else None,
            problems=problems,
            problem=written.problem if written else None,
        )
    except (OSError, sqlite3.Error) as error:
        raise as_problem(error) from error
    is_running = running_agent(folder.lock_path)
    text = standing_text(standing, is_running=is_running, now=datetime.now(UTC))
    return Outcome(text, {**_content(standing), "is_running": is_running})


def _content(standing: Standing) -> dict[str, Any]:
    document = standing.model_dump(mode="json")
    rounds = {}
    for note in document["rounds"]:
        problem = note.pop("problem")
        rounds[note.pop("round_id")] = note
        if problem is not None:
            note |= {"problem": problem["code"], "cure": problem["cure"]}
    held = [{key: note[key] for key in ("round_id", "exchange")} for note in document["held"]]
    waiting = [*document["held"]] + [
        {"round_id": round_id, "commands": note["commands"]}
        for round_id, note in rounds.items()
        if note["waits_for"]
    ]
    return {**document, "rounds": rounds, "held": held, "waiting": waiting}
