"""The couriers' folders and verbs, the packed courier, and which way a site is reached."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from coordinator.__main__ import main as coordinator_main
from coordinator.flower_courier.courier import SplitCourier, courier_of
from coordinator.flower_courier.folder import CourierFolder, CourierPorts
from coordinator.flower_courier.front import FleetOnly
from coordinator.flower_courier.journal import CourierJournal
from coordinator.folder import CoordinatorFolder
from fedcac.errors import FedcacError, UsageError
from fedcac.exchange import MailboxCourier
from fedcac.exchange.couriering import CourierKey
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName
from site_agent.__main__ import main as site_main
from site_agent.flower_courier.pack import PACKED_FILES, pack_courier
from site_agent.flower_courier.settings import CourierFolder as SiteCourierFolder


def run(main: Any, home: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code = main(["--home", str(home), *arguments, "--format", "json"])
    shown = json.loads(capsys.readouterr().out)
    assert code == 0, shown
    return shown["data"]


@pytest.fixture
def lead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    home = tmp_path / "lead"
    run(coordinator_main, home, capsys, "init", "--host", "lead.example.org")
    return home


def enrol(home: Path, capsys: pytest.CaptureFixture[str], root: Path, name: str) -> SigningKey:
    key = SigningKey.generate()
    (root / "site.pub").write_text(key.public.to_text(), encoding="ascii")
    node_key = CourierKey.generate()
    (root / "node.key.pub").write_text(node_key.public.to_text(), encoding="ascii")
    run(
        *(coordinator_main, home, capsys, "courier", "enrol", name),
        *("--key", str(root / "site.pub"), "--node-key", str(root / "node.key.pub")),
    )
    return key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_who_reads_a_file_does_not_hang_on_the_umask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "lead"
    before = os.umask(0o077)
    try:
        run(coordinator_main, home, capsys, "init", "--host", "lead.example.org")
        enrol(home, capsys, tmp_path, "duke")
        folder = CourierFolder(home / "courier")
        CourierJournal(folder.journal_path).add("duke", "r.offer", b"offer")
    finally:
        os.umask(before)
    # The courier and the SuperLink are other users than the lead.
    for name in ("ca.crt", "server.pem", "courier.json", "roster.json"):
        assert mode(folder.root / name) == 0o644
    assert mode(folder.journal_path / "journal.sqlite") & 0o060 == 0o060
    assert mode(folder.journal_path / "chunks") & 0o070 == 0o070
    (chunk,) = (folder.journal_path / "chunks").iterdir()
    assert mode(chunk) == 0o640
    # And what is the lead's alone is so under the usual umask too.
    CoordinatorFolder(home).database_path.write_text(f"sqlite:///{tmp_path / 'new.sqlite'}")
    CoordinatorFolder(home).store().close()
    assert mode(tmp_path / "new.sqlite") == mode(home / "coordinator.sqlite") == 0o600


def test_secrets_are_readable_by_their_owner_alone(lead: Path) -> None:
    folder = CourierFolder(lead / "courier")
    assert folder.ports() == CourierPorts()
    for name in ("../authority/ca.key", "server.key", "courier.key", "superexec.secret"):
        assert stat.S_IMODE((folder.root / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((lead / "authority").stat().st_mode) == 0o700
    with pytest.raises(UsageError, match="already holds"):
        folder.create(["lead.example.org"], CourierPorts())


def test_the_certificate_holds_for_the_host_and_not_for_another(lead: Path) -> None:
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

    folder = CourierFolder(lead / "courier")
    authority = x509.load_pem_x509_certificate((folder.root / "ca.crt").read_bytes())
    certificate = x509.load_pem_x509_certificate((folder.root / "server.pem").read_bytes())
    builder = PolicyBuilder().store(Store([authority]))
    builder.build_server_verifier(x509.DNSName("lead.example.org")).verify(certificate, [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example.org")).verify(certificate, [])


def test_the_engine_reaches_each_site_on_its_own_way(
    lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(lead, capsys, tmp_path, "duke")
    spool = tmp_path / "yale-spool"
    courier = courier_of(lead, {"duke": "", "yale": str(spool)})
    assert isinstance(courier, SplitCourier)
    courier.send(SiteName("duke"), "r-1.offer", b"over flower")
    courier.send(SiteName("yale"), "r-1.offer", b"by hand")
    assert (spool / "inbox" / "r-1.offer").read_bytes() == b"by hand"
    (spool / "outbox" / "r-1.acceptance").write_bytes(b"yes")
    assert courier.collect(SiteName("yale"), "r-1.acceptance") == b"yes"
    assert courier.collect(SiteName("duke"), "r-1.acceptance") is None
    journal = CourierJournal(lead / "courier" / "journal")
    assert [one.name for one in journal.pending("duke")] == ["r-1.offer"]
    assert list(journal.asked("duke")) == ["r-1.acceptance"]
    shown = run(coordinator_main, lead, capsys, "courier", "status")["sites"]
    assert shown == {
        "duke": {"to_deliver": ["r-1.offer"], "refused": {}, "asked": ["r-1.acceptance"]}
    }


def test_without_a_courier_every_site_has_a_spool(tmp_path: Path) -> None:
    courier = courier_of(tmp_path, {"yale": str(tmp_path / "spool")})
    assert isinstance(courier, MailboxCourier)


def test_a_site_is_enrolled_once_and_a_key_serves_one_site(
    lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = enrol(lead, capsys, tmp_path, "duke")
    store = CoordinatorFolder(lead).store()
    assert store.sites()["duke"].key.to_text() == key.public.to_text()
    store.close()
    folder = CourierFolder(lead / "courier")
    for name, node_key in (("duke", CourierKey.generate().public), ("y", folder.roster()["duke"])):
        with pytest.raises(FedcacError) as caught:
            folder.add_site(name, node_key)
        assert caught.value.code == "usage.site_exists"


def test_a_site_makes_its_courier_and_takes_what_is_brought_by_hand(
    lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(lead, capsys, tmp_path, "duke")
    journal = CourierJournal(lead / "courier" / "journal")
    journal.add("duke", "r-1.package.weights", b"\0" * 5_000_000)
    journal.add("duke", "r-1.offer", b"offer")
    out = tmp_path / "usb"
    arguments = ("courier", "export", "duke", "--out", str(out))
    assert len(run(coordinator_main, lead, capsys, *arguments)["parcels"]) == 2
    home = tmp_path / "courier"
    made = run(
        *(site_main, tmp_path / "site", capsys, "courier", "init", "duke"),
        *("--courier-home", str(home), "--spool", str(tmp_path / "spool")),
        *("--superlink", "lead.example.org:8443", "--ca", str(lead / "courier" / "ca.crt")),
        *("--coordinator-key", str(lead / "courier" / "courier.key.pub")),
    )
    assert made["node_key"] == SiteCourierFolder(home).carrier()._key.public.to_text()
    files = sorted(str(path) for path in out.iterdir())
    put = ("courier", "put", "--courier-home", str(home), *files)
    assert run(site_main, tmp_path / "site", capsys, *put)["parcels"] == 2
    inbox = tmp_path / "spool" / "inbox"
    assert (inbox / "r-1.package.weights").read_bytes() == b"\0" * 5_000_000
    assert (inbox / "r-1.offer").read_bytes() == b"offer"


@pytest.mark.parametrize(
    ("text", "message"),
    [("site = 1", "problems"), ("not toml", "problems"), (None, "no courier.toml")],
)
def test_a_courier_without_good_settings_does_not_start(
    tmp_path: Path, text: str | None, message: str
) -> None:
    folder = SiteCourierFolder(tmp_path)
    if text is not None:
        folder.settings_path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        folder.settings()


IMPORT_ALL = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
for name in ("__main__", "adapter", "carrying", "line", "settings", "supernode"):
    importlib.import_module("site_agent.flower_courier." + name)
for module in list(sys.modules.values()):
    if module.__name__.split(".")[0] in ("fedcac", "site_agent", "coordinator"):
        assert module.__file__.startswith(sys.argv[1]), module
beyond = ["fedcac.signing", "fedcac.statistics"]
beyond += ["site_agent.rounds.agent", "coordinator.rounds.engine"]
for name in beyond:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    assert name == "coordinator.rounds.engine", name + " is in reach of the packed courier"
heavy = {"torch", "monai", "pydicom", "pandas", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_packed_courier_is_all_that_a_site_installs_beside_flower(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pyz", tmp_path / "b.pyz"
    assert pack_courier(first) == pack_courier(second)
    with zipfile.ZipFile(first) as archive:
        names = set(archive.namelist())
        n_lines = sum(archive.read(name).count(b"\n") for name in names)
    assert names == {
        *PACKED_FILES,
        "__main__.py",
        "fedcac/__init__.py",
        "fedcac/exchange/__init__.py",
        "site_agent/__init__.py",
    }
    assert n_lines < 1900
    finished = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT_ALL, str(first)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("scope", "messages", "status"),
    [
        ({"method": "POST", "raw_path": b"/v1/control/start-run"}, [b""], 404),
        ({"method": "DELETE", "raw_path": b"/v1/fleet/pull-messages"}, [b""], 404),
        ({"method": "POST", "raw_path": b"/v1/fleet/push-object"}, [b"x" * 2**20] * 40, 413),
        ({"method": "POST", "raw_path": b"/v1/fleet/pull-messages"}, [b"x"], 503),
    ],
    ids=["other interface", "other method", "too long", "SuperLink down"],
)
def test_the_front_refuses(scope: dict[str, Any], messages: list[bytes], status: int) -> None:
    import asyncio

    import httpx

    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down", request=request)

    sent: list[Any] = []

    async def ask() -> None:
        waiting = [{"type": "http.request", "body": body, "more_body": True} for body in messages]
        waiting[-1]["more_body"] = False

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        transport = httpx.MockTransport(down)
        async with httpx.AsyncClient(transport=transport, base_url="https://link") as client:
            await FleetOnly(client)({"type": "http", "headers": [], **scope}, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == status
