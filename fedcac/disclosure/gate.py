"""The gate: the only door through which an aggregate becomes a release.

In goes a registered aggregate with its evidence; out comes a `Release` of exactly the bytes that
may leave, or a `Refusal` that is a code and nothing else. Either is in the ledger, synced, before
the caller sees it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from fedcac.aggregate import Aggregate, CrossTable, LikelihoodTerms, Totals, parse_aggregate
from fedcac.aggregate.base import registered
from fedcac.canonical import Digest, canonical_bytes, sha256_hex
from fedcac.disclosure.budget import is_over_budget
from fedcac.disclosure.differences import known_positives, without_unknown_classes
from fedcac.disclosure.groups import tells_few
from fedcac.disclosure.history import is_near_duplicate, shape_is
from fedcac.disclosure.ledger import Ledger, LedgerEntry
from fedcac.disclosure.payloads import holds_text, is_finite, payload_of, verify
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.question import Question
from fedcac.disclosure.rules import apply_rule, check_consistency, rule_shape
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

__all__ = ["Gate", "Refusal", "Release"]

_TOKEN = object()
_CHARGED = (LikelihoodTerms, Totals)
"""Shapes of real numbers that few patients could be solved from: what they release is counted."""


@dataclass(frozen=True)
class Release:
    """An aggregate that passed the gate. Only `Gate.release` can make one.

    `content` is the canonical JSON that leaves; `profile` is the policy's, so that a release made
    under `open` is known as such.
    """

    content: bytes
    profile: str
    policy_digest: Digest
    token: InitVar[object] = field(repr=False)

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise GateError(
                "A release can only be made by the gate.",
                code="forged_release",
                cure="Call Gate.release.",
            )

    def __init_subclass__(cls) -> None:
        raise GateError("A release has no other kinds.", code="forged_release")

    @property
    def payload(self) -> dict[str, Any]:
        """Return a fresh copy of the JSON document that leaves."""
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def digest(self) -> Digest:
        """Digest of the bytes that leave."""
        return sha256_hex(self.content)

    @property
    def n_bytes(self) -> int:
        """Number of bytes that leave."""
        return len(self.content)


@dataclass(frozen=True)
class Refusal:
    """A non-answer: its code is all that anyone outside learns."""

    code: RefusalCode


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
        if earlier.policy_digest != self._policy_digest:
            return self.refuse(question, RefusalCode.UNPROTECTABLE)
        content = canonical_bytes(earlier.payload)
        is_written = any(
            entry.answers(question) and entry.payload is not None for entry in self._ledger.entries
        )
        if not is_written:
            self._ledger.append(
                self._entry(question, kind=earlier.kind, content=content, repeats=earlier.index)
            )
        return self._release(content)

    def _judge(self, question: Question, aggregate: Aggregate) -> dict[str, Any] | RefusalCode:
        aggregate_type = type(aggregate)
        kind = getattr(aggregate_type, "kind", "")
        if registered().get(kind) is not aggregate_type or rule_shape(aggregate_type) is None:
            return RefusalCode.UNREGISTERED_TYPE
        payload = payload_of(aggregate)
        if not is_finite(payload):
            return RefusalCode.NOT_COMPUTABLE
        verified = verify(payload, aggregate)
        check_consistency(verified)
        safe = apply_rule(verified, self._policy)
        if isinstance(safe, RefusalCode):
            return safe
        released = payload_of(safe)
        if safe.evidence is not None or holds_text(released, safe):
            raise GateError("An aggregate holds more than numbers.", code="text_or_evidence")
        parse_aggregate(released)
        released = self._beside_cross_tables(question, released)
        return self._history_refusal(question, released) or released

    def _beside_cross_tables(self, question: Question, released: dict[str, Any]) -> dict[str, Any]:
        """Withhold classes whose sizes a cross table of the same scores withheld."""
        if self._policy.is_open or not _is_of_classes(released):
            return released
        for entry in self._ledger.entries:
            is_table = _is_charged(entry) and _shape_is(entry, CrossTable)
            if is_table and _is_about(entry, question):
                known = known_positives(entry.payload or {})
                if known is not None:
                    released = without_unknown_classes(released, known)
        return released

    def _history_refusal(
        self, question: Question, released: Mapping[str, Any]
    ) -> RefusalCode | None:
        """Judge an answer together with everything that left before."""
        if self._policy.is_open:
            return None
        past = [entry for entry in self._ledger.entries if _is_charged(entry)]
        if any(is_near_duplicate(question, released, entry, self._policy) for entry in past):
            return RefusalCode.NESTED_COHORT
        if self._tells_few(question, past):
            return RefusalCode.NESTED_COHORT
        if any(_is_second(question, released, entry) for entry in past):
            return RefusalCode.TOO_MANY_EXCHANGES
        if "two_by_two" in released and not _is_told_by(question, released, past):
            return RefusalCode.NESTED_COHORT
        if not issubclass(registered()[released["kind"]], _CHARGED):
            return None
        charged = [entry for entry in past if any(_shape_is(entry, shape) for shape in _CHARGED)]
        return self._budget_refusal(question, released, charged)

    def _tells_few(self, question: Question, past: list[LedgerEntry]) -> bool:
        """Say whether sums over this group and those told of tell one over few patients."""
        if not question.group:
            return False
        known = [
            self._ledger.groups.get(entry.group)
            for entry in past
            if entry.cohort_digest == question.cohort_digest and entry.group is not None
        ]
        groups = {group for group in known if group is not None}
        if None in known:
            # The file beside the ledger has gone: what was told of cannot be known.
            return True
        if question.group in groups:
            return False
        every = [question.group, *sorted(groups)]
        return tells_few(every, question.cohort_size, self._policy.minimum_cell)

    def _budget_refusal(
        self, question: Question, released: Mapping[str, Any], past: list[LedgerEntry]
    ) -> RefusalCode | None:
        limits = self._policy.cox
        about = [entry for entry in past if entry.cohort_digest == question.cohort_digest]
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
        )

    def _release(self, content: bytes) -> Release:
        return Release(content, self._policy.profile, self._policy_digest, _TOKEN)


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


def _is_of_classes(payload: Mapping[str, Any]) -> bool:
    kind = registered().get(payload["kind"])
    return kind is not None and bool(
        getattr(kind, "are_groups_nested", False) or getattr(kind, "are_rows_of_classes", False)
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
        if _is_of_classes(payload)
    )
