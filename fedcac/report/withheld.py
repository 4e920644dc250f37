"""What suppression and refusals cost each analysis: patients and events, per site and pooled.

A site says nothing about an analysis that it refuses. How many patients it has for it is then read
from what it released elsewhere in the round: exactly, if another analysis is about the same
patients (the same columns, subgroup and endpoint); otherwise as an upper limit, from an analysis
that asks for less, or from the site's flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedcac.aggregate import CrossTable, registered
from fedcac.protocol import AnalysisSpec, Protocol
from fedcac.protocol.columns import endpoint_of
from fedcac.report.content import ExchangeAnswer, RoundReport, SiteSummary
from fedcac.statistics.estimator import POOLED, estimator_for
from fedcac.statistics.rows import absent_status
from fedcac.vocabulary import RefusalCode, RowStatus

__all__ = ["AnalysisCost", "Number", "SiteCost", "costs_of"]

_ONLY_A_START = frozenset({"zip_start"})
"""Aggregates that tell a search where to begin and are in no pooled value."""


@dataclass(frozen=True)
class Number:
    """A number of patients or events: exact, an upper limit, or (None) not known at all."""

    value: int | None
    is_exact: bool = True


@dataclass(frozen=True)
class SiteCost:
    """One site's part in one analysis.

    Attributes
    ----------
    n_patients, n_events
        What the site has for the analysis; events None if it has no endpoint.
    n_patients_pooled, n_events_pooled
        How many of them are behind its pooled values, behind some of them at least if `is_partial`.
        Events None as above, or where the site suppressed their number.
    codes
        The codes with which the site refused the analysis, or single steps of it.
    n_parts, n_suppressed
        Of what it released, the parts judged one by one, and how many of them are suppressed; for
        a cross-table the site's own rows of the analysis.
    waits_for
        Analyses without whose fits this one does not count the site.
    """

    site: str
    n_patients: Number
    n_events: Number | None
    n_patients_pooled: int | None
    n_events_pooled: int | None
    is_partial: bool
    codes: tuple[RefusalCode, ...]
    n_parts: int
    n_suppressed: int
    waits_for: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Say whether all that the site has is behind every pooled value."""
        return not (self.codes or self.n_suppressed or self.waits_for) and (
            self.n_patients_pooled == self.n_patients.value
        )


@dataclass(frozen=True)
class AnalysisCost:
    """One analysis: its sites, and what its pooled values came to.

    `n_values` counts its pooled values and `n_absent` those without a number; `status` says why
    there is none at all, and is `ok` if there is one.
    """

    analysis: str
    has_endpoint: bool
    sites: tuple[SiteCost, ...]
    n_values: int
    n_absent: int
    status: RowStatus

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is missing from the analysis."""
        return all(site.is_whole for site in self.sites)


def costs_of(report: RoundReport) -> tuple[AnalysisCost, ...]:
    """Return every declared analysis with what was withheld from it, in the protocol's order.

    Masked analyses are left out: of them nothing is known site by site.
    """
    return _Costs(report).all()


@dataclass(frozen=True)
class _Group:
    """Whom an analysis is about: complete in these columns, in a subgroup, with an endpoint."""

    columns: frozenset[str]
    subgroup: str | None
    endpoint: str | None

    def is_part_of(self, other: _Group) -> bool:
        """Say whether everybody of this group is also of the other one, at any site."""
        return (
            self.columns >= other.columns
            and other.subgroup in (None, self.subgroup)
            and other.endpoint in (None, self.endpoint)
        )


class _Costs:
    def __init__(self, report: RoundReport) -> None:
        self._report = report
        self._protocol: Protocol = report.protocol
        self._specs = {spec.id: spec for spec in self._protocol.analyses}
        self._groups = {name: self._group(spec) for name, spec in self._specs.items()}

    def all(self) -> tuple[AnalysisCost, ...]:
        return tuple(
            self._cost(spec)
            for spec in self._specs.values()
            if not self._protocol.is_masked(spec.id)
        )

    def _group(self, spec: AnalysisSpec) -> _Group:
        endpoint = endpoint_of(spec, self._protocol)
        return _Group(
            columns=frozenset(estimator_for(spec.id, self._protocol).columns),
            subgroup=spec.subgroup,
            endpoint=None if endpoint is None else endpoint.name,
        )

    @cached_property
    def _statuses(self) -> dict[str, list[RowStatus]]:
        """Per analysis the statuses of its pooled values, those without a site not counted."""
        found: dict[str, list[RowStatus]] = {name: [] for name in self._specs}
        for row in self._report.estimates:
            if row.scope == POOLED and not row.group.startswith("without "):
                found.setdefault(row.analysis, []).append(row.status)
        return found

    @cached_property
    def _own_rows(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Per analysis and scope the rows of the estimates, and how many are suppressed."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for row in self._report.estimates:
            n, n_suppressed = found.get((row.analysis, row.scope), (0, 0))
            is_hidden = row.status is RowStatus.SUPPRESSED
            found[row.analysis, row.scope] = n + 1, n_suppressed + is_hidden
        return found

    def _cost(self, spec: AnalysisSpec) -> AnalysisCost:
        statuses = self._statuses[spec.id]
        absent = [status for status in statuses if status is not RowStatus.OK]
        is_pooled = len(absent) < len(statuses)
        kinds = estimator_for(spec.id, self._protocol).aggregate_types
        has_endpoint = any(kind.has_endpoint for kind in kinds)
        return AnalysisCost(
            analysis=spec.id,
            has_endpoint=has_endpoint,
            sites=tuple(
                self._site(spec.id, site, is_pooled=is_pooled, has_endpoint=has_endpoint)
                for site in self._report.sites
            ),
            n_values=len(statuses),
            n_absent=len(absent),
            status=RowStatus.OK if is_pooled else absent_status(absent),
        )

    def _site(
        self, analysis: str, site: SiteSummary, *, is_pooled: bool, has_endpoint: bool
    ) -> SiteCost:
        answers = site.answers.get(analysis, ())
        counted = [answer for answer in _counted(answers) if answer.refusal is None]
        waits_for = tuple(
            model
            for model in estimator_for(analysis, self._protocol).models
            if not self._protocol.is_masked(model)
            and not any(a.is_fit for a in _counted(site.answers.get(model, ())))
        )
        is_in = is_pooled and bool(counted) and not waits_for
        codes = tuple(dict.fromkeys(a.refusal for a in answers if a.refusal is not None))
        whole = site.refusal_of(analysis)
        events = [a.n_events for a in counted if a.n_events is not None]
        n_parts, n_suppressed = self._parts(analysis, site.name, counted)
        return SiteCost(
            site=site.name,
            n_patients=self._patients(analysis, site),
            n_events=self._events(analysis, site) if has_endpoint else None,
            n_patients_pooled=counted[-1].n_patients if is_in else 0,
            n_events_pooled=_last(events)
            if is_in and has_endpoint
            else 0
            if has_endpoint
            else None,
            is_partial=is_in and (bool(codes) or n_suppressed > 0),
            codes=codes or ((whole,) if whole is not None else ()),
            n_parts=n_parts,
            n_suppressed=n_suppressed,
            waits_for=waits_for,
        )

    def _parts(
        self, analysis: str, site: str, counted: Sequence[ExchangeAnswer]
    ) -> tuple[int, int]:
        if counted and all(issubclass(registered()[a.kind], CrossTable) for a in counted):
            # Of a cross-table an analysis uses the matrix or the cut-offs: its own rows tell.
            return self._own_rows.get((analysis, site), (0, 0))
        return sum(a.n_parts for a in counted), sum(a.n_suppressed for a in counted)

    def _patients(self, analysis: str, site: SiteSummary) -> Number:
        known = [
            (own, answer.n_patients)
            for name, own in self._groups.items()
            for answer in site.answers.get(name, ())
            if answer.n_patients is not None
        ]
        flow = None if site.flow is None else site.flow.n_patients
        return _limit(self._groups[analysis], known, flow)

    def _events(self, analysis: str, site: SiteSummary) -> Number:
        asked = self._groups[analysis]
        known = [
            (own, answer.n_events)
            for name, own in self._groups.items()
            if own.endpoint == asked.endpoint
            for answer in site.answers.get(name, ())
            if answer.n_events is not None
        ]
        return _limit(asked, known, None)


def _counted(answers: tuple[ExchangeAnswer, ...]) -> Iterator[ExchangeAnswer]:
    """Yield the answers that are in pooled values: none of a fit that the site left, nor after it.

    A site that only finds a step out of its bounds stays in the fit.
    """
    left = [
        place
        for place, answer in enumerate(answers)
        if answer.is_fit and answer.refusal not in (None, RefusalCode.PARAMETERS_OUT_OF_BOUNDS)
    ]
    begun = [place for place, answer in enumerate(answers) if answer.is_fit]
    for answer in answers[: begun[0]] if left else answers:
        if answer.refusal is None and answer.kind not in _ONLY_A_START:
            yield answer


def _last(numbers: list[int]) -> int | None:
    return numbers[-1] if numbers else None


def _limit(asked: _Group, known: list[tuple[_Group, int]], flow: int | None) -> Number:
    exact = [n for own, n in known if own == asked]
    if exact:
        return Number(max(exact))
    limits = [n for own, n in known if asked.is_part_of(own)]
    return Number(min([*limits, *([] if flow is None else [flow])], default=None), is_exact=False)
