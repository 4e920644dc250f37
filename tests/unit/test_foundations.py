"""Floors 0 and 1: canonical bytes, keys, mailboxes, messages, aggregates, the console."""

from __future__ import annotations

import argparse
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedcac.aggregate import FlowCounts, FlowStage, parse_aggregate
from fedcac.canonical import canonical_bytes, digest_of
from fedcac.console import Outcome, add_format, run_command
from fedcac.errors import FedcacError, GateError, RoundError, SignatureError, TableError
from fedcac.exchange import Answer, DirectoryMailbox, Mailbox, MemoryMailbox, Query, Request
from fedcac.signing import PublicKey, SigningKey, trusted
from fedcac.statistics.confusion import ConfusionCounts
from fedcac.vocabulary import RefusalCode

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_canonical_bytes_round_trip(document: Any) -> None:
    encoded = canonical_bytes(document)
    assert canonical_bytes(json.loads(encoded)) == encoded


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_digest_does_not_depend_on_the_order_of_keys(document: dict[str, int]) -> None:
    assert digest_of(dict(reversed(document.items()))) == digest_of(document)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_have_no_canonical_form(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_bytes({"x": number})


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    key = SigningKey.generate()
    path = tmp_path / "site.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).public == key.public
    assert PublicKey.from_text(path.with_suffix(".pub").read_text()) == key.public
    with pytest.raises(SignatureError, match="key_exists"):
        SigningKey.generate().save(path)
    with pytest.raises(SignatureError, match="no_key"):
        SigningKey.load(tmp_path / "absent.key")
    for text in ("", "ssh-rsa AAAA", "fedcac-ed25519 ???", "fedcac-ed25519 AAAA"):
        with pytest.raises(SignatureError, match="malformed_key"):
            PublicKey.from_text(text)


@pytest.fixture(params=["memory", "directory"])
def mailbox(request: pytest.FixtureRequest, tmp_path: Path) -> Mailbox:
    return MemoryMailbox() if request.param == "memory" else DirectoryMailbox(tmp_path / "box")


def test_parcels_are_written_once(mailbox: Mailbox) -> None:
    mailbox.put("round-1.offer", b"one")
    mailbox.put("round-1.offer", b"one")
    with pytest.raises(RoundError, match="parcel_changed"):
        mailbox.put("round-1.offer", b"two")
    assert mailbox.get("round-1.offer") == b"one"
    assert mailbox.get("absent") is None
    assert mailbox.names() == ("round-1.offer",)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "A", "a..b", "x" * 121, "a\n"])
def test_names_that_are_not_plain_words_are_refused(mailbox: Mailbox, name: str) -> None:
    with pytest.raises(RoundError, match="malformed_parcel_name"):
        mailbox.put(name, b"x")


def test_unfinished_files_are_not_parcels(tmp_path: Path) -> None:
    box = DirectoryMailbox(tmp_path)
    (tmp_path / ".part-abc").write_bytes(b"half")
    assert box.names() == ()


def request_document(**changes: Any) -> dict[str, Any]:
    now = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    return {
        "round_id": "round-1",
        "issued_at": now,
        "exchange": 1,
        "protocol_digest": "sha256:" + "0" * 64,
        "expires_at": now,
        "queries": {"agreement": {"step": "counts", "values": {}}},
        **changes,
    }


def test_messages_open_only_as_what_they_are() -> None:
    key = SigningKey.generate()
    message = Request.model_validate_json(json.dumps(request_document()))
    opened, signer = Request.open(message.seal(key), trusted([key.public]))
    assert (opened, signer) == (message, key.public)
    with pytest.raises(SignatureError, match="untrusted_key"):
        Request.open(message.seal(SigningKey.generate()), trusted([key.public]))


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"exchange": 0},
        {"exchange": "1"},
        {"round_id": "../../etc"},
        {"queries": {"a": {"step": "x", "values": {}, "code": "import os"}}},
        {"queries": {"a": {"step": "x", "values": {"b": ["text"]}}}},
        {"queries": {"A B": {"step": "x", "values": {}}}},
    ],
)
def test_messages_out_of_shape_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Request.model_validate_json(json.dumps(request_document(**changes)))


def test_an_answer_is_a_release_or_a_refusal_never_both() -> None:
    assert Answer(refusal=RefusalCode.INTERNAL).release is None
    for fields in ({}, {"release": {"n": 1}, "refusal": RefusalCode.INTERNAL}):
        with pytest.raises(ValidationError):
            Answer(**fields)
    assert Query(step="newton", values={"beta": (0.5,)}).values["beta"] == (0.5,)


def table_payload(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "confusion_counts",
        "n_patients": 10,
        "matrix": [[4, 1], [2, 3]],
        "two_by_two": [[3, 2, 1, 4]],
        "kept_cut_offs": [],
        "collapsed": [],
        **changes,
    }


def test_aggregates_become_typed_objects() -> None:
    table = parse_aggregate(table_payload())
    assert isinstance(table, ConfusionCounts)
    assert table.to_payload() == table_payload()
    hidden = parse_aggregate(table_payload(matrix=[["suppressed"] * 2] * 2))
    assert isinstance(hidden, ConfusionCounts)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        {"kind": 3},
        table_payload(kind="unheard_of"),
        table_payload(note="John Doe"),
        table_payload(n_patients=-1),
        table_payload(n_patients="10"),
        table_payload(matrix=[[4, 1], [2, "Doe"]]),
        table_payload(matrix=[[4, 1, 0], [2, 3, 0]]),
        table_payload(matrix=[[4.5, 1], [2, 3]]),
        table_payload(evidence={"n_parameters": 1}),
        table_payload(kept_cut_offs=[5], collapsed=[[1, 2], [3, 4]]),
    ],
)
def test_what_is_no_registered_aggregate_is_refused(payload: Any) -> None:
    with pytest.raises(GateError):
        parse_aggregate(payload)


def test_numbers_that_are_not_finite_never_enter() -> None:
    with pytest.raises(GateError):
        parse_aggregate(
            {
                "kind": "difference_moments",
                "n_patients": 1,
                "n": [1],
                "mean": [float("nan")],
                "m2": [0.0],
            }
        )


def test_a_flow_names_every_stage() -> None:
    stages = dict.fromkeys(FlowStage, 3)
    assert FlowCounts(n_patients=3, stages=stages, exclusions={}).n_patients == 3
    with pytest.raises(ValidationError):
        FlowCounts(n_patients=3, stages={FlowStage.LISTED: 3}, exclusions={})


def parser_of(run: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()
    add_format(verbs.add_parser("do"), run)
    return parser


def test_the_envelope_of_success_and_of_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: argparse.Namespace) -> Outcome:
        raise TableError("Line 3 is wrong.", code="not_csv", cure="Mend it.")

    assert (
        run_command(parser_of(lambda _: Outcome("done", {"n": 1})), ["do", "--format", "json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "status": "ok",
        "exit_code": 0,
        "data": {"n": 1},
    }
    assert run_command(parser_of(fail), ["do", "--format", "json"]) == 7
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["status"], envelope["exit_code"]) == ("error", 7)
    assert envelope["data"]["code"] == "table.not_csv"
    assert run_command(parser_of(fail), ["do"]) == 7
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Mend it." in captured.err


def test_an_error_says_what_why_and_what_to_do() -> None:
    text = str(FedcacError("It broke.", code="x", cure="Mend it."))
    assert "It broke. [internal.x]" in text
    assert "Mend it." in text
