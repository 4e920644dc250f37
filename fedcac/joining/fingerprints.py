"""Fingerprints that people read to each other, and the proof that somebody compared them."""

from __future__ import annotations

import hashlib
import hmac
import sys

from fedcac.console import say
from fedcac.errors import UsageError

__all__ = ["compared", "fingerprint_of"]

_N_DIGITS = 32


def fingerprint_of(payload: bytes) -> str:
    """Return the first 128 bits of the SHA-256 of `payload`, as eight groups of four digits.

    The form of `PublicKey.fingerprint`: as hard to meet by trying as a 128-bit key.
    """
    digits = hashlib.sha256(payload).hexdigest()
    return " ".join(digits[start : start + 4] for start in range(0, _N_DIGITS, 4))


def compared(shown: str, given: str | None, whose: str, *, may_ask: bool) -> None:
    """Return only if somebody gave the fingerprint that `shown` is; never on a bare yes.

    Parameters
    ----------
    shown
        The fingerprint of what lies here.
    given
        The one that was typed on the command line; None to ask at the terminal.
    whose
        Whose fingerprint it is, for the question.
    may_ask
        False where no person can answer, such as with `--format json`.

    Raises
    ------
    UsageError
        `no_fingerprint` if none was given and nobody can be asked; `fingerprint_differs` if it is
        another one, or only a part of it.
    """
    if given is None:
        if not may_ask or not sys.stdin.isatty():
            raise UsageError(
                f"Nobody has compared the fingerprint of {whose}.",
                code="no_fingerprint",
                cure="Telephone them on a number that you know, and give what they read to you as "
                "--fingerprint.",
            )
        say(
            f"Telephone the people of {whose} on a number that you know, let them read their "
            "fingerprint,\nand type it here (spaces do not matter):"
        )
        given = sys.stdin.readline()
    if not hmac.compare_digest(_plain(given), _plain(shown)):
        # Without the one that lies here: it is to come over the telephone, not off this screen.
        raise UsageError(
            f"The fingerprint given is not that of {whose}, as it lies here.",
            code="fingerprint_differs",
            cure="If all 32 digits were read aloud and typed, someone altered what lies here: ask "
            "for it again over another channel.",
        )


def _plain(text: str) -> bytes:
    return "".join(text.replace(":", " ").split()).lower().encode("utf-8", errors="replace")
