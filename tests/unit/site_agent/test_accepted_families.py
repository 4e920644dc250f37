"""A site runs architectures of its own release, and graphs of anybody only if it says so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedcac.disclosure import MemoryLedger, load_policy
from fedcac.errors import PackageError
from fedcac.exchange import Spool
from fedcac.signing import SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

DIGEST = "sha256:" + "0" * 64


def agent_of(*, is_accepting_onnx: bool) -> SiteAgent:
    return SiteAgent(
        identity=SiteIdentity("here", SigningKey.generate(), SigningKey.generate().public),
        spool=Spool.in_memory(),
        store=SiteStore(":memory:"),
        source=TableSource(Path("none.csv")),
        answerer=Answerer(load_policy("open"), MemoryLedger(), b""),
        is_auto_approving=True,
        is_accepting_onnx=is_accepting_onnx,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("family", ["eng2021", "onnx"])
@pytest.mark.parametrize("is_accepting_onnx", [False, True])
def test_onnx_is_opt_in(
    monkeypatch: pytest.MonkeyPatch, family: str, is_accepting_onnx: bool
) -> None:
    package = SimpleNamespace(digest=DIGEST, manifest=SimpleNamespace(family=family))
    monkeypatch.setattr("fedcac.models.package.open_package", lambda *_: package)
    monkeypatch.setattr("fedcac.models.open_package", lambda *_: package, raising=False)
    agent = agent_of(is_accepting_onnx=is_accepting_onnx)
    if family == "onnx" and not is_accepting_onnx:
        with pytest.raises(PackageError) as caught:
            agent._open_package("round-1", DIGEST)
        assert caught.value.code == "package.onnx_not_accepted"
        assert "accept_onnx" in caught.value.cure
    else:
        assert agent._open_package("round-1", DIGEST) is package
