"""What a privacy officer is shown before a reply leaves, and that exactly this leaves."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from plans import SPECS, draw_exams, needed_models, plan

from fedcac.aggregate import (
    BinnedCounts,
    CrossTable,
    FlowCounts,
    FlowStage,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
    parse_aggregate,
)
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.disclosure import FileLedger, MemoryLedger, load_policy, stricter_of
from fedcac.exchange import Offer, Query, Reply, Request, Spool, parcel_name
from fedcac.protocol import Pooling, Protocol
from fedcac.protocol.signing import seal_protocol
from fedcac.signing import PublicKey, SigningKey
from fedcac.statistics import PoolingSession
from fedcac.vocabulary import RefusalCode, SiteName
from site_agent import cli
from site_agent.__main__ import main
from site_agent.exams.cohort import FrozenCohort, flow_of
from site_agent.rounds.answering import Answerer
from site_agent.rounds.review import HeldReply, review_document, review_text
from site_agent.settings import SiteFolder, SiteSettings, create_site_folder
from site_agent.state.store import ExchangeState, RoundRecord, RoundState, SiteStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = SigningKey.generate()
ROUND = "review-0001"
SHAPES = (
    BinnedCounts,
    CrossTable,
    FlowCounts,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)


def cohort_of(n: int = 400, seed: int = 3) -> FrozenCohort:
    stages = dict.fromkeys(FlowStage, n)
    return FrozenCohort(exams=draw_exams(seed, n), flow=flow_of(stages, {}))


def protocol_for(kind: str) -> Protocol:
    return plan([*needed_models(SPECS[kind]).values(), SPECS[kind]])


def request_for(protocol: Protocol, queries: Mapping[str, Query], exchange: int = 1) -> Request:
    return Request(
        round_id=ROUND,
        issued_at=NOW,
        exchange=exchange,
        protocol_digest=protocol.digest(),
        expires_at=NOW,
        queries=dict(queries),
    )


def held_replies(kind: str, profile: str, most: int = 30) -> Iterator[HeldReply]:
    """Yield every held reply of a round of one site, each as it is before it leaves."""
    protocol, cohort, ledger = protocol_for(kind), cohort_of(), MemoryLedger()
    policy = load_policy(profile)
    answerer = Answerer(policy, ledger, b"a site's secret")
    session = PoolingSession(protocol, [SiteName("here")])
    for exchange in range(1, most):
        if session.is_finished:
            return
        request = request_for(protocol, session.queries, exchange)
        reply = answerer.reply(request, sha256_hex(b"request"), protocol, cohort, "here", NOW).reply
        yield HeldReply(
            envelope=reply.seal(KEY),
            protocol=protocol,
            request=request,
            policy=stricter_of(policy, protocol.disclosure),
            ledger=ledger.entries,
        )
        answers = {
            name: answer.refusal or parse_aggregate(answer.release)
            for name, answer in reply.answers.items()
        }
        session.answer({SiteName("here"): answers})


@cache
def documents(kind: str, profile: str) -> tuple[dict[str, Any], ...]:
    return tuple(review_document(held) for held in held_replies(kind, profile))


def parts_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*document["answers"], document["flow"]]


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers_in(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_in(item)]
    return [] if isinstance(value, str) or value is None else [value]


@pytest.mark.parametrize("profile", ["open", "research"])
@pytest.mark.parametrize("kind", sorted(SPECS))
def test_every_number_that_would_leave_is_shown_with_a_label(kind: str, profile: str) -> None:
    for document in documents(kind, profile):
        for part in parts_of(document):
            if part["release"] is None:
                continue
            # Positions of bins and edges become labels; the totals stand in the head.
            places = ("kind", "starts", "edges", "n_patients", "n_events", "kept_cut_offs")
            leaving = {name: v for name, v in part["release"].items() if name not in places}
            rows = [row for table in part["tables"] for row in table["rows"]]
            shown = [cell for row in rows for cell in row["cells"] if not isinstance(cell, str)]
            assert sorted(shown) == sorted(numbers_in(leaving))
            assert part["n_patients"] == part["release"]["n_patients"]
            assert part["n_events"] == part["release"].get("n_events")
            assert part["n_bytes"] == len(canonical_bytes(part["release"]))
            assert part["digest"] == sha256_hex(canonical_bytes(part["release"]))
            assert all(
                len(table["columns"]) == len(row["cells"])
                for table in part["tables"]
                for row in table["rows"]
            )
            assert all(row["label"] for row in rows)
            assert part["step_words"] != "not known"


@pytest.mark.parametrize("profile", ["open", "research"])
@pytest.mark.parametrize("kind", sorted(SPECS))
def test_the_text_fits_80_columns_and_full_text_holds_every_number(kind: str, profile: str) -> None:
    for document in documents(kind, profile):
        brief, full = review_text(document), review_text(document, is_full=True)
        assert max(len(line) for line in (brief + "\n" + full).splitlines()) <= 80
        assert document["digest"] in brief
        words = set(full.replace(";", " ").replace(",", " ").split())
        for part in parts_of(document):
            for table in part["tables"] if part["release"] else ():
                cells = [cell for row in table["rows"] for cell in row["cells"]]
                wanted = {f"{c:.12g}" for c in cells if isinstance(c, float)}
                wanted |= {str(c) for c in cells if isinstance(c, int)}
                assert wanted <= words


def test_every_shape_is_among_what_was_shown() -> None:
    seen = {
        shape
        for kind in SPECS
        for document in documents(kind, "open")
        for part in parts_of(document)
        if part["release"]
        for shape in SHAPES
        if isinstance(parse_aggregate(part["release"]), shape)
    }
    assert seen == set(SHAPES)


def text_of(kind: str, profile: str, exchange: int = 0, *, is_full: bool = False) -> str:
    """Return the text with every run of spaces and line ends as one space."""
    return " ".join(review_text(documents(kind, profile)[exchange], is_full=is_full).split())


def test_a_cross_table_is_laid_out_with_its_suppressed_cells() -> None:
    text = text_of("accuracy", "research")
    assert "Rows: reference; columns: index:" in text
    assert "0 suppressed suppressed suppressed" in text
    assert "a count below 5 is suppressed" in text
    assert "cut-off 10 208 30 8 154" in text
    assert "Diagnostic accuracy (x)." in text


def test_moments_bins_and_life_tables_have_their_names() -> None:
    moments = text_of("bland_altman", "open")
    assert all(f"difference, {term} " in moments for term in ("total", "lm", "rca"))
    assert "squared deviations" in moments
    assert "mean reference" in text_of("correlation", "open")
    bins = text_of("descriptives", "open", is_full=True)
    assert "by mace, all:" in bins
    assert "the lowest" in bins
    assert "above 18 " in bins
    assert "vendor=b" in bins
    assert "days 0-90 " in text_of("kaplan_meier", "open")
    assert "at risk event lost" in text_of("kaplan_meier", "open")
    assert "variance, c" in text_of("kaplan_meier", "open", 1)
    assert "only second positive" in text_of("comparison", "open")


def test_a_likelihood_is_summed_up_and_given_in_full_on_request() -> None:
    brief = text_of("cox", "open")
    assert "2 first and 3 second derivatives over 400 patients, 137 events" in brief
    assert "First derivatives" not in brief
    assert "Asked at" not in brief
    full = text_of("cox", "open", is_full=True)
    assert "First derivatives" in full
    assert "Second derivatives, times -1" in full
    assert "age" in full.split("First derivatives")[1]
    assert "Asked at beta: 0, 0" in full
    maximum = text_of("cox", "open", -1)
    assert "residuals age x sex" in maximum
    assert "time^2 x variance sex x sex" in maximum
    assert "concordant" in maximum


def test_no_number_of_an_estimator_goes_by_its_place_alone() -> None:
    generic = ("term 1", "parameter 1", "number 1")
    for kind in SPECS:
        for document in documents(kind, "open"):
            for part in parts_of(document):
                for table in part["tables"]:
                    labels = [row["label"] for row in table["rows"]]
                    # Gradients of refitted models: which is which is the models' affair.
                    if part["step"] != "refit":
                        assert not set(generic) & {*labels, *table["columns"]}, (kind, part["step"])


def test_long_tables_are_summed_up_unless_all_is_asked_for() -> None:
    brief, full = (text_of("distribution", "open", is_full=f) for f in (False, True))
    assert "400 numbers, 0 to " in brief
    assert "(--full lists them)" in brief
    assert "(--full lists them)" not in full
    assert "above 0 " in full


def test_a_refusal_is_shown_in_words_with_its_code() -> None:
    document = documents("fusion", "research")[-1]
    (part,) = document["answers"]
    assert part["refusal"] is RefusalCode.PARAMETERS_OUT_OF_BOUNDS
    text = review_text(document)
    assert "REFUSED: the query asked at out-of-bounds parameters" in text
    assert "(parameters_out_of_bounds)" in text


def test_the_budget_grows_by_what_an_answer_tells() -> None:
    first, second, *_, last = documents("cox", "research")
    budgets = [document["answers"][0]["budget"] for document in (first, second, last)]
    # A value, two first and three second derivatives; a third of 400 patients x 2 parameters.
    assert [budget["n_told"] for budget in budgets[:2]] == [6, 12]
    assert budgets[0] == {
        "n_now": 6,
        "n_told": 6,
        "n_allowed": 264,
        "n_asked": 1,
        "n_asked_allowed": 15,
    }
    assert budgets[2]["n_now"] == 22
    assert "Budget after it: 6 of 264 numbers" in review_text(first)
    assert documents("cox", "open")[0]["answers"][0]["budget"] is None
    assert documents("accuracy", "research")[0]["answers"][0]["budget"] is None


def test_limits_of_another_policy_are_not_stated() -> None:
    held = next(held_replies("cox", "research"))
    changed = HeldReply(**{**vars(held), "policy": load_policy("cms")})
    document = review_document(changed)
    assert not document["is_policy_in_force"]
    assert document["answers"][0]["budget"]["n_allowed"] is None
    assert "It is NOT the policy in force now." in " ".join(review_text(document).split())


def test_a_question_asked_before_is_recognised() -> None:
    protocol, cohort, ledger = protocol_for("accuracy"), cohort_of(), MemoryLedger()
    policy = load_policy("research")
    answerer = Answerer(policy, ledger, b"a site's secret")
    shown = []
    for exchange in (1, 2):
        request = request_for(protocol, {"x": Query(step="counts")}, exchange)
        reply = answerer.reply(request, sha256_hex(b"request"), protocol, cohort, "here", NOW).reply
        held = HeldReply(reply.seal(KEY), protocol, request, policy, ledger.entries)
        shown.append(review_document(held))
    assert shown[0]["answers"][0]["answered_before"] is None
    before = shown[1]["answers"][0]["answered_before"]
    assert (before["round_id"], before["exchange"], before["refusal"]) == (ROUND, 1, None)
    assert "Asked before: round review-0001, exchange 1" in review_text(shown[1])


def test_an_analysis_that_the_protocol_lacks_is_shown_as_refused() -> None:
    protocol, policy = protocol_for("accuracy"), load_policy("research")
    ledger = MemoryLedger()
    request = request_for(protocol, {"other": Query(step="counts")})
    answerer = Answerer(policy, ledger, b"a site's secret")
    reply = answerer.reply(
        request, sha256_hex(b"request"), protocol, cohort_of(), "here", NOW
    ).reply
    document = review_document(HeldReply(reply.seal(KEY), protocol, request, policy, ()))
    assert document["answers"][0]["refusal"] is RefusalCode.UNKNOWN_ANALYSIS
    assert "The protocol has no such analysis." in review_text(document)


# --- the command ----------------------------------------------------------------------------------


class Held:
    """A site's folder in which one reply is held, driven through the command line."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = SiteFolder(root / "site"), capsys
        lead, protocol = SigningKey.generate(), protocol_for("accuracy")
        settings = SiteSettings(name="here", lead_key=lead.public.to_text())
        create_site_folder(self.folder.root, settings)
        offer = Offer(
            round_id=ROUND,
            issued_at=NOW,
            protocol_id=protocol.id,
            protocol_version=protocol.version,
            protocol_digest=protocol.digest(),
            package_digest=None,
            sites=("here",),
            expires_at=NOW,
        ).seal(lead)
        request = request_for(protocol, {"x": Query(step="counts")}).seal(lead)
        self.spool = Spool.at(self.folder.spool_path)
        self.spool.inbox.put(parcel_name(ROUND, "offer"), offer)
        self.spool.inbox.put(parcel_name(ROUND, "protocol"), seal_protocol(protocol, lead))
        self.spool.inbox.put(parcel_name(ROUND, "request", 1), request)
        opened, _ = Request.open(request, {lead.public.key_id: lead.public})
        answerer = Answerer(
            load_policy("research"), FileLedger(self.folder.ledger_path), self.folder.secret()
        )
        reply = answerer.reply(
            opened, sha256_hex(request), protocol, cohort_of(), "here", NOW
        ).reply
        self.envelope = reply.seal(SigningKey.load(self.folder.key_path))
        store = SiteStore(self.folder.database_path)
        record = RoundRecord(
            ROUND, RoundState.ANSWERING, sha256_hex(offer), protocol.digest(), None, None
        )
        store.add_round(record)
        store.add_reply(ROUND, 1, sha256_hex(request), self.envelope, ExchangeState.HELD)
        store.close()

    @property
    def left(self) -> bytes | None:
        return self.spool.outbox.get(parcel_name(ROUND, "reply", 1))

    @property
    def digest(self) -> str:
        return sha256_hex(self.envelope)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["--home", str(self.folder.root), "review", *arguments])
        output = self._capsys.readouterr()
        return code, output.out, output.err


@pytest.fixture
def held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Held:
    return Held(tmp_path, capsys)


def test_show_states_the_digest_and_holds_the_reply(held: Held) -> None:
    code, text, _ = held.run("show")
    assert code == 0
    assert held.digest in text
    assert f"--digest {held.digest[:19]}" in text
    assert max(map(len, text.splitlines())) <= 80
    assert held.left is None
    code, output, _ = held.run("show", "--format", "json")
    (document,) = json.loads(output)["data"]["held"]
    assert document["digest"] == held.digest
    assert (document["round_id"], document["exchange"]) == (ROUND, 1)
    assert document["is_policy_in_force"]
    payload = base64.b64decode(json.loads(held.envelope)["payload"])
    assert document["signed_digest"] == sha256_hex(payload)
    released = json.loads(payload)["answers"]["x"]["release"]
    assert document["answers"][0]["release"] == released
    assert held.left is None


def test_approve_lets_exactly_the_bytes_with_the_digest_shown_leave(held: Held) -> None:
    code, text, _ = held.run("approve", ROUND, "1", "--digest", held.digest[:19])
    assert code == 0
    assert held.digest in text
    assert held.left == held.envelope
    assert sha256_hex(held.left) == held.digest
    code, _, errors = held.run("approve", ROUND, "1", "--digest", held.digest)
    assert code == 10
    assert "nothing_held" in errors
    assert "Nothing is held." in held.run("show")[1]


@pytest.mark.parametrize("given", ["sha256:" + "0" * 64, "sha256:", "", "other"])
@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_another_digest_changes_nothing(held: Held, verb: str, given: str) -> None:
    code, _, errors = held.run(verb, ROUND, "1", "--digest", given)
    assert code == 2
    assert "usage.other_digest" in errors
    assert held.left is None
    assert held.digest in held.run("show")[1]


def test_a_reply_that_changed_since_it_was_shown_is_not_approved(held: Held) -> None:
    shown = held.digest
    store = SiteStore(held.folder.database_path)
    with store._transaction() as connection:
        connection.execute("UPDATE exchanges SET reply = ?", (held.envelope + b" ",))
    store.close()
    assert held.run("approve", ROUND, "1", "--digest", shown)[0] == 2
    assert held.left is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("said", "leaves"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_terminal_is_shown_the_reply_and_asked(
    held: Held, monkeypatch: pytest.MonkeyPatch, said: str, leaves: bool
) -> None:
    monkeypatch.setattr(cli.sys, "stdin", Terminal(said))
    code, _, shown = held.run("approve", ROUND, "1")
    assert (code == 0) is leaves
    assert held.digest in shown
    assert "[y/N]" in shown
    assert held.left == (held.envelope if leaves else None)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_without_a_terminal_a_digest_is_needed(
    held: Held, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(cli.sys, "stdin", io.StringIO("y\n"))
    code, _, errors = held.run(verb, ROUND, "1")
    assert code == 2
    assert "usage.no_digest" in errors
    assert held.left is None
    monkeypatch.setattr(cli.sys, "stdin", Terminal("y\n"))
    assert held.run(verb, ROUND, "1", "--format", "json")[0] == 2
    assert held.left is None


@pytest.mark.parametrize(("said", "is_rejected"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_terminal_is_asked_before_a_reply_is_rejected(
    held: Held, monkeypatch: pytest.MonkeyPatch, said: str, is_rejected: bool
) -> None:
    monkeypatch.setattr(cli.sys, "stdin", Terminal(said))
    code, _, shown = held.run("reject", ROUND, "1")
    assert (code == 0) is is_rejected
    assert held.digest in shown
    assert "Send refusals instead of it? [y/N]" in shown
    assert (held.left is not None) is is_rejected
    assert held.left != held.envelope


def test_show_prints_both_commands_with_the_digest(held: Held) -> None:
    text = " ".join(held.run("show")[1].split())
    for verb in ("approve", "reject"):
        command = f"fedcac-site review {verb} {ROUND} 1 \\ --digest {held.digest[:19]}"
        assert command in text


def test_reject_sends_codes_and_no_number(held: Held) -> None:
    assert held.run("reject", ROUND, "1", "--digest", held.digest)[0] == 0
    assert held.left is not None
    key: PublicKey = SigningKey.load(held.folder.key_path).public
    reply, _ = Reply.open(held.left, {key.key_id: key})
    answers = [*reply.answers.values(), reply.flow]
    assert {answer.refusal for answer in answers} == {RefusalCode.REJECTED_BY_SITE}
    assert all(answer.release is None for answer in answers)
    assert "Nothing is held." in held.run("show")[1]


def test_a_request_that_is_not_the_one_answered_is_not_shown(held: Held) -> None:
    path = held.folder.spool_path / "inbox" / parcel_name(ROUND, "request", 1)
    path.write_bytes(path.read_bytes() + b" ")
    code, _, errors = held.run("show")
    assert code == 11
    assert "integrity.question_changed" in errors
    # What cannot be shown can still be ended, with the digest that the error names.
    (named,) = re.findall(r"--digest (sha256:\w+)", " ".join(errors.split()))
    assert held.run("reject", ROUND, "1", "--digest", named)[0] == 0
    assert held.left is not None
    assert held.left != held.envelope


def test_what_is_added_under_masks_is_shown_with_its_numbers() -> None:
    protocol = protocol_for("agreement").model_copy(update={"pooling": Pooling(mode="masked")})
    cohort, ledger = cohort_of(40), MemoryLedger()
    policy = load_policy("research")
    request = request_for(protocol, PoolingSession(protocol, [SiteName("here")]).queries)
    answerer = Answerer(policy, ledger, b"a site's secret")
    reply = answerer.reply(
        request, sha256_hex(b"request"), protocol, cohort, "here", NOW, least_sites=3
    ).reply
    held = HeldReply(
        envelope=reply.seal(KEY),
        protocol=protocol,
        request=request,
        policy=stricter_of(policy, protocol.disclosure),
        ledger=ledger.entries,
    )
    text = " ".join(review_text(review_document(held), is_full=True).split())
    assert "ADDED UNDER MASKS" in text
    assert "to a sum over at least 3 sites" in text
    matrix = next(entry.payload for entry in ledger.entries if entry.analysis == "x")["matrix"]
    for row in matrix:
        assert " ".join(map(str, row)) in text
    # Numbers that the gate did not pass are not promised.
    unknown = review_document(HeldReply(**{**vars(held), "ledger": ()}))
    assert "reject it" in review_text(unknown)
