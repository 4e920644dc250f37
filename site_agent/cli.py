"""The verbs of `fedcac-site`."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fedcac.canonical import sha256_hex
from fedcac.console import Outcome, add_format, say
from fedcac.disclosure import FileLedger, load_policy, stricter_of
from fedcac.errors import IntegrityError, UsageError
from fedcac.exchange import Request, Spool, parcel_name
from fedcac.joining.key_files import public_key_text
from fedcac.signing import PublicKey
from site_agent.cohort_verbs import add_cohort_verbs
from site_agent.doctor.verbs import add_doctor_verbs
from site_agent.flower_courier.verbs import add_courier_verbs
from site_agent.joining.verbs import (
    add_joining_options,
    add_joining_verbs,
    join_by_kit,
    settings_asked_for,
)
from site_agent.opening import opened, policy_name
from site_agent.pacs.verbs import add_pacs_verbs
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.faults import nothing_held
from site_agent.rounds.peers import add_peer_verbs
from site_agent.rounds.review import HeldReply, review_document, review_text
from site_agent.service.verbs import add_service_verbs
from site_agent.settings import SiteFolder, create_site_folder
from site_agent.state.store import ExchangeState, SiteStore
from site_agent.status.standing_reader import DIGEST_PREFIX_LENGTH
from site_agent.status_page.verbs import add_status_page_verb

__all__ = ["build_parser"]


def _opened(arguments: argparse.Namespace) -> AbstractContextManager[tuple[SiteAgent, SiteStore]]:
    return opened(arguments.home)


def _init(arguments: argparse.Namespace) -> Outcome:
    if arguments.kit is not None:
        return join_by_kit(arguments)
    if arguments.lead_key is None:
        raise UsageError(
            "Whose consortium is it?",
            code="no_kit",
            cure="Give --kit with the file that the lead sent, or --lead-key with lead.pub.",
        )
    lead_key = PublicKey.from_text(public_key_text(arguments.lead_key))
    key = create_site_folder(arguments.home, settings_asked_for(arguments, lead_key))
    text = (
        f"Site {arguments.name} made in {arguments.home}.\n"
        f"The lead's fingerprint (compare it over another channel):\n  {lead_key.fingerprint}\n"
        f"Send keys/site.pub to the lead. This site's fingerprint:\n  {key.fingerprint}"
    )
    return Outcome(text, {"public_key": key.to_text(), "fingerprint": key.fingerprint})


def _approve(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (agent, _):
        agent.approve(arguments.round_id)
        protocol = agent.protocol(arguments.round_id)
        packages = agent.packages(arguments.round_id)
    text = f"Approved: {protocol.title} ({protocol.id} v{protocol.version})."
    words = {"package": "Scored by", "reference_package": "Reference exams read by the model"}
    text += "".join(f"\n{words[role]} {what}" for role, what in packages.items())
    return Outcome(
        text, {"round_id": arguments.round_id, "protocol": protocol.id, "packages": packages}
    )


def _refuse(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (agent, _):
        agent.refuse(arguments.round_id)
    return Outcome("Refused; the lead learns the code and nothing else.")


def _withdraw(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (agent, _):
        agent.withdraw(arguments.round_id)
    return Outcome("Withdrawn: this round's requests are answered with 'empty cohort'.")


def _review_show(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (agent, store):
        documents = [_held_document(arguments, agent, store, *key) for key in store.held()]
    texts = [
        f"{review_text(document, is_full=arguments.full)}\n\n{_how_to_decide(document)}"
        for document in documents
    ]
    text = "\n\n".join(texts) or "Nothing is held."
    return Outcome(text, {"held": documents})


def _held_document(
    arguments: argparse.Namespace, agent: SiteAgent, store: SiteStore, round_id: str, exchange: int
) -> dict[str, Any]:
    folder = SiteFolder(arguments.home)
    request_digest, envelope = _held_envelope(store, round_id, exchange)
    protocol, record = agent.protocol(round_id), store.round(round_id)
    name = parcel_name(round_id, "request", exchange)
    request = Spool.at(folder.spool_path).inbox.get(name) or b""
    is_same = record is not None and protocol.digest() == record.protocol_digest
    if not is_same or sha256_hex(request) != request_digest:
        raise IntegrityError(
            f"What exchange {exchange} of round {round_id} answered is not in the spool any more.",
            code="question_changed",
            cure="Restore the spool's inbox, or end it with `fedcac-site review reject "
            f"{round_id} {exchange} --digest {sha256_hex(envelope)[:DIGEST_PREFIX_LENGTH]}`.",
        )
    policy = load_policy(policy_name(folder, folder.settings()))
    return review_document(
        HeldReply(
            envelope=envelope,
            protocol=protocol,
            # The agent verified the signature; the digest says that these are the same bytes.
            request=Request.model_validate_json(base64.b64decode(json.loads(request)["payload"])),
            policy=stricter_of(policy, protocol.disclosure),
            ledger=FileLedger(folder.ledger_path).entries,
        )
    )


def _held_envelope(store: SiteStore, round_id: str, exchange: int) -> tuple[str, bytes]:
    stored = store.reply(round_id, exchange)
    if stored is None or stored[1] is not ExchangeState.HELD:
        raise nothing_held()
    return stored[0], stored[2]


def _how_to_decide(document: dict[str, Any]) -> str:
    which = f"{document['round_id']} {document['exchange']}"
    prefix = document["digest"][:DIGEST_PREFIX_LENGTH]
    return (
        "To let exactly these bytes leave:\n"
        f"  fedcac-site review approve {which} \\\n    --digest {prefix}\n"
        "To send refusals instead, without any number:\n"
        f"  fedcac-site review reject {which} \\\n    --digest {prefix}\n"
        "Until then it is held."
    )


def _check_digest(given: str, digest: str) -> None:
    """Refuse a digest that is too short to name one reply, or names another one."""
    if len(given) >= DIGEST_PREFIX_LENGTH and digest.startswith(given):
        return
    raise UsageError(
        f"The held reply's digest does not begin with '{given}', or that is too short to tell.",
        code="other_digest",
        cure="Look at it again with `fedcac-site review show`, and give the digest shown there.",
    )


def _chosen(arguments: argparse.Namespace, agent: SiteAgent, store: SiteStore) -> str | None:
    """Return the digest of the held reply that is meant, or None if the terminal said no.

    Either the digest was given, or the reply is shown and a person at the terminal is asked.
    """
    key = arguments.round_id, arguments.exchange
    digest = sha256_hex(_held_envelope(store, *key)[1])
    if arguments.digest is not None:
        _check_digest(arguments.digest, digest)
        return digest
    _check_terminal(arguments)
    text = review_text(_held_document(arguments, agent, store, *key))
    return digest if _is_agreed(f"{text}\n\n{arguments.question}") else None


def _review_approve(arguments: argparse.Namespace) -> Outcome:
    key = arguments.round_id, arguments.exchange
    with _opened(arguments) as (agent, store):
        digest = _chosen(arguments, agent, store)
        if digest is None:
            return Outcome("Not approved; the reply is still held.", {"released": None}, 2)
        agent.release(*key)
        spool = Spool.at(SiteFolder(arguments.home).spool_path)
        payload = spool.outbox.get(parcel_name(key[0], "reply", key[1]))
        if payload is None or sha256_hex(payload) != digest:
            raise IntegrityError(
                "What lies in the outbox is not what was approved.",
                code="other_reply",
                cure="Stop the courier and find out who writes to the outbox.",
            )
    return Outcome(f"Released: {len(payload)} bytes, {digest}", {"released": digest})


def _check_terminal(arguments: argparse.Namespace) -> None:
    if arguments.format == "json" or not sys.stdin.isatty():
        raise UsageError(
            "Say which reply is meant.",
            code="no_digest",
            cure="Give --digest as `fedcac-site review show` prints it, or use a terminal.",
        )


def _is_agreed(text: str) -> bool:
    say(f"{text} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _review_reject(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (agent, store):
        digest = _chosen(arguments, agent, store)
        if digest is None:
            return Outcome("Not rejected; the reply is still held.", {"rejected": None}, 2)
        agent.reject(arguments.round_id, arguments.exchange)
    return Outcome("Rejected; the lead learns the code and nothing else.", {"rejected": digest})


def _ledger_verify(arguments: argparse.Namespace) -> Outcome:
    ledger = FileLedger(SiteFolder(arguments.home).ledger_path)
    ledger.verify()
    n_entries = len(ledger.entries)
    return Outcome(
        f"The chain holds: {n_entries} entries, head {ledger.head}",
        {"entries": n_entries, "head": ledger.head},
    )


def _ledger_show(arguments: argparse.Namespace) -> Outcome:
    ledger = FileLedger(SiteFolder(arguments.home).ledger_path)
    entries = [entry.model_dump(mode="json") for entry in ledger.entries]
    return Outcome("\n".join(json.dumps(entry) for entry in entries), {"entries": entries})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="fedcac-site", description="Run one hospital's part of a validation round."
    )
    parser.add_argument(
        "--home", type=Path, default=Path("site-home"), help="the site's folder (site.yaml)"
    )
    verbs = parser.add_subparsers(metavar="VERB")
    _add_setup_verbs(verbs)
    _add_round_verbs(verbs)
    _add_release_verbs(verbs)
    return parser


def _add_setup_verbs(verbs: Any) -> None:
    init = verbs.add_parser("init", help="make a site's folder with its own key")
    init.add_argument("name", help="the site's name in the consortium")
    init.add_argument("--lead-key", type=Path, help="the lead's lead.pub, where there is no kit")
    add_joining_options(init)
    init.add_argument("--manifest", default="manifest.csv")
    init.add_argument("--clinical-table", default="clinical.csv")
    init.add_argument("--policy", default="research", help="research, cms, open or a file")
    init.add_argument("--approval", choices=("manual", "auto"), default="manual")
    add_format(init, _init)

    add_joining_verbs(verbs)
    add_cohort_verbs(verbs)
    add_peer_verbs(verbs)
    add_pacs_verbs(verbs)
    add_courier_verbs(verbs)


def _add_round_verbs(verbs: Any) -> None:
    add_service_verbs(verbs)
    add_doctor_verbs(verbs)
    add_status_page_verb(verbs)
    for name, verb, text in (
        ("approve", _approve, "approve an offered round"),
        ("refuse", _refuse, "refuse an offered round"),
        ("withdraw", _withdraw, "answer an approved round with 'empty cohort'"),
    ):
        parser = verbs.add_parser(name, help=text)
        parser.add_argument("round_id")
        add_format(parser, verb)


def _add_release_verbs(verbs: Any) -> None:
    review = verbs.add_parser("review", help="look at held replies; let them go, or not")
    review_verbs = review.add_subparsers(metavar="VERB", required=True)
    show = review_verbs.add_parser("show", help="show what is about to leave, and its digest")
    show.add_argument("--full", action="store_true", help="print every number, however many")
    add_format(show, _review_show)
    for name, verb, question, text in (
        ("approve", _review_approve, "Let exactly these bytes leave?", "nothing else leaves"),
        ("reject", _review_reject, "Send refusals instead of it?", "nothing else is refused"),
    ):
        parser = review_verbs.add_parser(name, help=f"{name} one held reply")
        parser.add_argument("round_id")
        parser.add_argument("exchange", type=int)
        parser.add_argument(
            "--digest",
            help="the digest that `review show` printed, or its first "
            f"{DIGEST_PREFIX_LENGTH} characters: {text}. Without it the reply is shown and a "
            "terminal is asked",
        )
        parser.set_defaults(question=question)
        add_format(parser, verb)

    ledger = verbs.add_parser("ledger", help="the record of everything that left")
    ledger_verbs = ledger.add_subparsers(metavar="VERB", required=True)
    add_format(ledger_verbs.add_parser("verify", help="check the hash chain"), _ledger_verify)
    add_format(ledger_verbs.add_parser("show", help="print every entry"), _ledger_show)
