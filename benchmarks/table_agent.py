"""`python -m benchmarks.table_agent FOLDER PROTOCOL=TABLE...`: a site's agent, over tables.

It is the service that `fedcac-site run` is, with a scored table for each protocol in the place of
DICOM, so that a deployment is measured and no inference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from fedcac.protocol import Protocol
from site_agent.exams.cohort import ExamSource, FrozenCohort
from site_agent.exams.table_source import TableSource
from site_agent.opening import opened
from site_agent.rounds.agent import SiteAgent
from site_agent.service import loop
from site_agent.service.notify import Notifier
from site_agent.service.stopping import Stopper
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

if TYPE_CHECKING:
    from fedcac.models import ModelPackage

_INTERVAL_S = 5.0


class _Tables(ExamSource):
    """Every protocol's own table."""

    needs_package = False

    def __init__(self, tables: Mapping[str, Path]) -> None:
        self._tables = dict(tables)

    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Collect a protocol's table."""
        return TableSource(self._tables[protocol.id]).collect(protocol, package, reference)


def main() -> None:
    """Run until a signal comes, looking at the inbox as often as `fedcac-site run` does."""
    folder, tables = Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])

    @contextmanager
    def opened_over_table(
        home: Path, *, is_stopping: Callable[[], bool], guard: Callable[[ExamSource], ExamSource]
    ) -> Iterator[tuple[SiteAgent, SiteStore]]:
        def table_source(_: ExamSource) -> ExamSource:
            return guard(_Tables({name: Path(table) for name, table in tables.items()}))

        with opened(home, is_stopping=is_stopping, guard=table_source) as pair:
            yield pair

    stopper = Stopper()
    with stopper.installed(), patch.object(loop, "opened", opened_over_table):
        loop.AgentService(
            SiteFolder(folder), stopper, Notifier({}), interval_s=_INTERVAL_S, minimum_free_mb=0
        ).run()


if __name__ == "__main__":
    main()
