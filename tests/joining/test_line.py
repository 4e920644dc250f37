"""The line out of a hospital: proxies, TLS inspection, certificates that end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joining.network import certified, connect_proxy, health_server

from fedcac.errors import UsageError
from fedcac.exchange.couriering import CourierKey
from site_agent.flower_courier.line import Finding, line_environment, look
from site_agent.flower_courier.settings import CourierFolder, create_courier_folder, settings_of
from site_agent.flower_courier.supernode import supernode_command, supernode_environment

HOST = "lead.example.org"


def courier(root: Path, **changes: object) -> CourierFolder:
    values: dict[str, object] = {
        "site": "duke",
        "spool": "spool",
        "superlink": f"{HOST}:8443",
        "coordinator_key": CourierKey.generate().public.to_text(),
        **changes,
    }
    create_courier_folder(root, settings_of(**values))
    return CourierFolder(root)


def goods(found: list[Finding]) -> list[bool]:
    return [one.is_good for one in found]


def test_a_site_behind_a_proxy_reaches_the_lead_by_connect_alone(tmp_path: Path) -> None:
    made = certified(tmp_path / "lead", HOST)
    with health_server(made) as port, connect_proxy({f"{HOST}:8443": port}) as proxy:
        folder = courier(
            tmp_path / "courier",
            proxy=f"http://127.0.0.1:{proxy.port}",
            ca_certificate=str(made / "ca.crt"),
        )
        found = look(folder)
    assert goods(found) == [True] * 4, found
    assert proxy.asked == [f"CONNECT {HOST}:8443"]


def test_a_proxy_that_wants_a_password_gets_it_and_nobody_reads_it(tmp_path: Path) -> None:
    made = certified(tmp_path / "lead", HOST)
    with (
        health_server(made) as port,
        connect_proxy({f"{HOST}:8443": port}, "it:pass word") as proxy,
    ):
        results = {}
        for number, word in enumerate(("it:pass%20word", "it:wrong")):
            folder = courier(
                tmp_path / str(number),
                proxy=f"http://{word}@127.0.0.1:{proxy.port}",
                ca_certificate=str(made / "ca.crt"),
            )
            assert folder.settings_path.stat().st_mode & 0o777 == 0o600
            results[word] = look(folder)
    assert goods(results["it:pass%20word"]) == [True] * 4
    assert goods(results["it:wrong"]) == [False]
    assert "the proxy answers 407" in results["it:wrong"][0].text
    assert "wrong" not in results["it:wrong"][0].text


def test_inspection_is_named_and_trusted_only_if_the_site_says_so(tmp_path: Path) -> None:
    lead = certified(tmp_path / "lead", HOST)
    # The hospital's proxy answers for the lead with a certificate of its own authority.
    hospital = certified(tmp_path / "hospital", HOST)
    with health_server(hospital) as port, connect_proxy({f"{HOST}:8443": port}) as proxy:
        ways = {"proxy": f"http://127.0.0.1:{proxy.port}", "ca_certificate": str(lead / "ca.crt")}
        refused = look(courier(tmp_path / "a", **ways))
        accepted = look(courier(tmp_path / "b", **ways, extra_ca=str(hospital / "ca.crt")))
    assert goods(refused) == [True, False]
    assert "fedcac consortium authority" in refused[1].text
    assert "extra_ca" in refused[1].text
    assert goods(accepted) == [True] * 4


@pytest.mark.parametrize(
    ("age", "words", "n_good"),
    [
        (timedelta(days=60), "", 4),
        (timedelta(days=75), "Warning: the coordinator's certificate expires", 3),
        (timedelta(days=95), "URGENT: the coordinator's certificate expires", 3),
    ],
)
def test_a_site_is_warned_before_the_leads_certificate_ends(
    tmp_path: Path, age: timedelta, words: str, n_good: int
) -> None:
    made = certified(tmp_path / "lead", HOST)
    with health_server(made) as port, connect_proxy({f"{HOST}:8443": port}) as proxy:
        folder = courier(
            tmp_path / "courier",
            proxy=f"http://127.0.0.1:{proxy.port}",
            ca_certificate=str(made / "ca.crt"),
        )
        found = look(folder, datetime.now(UTC) + age)
    clock = [one for one in found if one.is_about_clock]
    assert not clock[0].is_good
    assert sum(goods(found)) == n_good - 1
    assert any(words in one.text for one in found)


def test_an_expired_certificate_and_another_host_are_refused(tmp_path: Path) -> None:
    expired = certified(tmp_path / "expired", HOST, timedelta(seconds=-60))
    other = certified(tmp_path / "other", "elsewhere.example.org")
    for name, made, words in (("a", expired, "expired"), ("b", other, "mismatch")):
        with health_server(made) as port, connect_proxy({f"{HOST}:8443": port}) as proxy:
            found = look(
                courier(
                    tmp_path / name,
                    proxy=f"http://127.0.0.1:{proxy.port}",
                    ca_certificate=str(made / "ca.crt"),
                )
            )
        assert goods(found) == [True, False]
        assert words in found[1].text


def test_what_cannot_be_reached_says_what_to_ask_for(tmp_path: Path) -> None:
    made = certified(tmp_path / "lead", HOST)
    with connect_proxy({}) as proxy:
        folder = courier(
            tmp_path / "courier",
            proxy=f"http://127.0.0.1:{proxy.port}",
            ca_certificate=str(made / "ca.crt"),
        )
        found = look(folder)
    assert goods(found) == [False]
    assert "the proxy answers 403" in found[0].text


def test_the_supernode_goes_the_same_way_and_trusts_the_same(tmp_path: Path) -> None:
    lead, hospital = certified(tmp_path / "lead", HOST), certified(tmp_path / "hospital", HOST)
    folder = courier(
        tmp_path / "courier",
        proxy="http://proxy.hospital.example:3128",
        ca_certificate=str(lead / "ca.crt"),
        extra_ca=str(hospital / "ca.crt"),
    )
    environment = supernode_environment(folder, {"no_proxy": "*", "HTTPS_PROXY": "http://old:1"})
    for name in ("HTTPS_PROXY", "https_proxy"):
        assert environment[name] == "http://proxy.hospital.example:3128"
    for name in ("NO_PROXY", "no_proxy"):
        assert environment[name] == "127.0.0.1,localhost"
    command = supernode_command(folder)
    trusted = Path(command[command.index("--root-certificates") + 1]).read_bytes()
    for made in (lead, hospital):
        assert (made / "ca.crt").read_bytes() in trusted
    plain = courier(tmp_path / "plain", ca_certificate=str(lead / "ca.crt"))
    inherited = line_environment(plain.settings(), {"HTTPS_PROXY": "http://old:1"})
    assert inherited["HTTPS_PROXY"] == "http://old:1"


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy:3128", "http://proxy", "http://"])
def test_a_proxy_that_cannot_be_meant_is_refused(proxy: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(site="duke", spool="s", superlink="h:1", coordinator_key="k", proxy=proxy)
    assert caught.value.code == "usage.bad_settings"
    assert "proxy" in str(caught.value)


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    folder = courier(tmp_path / "courier", ca_certificate="nowhere.crt")
    with pytest.raises(UsageError) as caught:
        look(folder)
    assert caught.value.code == "usage.bad_certificate"
