"""The verbs of `fedcac-coordinator engine` and `fedcac-coordinator database`."""

from __future__ import annotations

import argparse
from typing import Any

from sqlalchemy import make_url

from coordinator.folder import CoordinatorFolder, opened
from coordinator.rounds.service import EngineService, stopping_on_signals
from coordinator.state.database import connect, schema_of, upgrade_database
from coordinator.state.schema import HEAD
from fedcac.console import Outcome, add_format, say

__all__ = ["add_service_verbs"]


def _engine_run(arguments: argparse.Namespace) -> Outcome:
    with opened(arguments.home) as (folder, store), stopping_on_signals() as stop:
        service = EngineService(folder, store, say)
        if arguments.once:
            n_open = service.step()
            return Outcome(f"{n_open} rounds are open.", {"open": n_open})
        say("The engine runs; it stops after the step under way when it is asked to.")
        service.run(arguments.interval, stop)
    return Outcome("Stopped. Rounds go on where they are at the next start.", {"open": None})


def _database_show(arguments: argparse.Namespace) -> Outcome:
    url = CoordinatorFolder(arguments.home).database_url
    engine = connect(url)
    schema = schema_of(engine)
    engine.dispose()
    shown = make_url(url).render_as_string()
    state = "is up to date" if schema == HEAD else f"needs `database upgrade` to {HEAD}"
    if schema is None:
        state = "is empty; the first use fills it"
    text = f"{shown}\nSchema {schema or 'none'}: it {state}."
    return Outcome(text, {"url": shown, "schema": schema, "newest": HEAD})


def _database_upgrade(arguments: argparse.Namespace) -> Outcome:
    url = CoordinatorFolder(arguments.home).database_url
    engine = connect(url)
    try:
        before, copy = upgrade_database(engine, url)
    finally:
        engine.dispose()
    text = (
        f"Schema {HEAD} already; nothing was done."
        if before == HEAD
        else f"Upgraded from schema {before or 'none'} to {HEAD}."
    )
    return Outcome(
        text, {"before": before, "after": HEAD, "copy": None if copy is None else str(copy)}
    )


def _database_use(arguments: argparse.Namespace) -> Outcome:
    folder = CoordinatorFolder(arguments.home)
    shown = folder.use_database(arguments.url)
    text = (
        f"This coordinator's database is {shown} from now on.\nThe URL lies in "
        f"{folder.database_path}, readable by you alone; nothing was copied from the former one."
    )
    return Outcome(text, {"url": shown})


def add_service_verbs(verbs: Any) -> None:
    """Add `engine` and `database` with their verbs."""
    engine = verbs.add_parser("engine", help="move rounds on unattended")
    engine_verbs = engine.add_subparsers(metavar="VERB", required=True)
    run = engine_verbs.add_parser("run", help="move every open round on until it is stopped")
    run.add_argument("--interval", type=float, default=5.0, help="most seconds between looks")
    run.add_argument("--once", action="store_true", help="do what is due now and end")
    add_format(run, _engine_run)

    database = verbs.add_parser("database", help="show, choose or upgrade the database")
    database_verbs = database.add_subparsers(metavar="VERB", required=True)
    add_format(
        database_verbs.add_parser("show", help="say where the database is and its schema"),
        _database_show,
    )
    add_format(
        database_verbs.add_parser("upgrade", help="bring its schema to this release's"),
        _database_upgrade,
    )
    use = database_verbs.add_parser("use", help="keep the coordinator's state on a server")
    use.add_argument("url", help="postgresql+pg8000://USER:PASSWORD@HOST/NAME")
    add_format(use, _database_use)
