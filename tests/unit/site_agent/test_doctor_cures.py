"""Each finding of the doctor with its cure: what a person reads when one thing is wrong."""

from __future__ import annotations

import json
import pwd
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from site_bench import Bench

from fedcac.errors import CohortError
from fedcac.exchange import parcel_name
from fedcac.exchange.couriering import CourierKey
from fedcac.signing import SigningKey
from site_agent.__main__ import main
from site_agent.doctor import machine, verbs
from site_agent.doctor.dry_run import DryRun
from site_agent.doctor.findings import Finding, Situation, run_check
from site_agent.doctor.verbs import all_checks
from site_agent.flower_courier.settings import CourierFolder
from site_agent.service.lock import agent_lock
from site_agent.status.standing_reader import doctor_path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, policy="research")


def found_by(bench: Bench, name: str) -> Finding:
    (check,) = (one for one in all_checks() if one.name == name)
    return run_check(check, Situation(bench.folder, CourierFolder(bench.root / "courier")))


def change_settings(bench: Bench, old: str, new: str) -> None:
    path = bench.folder.settings_path
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# the computer


def test_an_old_python_is_named_with_the_one_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 4))
    finding = found_by(bench, "python")
    assert finding.status == "failed"
    assert "Install Python 3.11" in finding.cure


def test_the_systems_own_python_is_worth_a_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.sys, "prefix", sys.base_prefix)
    finding = found_by(bench, "python")
    assert finding.status == "warning"
    assert "python3 -m venv" in finding.cure
    monkeypatch.setattr(machine.sys, "prefix", "/a/virtual/environment")
    assert found_by(bench, "python").status == "ok"


def test_packages_that_lack_or_are_other_than_pinned_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"a-package-nobody-has": "", "numpy": "==0.1", "pydantic": ""}
    monkeypatch.setattr(machine, "needed_packages", lambda: needed)
    finding = found_by(bench, "packages")
    assert finding.status == "failed"
    assert "missing: a-package-nobody-has" in finding.found
    assert "(pinned 0.1)" in finding.found
    assert "pydantic" not in finding.found
    assert re.search("Install with `pip install --constraint .*constraints.txt ", finding.cure)
    monkeypatch.setattr(machine, "needed_packages", lambda: {"numpy": "==0.1"})
    assert "missing" not in found_by(bench, "packages").found
    monkeypatch.setattr(machine, "needed_packages", lambda: {"a-package-nobody-has": ""})
    assert "pinned" not in found_by(bench, "packages").found


def test_versions_other_than_those_tested_are_a_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "needed_packages", lambda: {"numpy": "", "pydantic": ""})
    monkeypatch.setattr(machine, "versions_tested", lambda: {"numpy": "0.1"})
    finding = found_by(bench, "packages")
    assert finding.status == "warning"
    assert "1 of 2 are not the versions tested: numpy" in finding.found
    assert "last digits" in finding.cure
    assert "constraints.txt 'fedcac[site]'`" in finding.cure


def test_without_the_list_of_tested_versions_it_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "needed_packages", lambda: {"numpy": ""})
    monkeypatch.setattr(machine.fedcac, "__file__", str(tmp_path / "lib" / "fedcac.py"))
    assert machine.versions_tested() == {}
    finding = found_by(bench, "packages")
    assert finding.status == "ok"
    assert "the list of tested versions is not installed" in finding.found
    monkeypatch.setattr(machine, "needed_packages", lambda: {"a-package-nobody-has": ""})
    assert found_by(bench, "packages").cure == "Install with `pip install 'fedcac[site]'`."


def test_a_requirement_that_cannot_be_read_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["(no requirement)", "Torch_Vision==1.2", "numpy>=1", "rich>1; extra == 'other'"]
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: lines)
    assert machine.needed_packages() == {"torch-vision": "==1.2", "numpy": ""}


@pytest.mark.parametrize(
    ("changes", "status", "cure"),
    [
        ({"is_exact": False}, "failed", "Do not score on it"),
        ({"kind": "cpu"}, "warning", "install a GPU"),
        ({"free_mb": 900}, "warning", "nvidia-smi"),
        ({}, "ok", ""),
    ],
)
def test_the_device_is_judged_by_its_facts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], status: str, cure: str
) -> None:
    facts = {"kind": "cuda", "name": "A card", "memory_mb": 24_000, "free_mb": 20_000}
    facts |= {"is_exact": True, "torch_version": "2.0", **changes}
    monkeypatch.setattr(
        "fedcac.models.devices.probe_device", lambda _: SimpleNamespace(**facts, seconds=0.1)
    )
    finding = found_by(bench, "gpu")
    assert finding.status == status
    assert "A card" in finding.found
    assert cure in finding.cure


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "status", "cure"),
    [
        (2_000, 1_000, "failed", "Give the machine 8 GB: a volume"),
        (16_000, 5_000, "warning", "stop other work"),
        (16_000, 12_000, "ok", ""),
    ],
)
def test_memory_is_judged_in_all_and_at_this_moment(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    total_mb: int,
    free_mb: int,
    status: str,
    cure: str,
) -> None:
    text = f"MemTotal: {total_mb * 1024} kB\nMemAvailable: {free_mb * 1024} kB\nHugePages: 0\n"
    genuine = Path.read_text

    def read(path: Path, *given: Any, **named: Any) -> str:
        return text if str(path) == "/proc/meminfo" else genuine(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", read)
    finding = found_by(bench, "memory")
    assert finding.status == status
    assert finding.found == f"{total_mb} MB of memory, {free_mb} MB available"
    assert cure in finding.cure


@pytest.mark.parametrize(
    ("free_mb", "status", "cure"),
    [
        (100, "failed", "below 256 MB the agent pauses"),
        (2_050, "warning", "Make room for 2069 MB"),
        (9_000, "ok", ""),
    ],
)
def test_the_room_wanted_counts_packages_and_artefacts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, free_mb: int, status: str, cure: str
) -> None:
    change_settings(bench, "artefacts: none", "artefacts: overlay")
    bench.folder.resolve("manifest.csv").write_text("path\na\nb\nc\nd\n", encoding="utf-8")
    # Two files of one round's package, 2.5 MB in all: 3 MB, which lie twice.
    inbox = bench.spool.inbox
    inbox.put("eng-0001.package.weights", b"\0" * (2 * 2**20))
    inbox.put("eng-0001.package.manifest", b"\0" * 2**19)
    inbox.put("eng-0002.package.weights", b"\0" * 2**20)
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mb * 2**20)
    )
    finding = found_by(bench, "disk")
    assert finding.status == status, finding
    # 2048 + 2 x 3 + 3 x 5 lines.
    assert "2069 MB wanted (largest package here: 3 MB)" in finding.found
    assert f"artefacts {free_mb} MB free" in finding.found
    assert cure in finding.cure


def test_a_manifest_that_is_not_there_wants_no_room(bench: Bench) -> None:
    assert machine._n_lines(bench.folder.resolve("manifest.csv")) == 0


def test_a_disk_of_pulled_exams_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pacs(bench)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=9_000 * 2**20))
    assert "pacs folder 9000 MB free" in found_by(bench, "disk").found


def test_the_user_must_own_the_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = bench.folder.root.stat().st_uid
    name = pwd.getpwuid(owner).pw_name
    monkeypatch.setattr(machine.os, "geteuid", lambda: 65_500)
    finding = found_by(bench, "user")
    assert finding.status == "failed"
    # An account that has no name is told by its number.
    assert "runs as user 65500" in finding.found
    assert finding.cure == f"Run it as {name}: `sudo -u {name} fedcac-site doctor`."
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    finding = found_by(bench, "user")
    assert (finding.status, "runs as root" in finding.found) == ("warning", True)
    assert "owns nothing but" in finding.cure


def test_an_owner_other_than_root_is_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Root:
        def stat(self) -> Any:
            return SimpleNamespace(st_uid=65_500)

    monkeypatch.setattr(machine.os, "geteuid", lambda: 65_500)
    situation: Any = SimpleNamespace(folder=SimpleNamespace(root=Root()))
    assert machine._user(situation) == Finding("ok", "user 65500 owns the site's folder")


@pytest.mark.parametrize(
    ("trace", "status"),
    [
        ("/run/systemd/timesync/synchronized", "ok"),
        ("/run/chrony/chronyd.pid", "ok"),
        ("/run/ntpd.pid", "ok"),
        ("/nowhere", "skipped"),
    ],
)
def test_what_keeps_the_clock_leaves_a_trace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trace: str, status: str
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == trace)
    assert machine._clock_sync(Situation(bench.folder, CourierFolder(bench.root))).status == status


# rights, records


def test_an_offer_that_nobody_trusted_signed_enrols_nobody(bench: Bench) -> None:
    assert found_by(bench, "enrolment").found == "no parcel has arrived yet"
    bench.offer("eng-0001", lead=SigningKey.generate())
    finding = found_by(bench, "enrolment")
    assert finding.status == "skipped"
    assert "Send the lead the request" in finding.cure
    bench.offer("eng-0002", sites=("yale",))
    assert found_by(bench, "enrolment").found == "no offer to this site has arrived yet"


def test_two_confirmed_peers_are_enough_for_masked_sums(bench: Bench) -> None:
    bench.offer("eng-0001")
    assert "peer add" in found_by(bench, "enrolment").found
    bench.folder.peers_path.mkdir()
    for name in ("yale", "emory"):
        key = SigningKey.generate().public.to_text()
        (bench.folder.peers_path / f"{name}.pub").write_text(key + "\n", encoding="ascii")
    found = found_by(bench, "enrolment").found
    assert found == "1 offers by the pinned lead name this site; 2 other sites known"


def test_a_public_half_that_is_another_is_a_warning(bench: Bench) -> None:
    bench.folder.key_path.with_suffix(".pub").write_text(
        SigningKey.generate().public.to_text(), encoding="ascii"
    )
    finding = found_by(bench, "identity")
    assert finding.status == "warning"
    assert "fedcac-site keys request" in finding.cure


def test_a_spool_shared_with_a_courier_and_nobody_else(bench: Bench) -> None:
    assert "no spool yet" in found_by(bench, "spool").found
    spool = bench.folder.spool_path
    bench.offer("eng-0001")
    (spool / "outbox").mkdir(exist_ok=True)
    for path, mode in ((spool, 0o750), (spool / "inbox", 0o2770), (spool / "outbox", 0o2750)):
        path.chmod(mode)
    (bench.folder.root / "keys").chmod(0o700)
    finding = found_by(bench, "spool")
    assert finding.status == "ok"
    assert "and nothing else" in finding.found
    bench.folder.database_path.write_bytes(b"")
    bench.folder.database_path.chmod(0o640)
    finding = found_by(bench, "spool")
    assert (finding.status, finding.found) == (
        "failed",
        "the courier's group can read state.sqlite",
    )
    assert "`chmod g-rwx`" in finding.cure


def test_a_list_of_rounds_is_not_for_everybody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = bench.folder.spool_path
    bench.offer("eng-0001")
    for path in (bench.folder.root, spool, spool / "inbox"):
        path.chmod(0o755)
    finding = found_by(bench, "spool")
    assert finding.status == "warning"
    assert "list which rounds" in finding.found
    assert "chmod o-rwx" in finding.cure
    # The same folder behind one that others cannot enter.
    bench.folder.root.chmod(0o700)
    assert found_by(bench, "spool").status == "ok"


def test_a_policy_that_protects_nobody_is_said(bench: Bench) -> None:
    assert found_by(bench, "policy").status == "ok"
    change_settings(bench, "policy: research", "policy: open")
    finding = found_by(bench, "policy")
    assert finding.status == "warning"
    assert "`policy: research` protects patients" in finding.cure


def test_before_the_first_run_there_are_no_records(bench: Bench) -> None:
    assert found_by(bench, "ledger") == Finding("ok", "nothing has left this site yet")
    assert "there is none yet" in found_by(bench, "database").found
    finding = found_by(bench, "agent")
    assert (finding.status, finding.cure) == ("skipped", "`fedcac-site run` starts it.")


def test_a_database_that_others_read_is_told_with_the_command(bench: Bench) -> None:
    with bench.agent() as agent:
        agent.step()
    bench.folder.root.chmod(0o755)
    bench.folder.database_path.chmod(0o644)
    finding = found_by(bench, "database")
    assert finding.status == "failed"
    assert "chmod 600 state.sqlite*" in finding.cure
    bench.folder.root.chmod(0o700)
    assert found_by(bench, "database").status == "ok"


def test_whether_an_agent_works_here_is_told_by_its_lock(bench: Bench) -> None:
    with agent_lock(bench.folder.lock_path):
        assert found_by(bench, "agent").found == "an agent works on this folder now"
    assert "no agent works on this folder now" in found_by(bench, "agent").found


# what is scored


def test_models_are_skipped_until_one_arrives(bench: Bench) -> None:
    assert found_by(bench, "models").status == "skipped"
    bench.offer("eng-0001")
    assert found_by(bench, "models").found == "no model package has arrived yet"


def test_a_package_that_does_not_hold_is_named_by_its_round(bench: Bench) -> None:
    bench.offer("eng-0001")
    bench.spool.inbox.put(parcel_name("eng-0001", "package.manifest.json"), b"{}")
    finding = found_by(bench, "models")
    assert finding.status == "failed"
    assert finding.found.startswith("packages that do not hold: eng-0001: ")
    assert "Ask the lead to send the package again" in finding.cure


def test_packages_that_hold_are_counted_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for round_id in ("eng-0001", "eng-0002"):
        bench.offer(round_id)
        bench.spool.inbox.put(parcel_name(round_id, "package.manifest.json"), b"{}")
    monkeypatch.setattr(
        "fedcac.models.open_package", lambda *_: SimpleNamespace(digest="sha256:" + "1" * 64)
    )
    assert found_by(bench, "models").found == "1 packages verify and give their golden case"


@pytest.mark.parametrize(
    ("content", "status", "found", "cure"),
    [
        (None, "warning", "there is no clinical table yet", "cohort dictionary"),
        (b"\xff\xfe\x00", "failed", "no CSV in UTF-8", "Save it as CSV"),
        (b"", "failed", "no column patient_id", "The first line names the columns"),
        (b"patient,score\n", "failed", "no column patient_id", "The first line names the columns"),
        (b"patient_id,score\nA,1\nB,2\n", "ok", "2 lines, 2 columns", ""),
    ],
)
def test_before_an_offer_the_table_is_judged_by_its_form(
    bench: Bench, content: bytes | None, status: str, found: str, cure: str
) -> None:
    # An offer that does not hold says nothing of what is asked.
    bench.offer("eng-0001", lead=SigningKey.generate())
    if content is not None:
        bench.folder.resolve("clinical.csv").write_bytes(content)
    finding = found_by(bench, "clinical")
    assert finding.status == status
    assert found in finding.found
    assert cure in finding.cure


def test_an_offered_protocol_says_which_cells_are_empty(bench: Bench) -> None:
    bench.offer("eng-0001")
    path = bench.folder.resolve("clinical.csv")
    path.write_text("patient_id,reference_score\nA,12\nB,0\n", encoding="utf-8")
    finding = found_by(bench, "clinical")
    asked = "2 patients, as protocol eng2021-nongated asks"
    assert (finding.status, finding.found) == ("ok", asked)
    path.write_text("patient_id,reference_score\nA,12\nB,\n", encoding="utf-8")
    finding = found_by(bench, "clinical")
    assert finding.status == "warning"
    assert finding.found == f"{asked}; columns with empty cells: reference_score"
    assert "Fill them" in finding.cure


def with_pacs(bench: Bench, port: int = 4242) -> None:
    block = {
        "connection": {
            "protocol": "dicomweb",
            "url": f"http://127.0.0.1:{port}/dicom-web",
        },
        "rules": {"index": {}},
        "folder": "pulled",
    }
    change_settings(bench, "pacs: null", f"pacs: {json.dumps(block)}")


def test_the_pacs_is_asked_and_its_fault_is_told_without_its_address(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_by(bench, "pacs").status == "skipped"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with_pacs(bench, port)
        finding = found_by(bench, "pacs")
    assert finding.status == "failed"
    assert "cohort.pacs_unreachable" in finding.found
    assert str(port) not in finding.found + finding.cure
    monkeypatch.setattr("site_agent.pacs.dicomweb.DicomWebClient.check", lambda _: None)
    assert found_by(bench, "pacs").found == "answers over dicomweb and offers what a pull needs"


# the network


def courier(bench: Bench, **changes: str) -> None:
    home = bench.root / "courier"
    home.mkdir(exist_ok=True)
    document = {
        "site": "duke",
        "spool": "../site/spool",
        "superlink": "localhost:8443",
        "coordinator_key": CourierKey.generate().public.to_text(),
        **changes,
    }
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in document.items()]
    (home / "courier.toml").write_text("".join(lines), encoding="utf-8")


def test_a_name_that_dns_does_not_know_is_told_with_whose_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier(bench)
    assert found_by(bench, "dns").found.startswith("localhost (the coordinator) has ")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finding = found_by(bench, "dns")
    assert finding.status == "failed"
    assert "localhost (the coordinator) has no address" in finding.found
    assert "hospital's DNS" in finding.cure
    courier(bench, proxy="http://user:secret@proxy.local:3128")
    finding = found_by(bench, "dns")
    assert finding.found == "proxy.local (the proxy) has no address here"
    assert "secret" not in finding.found + finding.cure


@pytest.mark.parametrize(
    ("environment", "status", "cure"),
    [
        ({}, "ok", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "warning", "NO_PROXY=127.0.0.1,localhost"),
        ({"https_proxy": "http://p:1", "no_proxy": "a, localhost"}, "warning", "does not inherit"),
    ],
)
def test_a_proxy_of_the_environment_is_not_the_services(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    status: str,
    cure: str,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    courier(bench)
    finding = found_by(bench, "proxy")
    assert finding.status == status
    assert cure in finding.cure


def test_the_settings_proxy_is_told_without_its_password(bench: Bench) -> None:
    courier(bench, proxy="http://user:secret@proxy.local:3128")
    assert found_by(bench, "proxy") == Finding("ok", "proxy.local:3128, as courier.toml says")


def test_a_couriers_bad_settings_are_a_finding_and_another_users_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier(bench, superlink="no port")
    finding = found_by(bench, "dns")
    assert finding.status == "failed"
    assert "usage.bad_settings" in finding.found

    def refuse(_: CourierFolder) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(CourierFolder, "settings", refuse)
    finding = found_by(bench, "dns")
    assert finding.status == "skipped"
    assert "another user's" in finding.found


# the command


def test_without_any_folder_it_says_which_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, other = str(tmp_path / "none"), str(tmp_path / "neither")
    assert main(["--home", home, "doctor", "--courier-home", other]) == 2
    told = capsys.readouterr().err
    assert "usage.no_site_folder" in told
    assert "--courier-home DIR" in told
    # A courier's user has no site's folder; no note is left for a status page that is not theirs.
    (tmp_path / "neither").mkdir()
    assert main(["--home", home, "doctor", "--courier-home", other, "--only", "ntp"]) == 0
    assert not (tmp_path / "none").exists()


def test_details_are_printed_when_asked_for_and_marked(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: Situation) -> Finding:
        raise CohortError("The cell of DOE^JANE is bad.", code="empty", cure="Mend DOE^JANE.")

    monkeypatch.setattr(verbs, "all_checks", lambda: (verbs.Check("clinical", stumble),))
    home = ["--home", str(bench.folder.root), "doctor"]
    assert main(home) == 1
    plain = capsys.readouterr().out
    assert "FAILED   clinical" in plain
    assert "What to do: Mend" in plain
    assert "DOE" not in plain
    assert main([*home, "--details"]) == 1
    assert "(not to be mailed) The cell of DOE^JANE is bad." in capsys.readouterr().out


def test_a_whole_run_without_a_failure_says_that_the_site_can_take_part(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = verbs.Check("all", lambda _: Finding("ok", "well"))
    monkeypatch.setattr(verbs, "all_checks", lambda: (well,))
    assert main(["--home", str(bench.folder.root), "doctor"]) == 0
    out = capsys.readouterr().out
    assert "1 checks: 1 ok." in out
    assert "This installation can take part in a round." in out
    assert json.loads(doctor_path(bench.folder).read_text("utf-8"))["lines"][0]["found"] == "well"


def dry(score: float) -> DryRun:
    return DryRun(
        score=score,
        reference=700.0,
        seconds=3.0,
        n_released=4,
        n_refused=1,
        refusals=("small_cell",),
        policy="research",
    )


@pytest.mark.parametrize(("score", "code"), [(650.0, 0), (0.0, 1)])
def test_a_dry_run_without_a_score_fails_with_its_cure(
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    score: float,
    code: int,
) -> None:
    monkeypatch.setattr(verbs, "dry_run", lambda _: dry(score))
    home = ["--home", str(bench.folder.root)]
    assert main([*home, "dry-run"]) == code
    out = capsys.readouterr().out
    assert f"scored {score:.0f} Agatston units in 3 s (made with 700)" in out
    assert "of 5 answers" in out
    assert "refused 1 (small_cell); nothing was sent" in out
    assert ("report it" in out) == bool(code)
    # The same as one of the doctor's checks.
    assert main([*home, "doctor", "--only", "ntp", "--dry-run", "--format", "json"]) == code
    checks = json.loads(capsys.readouterr().out)["data"]["checks"]
    assert [one["name"] for one in checks] == ["ntp", "dry-run"]
    assert checks[1]["status"] == ("failed" if code else "ok")
