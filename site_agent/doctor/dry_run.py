"""A dry run: one generated exam through scoring, one question through the gate; nothing is sent.

Everything happens in a scratch folder with a lead, a spool, a ledger and a database of its own. Of
the site it takes the device, the policy and its limits: what works here works in a round.
"""

from __future__ import annotations

import csv
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from fedcac.disclosure import MemoryLedger, Policy, load_policy
from fedcac.errors import RoundError
from fedcac.exchange import Acceptance, Offer, Reply, Request, Spool, parcel_name
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import seal_protocol
from fedcac.signing import SigningKey, trusted
from fedcac.statistics import PoolingSession
from fedcac.vocabulary import SiteName
from site_agent.exams.table_source import TableSource
from site_agent.opening import policy_name
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

__all__ = ["DryRun", "dry_run"]

_SCORED, _ASKED = "demo-nongated", "eng2021-nongated"
_ROUND = "dry-run-0001"
_N_PATIENTS = 120
# An exam with much calcium, so that a model that finds none is noticed.
_EXAM_SEED, _TABLE_SEED = 6, 5


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes
    ----------
    score, reference
        The generated exam's Agatston score by the demonstration model, and the one it was
        generated with (its gated exam's).
    seconds
        Scoring of one exam, the start of the processes included.
    n_released, n_refused
        Answers to the toy question that passed the site's gate, and that did not.
    refusals
        The codes of the latter.
    policy
        The profile of the site's policy.
    """

    score: float
    reference: float
    seconds: float
    n_released: int
    n_refused: int
    refusals: tuple[str, ...]
    policy: str


def dry_run(folder: SiteFolder) -> DryRun:
    """Score one generated exam and answer one question about generated patients.

    Raises
    ------
    FedcacError
        Whatever would keep this site from doing the same in a round.
    """
    settings = folder.settings()
    policy = load_policy(policy_name(folder, settings))
    with tempfile.TemporaryDirectory(prefix="fedcac-dry-run-") as scratch_name:
        scratch = Path(scratch_name)
        score, reference, seconds = _scored(scratch, settings.device, settings.exam_time_limit_s)
        reply = _answered(scratch, policy)
    answers = [*reply.answers.values(), reply.flow]
    refusals = [answer.refusal.value for answer in answers if answer.refusal is not None]
    return DryRun(
        score=score,
        reference=reference,
        seconds=seconds,
        n_released=len(answers) - len(refusals),
        n_refused=len(refusals),
        refusals=tuple(sorted(set(refusals))),
        policy=policy.profile,
    )


def _scored(scratch: Path, device: str, exam_time_limit_s: float) -> tuple[float, float, float]:
    from fedcac.models import demonstration_package
    from fedcac.phantom import write_cohort
    from site_agent.exams.dicom_source import DicomFiles, DicomSource

    write_cohort(scratch / "exams", n_sites=1, n_patients=1, seed=_EXAM_SEED, hybrid_share=0.0)
    exams = scratch / "exams" / "site-1"
    files = DicomFiles(
        manifest=exams / "manifest.csv", clinical_table=exams / "clinical.csv", secret=b"\1" * 32
    )
    started = time.monotonic()
    with closing(SiteStore(":memory:")) as store:
        source = DicomSource(files, store, device=device, exam_time_limit_s=exam_time_limit_s)
        cohort = source.collect(load_shipped(_SCORED), demonstration_package())
    seconds = time.monotonic() - started
    columns = cohort.exams.columns
    return float(columns["index_score"][0]), float(columns["reference_score"][0]), seconds


def _answered(scratch: Path, policy: Policy) -> Reply:
    """Return a site's reply to a question about a generated table, signed, offered, approved."""
    protocol = load_shipped(_ASKED)
    table = scratch / "scores.csv"
    _write_table(table)
    lead, key = SigningKey.generate(), SigningKey.generate()
    spool, name = Spool.in_memory(), "dry-run"
    _put_questions(spool, protocol, lead, name)
    # Nothing leaves: there is nobody to hold the reply for.
    unattended = policy.model_copy(update={"review": "auto"})
    with closing(SiteStore(":memory:")) as store:
        agent = SiteAgent(
            identity=SiteIdentity(name, key, lead.public),
            spool=spool,
            store=store,
            source=TableSource(table),
            answerer=Answerer(unattended, MemoryLedger(), b"\2" * 32),
            is_auto_approving=True,
        )
        agent.step()
        if agent.problems:
            raise agent.problems[_ROUND]
    acceptance = spool.outbox.get(parcel_name(_ROUND, "acceptance"))
    payload = spool.outbox.get(parcel_name(_ROUND, "reply", 1))
    if acceptance is None or payload is None:
        raise RoundError(
            "The dry run's round was not answered.",
            code="dry_run_unanswered",
            cure="Report it with the output of `fedcac-site doctor`.",
        )
    keys = trusted([key.public])
    Acceptance.open(acceptance, keys)
    return Reply.open(payload, keys)[0]


def _put_questions(spool: Spool, protocol: Protocol, lead: SigningKey, name: str) -> None:
    now = datetime.now(UTC)
    offer = Offer(
        round_id=_ROUND,
        issued_at=now,
        protocol_id=protocol.id,
        protocol_version=protocol.version,
        protocol_digest=protocol.digest(),
        package_digest=None,
        sites=(name,),
        expires_at=now + timedelta(days=1),
    )
    request = Request(
        round_id=_ROUND,
        issued_at=now,
        exchange=1,
        protocol_digest=protocol.digest(),
        expires_at=now + timedelta(days=1),
        queries=dict(PoolingSession(protocol, [SiteName(name)]).queries),
    )
    spool.inbox.put(parcel_name(_ROUND, "protocol"), seal_protocol(protocol, lead))
    spool.inbox.put(parcel_name(_ROUND, "request", 1), request.seal(lead))
    spool.inbox.put(parcel_name(_ROUND, "offer"), offer.seal(lead))


def _write_table(path: Path) -> None:
    rng = np.random.default_rng(_TABLE_SEED)
    reference = np.round(np.exp(rng.normal(3.0, 2.2, _N_PATIENTS)), 1)
    reference[rng.random(_N_PATIENTS) < 0.3] = 0.0
    index = np.round(reference * rng.lognormal(0.0, 0.3, _N_PATIENTS), 1)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "index_score", "reference_score"))
        for number in range(_N_PATIENTS):
            writer.writerow((f"G{number:04d}", index[number], reference[number]))
