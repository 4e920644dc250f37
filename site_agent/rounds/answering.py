"""Turns a request into a reply: estimator, then gate, for every analysis asked."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fedcac import __version__
from fedcac.aggregate import Aggregate
from fedcac.canonical import Digest, digest_of
from fedcac.disclosure import (
    FLOW,
    Contribution,
    Gate,
    Ledger,
    Policy,
    Question,
    Release,
    question_of,
    stricter_of,
)
from fedcac.disclosure.groups import group_of
from fedcac.errors import GateError
from fedcac.exchange import Answer, PolicySummary, Query, Reply, Request
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey
from fedcac.statistics import QueryError, estimator_for
from fedcac.vocabulary import RefusalCode
from site_agent.exams.cohort import FrozenCohort

__all__ = ["Answered", "Answerer"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """A reply, and by analysis what the site will add under masks."""

    reply: Reply
    vectors: Mapping[str, tuple[float, ...]]


class Answerer:
    """Computes and releases what a request asks, under the site's policy and ledger.

    `secret` decides who is in which resampling group or fold. It must stay the same for a cohort,
    or replicates of two exchanges would not be those of one partition; and nobody else may know
    it, or replicates become equations about single patients.
    """

    def __init__(self, policy: Policy, ledger: Ledger, secret: bytes) -> None:
        self._policy = policy
        self._ledger = ledger
        self._secret = secret

    @property
    def is_holding(self) -> bool:
        """Say whether a person approves every reply before it leaves."""
        return self._policy.review == "hold"

    def reply(
        self,
        request: Request,
        request_digest: Digest,
        protocol: Protocol,
        cohort: FrozenCohort,
        site: str,
        now: datetime,
        least_sites: int = 0,
    ) -> Answered:
        """Return the reply to a verified request, and the vectors of masked analyses.

        Asked again, it releases the same.

        `least_sites` is how many sites stand behind a masked sum of this round.
        """
        policy = stricter_of(self._policy, protocol.disclosure)
        gate = Gate(policy, self._ledger)
        patients = digest_of(sorted(cohort.exams.keys))

        def question(
            analysis: str, query: Query, cohort_digest: Digest, group: str = ""
        ) -> Question:
            return question_of(
                protocol,
                analysis,
                query,
                round_id=request.round_id,
                exchange=request.exchange,
                cohort_digest=cohort_digest,
                group=group,
                cohort_size=cohort.exams.n,
                # The flow is told by each site beside everything else.
                patients_digest=None if analysis == FLOW else patients,
            )

        answers: dict[str, Answer] = {}
        vectors: dict[str, tuple[float, ...]] = {}
        # In the protocol's order: what it names first has the first claim on the budget.
        order = {spec.id: number for number, spec in enumerate(protocol.analyses)}
        queries = sorted(request.queries.items(), key=lambda item: order.get(item[0], len(order)))
        for analysis, query in queries:
            summarised = self._summarise(protocol, cohort, analysis, query)
            if summarised is RefusalCode.UNKNOWN_ANALYSIS:
                answers[analysis] = Answer(refusal=summarised)
            else:
                # Of a refusal nothing leaves, so that it is about nobody.
                is_answer = isinstance(summarised, Aggregate)
                group = _group(protocol, cohort, analysis) if is_answer else ""
                asked = question(analysis, query, cohort.digest(), group)
                if protocol.is_masked(analysis) and isinstance(summarised, Aggregate):
                    answers[analysis], numbers = _added(gate, asked, summarised, least_sites)
                    if numbers:
                        vectors[analysis] = numbers
                else:
                    answers[analysis] = _released(gate, asked, summarised)
        # The flow also counts exams that are not analysed, so the analysed rows do not identify it.
        flow_question = question(FLOW, Query(step=FLOW), digest_of(cohort.flow.to_payload()))
        flow: Aggregate | RefusalCode = cohort.flow if cohort.exams.n else RefusalCode.EMPTY_COHORT
        reply = Reply(
            round_id=request.round_id,
            issued_at=now,
            site=site,
            exchange=request.exchange,
            request_digest=request_digest,
            answers=answers,
            flow=_released(gate, flow_question, flow),
            policy=PolicySummary(
                profile=policy.profile,
                minimum_cell=policy.minimum_cell,
                minimum_patients=policy.minimum_patients,
                digest=policy.digest(),
            ),
            ledger_head=self._ledger.head,
            software=__version__,
        )
        return Answered(reply, vectors)

    def _summarise(
        self, protocol: Protocol, cohort: FrozenCohort, analysis: str, query: Query
    ) -> Aggregate | RefusalCode:
        try:
            estimator = estimator_for(analysis, protocol)
        except KeyError:
            return RefusalCode.UNKNOWN_ANALYSIS
        if cohort.exams.n == 0:
            return RefusalCode.EMPTY_COHORT
        try:
            return estimator.summarise(cohort.exams.with_secret(self._secret), query)
        except QueryError:
            return RefusalCode.MALFORMED_QUERY
        except KeyError:
            # The cohort lacks a column that the analysis needs.
            return RefusalCode.NOT_COMPUTABLE
        except Exception as error:
            # Only the class of the error: its text may quote a patient's value.
            _LOG.error("an analysis failed: %s", type(error).__name__)
            return RefusalCode.INTERNAL

    def rejected(self, held: bytes, key: SigningKey, now: datetime) -> bytes:
        """Return the held reply with every release replaced by the site's rejection."""
        payload = base64.b64decode(json.loads(held)["payload"])
        reply = Reply.model_validate_json(payload)
        rejection = Answer(refusal=RefusalCode.REJECTED_BY_SITE)
        return reply.model_copy(
            update={
                "issued_at": now,
                "answers": dict.fromkeys(reply.answers, rejection),
                "flow": rejection,
                "masking_keys": None,
            }
        ).seal(key)


def _group(protocol: Protocol, cohort: FrozenCohort, analysis: str) -> str:
    """Return whom of the cohort an analysis is about."""
    members = estimator_for(analysis, protocol).cohort(cohort.exams)
    return group_of(members.keys, cohort.exams.keys)


def _released(gate: Gate, question: Question, summarised: Aggregate | RefusalCode) -> Answer:
    if isinstance(summarised, RefusalCode):
        return Answer(refusal=gate.refuse(question, summarised).code)
    try:
        outcome = gate.release(question, summarised)
    except GateError:
        return Answer(refusal=gate.refuse(question, RefusalCode.UNREGISTERED_TYPE).code)
    if isinstance(outcome, Release):
        return Answer(release=outcome.payload)
    return Answer(refusal=outcome.code)


def _added(
    gate: Gate, question: Question, summarised: Aggregate, least_sites: int
) -> tuple[Answer, tuple[float, ...]]:
    """Return the answer to a masked analysis, and the numbers that follow it under masks."""
    try:
        outcome = gate.contribute(question, summarised, least_sites)
    except GateError:
        return Answer(refusal=gate.refuse(question, RefusalCode.UNREGISTERED_TYPE).code), ()
    if isinstance(outcome, Contribution):
        return Answer(layout=outcome.layout), outcome.vector
    return Answer(refusal=outcome.code), ()
