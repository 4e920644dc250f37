"""What identifies a question to the gate, apart from who asks it and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcac.canonical import Digest, digest_of
from fedcac.exchange.messages import Query
from fedcac.protocol import BlandAltmanSpec, CoxSpec, Protocol

__all__ = ["FLOW", "Question", "analysis_digest", "question_of"]

FLOW = "flow"
"""The name under which the flow of patients is asked for beside a protocol's analyses."""


@dataclass(frozen=True)
class Question:
    """One analysis at one query about one cohort, in one exchange of one round.

    `analysis_digest` covers the analysis's content, not its name nor its protocol's, so that the
    same question under another name is recognised. `cohort_digest` covers the analysed rows.
    """

    round_id: str
    protocol_digest: Digest
    exchange: int
    analysis: str
    analysis_digest: Digest
    query_digest: Digest
    cohort_digest: Digest

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
    spec = next((spec for spec in protocol.analyses if spec.id == analysis), None)
    if spec is None:
        raise KeyError(analysis)
    content: dict[str, Any] = {
        "spec": spec.model_dump(mode="json", exclude={"id"}),
        "index_test": protocol.index_test.model_dump(mode="json"),
        "reference": protocol.reference.model_dump(mode="json"),
    }
    if not isinstance(spec, BlandAltmanSpec):
        content["categories"] = protocol.categories.model_dump(mode="json")
    if isinstance(spec, CoxSpec):
        content["endpoint"] = protocol.endpoint(spec.endpoint).model_dump(
            mode="json", exclude={"name", "definition"}
        )
        content["covariates"] = [
            protocol.covariate(name).model_dump(mode="json", exclude={"description"})
            for name in spec.covariates
        ]
    return digest_of(content)


def question_of(
    protocol: Protocol,
    analysis: str,
    query: Query,
    *,
    round_id: str,
    exchange: int,
    cohort_digest: Digest,
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
    )
