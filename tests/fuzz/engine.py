"""Tries damaged inputs on a parser: it takes them and keeps its promises, or refuses with a code.

A parser is what reads bytes that somebody else wrote. It is registered with sound seeds and with
the ways in which these are damaged; everything follows from a seed number, so any case can be had
again. A case fails if another exception than a coded one comes out, if the code is not documented,
if the message quotes the patient or the path, or if time or memory run away.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import re
import resource
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fedcac.errors import FedcacError

__all__ = [
    "CANARY",
    "PARSERS",
    "TOKEN",
    "Failure",
    "Parser",
    "Tally",
    "case",
    "file_at",
    "fuzz",
    "register",
    "tried",
]

CANARY = "ZZCANARY4711"
"""The patient of every seed that has one."""

TOKEN = b"THE-TOKEN-OF-THE-FORM"
"""Stands in a form for the token that the dashboard wrote into its page."""

CASE_LIMIT_S = 60.0
"""A case takes milliseconds; only one that would never end takes so long on a busy machine."""

CASE_LIMIT_BYTES = 512 * 2**20
"""What one case may add to the largest size that the process ever had."""

_DOCS = Path(__file__).resolve().parents[2] / "docs"

Mutator = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""Returns a damaged form of one seed; the others are there to be mixed in."""


@dataclass(frozen=True)
class Parser:
    """Something that reads what others wrote.

    Attributes
    ----------
    name
        For the command line and the study's table.
    writer
        Who wrote the input.
    entry
        The dotted name of what is called.
    promise
        What holds of an input that is accepted; `parse` asserts it.
    seeds
        Makes sound inputs; each is accepted.
    parse
        Gets an input and an empty folder of its own.
    mutators
        Ways to damage a seed; one is drawn for every case.
    n_cases
        How many cases continuous integration tries.
    names_path
        True where the message may quote the path: an operator gave it on the command line.
    known
        Classes of exceptions that come out without a code and were reported, not mended yet.
    """

    name: str
    writer: str
    entry: str
    promise: str
    seeds: Callable[[], Sequence[bytes]]
    parse: Callable[[bytes, Path], object]
    mutators: tuple[Mutator, ...]
    n_cases: int = 200
    names_path: bool = False
    known: tuple[str, ...] = ()


PARSERS: dict[str, Parser] = {}


def register(parser: Parser) -> Parser:
    """Add a parser; its name must be new."""
    if parser.name in PARSERS:
        raise ValueError(f"parser '{parser.name}' is registered twice")
    PARSERS[parser.name] = parser
    return parser


class Failure(AssertionError):
    """A case that broke a promise; `what` says which, `payload` is the input."""

    def __init__(self, parser: str, what: str, payload: bytes) -> None:
        super().__init__(f"{parser}: {what}\n  input: {payload[:400]!r}")
        self.parser = parser
        self.what = what
        self.payload = payload


@dataclass
class Tally:
    """What became of the cases of one parser: by code, or `accepted`."""

    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def n_cases(self) -> int:
        return self.outcomes.total()

    @property
    def n_accepted(self) -> int:
        return self.outcomes["accepted"]


def case(parser: Parser, number: int, start: int = 0) -> bytes:
    """Return the input of a case: the same for the same start, parser and number."""
    label = f"{start}/{parser.name}/{number}".encode()
    rng = random.Random(hashlib.sha256(label).digest())  # noqa: S311
    seeds = _seeds(parser.name)
    payload = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        payload = rng.choice(parser.mutators)(rng, payload, seeds)
    return payload


def file_at(folder: Path, name: str, payload: bytes) -> Path:
    """Write a file into a folder and return its path, for parsers that open one."""
    path = folder / name
    path.write_bytes(payload)
    return path


@cache
def _seeds(name: str) -> tuple[bytes, ...]:
    return tuple(PARSERS[name].seeds())


def fuzz(parser: Parser, folder: Path, numbers: Iterator[int] | range, start: int = 0) -> Tally:
    """Try every seed and the cases of these numbers; Failure at the first that breaks a promise."""
    tally = Tally()
    for seed in _seeds(parser.name):
        outcome = tried(parser, seed, folder)
        if outcome != "accepted":
            raise Failure(parser.name, f"a sound input was refused: {outcome}", seed)
    for number in numbers:
        tally.outcomes[tried(parser, case(parser, number, start), folder)] += 1
    return tally


def tried(parser: Parser, payload: bytes, folder: Path) -> str:
    """Return `accepted` or the code of the refusal of an input; Failure if a promise is broken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard: list[str] = []
    try:
        with _limited(), _listening(heard):
            parser.parse(payload, folder)
        outcome = "accepted"
    except FedcacError as error:
        outcome = error.code
        _check_refusal(parser, error, payload, folder)
    except Exception as error:
        if any(kind.__name__ in parser.known for kind in type(error).__mro__):
            return "without a code (known)"
        where = _place_of(error)
        what = f"{type(error).__name__}: {str(error)[:300]} ({where})"
        raise Failure(parser.name, what, payload) from error
    if any(CANARY in words for words in heard):
        raise Failure(parser.name, "a warning or a log quotes the patient", payload)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if added > CASE_LIMIT_BYTES:
        raise Failure(parser.name, f"took {added >> 20} MiB", payload)
    return outcome


def _check_refusal(parser: Parser, error: FedcacError, payload: bytes, folder: Path) -> None:
    text = str(error)
    if not is_documented(error.code):
        raise Failure(parser.name, f"the code {error.code} is not documented", payload)
    if CANARY in text:
        raise Failure(parser.name, f"the message quotes the patient: {text[:200]}", payload)
    if str(folder) in text and not parser.names_path:
        raise Failure(parser.name, f"the message quotes the path: {text[:200]}", payload)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise Failure(parser.name, "the message cannot be printed", payload) from fault


@cache
def _pages() -> tuple[frozenset[str], frozenset[str]]:
    text = (_DOCS / "reference" / "codes.md").read_text(encoding="utf-8")
    families = re.findall(r"^\| \d+ \| (`[^|]+`) \|", text, re.MULTILINE)
    return (
        frozenset(word for cell in families for word in re.findall(r"`(\w+)`", cell)),
        frozenset(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)),
    )


def is_documented(code: str) -> bool:
    """Say whether a page explains a code: its family always, an exclusion reason by itself."""
    families, words = _pages()
    family, _, word = code.partition(".")
    is_known = family in families and re.fullmatch(r"[a-z][a-z0-9_]*", word) is not None
    return is_known and (family != "dicom" or word in words)


def _place_of(error: BaseException) -> str:
    places = []
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if any(part in name for part in ("/fedcac/", "/site_agent/", "/coordinator/")):
            places.append(f"{Path(name).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places[-3:]) or "outside the product"


class _Ear(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record.getMessage())


@contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    """Collect what is warned of, logged and printed; a service writes all of it to its log."""
    ear, root, said = _Ear(heard), logging.getLogger(), io.StringIO()
    former = root.handlers[:]
    root.handlers[:] = [ear]
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            redirect_stdout(said),
            redirect_stderr(said),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        heard.extend(str(one.message) for one in caught)
        heard.append(said.getvalue())
        root.handlers[:] = former


class _Hang(BaseException):
    pass


@contextmanager
def _limited() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise _Hang

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, CASE_LIMIT_S)
    try:
        yield
    except _Hang as error:
        raise TimeoutError(f"no end after {CASE_LIMIT_S:.0f} s") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
