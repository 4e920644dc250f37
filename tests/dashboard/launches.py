"""Rounds launched as a lead does it in a browser: choose, look at the preview, confirm."""

from __future__ import annotations

import html
import re
from typing import Any

from dashboard.consortium import Consortium, Visitor

__all__ = ["HOSTILE", "SITES", "confirmed", "launched", "preview", "signed_in"]

SITES = ("north", "east", "south")
HOSTILE = "<script>alert('x')</script> \"onload=alert(1)"


def signed_in(made: Consortium, name: str) -> Visitor:
    visitor = Visitor(made)
    assert visitor.sign_in(name).status_code == 303
    return visitor


def preview(lead: Visitor, **fields: Any) -> Any:
    chosen = {"source": "shipped", "shipped": "eng2021-nongated", "site": list(SITES), **fields}
    files = chosen.pop("files", None)
    extra = {} if files is None else {"files": files}
    return lead.post("/launch/preview", chosen, page="/launch", **extra)


def confirmed(lead: Visitor, page: Any) -> dict[str, Any]:
    assert page.status_code == 200, page.text
    form = page.text[page.text.index('action="/launch"') :]
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form):
        fields.setdefault(name, []).append(html.unescape(value))
    return {name: found if name == "site" else found[0] for name, found in fields.items()}


def launched(lead: Visitor, **fields: Any) -> str:
    answer = lead.post("/launch", confirmed(lead, preview(lead, **fields)))
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).removeprefix("/rounds/")
