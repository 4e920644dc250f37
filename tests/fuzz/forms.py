"""Parsers of what a browser sends to the lead's dashboard: addresses, forms, uploaded files."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
from dashboard.consortium import ORIGIN, Consortium, Visitor
from fuzz.engine import CANARY, TOKEN, Parser, register
from fuzz.messages import SITE
from fuzz.mutations import damage_bytes, damage_json, damage_text, damage_yaml

from fedcac.joining import EnrolmentRequest, RequestKeys
from fedcac.protocol.catalogue import load_shipped, shipped_protocols


class Dashboard:
    """A dashboard in which a lead is signed in; nothing that is sent may change its state."""

    def __init__(self) -> None:
        self.home = TemporaryDirectory(prefix="fuzz-dashboard-")
        self.consortium = Consortium(Path(self.home.name))
        self.consortium.add_user("lead")
        self.visitor = Visitor(self.consortium)
        assert self.visitor.sign_in("lead").status_code == 303
        self.token = self.visitor.token("/account").encode()

    def state(self) -> tuple[object, ...]:
        store = self.consortium.store
        return (store.rounds(), store.sites())


@cache
def _dashboard() -> Dashboard:
    return Dashboard()


def _form(path: str, parts: Sequence[tuple[str, str, bytes]]) -> bytes:
    """Return a request in the form of this file: its first line, then a multipart body."""
    body = b""
    for name, file, value in [("form_token", "", TOKEN), *parts]:
        told = f'; filename="{file}"' if file else ""
        body += b"--x\r\n" + f'Content-Disposition: form-data; name="{name}"{told}'.encode()
        body += b"\r\n\r\n" + value + b"\r\n"
    return f"POST {path} multipart/form-data; boundary=x\n".encode() + body + b"--x--\r\n"


def _forms() -> list[bytes]:
    name = next(iter(shipped_protocols()))
    keys = RequestKeys(SITE)
    lead = _dashboard().consortium.folder.key().public
    made = EnrolmentRequest.make("CAC", lead, "duke", keys, datetime(2026, 1, 1, tzinfo=UTC))
    request = made.model_copy(update={"nonce": "0" * 32}).seal(keys)
    launch = [
        ("shipped", "", name.encode()),
        ("source", "", b"shipped"),
        ("package", "", b"demonstration"),
        ("site", "", b"north"),
        ("minimum_sites", "", b"1"),
        ("quorum", "", b""),
        ("days", "", b"30"),
    ]
    text = load_shipped("demo-nongated").model_dump_json().encode()
    return [
        _form("/launch/preview", launch),
        _form("/launch/preview", [*launch, ("protocol_file", "plan.yaml", text)]),
        _form("/sites/enrol", [("request", "r.json", request), ("fingerprint", "", b"0" * 32)]),
        _form("/sites/nobody/revoke", [("name", "", b"nobody"), ("reason", "", b"lost")]),
        _form("/users", [("name", "", b""), ("role", "", b"lead")]),
        _form("/account/password", [("old", "", b"x"), ("new", "", b"y"), ("again", "", b"z")]),
    ]


def _addresses() -> list[bytes]:
    paths = (
        "/comparison?round=a-0001&round=b-0001&patients=as_sent",
        "/comparison/table?round=a-0001",
        "/audit?before=12",
        "/rounds/a-0001",
        "/rounds/a-0001/files/figures/a.svg",
        "/rounds/a-0001/output",
        "/sites/duke",
        "/static/dashboard.css",
        "/choose-password/AAAA",
    )
    return [f"GET {path} none\n".encode() for path in paths]


_ODD = ("..%2f..%2fetc", "%00", "%ff%fe", "9" * 5000, "-1", "a" * 3000, "%F0%9F%98%80", "", "'\"<")


def _damage_address(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    line, _, body = payload.partition(b"\n")
    words = re.findall(r"[^/=&?]+|[/=&?]", line.decode("utf-8", "replace"))
    if len(words) > 2:
        words[rng.randrange(1, len(words))] = rng.choice(_ODD)
    return "".join(words).encode() + b"\n" + body


def _damage_part(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage the value of one part; the form's own token stays."""
    parts = payload.split(b"\r\n--x")
    at = rng.randrange(len(parts))
    head, mark, value = parts[at].partition(b"\r\n\r\n")
    if not mark or value == TOKEN:
        return damage_bytes(rng, payload, seeds)
    damage = rng.choice((damage_text, damage_bytes, damage_json, damage_yaml))
    parts[at] = head + mark + damage(rng, value, [value])
    return b"\r\n--x".join(parts)


def _ask(payload: bytes, folder: Path) -> None:
    line, _, body = payload.partition(b"\n")
    words = line.decode("utf-8", "replace").split(" ", 2)
    method, path = words[0], words[1] if len(words) > 1 else "/"
    if not path.startswith("/") or path.startswith("//"):
        path = "/" + quote(path)
    dashboard = _dashboard()
    before = dashboard.state()
    client = dashboard.visitor.client
    headers = {"Origin": ORIGIN}
    if len(words) > 2 and words[2] != "none":
        headers["Content-Type"] = quote(words[2], safe="/;= -")
    sent = body.replace(TOKEN, dashboard.token)
    try:
        answer = client.request(
            "GET" if method != "POST" else "POST", path, content=sent, headers=headers
        )
    except (httpx.InvalidURL, UnicodeError):
        return
    assert answer.status_code < 500, f"{answer.status_code}: {answer.text[:300]}"
    assert CANARY not in answer.text
    assert dashboard.state() == before, "the dashboard's state changed"


register(
    Parser(
        name="form",
        writer="whoever is signed in, or their browser's extension",
        entry="coordinator.dashboard.forms",
        promise="an answer below 500; no round or site is made of a damaged form",
        seeds=_forms,
        parse=_ask,
        mutators=(_damage_part, _damage_part, damage_bytes, damage_text),
        n_cases=50,
    )
)
register(
    Parser(
        name="address",
        writer="whoever makes a link that a signed-in user follows",
        entry="coordinator.dashboard.app.make_app",
        promise="an answer below 500, and nothing changes",
        seeds=_addresses,
        parse=_ask,
        mutators=(_damage_address, _damage_address, damage_bytes),
        n_cases=120,
    )
)
