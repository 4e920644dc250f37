from __future__ import annotations

import json
from typing import Any

import pytest

from fedcac.canonical import digest_of
from fedcac.disclosure import FLOW, Question, analysis_digest, question_of
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol

DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "id": "question-test",
    "version": 1,
    "title": "A protocol",
    "purpose": "To tell questions apart",
    "citation": {"text": "Someone, 2021", "doi": "10.1000/xyz"},
    "modality": "non_gated_ct",
    "index_test": {"kind": "agatston_score", "model_family": "eng2021"},
    "reference": {"kind": "non_gated_reader", "modality": "non_gated_ct"},
    "inclusion": ["Adults"],
    "categories": {"cut_offs": [100.0], "labels": ["0-100", ">100"]},
    "covariates": [
        {"name": "age", "type": "continuous", "description": "Age in years"},
        {"name": "sex", "type": "binary", "description": "Female sex"},
    ],
    "endpoints": [{"name": "mace", "definition": "Death or infarction"}],
    "analyses": [
        {"kind": "bland_altman", "id": "bias"},
        {"kind": "accuracy", "id": "accuracy"},
        {"kind": "cox", "id": "cox", "endpoint": "mace", "covariates": ["age"]},
    ],
}


def _protocol(**changes: object) -> Protocol:
    return Protocol.model_validate_json(json.dumps({**DOCUMENT, **changes}))


def _ask(protocol: Protocol, analysis: str, step: str = "newton", cohort: str = "a") -> Question:
    return question_of(
        protocol,
        analysis,
        Query(step=step),
        round_id="round-1",
        exchange=2,
        cohort_digest=digest_of(cohort),
    )


def test_a_question_is_known_under_any_name() -> None:
    first = _protocol()
    analyses = [{**analysis, "id": f"my_{analysis['id']}"} for analysis in DOCUMENT["analyses"]]
    second = _protocol(id="renamed", version=9, title="Another", analyses=analyses)
    for name in ("bias", "accuracy", "cox"):
        assert _ask(first, name).key == _ask(second, f"my_{name}").key
    assert _ask(first, "bias").protocol_digest != _ask(second, "my_bias").protocol_digest


def test_content_query_and_cohort_tell_questions_apart() -> None:
    protocol = _protocol()
    keys = {
        _ask(protocol, "bias").key,
        _ask(protocol, "accuracy").key,
        _ask(protocol, "cox").key,
        _ask(protocol, FLOW).key,
        _ask(protocol, "cox", step="other").key,
        _ask(protocol, "cox", cohort="b").key,
    }
    assert len(keys) == 6


def test_only_what_an_analysis_reads_counts() -> None:
    first = _protocol()
    scaled = [DOCUMENT["covariates"][0], {**DOCUMENT["covariates"][1], "scale": 2.0}]
    second = _protocol(covariates=scaled)
    assert analysis_digest(first, "cox") == analysis_digest(second, "cox")
    third = _protocol(covariates=[{**DOCUMENT["covariates"][0], "scale": 10.0}])
    assert analysis_digest(first, "cox") != analysis_digest(third, "cox")
    fourth = _protocol(categories={"cut_offs": [400.0], "labels": ["0-400", ">400"]})
    assert analysis_digest(first, "accuracy") != analysis_digest(fourth, "accuracy")
    assert analysis_digest(first, "bias") == analysis_digest(fourth, "bias")


def test_an_undeclared_analysis_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        analysis_digest(_protocol(), "nonesuch")
