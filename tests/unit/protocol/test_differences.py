"""Amendments of protocols, and what differs between two in words."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import yaml
from plans import SPECS

from fedcac.cli import main
from fedcac.errors import ProtocolError
from fedcac.protocol import Amendment, Protocol
from fedcac.protocol.catalogue import load_shipped, shipped_protocols
from fedcac.protocol.differences import protocol_differences
from fedcac.protocol.loading import load_protocol
from fedcac.protocol.schema import ClinicalCriterion

# The first version of a protocol: it amends nothing.
BASE = load_shipped("demo-nongated").model_copy(update={"version": 1, "amends": ()})


def changed(**changes: object) -> Protocol:
    return BASE.model_copy(update=changes)


def words(second: Protocol, first: Protocol = BASE) -> list[str]:
    return [str(one) for one in protocol_differences(first, second)]


def test_a_protocol_without_amendments_keeps_the_digest_it_had() -> None:
    assert "amends" not in BASE.model_dump(mode="json")
    reason = Amendment(version=1, reason="One more cut-off.")
    later = changed(version=BASE.version + 1, amends=(reason,))
    assert later.digest() != BASE.digest()
    assert Protocol.model_validate_json(later.model_dump_json()) == later


@pytest.mark.parametrize("versions", [(2, 1), (1, 1), (3,), (0,)])
def test_amended_versions_are_older_and_in_order(versions: tuple[int, ...], tmp_path: Path) -> None:
    document = BASE.model_dump(mode="json") | {
        "version": 3,
        "amends": [{"version": number, "reason": "Why not."} for number in versions],
    }
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ProtocolError, match="amends"):
        load_protocol(path)


def test_what_differs_is_said_by_name() -> None:
    first, second = BASE.analyses[0], BASE.analyses[1]
    assert words(changed(analyses=(second, first, *BASE.analyses[2:]))) == [
        "order of the analyses: "
        + ", ".join(spec.id for spec in BASE.analyses)
        + " became "
        + ", ".join([second.id, first.id, *(spec.id for spec in BASE.analyses[2:])])
    ]
    (removed,) = words(changed(analyses=BASE.analyses[1:]))
    assert removed.startswith(f"analysis {first.id} was removed; it was id {first.id}; ")
    (added,) = words(BASE, changed(analyses=BASE.analyses[1:]))
    assert added.startswith(f"analysis {first.id} was added: ")
    assert words(changed(inclusion=(*BASE.inclusion, "Older than 30."))) == [
        "inclusion criterion was added: 'Older than 30.'"
    ]
    minimum = BASE.disclosure.minimum_cell
    stricter = BASE.disclosure.model_copy(update={"minimum_cell": minimum + 6})
    assert words(changed(disclosure=stricter)) == [
        f"disclosure, minimum_cell: {minimum} became {minimum + 6}"
    ]
    reason = Amendment(version=1, reason="Stricter.")
    assert words(changed(amends=(reason,))) == ["amends was added: version 1; reason Stricter."]


def test_sentences_are_compared_as_often_as_they_stand_there() -> None:
    one, other = changed(inclusion=("A CT.", "A table.")), changed(inclusion=("A table.", "A CT."))
    assert words(other, one) == [
        "order of the inclusion criteria: A CT.; A table. became A table.; A CT."
    ]
    twice = changed(inclusion=("A CT.", "A table.", "A CT."))
    assert words(twice, one) == ["inclusion criterion was added: 'A CT.'"]
    assert words(one, twice) == ["inclusion criterion was removed; it was 'A CT.'"]


def test_a_zero_is_said_and_what_is_not_set_is_not() -> None:
    criterion = ClinicalCriterion(column="early", exclude_if=0, statement="Not treated early.")
    (added,) = words(changed(clinical_criteria=(criterion,)))
    assert added == (
        "clinical criterion early was added: column early; exclude_if 0; "
        "statement Not treated early."
    )
    # No flag that is off, no empty list.
    (added,) = words(changed(analyses=(*BASE.analyses, SPECS["descriptives"])))
    assert added == (
        "analysis x was added: id x; kind descriptives; covariates age, sex, vendor; by mace"
    )


@pytest.mark.parametrize(("one", "other"), [*product(sorted(shipped_protocols()), repeat=2)])
def test_two_protocols_differ_in_words_exactly_when_they_differ(one: str, other: str) -> None:
    first, second = load_shipped(one), load_shipped(other)
    there, back = (protocol_differences(*pair) for pair in ((first, second), (second, first)))
    assert bool(there) == (first.digest() != second.digest())
    assert sorted((d.where, d.before or "", d.after or "") for d in there) == sorted(
        (d.where, d.after or "", d.before or "") for d in back
    )


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "later.yaml"
    document = BASE.model_dump(mode="json") | {
        "title": "Another title",
        "version": BASE.version + 1,
        "amends": [{"version": BASE.version, "reason": "A better title."}],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert main(["protocol", "diff", "demo-nongated", str(path)]) == 0
    assert f"title: {BASE.title} became Another title" in capsys.readouterr().out
    assert main(["protocol", "diff", "demo-nongated", "demo-nongated", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["differences"] == []
    assert main(["protocol", "show", str(path)]) == 0
    assert f"version {BASE.version}: A better title." in capsys.readouterr().out
