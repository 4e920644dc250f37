"""The gate: the only door through which an aggregate becomes a release.

In goes a registered aggregate with its evidence; out comes a `Release` of exactly the bytes that
may leave, or a `Refusal` that is a code and nothing else. Either is in the ledger, synced, before
the caller sees it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedcac.aggregate import Aggregate, CrossTable, LikelihoodTerms, Totals, parse_aggregate
from fedcac.aggregate.base import registered
from fedcac.aggregate.vectors import layout_of, vector_of
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.disclosure import masked
from fedcac.disclosure.budget import is_over_budget
from fedcac.disclosure.classes import (
    beside_tables,
    is_of_classes,
    tells_few_between,
    tells_withheld_categories,
)
from fedcac.disclosure.differences import known_positives, without_unknown_classes
from fedcac.disclosure.facts import Earlier, earlier_facts
from fedcac.disclosure.groups import tells_few
from fedcac.disclosure.history import is_near_duplicate, is_told_otherwise, shape_is
from fedcac.disclosure.ledger import Ledger, LedgerEntry
from fedcac.disclosure.outcomes import GATE, Contribution, Refusal, Release
from fedcac.disclosure.payloads import holds_text, is_finite, payload_of, verify
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.question import Question
from fedcac.disclosure.rules import apply_rule, check_consistency, rule_shape
from fedcac.disclosure.rules.cross_tables import whole_matrix
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

__all__ = ["Contribution", "Gate", "Refusal", "Release"]

_CHARGED = (LikelihoodTerms, Totals)
"""Shapes of real numbers that few patients could be solved from: what they release is counted."""


class Gate:
    """Applies one policy and writes one ledger.

    Parameters
    ----------
    policy
        The policy in force: `stricter_of(site policy, protocol.disclosure)`.
    ledger
        The site's ledger, across all protocols. Limits are counted over the whole of it.
    """

    def __init__(self, policy: Policy, ledger: Ledger) -> None:
        # A subclass could override is_open; a copy made without validation could hold anything.
        if type(policy) is not Policy:
            raise GateError("The gate needs a disclosure policy.", code="no_policy")
        self._policy = Policy.model_validate(policy.model_dump())
        self._policy_digest = self._policy.digest()
        self._ledger = ledger

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def release(self, question: Question, aggregate: Aggregate) -> Release | Refusal:
        """Return what may leave in answer to a question.

        An identical question gets the earlier answer, byte for byte, provided that the policy is
        still the same; otherwise it is refused as `unprotectable`, because two answers under two
        policies can be subtracted from one another.

        Parameters
        ----------
        question
            What is asked; `question_of` makes it from a protocol and a query.
        aggregate
            The site's summary, with the evidence its shape's rule needs.

        Raises
        ------
        GateError
            If the aggregate is malformed or its numbers contradict one another: a fault of the
            software, after which nothing has left.
        IntegrityError
            If the ledger cannot be continued.
        """
        earlier = self._earlier(question)
        if earlier is not None:
            return self._repeat(question, earlier)
        verdict = self._judge(question, aggregate)
        if isinstance(verdict, RefusalCode):
            return self.refuse(question, verdict)
        content = canonical_bytes(verdict)
        entry = self._entry(question, kind=verdict["kind"], content=content)
        self._ledger.append(entry)
        return self._release(content)

    def contribute(
        self, question: Question, aggregate: Aggregate, least_sites: int
    ) -> Contribution | Refusal:
        """Return what may be added to a sum over at least `least_sites` sites.

        An identical question gets the same numbers again. One that was answered by itself is not
        answered in a sum, nor the other way round: whoever knows the answers of all sites but one,
        and the sum, knows that one. Parameters and errors are those of `release`.
        """
        if least_sites < masked.LEAST_SITES:
            raise GateError("A sum over so few sites tells of each.", code="too_few_sites")
        earlier = self._earlier(question)
        layout = layout_of(aggregate)
        if earlier is not None:
            content = canonical_bytes(earlier.payload)
            is_same = earlier.policy_digest == self._policy_digest
            if not is_same or earlier.least_sites != least_sites:
                return self.refuse(question, RefusalCode.UNPROTECTABLE)
            self._note_repeat(question, earlier, content)
            return Contribution(layout, _vector(content), GATE)
        verdict = self._judge(question, aggregate, least_sites)
        if isinstance(verdict, RefusalCode):
            return self.refuse(question, verdict)
        content = canonical_bytes(verdict)
        entry = self._entry(
            question, kind=verdict["kind"], content=content, least_sites=least_sites
        )
        self._ledger.append(entry)
        return Contribution(layout, _vector(content), GATE)

    def refuse(self, question: Question, code: RefusalCode) -> Refusal:
        """Refuse a question for a reason the gate does not judge, and write it to the ledger.

        For a query that cannot be computed, or a reply the site's owner rejects. A release that
        was made before stays in the ledger, and stays charged.
        """
        is_written = any(
            entry.answers(question) and entry.refusal is code for entry in self._ledger.entries
        )
        if not is_written:
            self._ledger.append(self._entry(question, kind="refusal", refusal=code))
        return Refusal(code)

    def _earlier(self, question: Question) -> LedgerEntry | None:
        for entry in self._ledger.entries:
            if entry.key == question.key and entry.payload is not None:
                return entry
        return None

    def _repeat(self, question: Question, earlier: LedgerEntry) -> Release | Refusal:
        if earlier.policy_digest != self._policy_digest or earlier.least_sites:
            return self.refuse(question, RefusalCode.UNPROTECTABLE)
        content = canonical_bytes(earlier.payload)
        self._note_repeat(question, earlier, content)
        return self._release(content)

    def _note_repeat(self, question: Question, earlier: LedgerEntry, content: bytes) -> None:
        is_written = any(
            entry.answers(question) and entry.payload is not None for entry in self._ledger.entries
        )
        if not is_written:
            self._ledger.append(
                self._entry(
                    question,
                    kind=earlier.kind,
                    content=content,
                    repeats=earlier.index,
                    least_sites=earlier.least_sites,
                )
            )

    def _judge(
        self, question: Question, aggregate: Aggregate, least_sites: int = 0
    ) -> dict[str, Any] | RefusalCode:
        aggregate_type = type(aggregate)
        kind = getattr(aggregate_type, "kind", "")
        if registered().get(kind) is not aggregate_type or rule_shape(aggregate_type) is None:
            return RefusalCode.UNREGISTERED_TYPE
        payload = payload_of(aggregate)
        if not is_finite(payload):
            return RefusalCode.INTERNAL
        verified = verify(payload, aggregate)
        check_consistency(verified)
        earlier = None
        if least_sites:
            safe = masked.judge(verified, self._policy, least_sites)
        else:
            earlier = self._earlier_facts(question, verified)
            safe = apply_rule(verified, self._policy, earlier)
        if isinstance(safe, RefusalCode):
            return safe
        released = payload_of(safe)
        if safe.evidence is not None or holds_text(released, safe):
            raise GateError("An aggregate holds more than numbers.", code="text_or_evidence")
        parse_aggregate(released)
        if least_sites:
            return self._masked_history_refusal(question, released, least_sites) or released
        if not self._policy.is_open:
            released = beside_tables(question, released, self._seen())
        is_judged = bool(earlier and earlier.is_complete)
        return self._history_refusal(question, released, is_judged=is_judged) or released

    def _earlier_facts(self, question: Question, verified: Aggregate) -> Earlier | None:
        """Return what was told of a cross table's cells before, if that can be judged."""
        if self._policy.is_open or not isinstance(verified, CrossTable):
            return None
        return earlier_facts(question, whole_matrix(verified), self._seen(), self._ledger)

    def _seen(self) -> list[LedgerEntry]:
        # What was added to a sum nobody has seen.
        return [e for e in self._ledger.entries if _is_charged(e) and not e.least_sites]

    def _history_refusal(
        self, question: Question, released: Mapping[str, Any], *, is_judged: bool
    ) -> RefusalCode | None:
        """Judge an answer together with everything that left before."""
        if self._policy.is_open:
            return None
        past = [entry for entry in self._ledger.entries if _is_charged(entry)]
        if is_told_otherwise(question, released, past, is_masked=False):
            return RefusalCode.UNPROTECTABLE
        # Of the same cohort nobody has seen what was added to a sum.
        seen = [
            e for e in past if not (e.least_sites and e.cohort_digest == question.cohort_digest)
        ]
        if any(
            is_near_duplicate(question, released, entry, self._policy, is_judged) for entry in seen
        ):
            return RefusalCode.NESTED_COHORT
        if self._tells_few(question, past, self._policy.minimum_cell):
            return RefusalCode.NESTED_COHORT
        if any(_is_second(question, released, entry) for entry in past):
            return RefusalCode.TOO_MANY_EXCHANGES
        if "two_by_two" in released and not _is_told_by(question, released, seen):
            return RefusalCode.NESTED_COHORT
        if tells_withheld_categories(question, released, self._seen()) or tells_few_between(
            question, released, self._seen(), self._policy
        ):
            return RefusalCode.NESTED_COHORT
        if not issubclass(registered()[released["kind"]], _CHARGED):
            return None
        return self._budget_refusal(question, released, past)

    def _masked_history_refusal(
        self, question: Question, released: Mapping[str, Any], least_sites: int
    ) -> RefusalCode | None:
        """Judge a part of a sum together with everything that left before.

        Sums about cohorts that differ by few patients tell of these by subtraction, whether
        anybody sees a site's part or not.
        """
        if self._policy.is_open:
            return None
        past = [entry for entry in self._ledger.entries if _is_charged(entry)]
        if is_told_otherwise(question, released, past, is_masked=True):
            return RefusalCode.UNPROTECTABLE
        others = [entry for entry in past if entry.cohort_digest != question.cohort_digest]
        if any(is_near_duplicate(question, released, entry, self._policy) for entry in others):
            return RefusalCode.NESTED_COHORT
        if any(_is_second(question, released, entry) for entry in past):
            return RefusalCode.TOO_MANY_EXCHANGES
        kind = registered()[released["kind"]]
        if masked.are_counts_alone(kind):
            return None
        few = masked.shared(self._policy.minimum_cell, least_sites)
        if self._tells_few(question, past, few):
            return RefusalCode.NESTED_COHORT
        if not issubclass(kind, _CHARGED):
            return None
        behind = masked.patients_behind(released["n_patients"], least_sites)
        return self._budget_refusal(question, {**released, "n_patients": behind}, past)

    def _tells_few(self, question: Question, past: list[LedgerEntry], few: int) -> bool:
        """Say whether sums over this group and those told of tell one over few patients."""
        if not question.group:
            return False
        told = {
            entry.group
            for entry in past
            if entry.cohort_digest == question.cohort_digest and entry.group is not None
        }
        found = map(self._ledger.groups.get, told)
        groups = {group for group in found if group is not None}
        if len(groups) < len(told):
            # The file beside the ledger has gone: what was told of cannot be known.
            return True
        if question.group in groups:
            return False
        every = [question.group, *sorted(groups)]
        return tells_few(every, question.cohort_size, few)

    def _budget_refusal(
        self, question: Question, released: Mapping[str, Any], past: list[LedgerEntry]
    ) -> RefusalCode | None:
        limits = self._policy.cox
        charged = [entry for entry in past if any(_shape_is(entry, shape) for shape in _CHARGED)]
        about = [entry for entry in charged if entry.cohort_digest == question.cohort_digest]
        asked = {e.key for e in about if e.analysis_digest == question.analysis_digest}
        if len(asked) >= limits.maximum_exchanges:
            return RefusalCode.TOO_MANY_EXCHANGES
        if is_over_budget(question, released, about, self._policy):
            return RefusalCode.BUDGET_SPENT
        return None

    def _entry(
        self,
        question: Question,
        *,
        kind: str,
        content: bytes | None = None,
        refusal: RefusalCode | None = None,
        repeats: int | None = None,
        least_sites: int = 0,
    ) -> LedgerEntry:
        is_told = content is not None and bool(question.group)
        group = self._ledger.groups.remember(question.group) if is_told else None
        return LedgerEntry(
            index=len(self._ledger.entries),
            previous=self._ledger.head,
            round_id=question.round_id,
            protocol_digest=question.protocol_digest,
            exchange=question.exchange,
            analysis=question.analysis,
            analysis_digest=question.analysis_digest,
            query_digest=question.query_digest,
            cohort_digest=question.cohort_digest,
            patients_digest=question.patients_digest,
            scores_digest=question.scores_digest,
            categories_digest=question.categories_digest,
            columns=question.columns,
            group=group,
            key=question.key,
            policy_digest=self._policy_digest,
            profile=self._policy.profile,
            kind=kind,
            release_digest=None if content is None else sha256_hex(content),
            n_bytes=0 if content is None else len(content),
            payload=None if content is None else json.loads(content),
            refusal=refusal,
            repeats=repeats,
            least_sites=least_sites,
        )

    def _release(self, content: bytes) -> Release:
        return Release(content, self._policy.profile, self._policy_digest, GATE)


def _vector(content: bytes) -> tuple[float, ...]:
    return tuple(vector_of(parse_aggregate(json.loads(content))))


def _is_charged(entry: LedgerEntry) -> bool:
    # What left under `open` was declared public.
    return entry.payload is not None and entry.profile != "open"


def _shape_is(entry: LedgerEntry, shape: type[Aggregate]) -> bool:
    return shape_is(entry.payload, shape)


def _is_about(entry: LedgerEntry, question: Question) -> bool:
    return (entry.cohort_digest, entry.scores_digest) == (
        question.cohort_digest,
        question.scores_digest,
    )


def _is_second(question: Question, released: Mapping[str, Any], entry: LedgerEntry) -> bool:
    """Say whether another query was answered with a type that is given once."""
    return (
        registered()[released["kind"]].is_given_once
        and entry.kind == released["kind"]
        and entry.cohort_digest == question.cohort_digest
        and entry.analysis_digest == question.analysis_digest
    )


def _is_told_by(question: Question, table: Mapping[str, Any], past: list[LedgerEntry]) -> bool:
    """Say whether earlier classes have no sizes that a cross table withholds."""
    known = known_positives(table)
    about = [entry.payload or {} for entry in past if _is_about(entry, question)]
    return known is None or all(
        without_unknown_classes(payload, known) == payload
        for payload in about
        if is_of_classes(payload)
    )
