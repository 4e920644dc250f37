"""`fedcac-site pacs`: test the connection, look what would be pulled, pull, and forget.

What these verbs print holds no identifier: studies are named by the worklist's line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.console import Outcome, add_format
from fedcac.errors import UsageError
from site_agent.pacs.settings import PacsSettings
from site_agent.settings import SiteFolder

if TYPE_CHECKING:
    from site_agent.pacs.pull import Plan
    from site_agent.pacs.worklist import Wish

__all__ = ["add_pacs_verbs"]


def add_pacs_verbs(verbs: Any) -> None:
    """Add `pacs test`, `pacs find`, `pacs pull` and `pacs purge`."""
    pacs = verbs.add_parser("pacs", help="pull exams from this site's PACS")
    pacs_verbs = pacs.add_subparsers(metavar="VERB", required=True)
    test = pacs_verbs.add_parser("test", help="connect, and ask whether query and retrieve work")
    add_format(test, _test)
    find = pacs_verbs.add_parser("find", help="say which series would be pulled, and why")
    _add_wishes(find)
    add_format(find, _find)
    pull = pacs_verbs.add_parser("pull", help="pull what is missing; run again to go on")
    _add_wishes(pull)
    pull.add_argument("--again", action="store_true", help="pull also what was removed before")
    add_format(pull, _pull)
    purge = pacs_verbs.add_parser("purge", help="remove what may not be kept any longer")
    add_format(purge, _purge)


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--worklist",
        type=Path,
        help="CSV with patient_id, accession_number or both; optional study_date, role",
    )
    parser.add_argument("--from", dest="first", type=_day, help="first study date, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", type=_day, help="last study date, YYYY-MM-DD")
    parser.add_argument("--description", default="", help="study description, with * and ?")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("not a date YYYY-MM-DD") from error


def _settings(arguments: argparse.Namespace) -> tuple[SiteFolder, PacsSettings]:
    folder = SiteFolder(arguments.home)
    settings = folder.settings().pacs
    if settings is None:
        raise UsageError(
            "This site's settings name no PACS.",
            code="no_pacs",
            cure="Add a `pacs` block to site.yaml; docs/how-to/pull-from-pacs.md shows one.",
        )
    return folder, settings


def _test(arguments: argparse.Namespace) -> Outcome:
    from site_agent.pacs.clients import open_client

    folder, settings = _settings(arguments)
    with open_client(settings, folder.resolve) as client:
        client.check()
    protocol = settings.connection.protocol
    text = f"The PACS answers this computer over {protocol} and offers what a pull needs."
    return Outcome(text, {"protocol": protocol})


def _wishes(arguments: argparse.Namespace, modality: str) -> tuple[Wish, ...]:
    from site_agent.pacs.query import StudyQuery
    from site_agent.pacs.worklist import Wish, read_worklist

    has_range = any((arguments.first, arguments.last, arguments.description))
    if arguments.worklist is not None and not has_range:
        return read_worklist(arguments.worklist, modality)
    if arguments.worklist is not None or arguments.first is None:
        raise UsageError(
            "Say what to look for: a worklist, or a range of dates.",
            code="no_wishes",
            cure="Give --worklist FILE, or --from DATE with --to and --description as needed.",
        )
    query = StudyQuery(
        modality=modality,
        first_day=arguments.first,
        last_day=arguments.last or date.today(),
        description=arguments.description,
    )
    return (Wish(None, query),)


def _find(arguments: argparse.Namespace) -> Outcome:
    from site_agent.pacs.clients import open_client
    from site_agent.pacs.pull import plan_pull

    folder, settings = _settings(arguments)
    wishes = _wishes(arguments, settings.rules.study_modality)
    with open_client(settings, folder.resolve) as client:
        plan = plan_pull(client, wishes, settings.rules, attempts=settings.attempts)
    lines = []
    for number, study in enumerate(plan.studies, start=1):
        lines.append(f"Study {number}{_at_line(study.line)}:")
        lines += [
            f"  {verdict.role}: {verdict.series.description or '(no description)'}, "
            f"{verdict.series.n_instances or '?'} instances: {verdict.finding}"
            for verdict in study.verdicts
        ]
    lines += _miss_lines(plan)
    lines.append(f"{len(plan.wanted)} series would be pulled.")
    content = {
        "studies": len(plan.studies),
        "series": len(plan.wanted),
        "misses": _miss_content(plan),
    }
    return Outcome("\n".join(lines), content, 6 if plan.misses else 0)


def _at_line(line: int | None) -> str:
    return "" if line is None else f" (line {line})"


def _miss_lines(plan: Plan) -> list[str]:
    return [f"Nothing{_at_line(line)}: cohort.{fault}" for line, fault in plan.misses]


def _miss_content(plan: Plan) -> list[dict[str, Any]]:
    return [{"line": line, "code": f"cohort.{fault}"} for line, fault in plan.misses]


def _pull(arguments: argparse.Namespace) -> Outcome:
    from site_agent.pacs.cache import PacsCache
    from site_agent.pacs.clients import open_client
    from site_agent.pacs.pull import Puller, plan_pull

    folder, settings = _settings(arguments)
    wishes = _wishes(arguments, settings.rules.study_modality)
    with (
        PacsCache(folder.resolve(settings.folder)) as cache,
        open_client(settings, folder.resolve) as client,
    ):
        cache.purge(settings.keep_days, _is_scored(folder, settings))
        plan = plan_pull(client, wishes, settings.rules, attempts=settings.attempts)
        puller = Puller(
            client,
            cache,
            secret=folder.secret(),
            concurrent=settings.concurrent,
            attempts=settings.attempts,
            is_again=arguments.again,
        )
        report = puller.run(plan.wanted)
        manifest = cache.manifest_path
    lines = [
        f"{report.n_pulled} series pulled ({report.n_instances} instances), "
        f"{report.n_present} were here already, {report.n_forgotten} were removed before "
        "(--again pulls those).",
        *_miss_lines(plan),
        *(f"{number} series not complete: cohort.{f}" for f, number in report.failures.items()),
    ]
    if folder.resolve(folder.settings().manifest).absolute() != manifest.absolute():
        lines.append(f"To score them, set `manifest: {settings.folder}/manifest.csv` in site.yaml.")
    content = {
        "pulled": report.n_pulled,
        "present": report.n_present,
        "removed_before": report.n_forgotten,
        "instances": report.n_instances,
        "failures": {f"cohort.{fault}": number for fault, number in report.failures.items()},
        "misses": _miss_content(plan),
    }
    return Outcome("\n".join(lines), content, 6 if report.failures or plan.misses else 0)


def _purge(arguments: argparse.Namespace) -> Outcome:
    from site_agent.pacs.cache import PacsCache

    folder, settings = _settings(arguments)
    with PacsCache(folder.resolve(settings.folder)) as cache:
        removed = cache.purge(settings.keep_days, _is_scored(folder, settings))
        n_left = cache.write_manifest()
    text = (
        f"Removed: {removed['keep_days']} series kept for {settings.keep_days} days, "
        f"{removed['scored']} scored. {n_left} are left."
    )
    return Outcome(text, {"removed": removed, "left": n_left})


def _is_scored(folder: SiteFolder, settings: PacsSettings) -> Callable[[str], bool]:
    from site_agent.pacs.scored import scored_exam_keys

    if not settings.remove_when_scored:
        return lambda _: False
    return scored_exam_keys(folder.database_path).__contains__
