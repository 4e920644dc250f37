"""Nobody gets past a comparison without the whole fingerprint."""

from __future__ import annotations

import io
import sys

import pytest

from fedcac.errors import UsageError
from fedcac.joining import compared, fingerprint_of

SHOWN = fingerprint_of(b"a key")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_fingerprint_is_128_bits_in_eight_groups() -> None:
    groups = SHOWN.split(" ")
    assert [len(group) for group in groups] == [4] * 8
    assert int("".join(groups), 16) > 0
    assert fingerprint_of(b"another key") != SHOWN


@pytest.mark.parametrize("typed", [SHOWN, SHOWN.upper(), SHOWN.replace(" ", ""), f" {SHOWN}\n"])
def test_a_person_at_a_terminal_types_it(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed + "\n"))
    compared(SHOWN, None, "the lead", may_ask=True)


@pytest.mark.parametrize(
    "typed", ["", "y", "yes", SHOWN[:-1], SHOWN[-9:], SHOWN[::-1], "\u00e9" * 32]
)
def test_a_yes_or_a_part_of_it_is_no_comparison(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed + "\n"))
    with pytest.raises(UsageError) as caught:
        compared(SHOWN, None, "the lead", may_ask=True)
    assert caught.value.code == "usage.fingerprint_differs"
    # What is to be typed does not stand on the screen: it comes over the telephone.
    assert SHOWN not in capsys.readouterr().err + str(caught.value)


@pytest.mark.parametrize("may_ask", [True, False])
def test_without_a_person_nothing_is_assumed(
    monkeypatch: pytest.MonkeyPatch, may_ask: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(SHOWN) if may_ask else Terminal(SHOWN))
    with pytest.raises(UsageError) as caught:
        compared(SHOWN, None, "the lead", may_ask=may_ask)
    assert caught.value.code == "usage.no_fingerprint"
