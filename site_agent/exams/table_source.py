"""Exams from a table of scores that exist already: `fedcac analyze` and published tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.aggregate import FlowStage
from fedcac.console import say
from fedcac.errors import CohortError
from fedcac.protocol import Protocol
from fedcac.site_table import read_site_table
from fedcac.vocabulary import ExclusionReason
from site_agent.exams.cohort import ExamSource, FrozenCohort, flow_of

if TYPE_CHECKING:
    from fedcac.models import ModelPackage

__all__ = ["TableSource", "WithScoredTable"]


class TableSource(ExamSource):
    """One CSV in the site-table layout; nothing is scored."""

    needs_package = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Return the table's rows that the protocol's clinical criteria leave."""
        table = read_site_table(self._path, protocol)
        if table.ignored_columns:
            say(f"Columns that no analysis asks for: {', '.join(table.ignored_columns)}")
        if table.exams.n == 0:
            raise CohortError(
                "Every patient of the table is excluded by the protocol's criteria.",
                code="empty",
                cure="Check the criteria with `fedcac protocol show`.",
            )
        counts = dict.fromkeys(FlowStage, table.exams.n)
        counts[FlowStage.LISTED] = table.exams.n + table.n_excluded
        excluded = Counter({ExclusionReason.PROTOCOL_EXCLUSION: table.n_excluded})
        return FrozenCohort(exams=table.exams, flow=flow_of(counts, excluded))


class WithScoredTable(ExamSource):
    """Exams that are scored here, and for rounds without a package a table of scores that exist."""

    needs_package = True

    def __init__(self, exams: ExamSource, table: TableSource) -> None:
        self._exams = exams
        self._table = table

    def scores(self, package_digest: str | None) -> bool:
        """Say whether a round is scored here: the one that brings a package."""
        return package_digest is not None

    def collect(
        self,
        protocol: Protocol,
        package: ModelPackage | None,
        reference: ModelPackage | None = None,
    ) -> FrozenCohort:
        """Return the cohort of the source that the round is for."""
        if package is None:
            return self._table.collect(protocol, None)
        return self._exams.collect(protocol, package, reference)
