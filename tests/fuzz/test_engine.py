"""The engine notices every way to break a promise, and its inputs are the same every time."""

from __future__ import annotations

import hashlib
import logging
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz import engine, tables
from fuzz.engine import CANARY, PARSERS, Failure, Parser, case, fuzz, tried
from fuzz.long_run import main
from fuzz.mutations import damage_bytes, damage_json
from fuzz.rooms import parsers_of

from fedcac.errors import FedcacError, TableError
from fedcac.vocabulary import ExclusionReason

Parse = Callable[[bytes, Path], object]


def parser_of(parse: Parse, **changes: object) -> Parser:
    return Parser(
        name="made-up",
        writer="this test",
        entry="nothing",
        promise="none",
        seeds=lambda: [b"seed"],
        parse=parse,
        mutators=(damage_bytes,),
        **changes,  # type: ignore[arg-type]
    )


def refusing(error: Exception) -> Parse:
    def parse(payload: bytes, folder: Path) -> None:
        raise error

    return parse


def _quotes_path(payload: bytes, folder: Path) -> None:
    raise TableError(f"{folder}/a is no table.", code="not_csv")


def _never_ends(payload: bytes, folder: Path) -> None:
    while True:
        pass


def _takes_memory(payload: bytes, folder: Path) -> None:
    np.ones(300 * 2**20, dtype=np.uint8).sum()


def _warns(payload: bytes, folder: Path) -> None:
    warnings.warn(f"odd value of {CANARY}", UserWarning, stacklevel=1)


def _logs(payload: bytes, folder: Path) -> None:
    logging.getLogger("some.library").warning("odd value of %s", CANARY)


def _prints(payload: bytes, folder: Path) -> None:
    sys.stderr.write(CANARY)


@pytest.mark.parametrize(
    ("parse", "what"),
    [
        (refusing(KeyError("a")), "KeyError"),
        (refusing(AssertionError("other bytes")), "other bytes"),
        (refusing(RecursionError()), "RecursionError"),
        (refusing(TableError("x", code="Not a word")), "not documented"),
        (refusing(TableError(f"no {CANARY}", code="a")), "quotes the patient"),
        (refusing(TableError("\ud800", code="a")), "cannot be printed"),
        (_quotes_path, "quotes the path"),
        (_never_ends, "no end"),
        (_takes_memory, "MiB"),
        (_warns, "a warning or a log"),
        (_logs, "a warning or a log"),
        (_prints, "a warning or a log"),
    ],
)
def test_a_broken_promise_is_noticed(
    parse: Parse, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CASE_LIMIT_S", 0.2 if parse is _never_ends else 60.0)
    monkeypatch.setattr(engine, "CASE_LIMIT_BYTES", 64 * 2**20)
    with pytest.raises(Failure, match=what):
        tried(parser_of(parse), b"x", tmp_path)


def test_a_refusal_with_a_code_is_none(tmp_path: Path) -> None:
    error = TableError("Line 3 is too long.", code="not_csv")
    assert tried(parser_of(refusing(error)), b"x", tmp_path) == "table.not_csv"
    assert tried(parser_of(_quotes_path, names_path=True), b"x", tmp_path) == "table.not_csv"
    known = parser_of(refusing(KeyError("a")), known=("LookupError",))
    assert tried(known, b"x", tmp_path) == "without a code (known)"


def test_a_seed_that_is_refused_is_noticed(tmp_path: Path) -> None:
    made = parser_of(refusing(TableError("x", code="not_csv")))
    PARSERS[made.name] = made
    try:
        with pytest.raises(Failure, match="a sound input was refused"):
            fuzz(made, tmp_path, range(0))
    finally:
        del PARSERS[made.name]


@pytest.mark.parametrize("reason", ExclusionReason)
def test_codes_are_documented_by_the_page_of_codes(reason: ExclusionReason) -> None:
    assert engine.is_documented(f"dicom.{reason.value}")
    assert not engine.is_documented(f"dicom.{reason.value}_")
    assert not engine.is_documented(f"nobody.{reason.value}")
    assert engine.is_documented(f"{FedcacError.family}.{reason.value}")


_DIGEST = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from fuzz import tables
from fuzz.engine import PARSERS, case
parsers = [one for one in PARSERS.values() if one.parse.__module__ == tables.__name__]
inputs = [case(one, number) for one in parsers for number in range(40)]
sys.stdout.write(hashlib.sha256(b"|".join(inputs)).hexdigest())
"""


def test_another_process_makes_the_same_inputs() -> None:
    tests = str(Path(__file__).resolve().parents[1])
    told = subprocess.run(
        [sys.executable, "-c", _DIGEST, tests], capture_output=True, text=True, check=True
    )
    own = [PARSERS[name] for name in parsers_of(tables)]
    inputs = [case(one, number) for one in own for number in range(40)]
    assert told.stdout == hashlib.sha256(b"|".join(inputs)).hexdigest()
    assert case(PARSERS["site-table"], 1, start=1) != case(PARSERS["site-table"], 1, start=2)


def test_damage_never_alters_what_it_draws_from() -> None:
    rng = random.Random(3)  # noqa: S311
    before = [damage_json(random.Random(n), b'{"a":[1,{"b":2}]}', [b"{}"]) for n in range(300)]  # noqa: S311
    for _ in range(2000):
        damage_json(rng, b'{"a":[1,{"b":2}]}', [b"{}"])
    after = [damage_json(random.Random(n), b'{"a":[1,{"b":2}]}', [b"{}"]) for n in range(300)]  # noqa: S311
    assert after == before


def test_the_long_form_keeps_a_failing_input_and_plays_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(payload: bytes, folder: Path) -> None:
        if payload != b"seed":
            raise ValueError("not the seed")

    made = parser_of(parse)
    monkeypatch.setitem(PARSERS, made.name, made)
    assert main(["made-up", "--minutes", "0.005", "--start", "7", "--save", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "1 kinds of failure" in said
    (kept,) = tmp_path.glob("made-up-*")
    assert kept.read_bytes() != b"seed"
    assert str(kept) in said
    with pytest.raises(ValueError, match="not the seed"):
        main(["--replay", str(kept), "made-up"])
    kept.write_bytes(b"seed")
    assert main(["--replay", str(kept), "made-up"]) == 0
    assert main(["nobody"]) == 2
