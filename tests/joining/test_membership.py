"""Enrolment, renewal and revocation, through the commands and into running rounds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joining.consortium import CommandFailed, Lead, SiteHome

from coordinator.flower_courier.folder import CourierFolder
from coordinator.folder import opened
from coordinator.rounds.site_keys import SiteKeys
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.store import CoordinatorStore
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import Spool
from fedcac.joining import Notice
from fedcac.protocol.catalogue import load_protocol_or_shipped
from fedcac.signing import PublicKey, SigningKey
from fedcac.vocabulary import SiteName
from site_agent.exams.table_source import TableSource
from site_agent.joining.membership import Membership
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.rounds.peers import LivePeers, known_peers
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore

PROTOCOL = "eng2021-nongated"


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    return Lead(tmp_path)


@pytest.fixture
def by_hand(tmp_path: Path) -> Lead:
    return Lead(tmp_path, host=None)


def join_by_hand(lead: Lead, name: str) -> SiteHome:
    site = lead.invite(name)
    lead.enrol(site, "--spool", str(site.home / "spool"))
    return site


def test_a_site_joins_with_both_keys_at_once(lead: Lead) -> None:
    site = lead.join("duke")
    assert lead.states() == {"duke": "enrolled"}
    with opened(lead.home) as (_, store):
        key = (site.home / "keys" / "site.pub").read_text()
        assert store.sites()["duke"].key == PublicKey.from_text(key)
    roster = CourierFolder(lead.home / "courier").roster()
    assert roster["duke"].to_text() == (site.courier / "node.key.pub").read_text().strip()


def test_nobody_is_enrolled_without_a_comparison(lead: Lead) -> None:
    site = lead.invite("duke")
    with pytest.raises(CommandFailed, match=r"usage\.no_fingerprint"):
        lead.verb("enrol", str(site.request))
    for given in ("", "yes", site.fingerprint[:-1], site.fingerprint.replace("a", "b")[::-1]):
        with pytest.raises(CommandFailed, match=r"usage\.fingerprint_differs"):
            lead.verb("enrol", str(site.request), "--fingerprint", given)
    assert lead.states() == {}
    # Spaces and case are how people type; they do not matter.
    typed = site.fingerprint.replace(" ", "").upper()
    lead.verb("enrol", str(site.request), "--fingerprint", typed)


def test_a_name_and_a_request_are_taken_once(lead: Lead, tmp_path: Path) -> None:
    site = lead.join("duke")
    with pytest.raises(CommandFailed, match=r"usage\.request_replayed"):
        lead.enrol(site)
    # A stranger who got hold of duke's kit asks under duke's name.
    kit = lead.kit("duke")
    (site.home).rename(tmp_path / "duke-kept")
    stranger = lead.invite("duke", kit=kit)
    with pytest.raises(CommandFailed, match=r"usage\.site_enrolled"):
        lead.enrol(stranger)
    with pytest.raises(CommandFailed, match=r"signature\.not_renewed_by_former"):
        renew(lead, stranger)
    assert lead.states() == {"duke": "enrolled"}


def test_a_key_is_enrolled_once_under_whatever_name(lead: Lead) -> None:
    duke = lead.join("duke")
    yale = lead.invite("yale")
    key = (duke.home / "keys" / "site.key").read_bytes()
    (yale.home / "keys" / "site.key").write_bytes(key)
    yale.fingerprint = yale.verb("keys", "request", "--out", str(yale.request))["fingerprint"]
    with pytest.raises(CommandFailed, match=r"signature\.key_used"):
        lead.enrol(yale)


def renew(lead: Lead, site: SiteHome, *extra: str) -> dict[str, object]:
    arguments = ("--fingerprint", site.fingerprint, *extra)
    return lead.verb("enrolments", "renew", str(site.request), *arguments)


def ask_for_new_keys(site: SiteHome, *extra: str) -> None:
    made = site.verb("keys", "renew", "--out", str(site.request), *extra)
    site.fingerprint = made["fingerprint"]


def test_a_renewal_changes_both_keys_and_the_old_ones_never_come_back(lead: Lead) -> None:
    site = lead.join("duke")
    before = site.request.read_bytes(), site.fingerprint
    former = (site.home / "keys" / "site.pub").read_text().strip()
    ask_for_new_keys(site)
    # Until the lead took them, the site goes on with the keys in force.
    assert (site.home / "keys" / "site.pub").read_text().strip() == former
    assert renew(lead, site)["kind"] == "renewed"
    site.verb("keys", "activate")
    with opened(lead.home) as (_, store):
        current = (site.home / "keys" / "site.pub").read_text().strip()
        assert store.sites()["duke"].key.to_text() == current != former
    roster = CourierFolder(lead.home / "courier").roster()
    assert roster["duke"].to_text() == (site.courier / "node.key.pub").read_text().strip()
    assert SigningKey.load(site.home / "keys" / "site.key").public.to_text() == current
    # The first request again, now that its key is the former one.
    site.request.write_bytes(before[0])
    for verb in (("enrol",), ("enrolments", "renew")):
        with pytest.raises(CommandFailed, match=r"usage\.request_replayed"):
            lead.verb(*verb, str(site.request), "--fingerprint", before[1])
    with pytest.raises(CommandFailed, match=r"usage\.no_next_key"):
        site.verb("keys", "activate")


def test_a_site_over_flower_keeps_a_way(
    lead: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = lead.join("duke")
    (site.home / "keys" / "courier-home.txt").unlink()
    ask_for_new_keys(site)
    with pytest.raises(CommandFailed, match=r"usage\.no_way"):
        renew(lead, site)
    # Nothing is ever put into the folder that a process happens to stand in.
    monkeypatch.chdir(tmp_path)
    CourierFolder(lead.home / "courier").replace_site("duke", None)
    with opened(lead.home) as (folder, store):
        folder.courier(store).send(SiteName("duke"), "consortium.notice-0001", b"x")
    assert not (tmp_path / "inbox").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_new_keys_belong_to_the_users_who_read_them(lead: Lead) -> None:
    site = lead.join("duke")
    os.chown(site.home / "keys" / "site.key", 12345, 12345)
    os.chown(site.courier, 23456, 23456)
    ask_for_new_keys(site)
    renew(lead, site)
    site.verb("keys", "activate")
    for path, owner in (
        (site.home / "keys" / "site.key", 12345),
        (site.courier / "node.key", 23456),
    ):
        state = path.stat()
        assert (state.st_uid, state.st_mode & 0o777) == (owner, 0o600)


def test_a_courier_folder_that_is_gone_is_named(lead: Lead, tmp_path: Path) -> None:
    site = lead.join("duke")
    site.courier.rename(tmp_path / "elsewhere")
    for verb in ("request", "renew"):
        with pytest.raises(CommandFailed, match=r"usage\.no_courier_folder"):
            site.verb("keys", verb, "--out", str(site.request))
    site.verb(
        *("keys", "request", "--out", str(site.request)),
        *("--courier-home", str(tmp_path / "elsewhere")),
    )


def test_a_lost_key_is_replaced_by_the_leads_explicit_word(lead: Lead) -> None:
    site = lead.join("duke")
    (site.home / "keys" / "site.key").unlink()
    ask_for_new_keys(site, "--lost")
    with pytest.raises(CommandFailed, match=r"signature\.not_renewed_by_former"):
        renew(lead, site)
    assert renew(lead, site, "--replace")["kind"] == "replaced"


def test_a_revoked_site_is_on_no_list_and_may_not_renew_itself(lead: Lead) -> None:
    site = lead.join("duke")
    lead.verb("enrolments", "revoke", "duke", "--reason", "laptop stolen")
    lead.verb("enrolments", "revoke", "duke", "--reason", "again")
    assert lead.states() == {"duke": "revoked"}
    assert CourierFolder(lead.home / "courier").roster() == {}
    with pytest.raises(CommandFailed, match=r"usage\.unknown_site"):
        lead.verb("round", "launch", PROTOCOL, "--site", "duke")
    # Whoever stole the key signs a renewal with it.
    ask_for_new_keys(site)
    with pytest.raises(CommandFailed, match=r"signature\.not_renewed_by_former"):
        renew(lead, site)
    renew(lead, site, "--replace")
    assert lead.states() == {"duke": "enrolled"}
    events = lead.verb("enrolments", "show", "duke")["events"]
    assert [one["kind"] for one in events] == ["kit", "enrolled", "revoked", "replaced"]


def test_a_revoked_key_cannot_be_enrolled_by_hand_either(by_hand: Lead, tmp_path: Path) -> None:
    site = join_by_hand(by_hand, "duke")
    by_hand.verb("enrolments", "revoke", "duke", "--reason", "left")
    key = str(site.home / "keys" / "site.pub")
    for name in ("duke", "duke2"):
        with pytest.raises(CommandFailed, match=r"signature\.key_used"):
            by_hand.verb("enrol", name, "--key", key, "--spool", str(tmp_path))


def test_a_register_that_was_tampered_with_stops_everything(lead: Lead) -> None:
    lead.join("duke")
    path = lead.home / "enrolments.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CommandFailed, match=r"integrity\.register_malformed"):
        lead.verb("enrolments", "list")


def test_peers_are_told_and_trust_the_old_key_no_more(by_hand: Lead) -> None:
    duke, yale = join_by_hand(by_hand, "duke"), join_by_hand(by_hand, "yale")
    duke.verb("peer", "add", "yale", str(yale.home / "keys" / "site.pub"))
    folder = SiteFolder(duke.home)
    live = LivePeers(folder)
    former = known_peers(folder)["yale"]
    assert dict(live) == {"yale": former}

    ask_for_new_keys(yale)
    renew(by_hand, yale)
    told = yale.verb("keys", "activate")["fingerprint"]
    assert dict(live) == {}
    assert duke.verb("peer", "list") == {"peers": {}, "ended": {"yale": told}}
    # Nor is it said to be trusted because somebody adds it again.
    with pytest.raises(CommandFailed, match=r"usage\.key_distrusted"):
        duke.verb("peer", "add", "yale", str(folder.peers_path / "yale.pub"))
    # An inbox that somebody clears does not bring the old key back.
    for path in (duke.home / "spool" / "inbox").iterdir():
        path.unlink()
    assert known_peers(folder) == {}
    with pytest.raises(CommandFailed, match=r"usage\.fingerprint_differs"):
        duke.verb("peer", "replace", "yale", "--fingerprint", former.fingerprint)
    duke.verb("peer", "replace", "yale", "--fingerprint", told)
    assert live["yale"].fingerprint == told

    by_hand.verb("enrolments", "revoke", "yale", "--reason", "left")
    assert dict(live) == {}
    assert duke.verb("peer", "list")["ended"] == {"yale": None}


def test_only_the_lead_can_take_trust_away(by_hand: Lead) -> None:
    duke, yale = join_by_hand(by_hand, "duke"), join_by_hand(by_hand, "yale")
    duke.verb("peer", "add", "yale", str(yale.home / "keys" / "site.pub"))
    key = (yale.home / "keys" / "site.pub").read_text().strip()
    forged = Notice(number=1, issued_at=datetime.now(UTC), site="yale", former_key=key)
    inbox = duke.home / "spool" / "inbox"
    (inbox / "consortium.notice-0001").write_bytes(forged.seal(SigningKey.generate()))
    assert list(known_peers(SiteFolder(duke.home))) == ["yale"]


def test_a_renewal_that_was_killed_is_finished_by_the_next_command(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = lead.join("duke")
    former = PublicKey.from_text((site.home / "keys" / "site.pub").read_text())
    ask_for_new_keys(site)

    def dies(store: CoordinatorStore, name: str, key: PublicKey) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CoordinatorStore, "replace_key", dies)
        with pytest.raises(json.JSONDecodeError):
            renew(lead, site)
    with opened(lead.home) as (_, store):
        assert store.sites()["duke"].key == former
        # The database still names the former key; it is refused all the same.
        assert SiteKeys(store).arriving("duke") == {}
        assert former.key_id in SiteKeys(store).stored("duke")
    site.verb("keys", "activate")
    lead.states()
    with opened(lead.home) as (_, store):
        current = PublicKey.from_text((site.home / "keys" / "site.pub").read_text())
        assert SiteKeys(store).arriving("duke") == {current.key_id: current}
    roster = CourierFolder(lead.home / "courier").roster()
    assert roster["duke"].to_text() == (site.courier / "node.key.pub").read_text().strip()


def test_joining_that_was_killed_between_two_folders_goes_on(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: Membership, kit: object, home: Path, settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Membership, "join_courier", dies)
        with pytest.raises(json.JSONDecodeError):
            lead.invite("duke")
    key = (lead.root / "duke" / "keys" / "site.key").read_bytes()
    site = lead.invite("duke")
    assert (site.home / "keys" / "site.key").read_bytes() == key
    lead.enrol(site)
    with pytest.raises(CommandFailed, match=r"usage\.courier_exists"):
        lead.invite("duke")
    with pytest.raises(CommandFailed, match=r"usage\.site_exists"):
        lead.invite("duke", "--policy", "open")


def test_flower_comes_later_and_the_name_stays(by_hand: Lead) -> None:
    site = join_by_hand(by_hand, "duke")
    by_hand.verb("init", "--host", "lead.example.org")
    assert site.verb("kit", "update", str(by_hand.kit("duke")))["revision"] == 2
    shown = site.verb("kit", "show")
    assert (shown["consortium"], shown["superlink"]) == ("CAC consortium", "lead.example.org:8443")
    with pytest.raises(CommandFailed, match=r"usage\.courier_exists"):
        by_hand.verb("init", "--host", "lead.example.org")
    with pytest.raises(CommandFailed, match=r"signature\.key_exists"):
        by_hand.verb("init")


# rounds


def write_table(path: Path) -> Path:
    rows = ["patient_id,index_score,reference_score"]
    scores = (0, 5, 50, 250, 800)
    for number in range(120):
        other = scores[(number + (number % 11 == 0)) % 5]
        rows.append(f"P{number},{scores[number % 5]},{other}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def agent_of(site: SiteHome) -> SiteAgent:
    folder = SiteFolder(site.home)
    settings = folder.settings()
    return SiteAgent(
        identity=SiteIdentity(
            site.name,
            SigningKey.load(folder.key_path),
            PublicKey.from_text(settings.lead_key),
        ),
        spool=Spool.at(folder.spool_path),
        store=SiteStore(":memory:"),
        source=TableSource(write_table(site.home / "table.csv")),
        answerer=Answerer(load_policy("open"), FileLedger(folder.ledger_path), folder.secret()),
        is_auto_approving=True,
    )


def launch(lead: Lead, sites: Sequence[str]) -> str:
    with opened(lead.home) as (folder, store):
        engine = folder.engine(store)
        plan = LaunchPlan(
            sites=tuple(sites),
            minimum_sites=1,
            deadline=datetime.now(UTC) + timedelta(days=1),
            package_digest=None,
            package_files={},
        )
        round_id = engine.launch(load_protocol_or_shipped(PROTOCOL), plan)
        engine.step(round_id)
    return round_id


def step(lead: Lead, round_id: str) -> RoundView:
    with opened(lead.home) as (folder, store):
        return folder.engine(store).step(round_id)


def test_a_revoked_site_answers_and_nothing_of_it_is_taken_in(by_hand: Lead) -> None:
    sites = [join_by_hand(by_hand, name) for name in ("duke", "yale")]
    agents = {site.name: agent_of(site) for site in sites}
    round_id = launch(by_hand, ["duke", "yale"])
    for agent in agents.values():
        agent.step()
    told = by_hand.verb("enrolments", "revoke", "yale", "--reason", "key stolen")
    assert told["running_rounds"] == [round_id]
    # Whoever holds yale's key has answered with a genuine signature; it lies in the outbox.
    assert (sites[1].home / "spool" / "outbox" / f"{round_id}.acceptance").exists()
    view = step(by_hand, round_id)
    taken = {site.name: site.is_accepting for site in view.sites}
    assert taken == {"duke": True, "yale": None}
    inbox = sites[1].home / "spool" / "inbox"
    requests = [path.name for path in inbox.iterdir() if "request" in path.name]
    assert requests == []


def test_what_came_before_a_renewal_still_counts(by_hand: Lead) -> None:
    sites = [join_by_hand(by_hand, name) for name in ("duke", "yale")]
    agents = [agent_of(site) for site in sites]
    round_id = launch(by_hand, ["duke", "yale"])
    agents[1].step()
    ask_for_new_keys(sites[1])
    with pytest.raises(CommandFailed, match=r"usage\.round_running"):
        renew(by_hand, sites[1])
    for _ in range(30):
        view = step(by_hand, round_id)
        if view.is_finished:
            break
        for agent in agents:
            agent.step()
    assert view.record.state.value == "pooled"
    estimates = view.estimates
    renew(by_hand, sites[1])
    sites[1].verb("keys", "activate")
    # The stored replies are those of the former key; pooling them again gives the same.
    again = step(by_hand, round_id)
    assert again.estimates == estimates
    assert [len(site.replies) for site in again.sites] == [view.n_exchanges] * 2
    # The old key's answer to a new round is refused, the new key's is taken.
    second = launch_again(by_hand, round_id)
    agents[1].step()
    assert acceptance(by_hand, second, "yale") is None
    (sites[1].home / "spool" / "outbox" / f"{second}.acceptance").unlink()
    agent_of(sites[1]).step()
    assert acceptance(by_hand, second, "yale") is True


def launch_again(lead: Lead, round_id: str) -> str:
    second = launch(lead, ["duke", "yale"])
    assert second != round_id
    return second


def acceptance(lead: Lead, round_id: str, name: str) -> bool | None:
    view = step(lead, round_id)
    return {site.name: site.is_accepting for site in view.sites}[name]


def test_the_register_and_requests_hold_no_secret(lead: Lead) -> None:
    site = lead.join("duke")
    secrets = [
        (site.home / "keys" / "site.key").read_text().splitlines()[1],
        (site.courier / "node.key").read_text().splitlines()[3],
    ]
    sent = site.request.read_text() + (lead.home / "enrolments.jsonl").read_text()
    assert not any(secret in sent for secret in secrets)
    assert json.loads(site.request.read_text()).keys() == {
        "request",
        "node_signature",
        "renewal",
    }
