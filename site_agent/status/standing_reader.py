"""Collects how the site stands from its database, ledger and inbox, without changing any."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedcac import __version__
from fedcac.canonical import sha256_hex
from fedcac.disclosure import load_policy
from fedcac.disclosure.ledger import GENESIS
from fedcac.errors import FedcacError
from fedcac.exchange import Spool, parcel_name
from fedcac.protocol.signing import open_protocol
from fedcac.signing import PublicKey, trusted
from site_agent.opening import policy_name
from site_agent.redaction import redacted
from site_agent.settings import SiteFolder
from site_agent.state.store import ExchangeState, RoundState
from site_agent.status.standing import (
    AgentNote,
    DoctorNote,
    HeldNote,
    LedgerNote,
    ProblemNote,
    Progress,
    RoundNote,
    Standing,
    read_note,
)

__all__ = [
    "DIGEST_PREFIX_LENGTH",
    "StandingReader",
    "doctor_path",
    "problem_note",
    "standing_path",
]

DIGEST_PREFIX_LENGTH = len("sha256:") + 12
"""With fewer characters of its digest nobody can say which held reply is meant."""


def standing_path(folder: SiteFolder) -> Path:
    """Return where the running agent writes how the site stands."""
    return folder.root / "status" / "status.json"


def doctor_path(folder: SiteFolder) -> Path:
    """Return where `doctor` writes its last result."""
    return folder.root / "status" / "doctor.json"


def problem_note(problem: FedcacError) -> ProblemNote:
    """Return a problem as it may be shown: without paths and values."""
    return ProblemNote(
        code=problem.code, message=redacted(problem.message), cure=redacted(problem.cure)
    )


@dataclass(frozen=True)
class _Exams:
    scored: int = 0
    excluded: int = 0
    under_way: int = 0
    reasons: tuple[tuple[str, int], ...] = ()


class StandingReader:
    """Reads one site's folder; keeps what cannot change between two looks."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._titles: dict[str, str] = {}
        self._ledger: tuple[tuple[int, int], LedgerNote] | None = None

    def read(
        self,
        *,
        agent: AgentNote | None = None,
        progress: Progress | None = None,
        problems: dict[str, ProblemNote] | None = None,
        problem: ProblemNote | None = None,
    ) -> Standing:
        """Return how the site stands; the agent's own part is given, or None where it is unknown.

        Raises
        ------
        UsageError
            If the folder is not a site's.
        """
        settings = self._folder.settings()
        with self._connected() as connection:
            rounds = self._rounds(connection, problems or {})
            held = self._held(connection)
        return Standing(
            site=settings.name,
            software=__version__,
            policy=self._policy(),
            approval=settings.approval,
            written_at=datetime.now(UTC),
            agent=agent,
            progress=progress,
            rounds=rounds,
            held=held,
            ledger=self._ledger_note(),
            problem=problem,
            doctor=read_note(doctor_path(self._folder), DoctorNote),
        )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection | None]:
        if not self._folder.database_path.exists():
            yield None
            return
        address = f"{self._folder.database_path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=5)
        try:
            # A database that was made and not filled yet has no table.
            has_tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
            yield connection if has_tables else None
        finally:
            connection.close()

    def _policy(self) -> str:
        settings = self._folder.settings()
        try:
            policy = load_policy(policy_name(self._folder, settings))
        except FedcacError as error:
            return f"none: {error.code}"
        review = "a person releases each reply" if policy.review == "hold" else "released at once"
        return f"{policy.profile}, {review}"

    def _rounds(
        self, connection: sqlite3.Connection | None, problems: dict[str, ProblemNote]
    ) -> tuple[RoundNote, ...]:
        if connection is None:
            return ()
        rows = connection.execute(
            "SELECT round_id, state, package_digest, refusal FROM rounds ORDER BY rowid DESC"
        ).fetchall()
        notes = [
            self._round(connection, round_id, state, package, refusal, problems.get(round_id))
            for round_id, state, package, refusal in rows
        ]
        unknown = [
            # A round whose offer could not be taken yet has a problem and no state.
            RoundNote(
                round_id=round_id,
                title=self._title(round_id),
                state="not_taken",
                problem=problem,
            )
            for round_id, problem in sorted(problems.items())
            if round_id not in {row[0] for row in rows}
        ]
        return (*unknown, *notes)

    def _round(
        self,
        connection: sqlite3.Connection,
        round_id: str,
        state: str,
        package_digest: str | None,
        refusal: str | None,
        problem: ProblemNote | None,
    ) -> RoundNote:
        exams = _exams(connection, package_digest)
        (answered,) = connection.execute(
            "SELECT COUNT(*) FROM exchanges WHERE round_id = ? AND state = ?",
            (round_id, ExchangeState.RELEASED.value),
        ).fetchone()
        frozen = connection.execute(
            "SELECT payload FROM cohorts WHERE round_id = ?", (round_id,)
        ).fetchone()
        reasons = dict(exams.reasons)
        if frozen is not None:
            flow = json.loads(frozen[0])["flow"]
            reasons = {k: n for k, n in flow["exclusions"].items() if isinstance(n, int)}
        is_offered = state == RoundState.OFFERED.value
        is_seen = state not in (RoundState.OFFERED.value, RoundState.REFUSED.value)
        return RoundNote(
            round_id=round_id,
            title=self._title(round_id),
            state=state,
            refusal=refusal,
            waits_for="a person approves or refuses the round" if is_offered else "",
            commands=(
                (self._command("approve", round_id), self._command("refuse", round_id))
                if is_offered
                else ()
            ),
            scored=exams.scored if is_seen else 0,
            excluded=exams.excluded if is_seen else 0,
            under_way=exams.under_way if is_seen else 0,
            exclusions=reasons if is_seen else {},
            answered=answered,
            problem=problem,
        )

    def _command(self, *words: str) -> str:
        home = str(self._folder.root)
        return shlex.join(["fedcac-site", "--home", home, *words])

    def _title(self, round_id: str) -> str:
        if round_id not in self._titles:
            title = self._verified_title(round_id)
            if title is None:
                return ""
            self._titles[round_id] = title
        return self._titles[round_id]

    def _verified_title(self, round_id: str) -> str | None:
        # Not DirectoryMailbox by Spool.at where there is none: reading makes no folder.
        if not (self._folder.spool_path / "inbox").is_dir():
            return None
        keys = trusted([PublicKey.from_text(self._folder.settings().lead_key)])
        try:
            envelope = Spool.at(self._folder.spool_path).inbox.get(
                parcel_name(round_id, "protocol")
            )
            if envelope is None:
                return None
            protocol = open_protocol(envelope, keys, newest_seen={})
        except (FedcacError, OSError):
            return None
        return f"{protocol.title} ({protocol.id}, version {protocol.version})"

    def _held(self, connection: sqlite3.Connection | None) -> tuple[HeldNote, ...]:
        if connection is None:
            return ()
        rows = connection.execute(
            "SELECT round_id, exchange, reply FROM exchanges WHERE state = ? ORDER BY 1, 2",
            (ExchangeState.HELD.value,),
        ).fetchall()
        notes = []
        for round_id, exchange, reply in rows:
            digest = sha256_hex(reply)
            words = (round_id, str(exchange), "--digest", digest[:DIGEST_PREFIX_LENGTH])
            notes.append(
                HeldNote(
                    round_id=round_id,
                    exchange=exchange,
                    digest=digest,
                    commands=(
                        self._command("review", "show"),
                        self._command("review", "approve", *words),
                        self._command("review", "reject", *words),
                    ),
                )
            )
        return tuple(notes)

    def _ledger_note(self) -> LedgerNote:
        # Only the last line's digest: `ledger verify` and the doctor check the chain.
        try:
            facts = self._folder.ledger_path.stat()
            stamp = facts.st_size, facts.st_mtime_ns
            if self._ledger is None or self._ledger[0] != stamp:
                lines = self._folder.ledger_path.read_bytes().split(b"\n")[:-1]
                head = sha256_hex(lines[-1]) if lines else GENESIS
                self._ledger = stamp, LedgerNote(entries=len(lines), head=head)
        except OSError:
            return LedgerNote(entries=0, head=GENESIS)
        return self._ledger[1]


def _exams(connection: sqlite3.Connection, package_digest: str | None) -> _Exams:
    if package_digest is None:
        return _Exams()
    rows = connection.execute(
        "SELECT completions > 0 AND reason IS NULL, reason, COUNT(*) FROM exams "
        "WHERE package_digest = ? GROUP BY 1, 2",
        (package_digest,),
    ).fetchall()
    reasons: Counter[str] = Counter()
    scored = under_way = 0
    for is_scored, reason, number in rows:
        if is_scored:
            scored += number
        elif reason is None:
            under_way += number
        else:
            reasons[reason] += number
    return _Exams(scored, reasons.total(), under_way, tuple(reasons.most_common()))
