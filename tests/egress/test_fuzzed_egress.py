"""Whatever lies in a site's data and whatever is asked, nothing of a patient gets out.

Every example plants words and numbers, drives a real agent over a spool folder, and searches
parcels, the spool's names, the ledger, the log, and what was printed, in many encodings.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from egress.canaries import Canaries, Overheard, forms_of, listening, said_about, things_below
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from plans import BASE, FULL, SPECS, draw_exams, plan
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from fedcac.aggregate import parse_aggregate
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.disclosure import FileLedger, load_policy
from fedcac.errors import FedcacError
from fedcac.exchange import Offer, Query, Reply, Request, Spool, parcel_name
from fedcac.imaging import load_volume
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.phantom.grid import PhantomExam
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import seal_protocol
from fedcac.signing import SigningKey, open_envelope, seal, trusted
from fedcac.statistics import PoolingSession, QueryError, estimator_for
from fedcac.vocabulary import RefusalCode, SiteName, Vessel
from site_agent.__main__ import main
from site_agent.exams.scoring_queue import ExamScore
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEAD = SigningKey.generate()
SITE = SigningKey.generate()
ROUND = "fuzz-0001"
N_PATIENTS = 120

NAMES = ("ZZCANARY^JOHN", "Zäzilie^Kanärie", "=HYPERLINK(ZZCANARY)", "ZZ-CANARY;DROP")
# Long enough that no sum or digest holds them by chance.
NUMBERS = {
    "index_score": 918273.645281,
    "reference_score": 827364.519283,
    "age": 61.728394516,
    "risk": 0.2718394516,
    "follow_up_days": 1357.924681357,
    "index_probability_100": 0.6172839451,
    "visual_score": 736455.198273,
    "index_lad": 645546.372819,
}


def whole_plan(**changes: Any) -> Protocol:
    specs = [
        spec.model_copy(update={"id": kind})
        for kind, spec in SPECS.items()
        if kind != "reclassification"
    ]
    specs += [BASE, FULL, SPECS["reclassification"].model_copy(update={"id": "reclassification"})]
    return plan(specs, **changes)


PLAN = whole_plan()
SMALL_PLAN = plan([SPECS["descriptives"], BASE])

Table = list[list[str]]


@cache
def _sound_columns() -> dict[str, tuple[str, ...]]:
    exams = draw_exams(7, N_PATIENTS)
    columns = {
        name: tuple(f"{value:g}" for value in values.tolist())
        for name, values in exams.columns.items()
    }
    columns["vendor"] = tuple("abc"[int(level)] for level in exams.column("vendor"))
    return columns


def planted_table(names: tuple[str, ...] = NAMES, numbers: Mapping[str, float] = NUMBERS) -> Table:
    """Return a table whose ids are all planted, and one planted number in a row of its own."""
    columns = {name: list(values) for name, values in _sound_columns().items()}
    for row, (name, value) in enumerate(numbers.items(), start=3):
        columns[name][row] = repr(value)
    ids = [f"{names[row % len(names)]}-{row}" for row in range(N_PATIENTS)]
    cells = [ids, *columns.values()]
    return [["patient_id", *columns], *(list(row) for row in zip(*cells, strict=True))]


def csv_bytes(table: Table) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(table)
    return stream.getvalue().encode("utf-8")


class Site:
    """A site's folder with a real agent; everything that leaves passes through its spool."""

    def __init__(self, root: Path, table: bytes, *, policy: str = "research") -> None:
        self.root = root
        # The folder and the table carry a name, as they do in hospitals.
        self.table = root / "ZZCANARY-folder" / "ZZCANARY-table.csv"
        self.table.parent.mkdir(parents=True)
        self.table.write_bytes(table)
        self.policy = load_policy(policy).model_copy(update={"review": "auto"})
        self.spool = Spool.at(root / "spool")
        self.sent: dict[str, bytes] = {}
        self.store = SiteStore(":memory:")
        self.restart()

    def restart(self) -> None:
        """Begin again from what a killed agent left on disk."""
        self.agent = SiteAgent(
            identity=SiteIdentity("north", SITE, LEAD.public),
            spool=self.spool,
            store=self.store,
            source=TableSource(self.table),
            answerer=Answerer(self.policy, FileLedger(self.root / "ledger.jsonl"), b"north"),
            is_auto_approving=True,
            clock=lambda: NOW,
        )

    def offer(self, protocol: Protocol, round_id: str = ROUND, key: SigningKey = LEAD) -> None:
        offer = Offer(
            round_id=round_id,
            issued_at=NOW,
            protocol_id=protocol.id,
            protocol_version=protocol.version,
            protocol_digest=protocol.digest(),
            package_digest=None,
            sites=("north",),
            expires_at=NOW + timedelta(days=9),
        )
        self.send(parcel_name(round_id, "protocol"), seal_protocol(protocol, key))
        self.send(parcel_name(round_id, "offer"), offer.seal(key))

    def ask(self, protocol: Protocol, queries: Mapping[str, Query], exchange: int = 1) -> None:
        self.post(request_for(protocol, queries, exchange), exchange)

    def post(self, request: bytes, exchange: int = 1) -> None:
        self.send(parcel_name(ROUND, "request", exchange), request)

    def send(self, name: str, payload: bytes) -> None:
        self.spool.inbox.put(name, payload)
        self.sent[name] = payload

    def reply(self, exchange: int = 1) -> Reply | None:
        envelope = self.spool.outbox.get(parcel_name(ROUND, "reply", exchange))
        return None if envelope is None else Reply.open(envelope, trusted([SITE.public]))[0]

    def answers(self, exchange: int = 1) -> dict[str, Any]:
        reply = self.reply(exchange)
        assert reply is not None
        return {
            name: parse_aggregate(answer.release) if answer.release else answer.refusal
            for name, answer in reply.answers.items()
        }


def request_for(protocol: Protocol, queries: Mapping[str, Query], exchange: int = 1) -> bytes:
    return Request(
        round_id=ROUND,
        issued_at=NOW,
        exchange=exchange,
        protocol_digest=protocol.digest(),
        expires_at=NOW + timedelta(days=9),
        queries=dict(queries),
    ).seal(LEAD)


@contextmanager
def site_with(table: bytes, **options: Any) -> Iterator[Site]:
    """Make a site in memory where there is such a disk, for every example anew."""
    shm = Path("/dev/shm")  # noqa: S108 - a faster disk for files that live for milliseconds
    root = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    site = Site(root / "site", table, **options)
    try:
        yield site
    finally:
        site.store.close()
        shutil.rmtree(root)


PATIENT_WORDS = (*NAMES, "ZZCANARY", "Kanärie", "CANARY;DROP")
OF_PATIENTS = Canaries(PATIENT_WORDS, tuple(NUMBERS.values()))


def assert_nothing_left(site: Site, heard: Overheard, canaries: Canaries = OF_PATIENTS) -> None:
    """Search all that can leave, and what the site's own people are told.

    A message to the site may name its table and columns, never a patient or a value: the table's
    name is therefore taken out of what was said to them before the search.
    """
    inbox = site.root / "spool" / "inbox"
    # What the lead sent lies there and may hold any number; the agent adds and changes nothing.
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == site.sent
    for name, content in things_below(site.root / "spool" / "outbox"):
        assert canaries.found_in(content) == [], name
    assert {path.name for path in (site.root / "spool").iterdir()} == {"inbox", "outbox"}
    ledger = site.root / "ledger.jsonl"
    if ledger.exists():
        assert canaries.found_in(ledger.read_bytes()) == [], "ledger"
    assert canaries.found_in(heard.logged) == [], "log"
    own = site.table.name.encode()
    assert canaries.found_in(heard.printed.replace(own, b"")) == [], "printed"
    for problem in site.agent.problems.values():
        assert canaries.found_in(problem.code.encode()) == []
        assert canaries.found_in(str(problem).encode().replace(own, b"")) == [], problem.code


# --- what is asked ----------------------------------------------------------------------------


@cache
def asked_steps() -> dict[str, dict[str, Query]]:
    """Return one sound query of every step of every analysis, as a coordinator asks them."""
    site = SiteName("north")
    exams = {site: draw_exams(11, 400).with_secret(b"north")}
    estimators = {spec.id: estimator_for(spec.id, PLAN) for spec in PLAN.analyses}
    session = PoolingSession(PLAN, [site])
    steps: dict[str, dict[str, Query]] = {spec.id: {} for spec in PLAN.analyses}
    while not session.is_finished:
        answers: dict[str, Any] = {}
        for name, query in session.queries.items():
            steps[name].setdefault(query.step, query)
            answers[name] = estimators[name].summarise(exams[site], query)
        session.answer({site: answers})
    return steps


EVERY_STEP = [(name, step) for name, steps in asked_steps().items() for step in steps]


def first_queries(protocol: Protocol = PLAN) -> dict[str, Query]:
    return PoolingSession(protocol, [SiteName("north")]).queries


def test_every_kind_and_its_further_steps_are_known() -> None:
    assert {name for name, _ in EVERY_STEP} == {spec.id for spec in PLAN.analyses}
    assert len(EVERY_STEP) > len(PLAN.analyses)


# --- sound rounds -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["open", "research", "cms"])
def test_a_sound_round_releases_no_planted_name_or_number(profile: str) -> None:
    session = PoolingSession(PLAN, [SiteName("north")])
    with site_with(csv_bytes(planted_table()), policy=profile) as site, listening() as heard:
        site.offer(PLAN)
        for exchange in range(1, 6):
            site.ask(PLAN, session.queries, exchange)
            site.agent.step()
            session.answer({SiteName("north"): site.answers(exchange)})
        assert_nothing_left(site, heard)
        released = [a for e in range(1, 6) for a in site.answers(e).values()]
        assert sum(not isinstance(answer, RefusalCode) for answer in released) > 20
        assert RefusalCode.INTERNAL not in released


# --- tables -----------------------------------------------------------------------------------

CELLS = (
    "ZZCANARY^JOHN",
    '=HYPERLINK("http://x/?ZZCANARY")',
    "@ZZCANARY",
    "Zäzilie^Kanärie",
    "ZZCANARY\nsecond line",
    "ZZ\u202eCANARY;DROP",
    "ZZCANARY\0",
    "918273.645281e400",
    "-918273.645281",
    "918273,645281",
    "\uff19\uff11\uff18\uff12\uff17\uff13.645281",  # digits of full width
    "918_273.645281",
    "61728394.516",
    "ZZCANARY" * 20_000,
)
COLUMNS = tuple(planted_table()[0])


def _with_cell(table: Table, row: int, column: int, cell: str) -> bytes:
    table[row][column] = cell
    return csv_bytes(table)


def _not_utf8(table: Table, row: int, column: int, cell: str) -> bytes:
    table[row][column] = "ZZCANARY<mark>"
    return csv_bytes(table).replace(b"<mark>", b"\xe4\xff\x00")


def _twice(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes([*table, table[row]])


def _ragged(table: Table, row: int, column: int, cell: str) -> bytes:
    table[row].insert(column, cell)
    return csv_bytes(table)


def _open_quote(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes(table).replace(b"\r\nZZ", b'\r\n"ZZ', 1) + b'"'


def _semicolons(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes(table).replace(b",", b";")


def _without_column(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes([line[:column] + line[column + 1 :] for line in table])


def _cut(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes(table)[: 900 + 37 * row]


def _utf16(table: Table, row: int, column: int, cell: str) -> bytes:
    return csv_bytes(table).decode().encode("utf-16")


def _beside(table: Table, row: int, column: int, cell: str) -> bytes:
    notes = [["notes"], *([f"{name} {cell}"] for name in NAMES * N_PATIENTS)]
    return csv_bytes([line + note for line, note in zip(table, notes, strict=False)])


DAMAGES: tuple[Callable[[Table, int, int, str], bytes], ...] = (
    _with_cell,
    _not_utf8,
    _twice,
    _ragged,
    _open_quote,
    _semicolons,
    _without_column,
    _cut,
    _utf16,
    _beside,
)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    damage=st.sampled_from(DAMAGES),
    row=st.integers(1, N_PATIENTS),
    column=st.integers(0, len(COLUMNS) - 1),
    cell=st.sampled_from(CELLS),
)
def test_no_damaged_table_tells_anything(
    damage: Callable[[Table, int, int, str], bytes], row: int, column: int, cell: str
) -> None:
    content = damage(planted_table(), row, column, cell)
    with site_with(content) as site, listening() as heard:
        site.offer(PLAN)
        site.ask(PLAN, first_queries())
        site.agent.step()
        assert_nothing_left(site, heard)
        # A table that cannot be used is the site's own trouble: the lead gets no word of it.
        assert (site.reply() is None) == (ROUND in site.agent.problems)
        site.agent.problems.clear()
        # A person withdraws instead of mending the table; also that says nothing.
        if site.reply() is None:
            site.agent.withdraw(ROUND)
            site.agent.step()
            assert set(site.answers().values()) == {RefusalCode.EMPTY_COHORT}
            assert_nothing_left(site, heard)


# --- queries ----------------------------------------------------------------------------------

EXTREME = (
    0.0,
    -1.0,
    1e-320,
    1e6,
    -1e6,
    709.0,
    1e150,
    -1e308,
    1.7976931348623157e308,
    918273.645281,
)


@st.composite
def wild_queries(draw: st.DrawFn) -> tuple[str, Query]:
    """A query of a known step with values that no coordinator would send."""
    name, step = draw(st.sampled_from(EVERY_STEP))
    sound = asked_steps()[name][step]
    values = dict(sound.values)
    change = draw(st.sampled_from(["extreme", "one", "short", "long", "none", "extra", "other"]))
    number = draw(st.sampled_from(EXTREME))
    if change == "extra" or not values:
        values[draw(st.sampled_from(["beta", "extra", "starts_0_p1"]))] = (number,) * draw(
            st.integers(0, 7)
        )
    elif change == "other":
        step = draw(st.sampled_from(sorted({other for _, other in EVERY_STEP})))
    else:
        key = draw(st.sampled_from(sorted(values)))
        old = values[key]
        position = draw(st.integers(0, len(old) - 1))
        values[key] = {
            "extreme": (number,) * len(old),
            "one": (*old[:position], number, *old[position + 1 :]),
            "short": old[:position],
            "long": (*old, number),
            "none": (),
        }[change]
    return name, Query(step=step, values=values)


@pytest.mark.parametrize("profile", ["open", "research"])
def test_no_wild_query_draws_a_value_out(profile: str) -> None:
    content = csv_bytes(planted_table())

    @settings(derandomize=True, deadline=None, max_examples=90, database=None)
    @given(query=wild_queries())
    def check(query: tuple[str, Query]) -> None:
        with site_with(content, policy=profile) as site, listening() as heard:
            site.offer(PLAN)
            site.ask(PLAN, dict([query]))
            site.agent.step()
            assert site.agent.problems == {}
            assert list(site.answers()) == [query[0]]
            assert_nothing_left(site, heard)

    check()


# --- requests that are no requests ------------------------------------------------------------


def _payload(protocol: Protocol = SMALL_PLAN) -> dict[str, Any]:
    envelope = request_for(protocol, first_queries(protocol))
    payload, _ = open_envelope(envelope, Request.payload_type, trusted([LEAD.public]))
    document: dict[str, Any] = json.loads(payload)
    return document


def _signed(payload: bytes, kind: str = Request.payload_type, key: SigningKey = LEAD) -> bytes:
    return seal(payload, kind, key)


def _changed(**changes: Any) -> bytes:
    return _signed(canonical_bytes({**_payload(), **changes}))


def _altered(envelope: bytes) -> bytes:
    return envelope.replace(b'"sig":"', b'"sig":"AAAA', 1)


def _values(text: str) -> bytes:
    queries = '{"base":{"step":"newton","values":{"beta":<values>}}}'.replace("<values>", text)
    document = json.dumps({**_payload(), "queries": "<queries>"})
    return _signed(document.replace('"<queries>"', queries).encode())


NO_REQUESTS: dict[str, bytes] = {
    "altered": _altered(_signed(canonical_bytes(_payload()))),
    "foreign": _signed(canonical_bytes(_payload()), key=SigningKey.generate()),
    "wrong type": _signed(canonical_bytes(_payload()), "application/vnd.fedcac.offer+json"),
    "empty": b"",
    "not json": b"ZZ{",
    "deep": b"[" * 50_000,
    "deep and signed": _signed(b'{"queries":' * 5_000),
    "not utf-8": _signed(b"\xff\xfe\x00"),
    "nan": _values("[NaN,0.0]"),
    "infinity": _values("[Infinity,0.0]"),
    "overflow": _values("[1e999,0.0]"),
    "text": _values('["{patient_id}",0.0]'),
    "booleans": _values("[true,false]"),
    "long number": _values("[" + "9" * 5_000 + ",0]"),
    "other round": _changed(round_id="other-0001"),
    "other exchange": _changed(exchange=2),
    "other protocol": _changed(protocol_digest="sha256:" + "0" * 64),
    "expired": _changed(expires_at="2025-01-01T00:00:00Z"),
    "extra key": _changed(sql="SELECT * FROM exams"),
    "column names for ids": _changed(queries={"{patient_id}": {"step": "counts"}}),
    "path for step": _changed(queries={"base": {"step": "../../state.sqlite"}}),
}


@pytest.mark.parametrize("kind", sorted(NO_REQUESTS))
def test_what_is_no_request_gets_no_reply_and_no_word(kind: str) -> None:
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN)
        site.post(NO_REQUESTS[kind])
        site.agent.step()
        assert_nothing_left(site, heard)
        assert site.reply() is None
        assert ROUND in site.agent.problems
        assert set(site.spool.outbox.names()) == {parcel_name(ROUND, "acceptance")}


@settings(derandomize=True, deadline=None, max_examples=25, database=None)
@given(
    analysis=st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z"),
    step=st.sampled_from(["newton", "flow", "counts", "patient_id", "export_all"]),
    number=st.sampled_from(EXTREME),
)
def test_unknown_analyses_and_steps_get_a_code(analysis: str, step: str, number: float) -> None:
    queries = {
        analysis: Query(step=step, values={"beta": (number,)}),
        "flow": Query(step=step),
        "x": Query(step="export_all", values={"patient_id": (number,)}),
    }
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN)
        site.ask(SMALL_PLAN, queries)
        site.agent.step()
        answers = site.answers()
        assert set(answers) == set(queries)
        assert answers["flow"] is RefusalCode.UNKNOWN_ANALYSIS
        assert answers["x"] is RefusalCode.MALFORMED_QUERY
        assert_nothing_left(site, heard)


# --- offers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["altered", "foreign", "other site", "altered protocol"])
def test_refused_offers_say_nothing_of_the_site(kind: str) -> None:
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN, key=SigningKey.generate() if kind == "foreign" else LEAD)
        offer, protocol = (site.sent[parcel_name(ROUND, what)] for what in ("offer", "protocol"))
        inbox = site.root / "spool" / "inbox"
        if kind == "altered":
            offer = _altered(offer)
        elif kind == "altered protocol":
            protocol = _altered(protocol)
        elif kind == "other site":
            typed, _ = Offer.open(offer, trusted([LEAD.public]))
            offer = typed.model_copy(update={"sites": ("south",)}).seal(LEAD)
        for what, payload in (("offer", offer), ("protocol", protocol)):
            name = parcel_name(ROUND, what)
            (inbox / name).write_bytes(payload)
            site.sent[name] = payload
        site.ask(SMALL_PLAN, first_queries(SMALL_PLAN))
        site.agent.step()
        assert_nothing_left(site, heard)
        assert site.reply() is None
        # A stranger gets no word at all; a trusted lead a code.
        assert bool(site.spool.outbox.names()) == (kind == "altered protocol")


PROTOCOL_WORDS = Canaries(("ZQLEADS-TEXT", "zqleads_column", "ZQLEVEL one"))


def test_words_of_the_protocol_do_not_come_back() -> None:
    """A protocol's words, also formulae and templates, are no part of any answer."""
    text = "=cmd|'/c calc'!A0 {patient_id} %s ${jndi:x} <b>ZQLEADS-TEXT</b>"
    demanding = SMALL_PLAN.covariates
    named = tuple(
        covariate.model_copy(update={"description": text, "levels": ("ZQLEVEL one", "b", "c")})
        if covariate.name == "vendor"
        else covariate.model_copy(update={"description": text})
        for covariate in demanding
    )
    criterion = {"column": "zqleads_column", "exclude_if": 1.0, "statement": text}
    protocol = Protocol.model_validate(
        {
            **{name: getattr(SMALL_PLAN, name) for name in Protocol.model_fields},
            "title": text,
            "purpose": text,
            "covariates": named,
            "clinical_criteria": (criterion,),
        }
    )
    table = planted_table()
    vendor = table[0].index("vendor")
    rows = [[*line, "0"] for line in table[1:]]
    for line in rows:
        line[vendor] = line[vendor].replace("a", "zqlevel ONE")
    content = csv_bytes([[*table[0], "zqleads_column"], *rows])
    with site_with(content) as site, listening() as heard:
        site.offer(protocol)
        site.ask(protocol, first_queries(protocol))
        site.agent.step()
        assert site.agent.problems == {}
        assert any(answer for answer in site.answers().values())
        assert_nothing_left(site, heard)
        assert_nothing_left(site, heard, PROTOCOL_WORDS)


# --- faults of the software -------------------------------------------------------------------


class _Quoting(FedcacError):
    """An error of this project whose text, code and cure quote a value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=message, cure=message)


def _chained(message: str) -> Exception:
    error = RuntimeError(message)
    error.__cause__ = ValueError(message)
    error.add_note(message)
    return error


FAULTS: dict[str, Callable[[str], Exception]] = {
    "ValueError": ValueError,
    "KeyError": KeyError,
    "QueryError": QueryError,
    "FedcacError": _Quoting,
    "chained": _chained,
    "UnicodeDecodeError": lambda text: UnicodeDecodeError("ascii", text.encode(), 0, 1, text),
    "OSError": lambda text: FileNotFoundError(2, text, text),
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "AssertionError": AssertionError,
    "Warning": UserWarning,
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("quoted", ["ZZCANARY^JOHN, age 61.728394516", "918273.645281"])
def test_an_estimator_that_quotes_a_patient_is_not_quoted(
    fault: str, quoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, exams: Any, query: Query) -> Any:
        raise FAULTS[fault](quoted)

    monkeypatch.setattr(type(estimator_for("x", SMALL_PLAN)), "summarise", fail)
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN)
        site.ask(SMALL_PLAN, first_queries(SMALL_PLAN))
        site.agent.step()
        answers = site.answers()
        assert answers["x"] in (
            RefusalCode.INTERNAL,
            RefusalCode.NOT_COMPUTABLE,
            RefusalCode.MALFORMED_QUERY,
        )
        # One analysis's fault does not take the other with it.
        assert not isinstance(answers["base"], RefusalCode)
        assert_nothing_left(site, heard)


def _text_in_a_number(aggregate: Any) -> Any:
    name = next(name for name in type(aggregate).model_fields if name != "evidence")
    return aggregate.model_copy(update={name: "ZZCANARY^JOHN"})


def _text_beside(aggregate: Any) -> Any:
    return aggregate.model_copy(update={"note": "ZZCANARY^JOHN"})


def _text_in_evidence(aggregate: Any) -> Any:
    return aggregate.model_copy(update={"evidence": "ZZCANARY^JOHN"})


def _text_in_every_field(aggregate: Any) -> Any:
    fields = {name: ["ZZCANARY^JOHN", 918273.645281] for name in type(aggregate).model_fields}
    return type(aggregate).model_construct(**fields)


def _not_an_aggregate(aggregate: Any) -> Any:
    return {"kind": "ZZCANARY^JOHN", "values": [918273.645281]}


def _numbers_for_counts(aggregate: Any) -> Any:
    return aggregate.model_copy(update={"n_patients": 918273.645281})


SMUGGLERS = (
    _text_in_a_number,
    _text_beside,
    _text_in_evidence,
    _text_in_every_field,
    _not_an_aggregate,
    _numbers_for_counts,
)


@pytest.mark.parametrize("smuggle", SMUGGLERS)
@pytest.mark.parametrize("analysis", ["x", "base"])
def test_an_estimator_that_smuggles_text_gets_nothing_out(
    smuggle: Callable[[Any], Any], analysis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = type(estimator_for(analysis, SMALL_PLAN))
    honest = estimator.summarise
    monkeypatch.setattr(estimator, "summarise", lambda *given: smuggle(honest(*given)))
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN)
        site.ask(SMALL_PLAN, first_queries(SMALL_PLAN))
        try:
            site.agent.step()
        except Exception as error:
            pytest.fail(f"stopped the agent: {type(error).__name__}: {said_about(error)!r}")
        assert_nothing_left(site, heard)


# --- crashes ----------------------------------------------------------------------------------


class _Killed(BaseException):
    """Stands for a kill: nothing in the agent may catch it."""


def _die(*_: object, **__: object) -> Any:
    raise _Killed("ZZCANARY^JOHN 918273.645281")


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (TableSource, "collect"),
        (SiteStore, "freeze_cohort"),
        (FileLedger, "append"),
        (SiteStore, "add_reply"),
        (SiteAgent, "_deliver_reply"),
    ],
)
def test_a_reply_after_a_crash_says_no_more_than_one_without(owner: type, method: str) -> None:
    replies = []
    for is_killed in (False, True):
        with site_with(csv_bytes(planted_table())) as site, listening() as heard:
            site.offer(SMALL_PLAN)
            site.ask(SMALL_PLAN, first_queries(SMALL_PLAN))
            if is_killed:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(owner, method, _die)
                    with pytest.raises(_Killed):
                        site.agent.step()
                assert_nothing_left(site, heard)
                site.restart()
            site.agent.step()
            assert_nothing_left(site, heard)
            reply = site.reply()
            assert reply is not None
            replies.append(reply.model_dump(exclude={"request_digest", "ledger_head", "issued_at"}))
    assert replies[0] == replies[1]


def test_a_write_that_is_interrupted_leaves_no_part_in_the_spool() -> None:
    """The courier may copy the folder at any time."""
    with site_with(csv_bytes(planted_table())) as site, listening() as heard:
        site.offer(SMALL_PLAN)
        site.ask(SMALL_PLAN, first_queries(SMALL_PLAN))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.replace", _die)
            with pytest.raises(_Killed):
                site.agent.step()
        assert_nothing_left(site, heard)
        assert list((site.root / "spool" / "outbox").iterdir()) == []


# --- DICOM, a manifest and the command line ---------------------------------------------------

DICOM_PLAN = load_shipped("demo-nongated")
N_SCANNED = 3
UID_WORD = "1.2.3.99887766.5544"
# What a header holds of a patient must not even be told at the site; a path may be, there alone.
IN_HEADERS = Canaries(
    ("ZZCANARY", "Kanärie", UID_WORD, "ZZACC-4417", "ZZINSTITUTE", "ZZPRIVATE"),
    (918273.645281,),
)
IN_PATHS = Canaries(("ZZPATH-4417",))

# Element, representation and bytes, as a careless or a hostile archive writes them.
HOSTILE_ELEMENTS: tuple[tuple[int, str, bytes], ...] = (
    (0x00080005, "CS", b"ZZCANARY"),  # an unknown character set is quoted in a warning
    (0x00080005, "CS", b"ISO 2022 IR 13\\ZZCANARY"),
    (0x00080016, "UI", b"1.2.ZZCANARY"),
    (0x0008103E, "LO", b"ZZCANARY" * 40),
    (0x00100010, "PN", b"ZZCANARY^" * 30),
    (0x00100010, "PN", b"\xff\xfeZZCANARY\\=^=^"),
    (0x00100020, "LO", b"ZZCANARY\x1b$B\x80"),
    (0x00100020, "LO", b"ZZCANARY-7731" * 20),
    (0x00100030, "DA", b"ZZCANARY"),
    (0x00180050, "DS", b"ZZCANARY"),
    (0x00180060, "DS", b"ZZCANARY"),
    (0x00180060, "DS", b"918273.645281918273.645281"),
    (0x00200013, "IS", b"ZZCANARY"),
    (0x00200032, "DS", b"0\\ZZCANARY\\0"),
    (0x00200037, "DS", b"1\\0\\0\\0\\918273.645281\\0"),
    (0x0020000D, "UI", b"1.2.3.99887766.5544.ZZCANARY"),
    (0x00280010, "US", b"ZZCANARY"),
    (0x00280030, "DS", b"ZZCANARY\\918273.645281"),
    (0x00281052, "DS", b"ZZCANARY"),
    (0x00281053, "DS", b"-918273.645281"),
    (0x00281054, "LO", b"ZZCANARY"),
    (0x7FE00010, "OW", b"ZZCANARY"),
)


def _set_raw(dataset: pydicom.Dataset, tag: int, vr: str, value: bytes) -> None:
    value += b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def _plant_header(dataset: pydicom.Dataset, patient: int) -> None:
    for tag, vr, text in (
        (0x00080050, "SH", "ZZACC-4417"),
        (0x00080080, "LO", "ZZINSTITUTE of hearts"),
        (0x00081030, "LO", "ZZCANARY study"),
        (0x00100010, "PN", "ZZCANARY^JOHN"),
        (0x00100020, "LO", f"ZZCANARY-{patient}"),
        (0x00104000, "LT", "ZZCANARY was here on 2020-01-01"),
        (0x0020000D, "UI", f"{UID_WORD}.{patient}"),
        (0x00204000, "LT", "Zäzilie Kanärie"),
        (0x00110010, "LO", "ZZPRIVATE creator"),
        (0x00111001, "LO", "ZZPRIVATE value"),
    ):
        _set_raw(dataset, tag, vr, text.encode("latin-1"))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's exams: tiny series, a manifest and a clinical table, planted all over."""
    root = tmp_path_factory.mktemp("scanned")
    rng = np.random.default_rng(3)
    manifest = [["path", "role"]]
    clinical = [["patient_id", "reference_score", "age", "sex", "follow_up_days", "event"]]
    for patient in range(N_SCANNED):
        for role in ("index", "reference"):
            hu = rng.integers(-900, 300, (16, 8, 8)).astype(np.float32)
            exam = PhantomExam(hu, np.zeros(hu.shape, np.uint8), (3.0, 0.7, 0.7), 3.0)
            folder = root / "dicom" / f"ZZPATH-4417^{patient}-{role}"
            label = ExamLabel(f"P{patient}", date(2020, 1, 1), role == "reference")
            write_series(folder, exam, label, rng)
            for path in sorted(folder.iterdir()):
                dataset = pydicom.dcmread(path)
                _plant_header(dataset, patient)
                dataset.save_as(path)
            manifest.append([f"dicom/{folder.name}", role])
        clinical.append([f"ZZCANARY-{patient}", "918273.645281", "61.5", "male", "900", "1"])
    (root / "manifest.csv").write_bytes(csv_bytes(manifest))
    (root / "clinical.csv").write_bytes(csv_bytes(clinical))
    return root


class CommandLine:
    """A site's folder driven by `fedcac-site`; what it prints is kept by verb and format."""

    def __init__(self, root: Path, exams: Path) -> None:
        self.home = root / "home"
        self.exams = root / "ZZPATH-4417-exams"
        shutil.copytree(exams, self.exams)
        (root / "lead.pub").write_text(LEAD.public.to_text() + "\n", encoding="ascii")
        files = {"--manifest": "manifest.csv", "--clinical-table": "clinical.csv"}
        options = [word for key, name in files.items() for word in (key, str(self.exams / name))]
        self.run("init", "north", "--lead-key", str(root / "lead.pub"), *options)
        settings_file = self.home / "site.yaml"
        text = settings_file.read_text(encoding="utf-8")
        settings_file.write_text(
            text.replace("maximum_excluded_share: 0.2", "maximum_excluded_share: 1.0"),
            encoding="utf-8",
        )

    def run(self, *arguments: str, form: str = "text") -> tuple[int, Overheard]:
        with listening() as heard:
            code = main(["--home", str(self.home), *arguments, "--format", form])
        return code, heard

    def offer(self, round_id: str = ROUND) -> None:
        now = datetime.now(UTC)
        protocol = DICOM_PLAN
        offer = Offer(
            round_id=round_id,
            issued_at=now,
            protocol_id=protocol.id,
            protocol_version=protocol.version,
            protocol_digest=protocol.digest(),
            package_digest="sha256:" + "0" * 64,
            sites=("north",),
            expires_at=now + timedelta(days=1),
        )
        request = Request(
            round_id=round_id,
            issued_at=now,
            exchange=1,
            protocol_digest=protocol.digest(),
            expires_at=now + timedelta(days=1),
            queries=first_queries(protocol),
        )
        inbox = Spool.at(self.home / "spool").inbox
        inbox.put(f"{round_id}.package.manifest.json", b"{}")
        inbox.put(parcel_name(round_id, "protocol"), seal_protocol(protocol, LEAD))
        inbox.put(parcel_name(round_id, "offer"), offer.seal(LEAD))
        inbox.put(parcel_name(round_id, "request", 1), request.seal(LEAD))

    def assert_silent(self, heard: Overheard, *, may_name_paths: bool = False) -> None:
        """Check what leaves for both kinds of words, and what is told here for a patient's."""
        for canaries in (IN_HEADERS, IN_PATHS):
            for name, content in things_below(self.home / "spool"):
                assert canaries.found_in(content) == [], name
            ledger = self.home / "ledger.jsonl"
            if ledger.exists():
                assert canaries.found_in(ledger.read_bytes()) == [], "ledger"
            assert canaries.found_in(heard.logged) == [], "log"
        assert IN_HEADERS.found_in(heard.printed) == [], heard.printed
        if not may_name_paths:
            assert IN_PATHS.found_in(heard.printed) == [], heard.printed


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score without a network: the first patient's exam fails, and the failure quotes it."""
    package = types.SimpleNamespace(digest="sha256:" + "0" * 64)
    monkeypatch.setattr(SiteAgent, "_open_package", lambda *_: package)

    def scorer(*_: object) -> Callable[[Path], ExamScore]:
        def score(series: Path) -> ExamScore:
            load_volume(series, DICOM_PLAN.image_criteria)
            if "^0-" in series.name:
                raise RuntimeError(f"ZZCANARY^JOHN in {series}: 918273.645281")
            return ExamScore(12.5, dict.fromkeys(Vessel, 3.125))

        return score

    monkeypatch.setattr("site_agent.exams.dicom_source.DicomSource._scorer", scorer)


def drive(site: CommandLine, form: str) -> None:
    """Run every verb a site has, and search after each."""
    code, heard = site.run("cohort", "check", DICOM_PLAN.id, form=form)
    assert code in (0, 6)
    site.assert_silent(heard, may_name_paths=True)
    if form == "json" and code == 0:
        assert IN_PATHS.found_in(heard.output.getvalue().encode()) == []
    site.offer()
    for verb in (
        ("status",),
        ("run", "--once"),
        ("approve", ROUND),
        ("run", "--once"),
        ("status",),
        ("review", "show"),
        ("review", "reject", ROUND, "1"),
        ("ledger", "show"),
        ("ledger", "verify"),
        ("approve", "no-such-round"),
        ("withdraw", ROUND),
        ("run", "--once"),
    ):
        if verb[:2] == ("review", "reject"):
            store = SiteStore(SiteFolder(site.home).database_path)
            held = store.reply(ROUND, 1)
            store.close()
            assert held is not None
            verb = (*verb, "--digest", sha256_hex(held[2]))
        _, heard = site.run(*verb, form=form)
        site.assert_silent(heard)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.usefixtures("without_model")
def test_no_verb_prints_a_patient(
    form: str, scanned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    site = CommandLine(tmp_path, scanned)
    drive(site, form)
    reply = Spool.at(site.home / "spool").outbox.get(parcel_name(ROUND, "reply", 1))
    assert reply is not None
    # Decoders written in C print past Python's standard error.
    captured = capfd.readouterr()
    assert IN_HEADERS.found_in((captured.out + captured.err).encode()) == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def _garble(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:300] + b"ZZCANARY\xff\xfe" * 9 + content[390:])


def _compressed(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    stream = b"\xff\x4f\xff\x51ZZCANARY^JOHN" + bytes(40)
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)


def _rename(path: Path) -> None:
    path.rename(path.with_name("ZZPATH-4417^Zäzilie\n.dcm"))


FILE_DAMAGES: tuple[Callable[[Path], None], ...] = (
    lambda path: None,
    _truncate,
    _garble,
    _compressed,
    _rename,
)


@pytest.mark.usefixtures("without_model")
def test_no_hostile_header_or_file_is_quoted(
    scanned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = iter(range(10_000))

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=8,
        database=None,
        # A smaller example costs a whole site: the first one is small enough to read.
        phases=[Phase.generate],
    )
    @given(
        elements=st.lists(st.sampled_from(HOSTILE_ELEMENTS), min_size=1, max_size=4),
        damage=st.sampled_from(FILE_DAMAGES),
        is_whole_series=st.booleans(),
        form=st.sampled_from(["text", "json"]),
    )
    def check(
        elements: list[tuple[int, str, bytes]],
        damage: Callable[[Path], None],
        is_whole_series: bool,
        form: str,
    ) -> None:
        root = tmp_path / str(next(numbers))
        root.mkdir()
        site = CommandLine(root, scanned)
        files = sorted((site.exams / "dicom" / "ZZPATH-4417^1-index").iterdir())
        with warnings.catch_warnings():
            # The planting itself warns; what the site warns of is recorded later.
            warnings.simplefilter("ignore")
            for path in files if is_whole_series else files[4:5]:
                dataset = pydicom.dcmread(path)
                for element in elements:
                    _set_raw(dataset, *element)
                dataset.save_as(path)
            damage(files[7])
        _, heard = site.run("cohort", "check", DICOM_PLAN.id, form=form)
        site.assert_silent(heard, may_name_paths=True)
        site.offer()
        site.run("approve", ROUND)
        _, heard = site.run("run", "--once", form=form)
        site.assert_silent(heard)
        shutil.rmtree(root)

    check()
    captured = capfd.readouterr()
    assert IN_HEADERS.found_in((captured.out + captured.err).encode()) == []


# --- the search itself ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_search_finds_a_word_in_every_encoding(name: str) -> None:
    canaries = Canaries((name,))
    for before in (b"", b"a", b"ab"):
        plain = before + name.encode() + b" and more"
        hidden = base64.b64encode(base64.b64encode(plain))
        assert canaries.found_in(b'{"payload":"' + hidden + b'"}')
    for form in forms_of(name).values():
        assert canaries.found_in(b"..." + form + b"...")
    assert canaries.found_in(b"an honest parcel with " + b"0123456789abcdef" * 40) == []


@pytest.mark.parametrize("value", NUMBERS.values())
def test_the_search_finds_a_number_as_text_and_as_bits(value: float) -> None:
    canaries = Canaries(numbers=(value,))
    for text in (repr(value), f"{value:.9g}", value.hex(), f"{-value:.8e}"):
        assert canaries.found_in(json.dumps({"release": text}).encode()), text
        assert canaries.found_in(base64.b64encode(f"[[1.0,{text}]]".encode()))
    assert canaries.found_in(np.array([1.0, value]).tobytes())
