"""Planted words and numbers, every form in which they could leave, and the search for them."""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import re
import struct
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

__all__ = ["Canaries", "Overheard", "forms_of", "listening", "said_about", "things_below"]

# Shorter runs of base64 hold too little to name anybody.
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_DEPTH = 3


def forms_of(word: str) -> dict[str, bytes]:
    """Return the bytes by which a word would be recognised, by the name of the encoding."""
    plain = word.encode("utf-8")
    forms = {
        "utf-8": plain,
        "utf-16-le": word.encode("utf-16-le"),
        "utf-16-be": word.encode("utf-16-be"),
        "reversed": word[::-1].encode("utf-8"),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "percent": quote(word, safe="").encode(),
        "percent of every byte": "".join(f"%{byte:02X}" for byte in plain).encode(),
        "json": json.dumps(word)[1:-1].encode(),
        "repr": repr(word)[1:-1].encode(),
        "bytes repr": repr(plain)[2:-1].encode(),
    }
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain)
        # The first and last characters also depend on what stands around the word.
        forms[f"base64 at {shift}"] = coded[(0, 2, 3)[shift] : len(coded) // 4 * 4 - 4]
    return forms


def _forms_of_number(value: float) -> dict[str, bytes]:
    """Return a number as text, as bits, and cut after as many digits as still single it out."""
    digits = re.sub(r"[^0-9]", "", repr(value)).strip("0")
    shown = repr(value)
    return {
        "repr": shown.encode(),
        # Seven digits single a planted number out, however many of the others were rounded away.
        "cut": _cut(shown).encode(),
        "digits": digits.encode(),
        "reversed": digits[::-1].encode(),
        "exponent": _cut(f"{value:.12e}").encode(),
        "hex float": value.hex().split("p")[0].removeprefix("0x").encode(),
        "bits": struct.pack("<d", value),
        "bits, big end first": struct.pack(">d", value),
        "hex of bits": struct.pack("<d", value).hex().encode(),
        "hex of bits, big end first": struct.pack(">d", value).hex().encode(),
    }


def _cut(shown: str) -> str:
    match = re.match(r"0?\.?0*(?:[0-9]\.?){7}", shown)
    assert match is not None, "a planted number has at least seven digits"
    return match.group().rstrip(".")


@dataclass(frozen=True)
class Canaries:
    """Words and numbers that must not appear. Words are compared without regard to case."""

    words: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()

    def found_in(self, content: bytes) -> list[str]:
        """Return what was found, as 'word (encoding)', also inside base64 inside base64."""
        return sorted(set(self._found(content, _DEPTH)))

    def _found(self, content: bytes, depth: int) -> Iterator[str]:
        exact, in_any_case = _needles(self)
        lower = content.lower()
        yield from (name for name, needle in exact if needle in content)
        yield from (name for name, needle in in_any_case if needle in lower)
        if depth:
            for run in set(_BASE64_RUN.findall(content)):
                if (inner := _decoded(run)) is not None:
                    yield from self._found(inner, depth - 1)


@cache
def _needles(canaries: Canaries) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
    """Return what is searched for exactly, and what regardless of case."""
    exact, in_any_case = [], []
    for planted in (*canaries.words, *canaries.numbers):
        forms = forms_of(planted) if isinstance(planted, str) else _forms_of_number(planted)
        for name, form in forms.items():
            assert len(form) >= 6, f"too short to be distinctive: {planted} as {name}"
            if "base64" in name or "bits" in name:
                exact.append((f"{planted} ({name})", form))
            else:
                in_any_case.append((f"{planted} ({name})", form.lower()))
    return exact, in_any_case


def _decoded(run: bytes) -> bytes | None:
    bare = run.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        return None


@dataclass
class Overheard:
    """What one process said: log records, warnings, standard output and error."""

    records: list[logging.LogRecord] = field(default_factory=list)
    warned: list[warnings.WarningMessage] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)
    errors: io.StringIO = field(default_factory=io.StringIO)

    @property
    def logged(self) -> bytes:
        """Every log record with its arguments, its fields and its traceback."""
        formatter = logging.Formatter()
        lines = [f"{formatter.format(r)} {r.args!r} {r.__dict__!r}" for r in self.records]
        lines += [str(w.message) for w in self.warned]
        return "\n".join(lines).encode("utf-8", "backslashreplace")

    @property
    def printed(self) -> bytes:
        """Standard output and error."""
        text = self.output.getvalue() + self.errors.getvalue()
        return text.encode("utf-8", "backslashreplace")


class _Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextmanager
def listening() -> Iterator[Overheard]:
    """Record all that is logged at any level, warned of or printed, as in production.

    Warnings are not errors here: at a site they would go to standard error.
    """
    heard = Overheard()
    root, level = logging.getLogger(), logging.getLogger().level
    handler = _Keep(heard.records)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            warnings.catch_warnings(record=True) as warned,
            redirect_stdout(heard.output),
            redirect_stderr(heard.errors),
        ):
            warnings.simplefilter("always")
            yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        heard.warned += warned


def said_about(error: BaseException) -> bytes:
    """Return what an error that nobody caught would print, without the lines of source code.

    Source lines are the program's own, and a test's planted words stand in the test's lines.
    """
    pieces = []
    seen: BaseException | None = error
    while seen is not None:
        pieces += traceback.format_exception_only(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "".join(pieces).encode("utf-8", "backslashreplace")


def things_below(*roots: Path) -> Iterable[tuple[str, bytes]]:
    """Yield the name and content of every file below the roots, and the names of all folders."""
    for root in roots:
        for path in sorted([root, *root.rglob("*")]):
            inside = path.relative_to(root) if path != root else Path(path.name)
            name = str(inside).encode("utf-8", "surrogateescape")
            yield f"name of {path.name!r}", name
            if path.is_file():
                yield path.name, path.read_bytes()
