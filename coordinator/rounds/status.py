"""A round for a person: where it stands, who is awaited until when, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from coordinator.rounds.views import RoundView, SiteView
from coordinator.state.records import EditionRecord, RoundState, json_value
from fedcac.aggregate import FlowStage

__all__ = ["RoundStatus", "RoundSummary", "SiteStatus", "status_of", "summary_of"]


@dataclass(frozen=True)
class RoundSummary:
    """One round in a line. `phase` is its state, or `scoring` before the first answer."""

    round_id: str
    protocol: str
    phase: str
    edition: int
    n_sites: int
    n_taking_part: int
    exchange: int
    launched_at: datetime
    due: datetime | None


@dataclass(frozen=True)
class SiteStatus:
    """One site of a round.

    Attributes
    ----------
    standing
        A word of `coordinator.rounds.views.Standing`.
    refusal
        The code with which it refused the round, or None.
    accepts
        Whether it takes part; None before it has said so.
    replies, bytes
        Number and size of those that the estimates use.
    patients
        Analysed at the site, from the flow that it released through its gate; None before, and
        where the gate kept it back.
    last_contact
        When its last parcel was taken in.
    """

    name: str
    standing: str
    accepts: bool | None
    refusal: str | None
    replies: int
    bytes: int
    patients: int | None
    last_contact: datetime | None


@dataclass(frozen=True)
class RoundStatus:
    """One round in detail; `next_steps` says what the lead can do now."""

    round_id: str
    protocol: str
    phase: str
    state: str
    edition: int
    editions: tuple[EditionRecord, ...]
    sites: tuple[SiteStatus, ...]
    minimum_sites: int
    quorum: int | None
    exchanges: int
    open_exchange: int | None
    launched_at: datetime
    deadline: datetime
    due: datetime | None
    finished_at: datetime | None
    is_finished: bool
    is_pooled: bool
    next_steps: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the status as a JSON object: sites by name, times in ISO 8601."""
        found: dict[str, Any] = json_value(asdict(self))
        return {**found, "sites": {site.pop("name"): site for site in found["sites"]}}


def summary_of(view: RoundView) -> RoundSummary:
    """Return a round in a line."""
    return RoundSummary(
        round_id=view.record.round_id,
        protocol=f"{view.protocol.id} v{view.protocol.version}",
        phase=view.phase,
        edition=view.record.edition,
        n_sites=len(view.sites),
        n_taking_part=sum(bool(site.is_accepting) for site in view.sites),
        exchange=view.open_exchange or view.n_exchanges,
        launched_at=view.record.started_at,
        due=view.due,
    )


def status_of(view: RoundView, now: datetime) -> RoundStatus:
    """Return a round in detail, as it is at `now`."""
    return RoundStatus(
        round_id=view.record.round_id,
        protocol=f"{view.protocol.id} v{view.protocol.version}",
        phase=view.phase,
        state=view.record.state.value,
        edition=view.record.edition,
        editions=view.editions,
        sites=tuple(_site(site) for site in view.sites),
        minimum_sites=view.record.minimum_sites,
        quorum=view.record.quorum,
        exchanges=view.n_exchanges,
        open_exchange=view.open_exchange,
        launched_at=view.record.started_at,
        deadline=view.record.deadline,
        due=view.due,
        finished_at=view.record.finished_at,
        is_finished=view.is_finished,
        is_pooled=view.is_pooled,
        next_steps=tuple(_next_steps(view, now)),
    )


def _site(site: SiteView) -> SiteStatus:
    flow = site.flow
    analysed = flow.stages.get(FlowStage.ANALYSED) if flow is not None else None
    return SiteStatus(
        name=site.name,
        standing=site.standing.value,
        accepts=site.is_accepting,
        refusal=site.refusal.value if site.refusal else None,
        replies=len(site.replies),
        bytes=site.n_bytes,
        patients=analysed if isinstance(analysed, int) else None,
        last_contact=site.last_contact,
    )


def _next_steps(view: RoundView, now: datetime) -> Iterator[str]:
    round_id, verb = view.record.round_id, "fedcac-coordinator"
    match view.record.state:
        case RoundState.DRAFT:
            yield f"Send the offer: `{verb} round wait {round_id}`, or let `engine run` do it."
        case RoundState.OFFERED | RoundState.ANSWERING:
            if view.awaited:
                names = ", ".join(view.awaited)
                yield f"Awaited: {names}. Ask them to look at `fedcac-site status`."
            if view.due is not None and view.due < now:
                yield f"The time is over; the next step goes on or ends it: `{verb} round wait`."
            else:
                yield f"Follow it with `{verb} round wait {round_id}`."
        case RoundState.POOLED:
            yield f"Write its report: `{verb} report {round_id} --out FOLDER`."
            if view.late and view.offer.masking is None:
                yield f"Add late sites ({', '.join(view.late)}): `{verb} round retry {round_id}`."
            yield f"When no site is to be added any more: `{verb} round close {round_id}`."
        case RoundState.FAILED:
            yield (
                f"Fewer than {view.record.minimum_sites} sites took part in time. Give them more: "
                f"`{verb} round retry {round_id}`, or end it: `{verb} round close {round_id}`."
            )
        case RoundState.CLOSED | RoundState.CANCELLED:
            yield f"Keep it: `{verb} round export {round_id} --out FILE.zip`."
