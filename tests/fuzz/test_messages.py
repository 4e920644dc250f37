"""Damaged inputs of `fuzz.messages`: taken with their promise kept, or refused with a code."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import messages as room
from fuzz.engine import PARSERS
from fuzz.rooms import check_parser, check_regression, parsers_of, regressions_of, table_of


@pytest.mark.parametrize("name", parsers_of(room))
def test_damaged_inputs_are_refused_with_a_code_or_sound(name: str, tmp_path: Path) -> None:
    check_parser(name, tmp_path)


@pytest.mark.parametrize("name", regressions_of(room))
def test_what_broke_a_promise_once_ends_as_it_should(name: str, tmp_path: Path) -> None:
    check_regression(name, tmp_path)


def test_the_studys_table_lists_exactly_these_parsers() -> None:
    assert table_of("messages") == [(name, PARSERS[name].entry) for name in parsers_of(room)]
