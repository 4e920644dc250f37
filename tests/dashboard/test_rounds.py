"""Rounds by the dashboard: launched, followed, read, downloaded, ended; and what is typed shown."""

from __future__ import annotations

import io
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dashboard.consortium import PASSWORD, Consortium, Visitor
from dashboard.launches import SITES, confirmed, launched, preview, signed_in
from postgres_server import Postgres

from coordinator.__main__ import main
from coordinator.dashboard.accounts import Role
from coordinator.rounds.service import EngineService
from fedcac.protocol.catalogue import shipped_protocols


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    consortium = Consortium(tmp_path_factory.mktemp("rounds"), sites=SITES)
    for role in Role:
        consortium.add_user(role.value, role)
    yield consortium
    consortium.close()


@pytest.fixture(scope="module")
def lead(made: Consortium) -> Visitor:
    return signed_in(made, "lead")


@pytest.fixture(scope="module")
def pooled(made: Consortium, lead: Visitor) -> str:
    round_id = launched(lead)
    made.finish(round_id)
    return round_id


def test_the_report_stands_in_a_frame_that_can_do_nothing(lead: Visitor, pooled: str) -> None:
    outer = lead.get(f"/rounds/{pooled}/report").text
    assert f'src="/rounds/{pooled}/report/page"' in outer
    assert "sandbox " in outer
    frame = lead.get(f"/rounds/{pooled}/report/page")
    assert "<h2" in frame.text
    policy = frame.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "frame-ancestors 'self'" in policy
    assert "script" not in policy
    assert frame.headers["x-frame-options"] == "SAMEORIGIN"


def test_open_rounds_that_nobody_moves_are_told(made: Consortium, lead: Visitor) -> None:
    launched(lead)
    assert "No engine service runs" in lead.get("/rounds").text
    stop = threading.Event()
    store = made.folder.store()
    service = EngineService(made.folder, store, lambda line: None)
    thread = threading.Thread(target=service.run, args=(0.05, stop))
    thread.start()
    try:
        end = time.monotonic() + 120
        while "No engine service runs" in lead.get("/rounds").text:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
        store.close()
    assert "No engine service runs" in lead.get("/rounds").text


def test_downloads_are_the_output_s_files_and_no_others(
    made: Consortium, lead: Visitor, pooled: str
) -> None:
    base = f"/rounds/{pooled}/files"
    table = lead.get(f"{base}/estimates.csv")
    assert table.headers["content-disposition"].startswith("attachment; ")
    assert table.text.startswith("analysis,scope,")
    figure = lead.get(f"{base}/figures/flow_north.svg")
    listed = re.findall(rf'href="{base}/([^"]+)"', lead.get(f"/rounds/{pooled}").text)
    assert "figures/" in " ".join(listed)
    assert figure.status_code in (200, 404)
    for name in listed[:3]:
        assert lead.get(f"{base}/{name}").status_code == 200
    for name in (
        "../../keys/lead.key",
        "..%2f..%2fkeys%2flead.key",
        "%2e%2e/%2e%2e/keys/lead.key",
        "/etc/passwd",
        "//etc/passwd",
        "figures/../../../keys/lead.key",
        "figures",
        "",
    ):
        answer = lead.get(f"{base}/{name}")
        assert answer.status_code == 404, name
        assert "PRIVATE" not in answer.text
    for round_id in ("..", "..%2f..", "nobody"):
        assert lead.get(f"/rounds/{round_id}/files/estimates.csv").status_code == 404
    packed = zipfile.ZipFile(io.BytesIO(lead.get(f"/rounds/{pooled}/output").content))
    assert f"{pooled}/report.html" in packed.namelist()
    assert made.dashboard.trail.newest(1)[0].what == "downloaded"


def test_the_report_is_printed_once_and_offered_where_a_browser_is(
    lead: Visitor, pooled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pdf, pages = f"/rounds/{pooled}/report/pdf", (f"/rounds/{pooled}", f"/rounds/{pooled}/report")
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not any(f'href="{pdf}"' in lead.get(page).text for page in pages)
    assert "no_browser" in lead.get(pdf).text
    browser = tmp_path / "chromium"
    browser.write_text(
        "#!/bin/sh\n"
        'for one; do case "$one" in --print-to-pdf=*) out="${one#*=}";; esac; done\n'
        f'echo printed >> {tmp_path}/calls; echo "%PDF-1.7" > "$out"\n'
    )
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    assert all(f'href="{pdf}"' in lead.get(page).text for page in pages)
    for _ in range(2):
        answer = lead.get(pdf)
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.content == b"%PDF-1.7\n"
    assert (tmp_path / "calls").read_text() == "printed\n"


def test_from_the_archive_anybody_pools_the_round_again(
    lead: Visitor, pooled: str, tmp_path: Path
) -> None:
    from fedcac.cli import main as fedcac_main

    archive = tmp_path / "round.zip"
    archive.write_bytes(lead.post(f"/rounds/{pooled}/archive").content)
    assert fedcac_main(["report", "--from", str(archive), "--out", str(tmp_path / "out")]) == 0
    mine = lead.get(f"/rounds/{pooled}/files/estimates.csv").content
    assert (tmp_path / "out" / "estimates.csv").read_bytes() == mine


def test_read_only_sees_where_a_round_stands_and_no_number(
    made: Consortium, lead: Visitor, pooled: str
) -> None:
    reader, page = signed_in(made, "read-only"), f"/rounds/{pooled}"
    shown, all_of_it = reader.get(page).text, lead.get(page).text
    assert "is in the pool" in shown
    for words in ("Pooled values", "Patients analysed", "Ledgers", "Events", "Downloads", "kappa"):
        assert words in all_of_it
        assert words not in shown
    statistician = signed_in(made, "statistician").get(page).text
    assert "Pooled values" in statistician
    assert "/close" not in statistician


def test_two_rounds_are_compared_and_three_followed(
    made: Consortium, lead: Visitor, pooled: str
) -> None:
    second = launched(lead)
    made.finish(second)
    query = f"round={pooled}&round={second}&patients=different"
    assert 'title="Comparison of rounds" sandbox' in lead.get(f"/comparison?{query}").text
    frame = lead.get(f"/comparison/page?{query}")
    assert "Comparison of two federated validation rounds" in frame.text
    assert lead.get(f"/comparison/table?{query}").text.startswith("analysis,")
    third = launched(lead)
    made.finish(third)
    assert lead.get(f"/comparison/page?{query}&round={third}").status_code == 200
    table = lead.get(f"/comparison/table?{query}&round={third}")
    assert 'filename="rounds.csv"' in table.headers["content-disposition"]
    assert third in table.text
    for bad in (f"round={pooled}", "round=nobody&round=nowhere", f"{query}&patients=x"):
        assert lead.get(f"/comparison?{bad}").status_code == 400


def test_late_sites_are_added_and_the_round_is_closed(made: Consortium, lead: Visitor) -> None:
    round_id = launched(lead, minimum_sites="2", quorum="2")
    for _ in range(6):
        made.step("north", "east")
    assert made.store.round(round_id).state == "pooled"
    page = f"/rounds/{round_id}"
    assert "Add late sites" in lead.get(page).text
    asked = lead.get(f"{page}/retry").text
    assert re.findall(r'name="site" value="(\w+)"', asked) == ["south"]
    answer = lead.post(
        f"{page}/retry", {"site": ["south"], "reason": "scanner was down", "days": "5"}
    )
    assert answer.headers["location"] == page
    # Until the next edition is pooled, the report is that of the one before.
    waiting = lead.get(f"{page}/report").text
    assert "Report of edition 1" in waiting
    assert "Edition 2 is offered" in waiting
    assert "scanner was down" not in lead.get(f"{page}/report/page").text
    made.finish(round_id)
    shown = lead.get(page).text
    assert "Edition 2: south added (scanner was down)" in shown
    assert "scanner was down" in lead.get(f"{page}/report/page").text
    again = lead.post(f"{page}/retry", {"site": ["south"]})
    assert again.status_code == 400
    assert "round.site_pooled" in again.text
    assert lead.post(f"{page}/close").headers["location"] == page
    assert made.store.round(round_id).state == "closed"
    assert "round.round_over" in lead.post(f"{page}/close").text


def test_sums_under_masks_are_shown_as_sums(make: Callable[..., Consortium]) -> None:
    # Of its own: what a site has answered by itself it does not answer in a sum.
    made = make(sites=SITES)
    made.add_user("lead")
    lead = signed_in(made, "lead")
    text = shipped_protocols()["eng2021-nongated"].read_text(encoding="utf-8")
    text = re.sub(r"(?m)^id: .*$", "id: masked", text) + "\npooling: {mode: masked}\n"
    page = preview(lead, source="file", files={"protocol_file": ("p.yaml", text.encode(), "")})
    assert "Sums over at least 3 sites, under masks" in page.text
    round_id = lead.post("/launch", confirmed(lead, page)).headers["location"]
    made.finish(round_id.removeprefix("/rounds/"))
    shown = lead.get(round_id).text
    assert shown.count("its part of a sum under masks") == 3 * len(SITES)
    assert "sum released, 270 patients" in shown
    assert "difference moments" not in shown


def test_the_same_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    made = Consortium(tmp_path, sites=SITES[:2], url=postgres.new_database())
    made.add_user("lead")
    try:
        lead = signed_in(made, "lead")
        round_id = launched(lead, site=list(SITES[:2]))
        made.finish(round_id)
        assert "State: pooled" in lead.get(f"/rounds/{round_id}").text
        assert lead.get(f"/rounds/{round_id}/report/page").status_code == 200
        assert lead.post(f"/rounds/{round_id}/archive").status_code == 200
        assert "exported a round" in lead.get("/audit").text
    finally:
        made.close()


def test_a_password_is_asked_for_at_a_terminal(
    make: Callable[..., Consortium], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    given = iter(["short", "short", PASSWORD, "another", PASSWORD, PASSWORD])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda _: next(given))
    home = ["--home", str(made.folder.root)]
    assert main([*home, "users", "add", "ada", "--role", "lead"]) == 0
    assert Visitor(made).sign_in("ada").status_code == 303
    assert list(given) == []


def test_the_verbs_make_the_first_lead_and_show_no_secret(
    make: Callable[..., Consortium], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make()
    home = ["--home", str(made.folder.root)]
    assert "There is no user yet" in Visitor(made).get("/sign-in").text
    assert main([*home, "users", "add", "Ada", "--role", "lead"]) == 0
    link = re.search(r"http://localhost:8480(/choose-password/\S+)", capsys.readouterr().out)
    assert link
    visitor = Visitor(made)
    visitor.post(link[1], {"password": PASSWORD, "again": PASSWORD}, page=link[1])
    assert visitor.sign_in("ada").status_code == 303
    assert main([*home, "users", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown == "ada: lead, active\n"
    assert main([*home, "users", "disable", "ada"]) == 2
    assert "last_lead" in capsys.readouterr().err
    assert main([*home, "users", "reset", "ada", "--link"]) == 0
    assert visitor.get("/rounds").status_code == 303
    assert main([*home, "users", "add", "eve", "--role", "read-only"]) == 0
    assert main([*home, "users", "disable", "eve"]) == 0
    assert main([*home, "users", "enable", "eve"]) == 0
    assert main([*home, "users", "add", "../eve", "--role", "lead"]) == 2
    assert {line.address for line in made.dashboard.trail.newest()} >= {"console"}
