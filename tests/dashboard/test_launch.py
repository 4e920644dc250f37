"""Launching by the dashboard: what is checked, shown, stored, and shown again when it is wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dashboard.consortium import Consortium, Visitor
from dashboard.launches import HOSTILE, SITES, confirmed, launched, preview, signed_in

from fedcac.protocol.catalogue import shipped_protocols


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    consortium = Consortium(tmp_path_factory.mktemp("rounds"), sites=SITES)
    consortium.add_user("lead")
    yield consortium
    consortium.close()


@pytest.fixture(scope="module")
def lead(made: Consortium) -> Visitor:
    return signed_in(made, "lead")


def test_a_round_is_stored_by_the_page_and_sent_by_the_engine(
    made: Consortium, lead: Visitor
) -> None:
    round_id = launched(lead, minimum_sites="2", days="7")
    assert made.store.round(round_id).state == "draft"
    assert "the engine sends the offer" in lead.get(f"/rounds/{round_id}").text
    made.engine.step()
    assert made.store.round(round_id).state == "offered"
    record = made.store.round(round_id)
    assert (record.minimum_sites, (record.deadline - record.started_at).days) == (2, 6)
    launch = made.store.events.of(round_id)[0]
    assert (launch.actor, launch.what) == ("lead", "launched")
    page = lead.get(f"/rounds/{round_id}").text
    assert 'class="now" aria-current="step"><strong>offered</strong>' in page
    assert page.count("no word yet</td>") >= 3
    made.step("north", "east")
    assert "Awaited" not in lead.get("/rounds").text
    ended = lead.post(
        f"/rounds/{round_id}/cancel", {"reason": HOSTILE}, page=f"/rounds/{round_id}/cancel"
    )
    assert ended.status_code == 303
    page = lead.get(f"/rounds/{round_id}").text
    assert "&lt;script&gt;alert" in page
    assert "<script>alert" not in page
    assert made.store.events.of(round_id)[-1].actor == "lead"
    assert '<li class="done"><strong>offered</strong>' in page
    draft = launched(lead)
    lead.post(f"/rounds/{draft}/cancel", {})
    page = lead.get(f"/rounds/{draft}").text
    assert '<li class="off"><strong>offered</strong>' in page
    assert '<li class="now" aria-current="step"><strong>cancelled</strong>' in page


def test_a_second_click_launches_nothing(made: Consortium, lead: Visitor) -> None:
    before = len(made.store.rounds())
    fields = confirmed(lead, preview(lead))
    first, second = lead.post("/launch", fields), lead.post("/launch", fields)
    assert first.headers["location"].startswith("/rounds/eng2021-nongated-")
    assert second.headers["location"] == first.headers["location"]
    assert len(made.store.rounds()) == before + 1


def test_a_preview_stores_nothing_and_says_what_sites_will_see(
    made: Consortium, lead: Visitor
) -> None:
    before = len(made.store.rounds())
    text = preview(lead).text
    assert "What every site will see" in text
    assert "reference_score" in text
    assert "The protocol is valid." in text
    assert len(made.store.rounds()) == before


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"site": []}, "usage.no_sites"),
        ({"site": ["north", "nowhere"]}, "usage.unknown_site"),
        ({"minimum_sites": "4"}, "usage.bad_minimum_sites"),
        ({"minimum_sites": "three"}, "usage.bad_number"),
        ({"days": "0"}, "usage.bad_number"),
        ({"quorum": "1", "minimum_sites": "2"}, "usage.bad_quorum"),
        ({"shipped": "../../etc/passwd"}, "protocol.not_found"),
        ({"package": "../../etc"}, "usage.unknown_package"),
        ({"source": "file", "protocol_text": "a: [b"}, "protocol.not_yaml"),
        ({"source": "file", "protocol_text": "schema_version: 1\nid: x"}, "protocol."),
    ],
)
def test_what_cannot_be_meant_is_told_in_words_and_kept(
    made: Consortium, lead: Visitor, fields: dict[str, Any], code: str
) -> None:
    before = len(made.store.rounds())
    answer = preview(lead, **fields)
    assert answer.status_code == 400
    assert f"<code>{code}" in answer.text
    if "protocol_text" in fields:
        assert fields["protocol_text"] in answer.text
    assert len(made.store.rounds()) == before


def test_an_uploaded_protocol_with_markup_is_shown_as_text(made: Consortium, lead: Visitor) -> None:
    text = shipped_protocols()["eng2021-nongated"].read_text(encoding="utf-8")
    text = re.sub(r"(?m)^id: .*$", "id: hostile", text)
    text = re.sub(r"(?m)^title: .*$", lambda _: "title: >-\n  " + HOSTILE, text)
    page = preview(
        lead, source="file", files={"protocol_file": ("plan.yaml", text.encode(), "text/yaml")}
    )
    assert "&lt;script&gt;" in page.text
    answer = lead.post("/launch", confirmed(lead, page))
    round_id = answer.headers["location"]
    assert made.store.round(round_id.removeprefix("/rounds/")).state == "draft"
    for path in (round_id, f"{round_id}/fragment", "/rounds"):
        assert "<script>alert" not in lead.get(path).text


def test_a_chosen_file_is_meant_whichever_button_is_pressed(lead: Visitor) -> None:
    text = shipped_protocols()["eng2021-gated"].read_bytes()
    page = preview(lead, source="shipped", files={"protocol_file": ("p.yaml", text, "text/yaml")})
    assert "eng2021-gated version" in page.text


def test_packages_are_chosen_by_folder_checked_and_signed(
    make: Callable[..., Consortium],
) -> None:
    from fedcac.models import demonstration_package, demonstration_package_folder

    made = make(sites=("north",))
    made.add_user("lead")
    lead = signed_in(made, "lead")
    packages = made.folder.root / "packages"
    shutil.copytree(demonstration_package_folder(), packages / "ours")
    (packages / "<b>broken").mkdir()
    (packages / "<b>broken" / "manifest.json").write_text("{}")
    shown = lead.get("/launch").text
    assert 'value="ours"' in shown
    assert "broken" not in shown
    demo = {"shipped": "demo-nongated", "site": ["north"]}
    assert demonstration_package().digest in preview(lead, package="demonstration", **demo).text
    round_id = launched(lead, package="ours", **demo)
    with made.dashboard.rounds() as rounds:
        offer = rounds.view(round_id).offer
        manifest = rounds.engine.package_manifest(round_id)
    assert offer.package_digest == demonstration_package().digest
    assert manifest is not None
    assert manifest.digest() == offer.package_digest
    wrong = preview(lead, package="ours", shipped="hong2025-cxr")
    assert "package.wrong_modality" in wrong.text


def test_a_protocol_changed_after_the_preview_is_not_launched(
    made: Consortium, lead: Visitor
) -> None:
    fields = {**confirmed(lead, preview(lead)), "shipped": "eng2021-gated"}
    before = len(made.store.rounds())
    answer = lead.post("/launch", fields)
    assert answer.status_code == 409
    assert len(made.store.rounds()) == before
