"""What the page of one round shows, row by row, from the round as its engine reads it.

Everything here came through a site's gate, or is about parcels: there is no patient in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coordinator.dashboard.round_words import EVENT_WORDS
from coordinator.rounds.answers import exchange_answers
from coordinator.rounds.views import RoundView
from coordinator.state.records import Event, EventKind
from fedcac.aggregate import FlowStage
from fedcac.report import ExchangeAnswer
from fedcac.report.wording import (
    STAGE_WORDS,
    exclusion_words,
    measure_words,
    number_words,
    refusal_words,
    term_words,
)
from fedcac.statistics import Estimate
from fedcac.statistics.estimator import POOLED
from fedcac.vocabulary import ExclusionReason, Measure, RefusalCode, RowStatus

__all__ = [
    "AnswerRow",
    "EstimateRow",
    "EventRow",
    "ExchangeRow",
    "FlowRow",
    "LedgerRow",
    "answer_rows",
    "estimate_rows",
    "event_rows",
    "exchange_rows",
    "exclusion_rows",
    "flow_rows",
    "ledger_rows",
    "stage_heads",
    "sum_rows",
]

_STATUS_WORDS = {
    RowStatus.SUPPRESSED: "withheld by disclosure control",
    RowStatus.NOT_APPLICABLE: "not defined here",
    RowStatus.NOT_ESTIMABLE: "the patients do not determine it",
    RowStatus.ERROR: "something failed",
}


@dataclass(frozen=True)
class FlowRow:
    """One site's patients by stage, as released; a withheld count is a word."""

    site: str
    counts: tuple[str, ...]


@dataclass(frozen=True)
class AnswerRow:
    """What one site answered to one analysis in one exchange."""

    exchange: int
    site: str
    analysis: str
    is_release: bool
    words: str
    code: str


@dataclass(frozen=True)
class ExchangeRow:
    """One exchange: when it was asked and closed, and who answered."""

    number: int
    sent: str
    analyses: int
    replied: tuple[str, ...]
    awaited: tuple[str, ...]
    left_out: tuple[str, ...]
    is_closed: bool


@dataclass(frozen=True)
class EstimateRow:
    """One pooled number, or why there is none."""

    analysis: str
    measure: str
    term: str
    value: str
    n: str
    is_number: bool


@dataclass(frozen=True)
class LedgerRow:
    """What a site last said of its ledger, policy and software."""

    site: str
    ledger: str
    policy: str
    policy_digest: str
    software: str


@dataclass(frozen=True)
class EventRow:
    """One event in words."""

    at: str
    actor: str
    words: str
    detail: str


def flow_rows(view: RoundView) -> Iterator[FlowRow]:
    """Yield the stages of every site that released its flow."""
    for site in view.sites:
        if site.flow is not None:
            counts = (site.flow.stages[stage] for stage in FlowStage)
            yield FlowRow(site.name, tuple(_count(one) for one in counts))


def stage_heads() -> tuple[str, ...]:
    """Return the stages in words, in the order of `flow_rows`."""
    return tuple(STAGE_WORDS[stage] for stage in FlowStage)


def exclusion_rows(view: RoundView) -> Iterator[tuple[str, str, str, str]]:
    """Yield (site, code, words, count) of every reason for which patients were left out."""
    for site in view.sites:
        exclusions = {} if site.flow is None else site.flow.exclusions
        for code, count in exclusions.items():
            reason = ExclusionReason(code)
            yield site.name, reason.value, exclusion_words(reason), _count(count)


def _count(value: object) -> str:
    return str(value) if isinstance(value, int) else str(getattr(value, "value", value))


def answer_rows(view: RoundView) -> Iterator[AnswerRow]:
    """Yield every release and refusal, exchange by exchange."""
    found = [
        (step, site, analysis, answer)
        for site, analyses in exchange_answers(view.sites).items()
        for analysis, answers in analyses.items()
        for step, answer in enumerate(answers, start=1)
    ]
    order = {site.name: number for number, site in enumerate(view.sites)}
    for step, site, analysis, answer in sorted(found, key=lambda one: (one[0], order[one[1]])):
        code = "" if answer.refusal is None else answer.refusal.value
        yield AnswerRow(step, site, analysis, not code, _answer_words(answer), code)


def _answer_words(answer: ExchangeAnswer) -> str:
    if answer.refusal is not None:
        return refusal_words(RefusalCode(answer.refusal))
    parts = [answer.kind.replace("_", " ") or "its part of a sum under masks"]
    if answer.n_patients is not None:
        parts.append(f"{answer.n_patients} patients")
    if answer.n_suppressed:
        parts.append(f"{answer.n_suppressed} of {answer.n_parts} parts withheld")
    return ", ".join(parts)


def exchange_rows(view: RoundView, events: Sequence[Event]) -> tuple[ExchangeRow, ...]:
    """Return every exchange that was sent, oldest first."""
    rows = []
    for sent in (event for event in events if event.what is EventKind.EXCHANGE_SENT):
        number = sent.detail.get("exchange")
        asked = _names(sent.detail.get("sites"))
        own = [event for event in events if event.detail.get("exchange") == number]
        replied = {event.site for event in own if event.what is EventKind.REPLIED}
        ends = [event for event in own if event.what is EventKind.EXCHANGE_CLOSED]
        is_closed = bool(ends) or view.open_exchange != number
        counted = _names(ends[-1].detail.get("sites")) if ends else asked
        waiting = tuple(site for site in asked if site not in replied)
        rows.append(
            ExchangeRow(
                number=number if isinstance(number, int) else 0,
                sent=f"{sent.at:%Y-%m-%d %H:%M} UTC",
                analyses=int(str(sent.detail.get("analyses", 0))),
                replied=tuple(site for site in asked if site in replied),
                awaited=() if is_closed else waiting,
                left_out=tuple(site for site in asked if site not in counted),
                is_closed=is_closed,
            )
        )
    return tuple(rows)


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list | tuple) else ()


def sum_rows(view: RoundView) -> Iterator[tuple[int, str, str, str]]:
    """Yield (exchange, analysis, what, sites) of every sum over sites that masks hid."""
    for number, sums in enumerate(view.sums, start=1):
        for analysis, told in sums.items():
            if isinstance(told.answer, RefusalCode):
                what = f"{refusal_words(told.answer)} ({told.answer.value})"
            else:
                what = f"sum released, {told.answer.n_patients} patients"
            yield number, analysis, what, ", ".join(told.sites)


def estimate_rows(view: RoundView) -> Iterator[EstimateRow]:
    """Yield every pooled number that there is so far."""
    for row in view.estimates:
        if row.scope == POOLED and row.measure is not Measure.COUNT:
            yield EstimateRow(
                analysis=row.analysis,
                measure=measure_words(row.measure),
                term=_term(row),
                value=(
                    _STATUS_WORDS.get(row.status, row.status.value)
                    if row.estimate is None
                    else number_words(row)
                ),
                n="" if row.n is None else str(row.n),
                is_number=row.estimate is not None,
            )


def _term(row: Estimate) -> str:
    is_cut_off = row.term.replace(".", "", 1).isdecimal()
    term = f"cut-off {row.term}" if is_cut_off else term_words(row.term) if row.term else ""
    parts = (row.group, term)
    return ", ".join(part for part in parts if part)


def ledger_rows(view: RoundView) -> Iterator[LedgerRow]:
    """Yield what every site that replied said of itself."""
    for site in view.sites:
        if site.replies:
            last = site.replies[-1]
            policy = last.policy
            yield LedgerRow(
                site=site.name,
                ledger=last.ledger_head,
                policy=f"{policy.profile}, cells under {policy.minimum_cell} withheld",
                policy_digest=policy.digest,
                software=last.software,
            )


def event_rows(events: Sequence[Event]) -> Iterator[EventRow]:
    """Yield events in words, the newest first."""
    for event in reversed(events):
        detail = "; ".join(
            f"{key.replace('_', ' ')}: {_detail(value)}"
            for key, value in event.detail.items()
            if value not in (None, "", [])
        )
        yield EventRow(
            f"{event.at:%Y-%m-%d %H:%M:%S} UTC", event.actor, EVENT_WORDS[event.what], detail
        )


def _detail(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
