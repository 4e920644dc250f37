"""Checks of what decides and remembers: policy, ledger, database; and whether an agent runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from fedcac.disclosure import FileLedger, load_policy
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, skipped, warning
from site_agent.opening import policy_name

__all__ = ["RECORD_CHECKS"]


def _policy(situation: Situation) -> Finding:
    policy = load_policy(policy_name(situation.folder, situation.settings))
    if policy.is_open:
        return warning(
            "open: every number leaves as it is, however few patients stand behind it",
            "Use it for public or generated data only; `policy: research` protects patients.",
        )
    review = (
        "a person looks at each reply before it leaves"
        if policy.review == "hold"
        else "replies leave at once"
    )
    return ok(
        f"{policy.profile}: no count below {policy.minimum_cell} patients, no answer about fewer "
        f"than {policy.minimum_patients}; {review}"
    )


def _ledger(situation: Situation) -> Finding:
    if not situation.folder.ledger_path.exists():
        return ok("nothing has left this site yet")
    ledger = FileLedger(situation.folder.ledger_path)
    head = ledger.verify()
    return ok(f"the chain of {len(ledger.entries)} entries holds, head {head}")


def _database(situation: Situation) -> Finding:
    path = situation.folder.database_path
    if not path.exists():
        return ok("there is none yet; the first `fedcac-site run` makes it")
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    ) as connection:
        # The pragma's words name pages and tables, and quote nothing of a row.
        words = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    if words != ["ok"]:
        return failed(
            f"SQLite finds {len(words)} faults in the database",
            "Stop the agent, keep a copy, restore the folder's last backup with its ledger.",
            *words,
        )
    # Behind a folder that others cannot enter, the file's own rights matter to nobody.
    if path.stat().st_mode & 0o077 and path.parent.stat().st_mode & 0o011:
        return failed(
            "the database can be read by others", "`chmod 600 state.sqlite*`: it holds scores."
        )
    return ok(f"intact, schema {version}, journal {mode}")


def _lock(situation: Situation) -> Finding:
    from site_agent.service.lock import running_agent

    path = situation.folder.lock_path
    if not path.exists():
        return skipped("no agent has run here yet", "`fedcac-site run` starts it.")
    if running_agent(path):
        return ok("an agent works on this folder now")
    return ok("no agent works on this folder now; `fedcac-site run` starts it")


RECORD_CHECKS = (
    Check("policy", _policy),
    Check("ledger", _ledger),
    Check("database", _database),
    Check("agent", _lock),
)
