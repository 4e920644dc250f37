"""Protocols from YAML: every fault is named with its line, its key and its cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan

from fedcac.cli import main
from fedcac.errors import ProtocolError
from fedcac.protocol import AgreementSpec
from fedcac.protocol.catalogue import load_protocol_or_shipped, shipped_protocols
from fedcac.protocol.loading import load_protocol, parse_protocol

TEXT = shipped_protocols()["demo-nongated"].read_text(encoding="utf-8")


def line_of(needle: str) -> int:
    return next(n for n, line in enumerate(TEXT.splitlines(), 1) if needle in line)


@pytest.mark.parametrize(
    ("old", "new", "code", "at", "words"),
    [
        (
            "window_days: 365",
            "windowdays: 365",
            "missing_key",
            "pairing:",
            "did you mean 'window_d",
        ),
        ("    per_vessel: true", "    per_vesel: true", "unknown_key", "per_vessel", "per_vessel'"),
        ("window_days: 365", "window_days: lots", "wrong_type", "window_days", "valid integer"),
        ("window_days: 365", "window_days: '365'", "wrong_type", "window_days", "valid integer"),
        ("ties: efron", "ties: exact", "bad_value", "ties", "'efron' or 'breslow'"),
        ("schema_version: 1", "schema_version: 9", "bad_value", "schema_version", "should be 1"),
        ("convention: upper_inclusive", "convention: upper", "bad_value", "convention", "any_gt0"),
        ("[age, sex]", "[age, weight]", "inconsistent", "covariates: [age", "weight"),
        ("[age, sex]", "[age, age]", "inconsistent", "covariates: [age", "twice: age"),
        ("endpoint: mace", "endpoint: mice", "inconsistent", "endpoint: mace", "mice"),
        ("[female, male]", "[male, Male]", "inconsistent", "name: sex", "twice: male"),
        ("unweighted, linear", "linear, linear", "inconsistent", "weights:", "twice: linear"),
        ("- name: age", "- name: index_score", "inconsistent", "name: age", "a score already"),
        ("acquisition: non_gated", "acquisition: gated", "inconsistent", "acquisition:", "none of"),
        ("column: event", "column: age", "inconsistent", "event_column", "a covariate already"),
        ("column: event", "column: follow_up_days", "inconsistent", "event_column", "a time alr"),
        ("schema_version: 1", "schema_version: true", "wrong_type", "schema_version", "integer"),
        ("schema_version: 1", "schema_version: 1.0", "wrong_type", "schema_version", "integer"),
        ("cut_offs: [1, 10", "cut_offs: [10, 1", "inconsistent", "categories:", "increasing"),
        ("kind: bland_altman", "kind: kaplan", "bad_value", "kind: bland", "kaplan"),
    ],
)
def test_one_fault_is_named_with_line_and_cure(
    old: str, new: str, code: str, at: str, words: str
) -> None:
    assert old in TEXT
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(TEXT.replace(old, new, 1))
    assert caught.value.code == f"protocol.{code}"
    assert words in str(caught.value)
    lines = [int(part.split(":")[0]) for part in str(caught.value).split("line ")[1:]]
    assert any(abs(line - line_of(at)) <= 1 for line in lines), (lines, line_of(at))


@pytest.mark.parametrize(
    "number",
    ["0365", "0x16d", "1_000", "6:05", "0b_", "9" * 5000, "0x" + "f" * 5000, ".inf", ".nan"],
)
def test_numbers_have_one_reading(number: str) -> None:
    line = line_of("window_days")
    with pytest.raises(ProtocolError, match=rf"line {line}: pairing\.window_days: .*decimal form"):
        parse_protocol(TEXT.replace("window_days: 365", f"window_days: {number}"))


@pytest.mark.parametrize(
    ("addition", "code"),
    [
        ("? [a, b]\n: 1", "not_plain"),
        ("? {a: 1}\n: 1", "not_plain"),
        ("remark: 2020-13-45", "unknown_key"),
        ("remark: =", "unknown_key"),
        ('remark: "\\ud800"', "bad_value"),
        # Beyond Unicode's last character, and beyond any number of a character.
        ('remark: "\\U00110000"', "not_yaml"),
        ('remark: "\\UFFFFFFFF"', "not_yaml"),
        ('"\\ud800": 1', "bad_value"),
        ("remark: " + "[" * 3000 + "]" * 3000, "not_yaml"),
    ],
)
def test_strange_yaml_is_an_error_with_a_code(addition: str, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(f"{TEXT}{addition}\n")
    assert caught.value.code == f"protocol.{code}"
    str(caught.value).encode("utf-8")
    if code != "not_yaml":
        assert f"line {len(TEXT.splitlines()) + 1}:" in str(caught.value)


FRAGMENTS = st.lists(
    st.sampled_from(["a", "1", "-", ":", "?", "[", "]", "{", "}", ",", " ", "\n", "'", '"', ".inf"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(st.integers(0, len(TEXT)), FRAGMENTS)
def test_any_text_is_a_protocol_or_an_error_of_protocols(position: int, fragment: str) -> None:
    for text in (fragment, TEXT[:position] + fragment + TEXT[position:]):
        try:
            parsed = parse_protocol(text)
        except ProtocolError as error:
            assert error.code.startswith("protocol.")  # noqa: PT017
        else:
            assert parsed.digest().startswith("sha256:")


def test_a_key_with_an_analysis_kind_for_its_name_hides_no_other_fault() -> None:
    broken = TEXT.replace("    ties: efron", "    cox: 3\n    ties: exact")
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(broken)
    line = line_of("ties: efron")
    assert f"line {line}: analyses.3.cox: unknown key" in str(caught.value)
    assert f"line {line + 1}: analyses.3.ties: Input should be 'efron'" in str(caught.value)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="duplicate_key"):
        parse_protocol(TEXT.replace("version: 1\n", "version: 1\nversion: 2\n", 1))


@pytest.mark.parametrize("value", ["&a 365", "*a", "!!int 365"])
def test_anchors_aliases_and_tags_are_refused(value: str) -> None:
    with pytest.raises(ProtocolError, match=r"not_plain|not_yaml"):
        parse_protocol(TEXT.replace("window_days: 365", f"window_days: {value}"))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "a: [1, 2", "\tkey: 1"])
def test_what_is_not_a_mapping_is_not_a_protocol(text: str) -> None:
    with pytest.raises(ProtocolError, match="not_yaml"):
        parse_protocol(text)


def test_every_problem_is_listed_at_once() -> None:
    broken = TEXT.replace("ties: efron", "ties: exact").replace(
        "window_days: 365", "window_days: x"
    )
    with pytest.raises(ProtocolError, match="2 problems"):
        parse_protocol(broken)


def test_of_very_many_problems_the_first_are_named_and_all_are_counted() -> None:
    unknown = "".join(f"remark_{number:03d}: 1\n" for number in range(1, 121))
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(f"{TEXT}{unknown}")
    assert caught.value.code == "protocol.unknown_key"
    first, *listed, last = caught.value.message.splitlines()
    assert first.endswith("has 120 problems:")
    n_lines = len(TEXT.splitlines())
    assert [line.split(": ")[0].strip() for line in listed] == [
        f"line {n_lines + number}" for number in range(1, 51)
    ]
    assert last == "  and 70 more"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="not_found"):
        load_protocol(tmp_path / "absent.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"title: caf\xe9")
    with pytest.raises(ProtocolError, match="UTF-8"):
        load_protocol(latin)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_000_001)
    with pytest.raises(ProtocolError, match="too_large"):
        load_protocol(large)


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    blocks = TEXT.split("\ncovariates:")
    reordered = blocks[0] + "\ncovariates:" + blocks[1]
    head, disclosure = reordered.split("\ndisclosure:")
    moved = head.replace("\nmodality:", f"\ndisclosure:{disclosure}modality:", 1)
    assert parse_protocol(moved).digest() == parse_protocol(TEXT).digest()


def test_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ProtocolError, match="miller2023-ctac"):
        load_protocol_or_shipped("miller")


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_every_shipped_protocol_is_valid_and_can_be_shown(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["protocol", "check", name]) == 0
    assert main(["protocol", "show", name]) == 0
    assert load_protocol_or_shipped(name).citation.doi in capsys.readouterr().out


def test_the_command_line_ends_with_the_documented_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXT.replace("ties: efron", "ties: exact"), encoding="utf-8")
    assert main(["protocol", "check", str(path)]) == 3
    assert "What to do" in capsys.readouterr().err


def test_the_command_line_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", "show", "demo-nongated", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["data"]
    assert shown["pairing"] == {"window_days": 365}
    assert main(["protocol", "schema"]) == 0
    assert "clinical_criteria" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("name", ["eng2021-gated", "eng2021-nongated", "miller2023-ctac"])
def test_the_slices_of_the_papers_are_eligible(name: str) -> None:
    # Eng 2021, Methods: 5 mm, gated and non-gated. Miller 2023, Supplement: 5 mm.
    assert load_protocol_or_shipped(name).image_criteria.max_slice_thickness_mm >= 5


def test_the_patient_flow_keeps_its_name_for_itself() -> None:
    with pytest.raises(ValueError, match="'flow'"):
        plan([AgreementSpec(id="flow", kind="agreement")])
