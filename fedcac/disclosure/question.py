"""What identifies a question to the gate, apart from who asks it and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcac.canonical import Digest, digest_of
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AnalysisSpec,
    BlandAltmanSpec,
    ComparisonSpec,
    CorrelationSpec,
    DistributionSpec,
    KaplanMeierSpec,
    Protocol,
    ReclassificationSpec,
    ZeroInflatedSpec,
)
from fedcac.protocol.columns import columns_of

__all__ = ["FLOW", "Question", "analysis_digest", "question_of"]

FLOW = "flow"
"""The name under which the flow of patients is asked for beside a protocol's analyses."""

_FURTHER_STEPS = frozenset({"robust", "proportionality", "concordance", "by_site"})
_WITHOUT_CATEGORIES = (BlandAltmanSpec, CorrelationSpec, DistributionSpec, ZeroInflatedSpec)


@dataclass(frozen=True)
class Question:
    """One analysis at one query about one cohort, in one exchange of one round.

    `analysis_digest` covers the analysis's content, not its name nor its protocol's, so that the
    same question under another name is recognised. `cohort_digest` covers the analysed rows.
    `group` says which of the cohort's `cohort_size` patients the analysis is about (`groups.py`).
    `columns` are those of the site table that the analysis reads. `scores_digest` and
    `categories_digest` say which two scores a table would cross, and where it
    would cut them; of a life table, where it would cut time. `patients_digest` says who the
    cohort's patients are, whatever columns it has; None where that is no matter.
    """

    round_id: str
    protocol_digest: Digest
    exchange: int
    analysis: str
    analysis_digest: Digest
    query_digest: Digest
    cohort_digest: Digest
    scores_digest: Digest
    categories_digest: Digest
    columns: tuple[str, ...] = ()
    group: str = ""
    cohort_size: int = 0
    patients_digest: Digest | None = None

    @property
    def key(self) -> Digest:
        """Return the digest of what is asked: analysis content, query and cohort."""
        return digest_of([self.analysis_digest, self.query_digest, self.cohort_digest])


def analysis_digest(protocol: Protocol, analysis: str) -> Digest:
    """Return the digest of everything of a protocol that an analysis's aggregate depends on.

    Raises
    ------
    KeyError
        If the protocol declares no such analysis and it is not the flow.
    """
    if analysis == FLOW:
        return digest_of({"kind": FLOW})
    spec = protocol.analysis(analysis)
    models = (
        [_content(protocol, protocol.analysis(name)) for name in (spec.base, spec.full)]
        if isinstance(spec, ReclassificationSpec)
        else []
    )
    return digest_of({**_content(protocol, spec), "models": models})


def _content(protocol: Protocol, spec: AnalysisSpec) -> dict[str, Any]:
    # Names and words of the protocol do not count, nor do options that only add further steps,
    # which are questions of their own.
    named = set(getattr(spec, "covariates", ())) | {getattr(spec, "by", "")}
    named |= {getattr(spec, "prediction", "")}
    subgroup = protocol.subgroup(spec.subgroup) if spec.subgroup else None
    if subgroup is not None:
        named.add(subgroup.covariate)
    endpoints = {getattr(spec, "endpoint", ""), getattr(spec, "by", "")}
    content: dict[str, Any] = {
        "spec": spec.model_dump(mode="json", exclude={"id", "subgroup", *_FURTHER_STEPS}),
        "index_test": protocol.index_test.model_dump(mode="json"),
        "reference": protocol.reference.model_dump(mode="json"),
        "scores": [
            None if score is None else score.column
            for score in (protocol.comparator, protocol.second_reference)
        ],
        "subgroup": subgroup and subgroup.model_dump(mode="json", exclude={"name", "description"}),
        "endpoints": [
            endpoint.model_dump(mode="json", exclude={"name", "definition"})
            for endpoint in protocol.endpoints
            if endpoint.name in endpoints
        ],
        "covariates": [
            covariate.model_dump(mode="json", exclude={"description"})
            for covariate in protocol.covariates
            if covariate.name in named
        ],
    }
    if not isinstance(spec, _WITHOUT_CATEGORIES):
        content["categories"] = protocol.categories.model_dump(mode="json")
    return content


def question_of(
    protocol: Protocol,
    analysis: str,
    query: Query,
    *,
    round_id: str,
    exchange: int,
    cohort_digest: Digest,
    group: str = "",
    cohort_size: int = 0,
    patients_digest: Digest | None = None,
) -> Question:
    """Return the question that a request's query is; KeyError if the analysis is not declared."""
    return Question(
        round_id=round_id,
        protocol_digest=protocol.digest(),
        exchange=exchange,
        analysis=analysis,
        analysis_digest=analysis_digest(protocol, analysis),
        query_digest=digest_of(query.model_dump(mode="json")),
        cohort_digest=cohort_digest,
        scores_digest=digest_of(_scores(protocol, analysis)),
        categories_digest=digest_of(_cuts(protocol, analysis)),
        columns=_columns(protocol, analysis),
        group=group,
        cohort_size=cohort_size,
        patients_digest=patients_digest,
    )


def _cuts(protocol: Protocol, analysis: str) -> Any:
    spec = None if analysis == FLOW else protocol.analysis(analysis)
    if isinstance(spec, KaplanMeierSpec):
        return {"bin_days": spec.bin_days, "horizon_days": spec.horizon_days}
    return protocol.categories.model_dump(mode="json")


def _columns(protocol: Protocol, analysis: str) -> tuple[str, ...]:
    if analysis == FLOW:
        return ()
    columns = columns_of(protocol.analysis(analysis), protocol)
    return tuple(sorted({*columns.needed, *columns.optional}))


def _scores(protocol: Protocol, analysis: str) -> list[str]:
    if analysis == FLOW:
        return []
    spec = protocol.analysis(analysis)
    roles = (getattr(spec, "index", "index"), getattr(spec, "reference", "reference"))
    if isinstance(spec, ComparisonSpec) and spec.compare == "references":
        # The second score is that by whose classes an answer tells.
        roles = ("reference", "index")
    return [protocol.score_column(role) for role in roles]
