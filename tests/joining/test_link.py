"""The link to the SuperLink: whose task it takes, what counts as an answer, when it is broken."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fedcac.errors import RoundError
from fedcac.exchange.couriering import CourierKey, Sealed

with warnings.catch_warnings():
    # Flower's own imports warn; they are not ours to mend.
    warnings.simplefilter("ignore")
    from coordinator.flower_courier import adapter
    from coordinator.flower_courier.adapter import FlowerLink

# Flower matches paths with what pathspec calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SEALED = Sealed(document=b"order", signature=b"signature")


def fails(call: Any, *arguments: Any) -> RoundError:
    with pytest.raises(RoundError) as caught:
        call(*arguments)
    assert caught.value.code == "round.flower_link"
    return caught.value


class Executor:
    """Gives out tasks of other runs, and at last none."""

    def __init__(self, claims: list[Any]) -> None:
        self.claims = claims
        self.is_closed = False

    def AcquireTask(self, request: Any) -> Any:
        return self.claims.pop(0)

    def close(self) -> None:
        self.is_closed = True


def claim(token: str, run_id: int) -> Any:
    return SimpleNamespace(token=token, task=SimpleNamespace(run_id=run_id))


@pytest.mark.parametrize("is_given", [True, False])
def test_only_the_task_of_its_own_run_is_taken(
    is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = claim("ours", 7) if is_given else claim("", 0)
    executor = Executor([claim("", 0), claim("theirs", 6), last])
    monkeypatch.setattr(
        adapter, "RuntimeHttpClient", SimpleNamespace(from_server_address=lambda *a, **k: executor)
    )
    monkeypatch.setattr(adapter, "_CLAIM_TRIES", 3)
    monkeypatch.setattr(adapter, "_CLAIM_PAUSE_S", 0.0)
    link = FlowerLink.__new__(FlowerLink)
    link._address, link._authority = "127.0.0.1:1", b""
    link._control = SimpleNamespace(StartRun=lambda request: SimpleNamespace(run_id=7))
    if is_given:
        assert link._claim(b"secret") == "ours"
    else:
        assert "gives out no task" in fails(link._claim, b"secret").message
    assert executor.is_closed
    assert not executor.claims


def answer(content: Any) -> Any:
    metadata = SimpleNamespace(reply_to_message_id="ticket", src_node_id=1)
    return SimpleNamespace(content=content, metadata=metadata)


class NoContent:
    """An error in place of an answer: to look at its content is a fault."""

    metadata = SimpleNamespace(reply_to_message_id="ticket")

    @property
    def content(self) -> Any:
        raise ValueError("no content")


def linked(**parts: Any) -> FlowerLink:
    link = FlowerLink.__new__(FlowerLink)
    link.__dict__.update({"_nodes_at": float("-inf"), "_beat_at": float("-inf"), **parts})
    return link


def test_an_answer_is_told_from_an_error_by_what_it_holds() -> None:
    receipt = {"document": b"receipt", "signature": b"signature"}
    whole = answer({"receipt": receipt, "chunks": {"sha256:0": SimpleNamespace(data=b"chunk")}})
    link = linked(_grid=SimpleNamespace(pull_messages=lambda tickets: [whole]))
    found = link.poll(["ticket"])["ticket"]
    assert found.sealed == Sealed(document=b"receipt", signature=b"signature")
    assert found.bodies == {"sha256:0": b"chunk"}
    unsigned = {"receipt": {"document": b""}, "chunks": {}}
    for broken in (NoContent(), answer({}), answer(unsigned), answer(None)):
        link = linked(_grid=SimpleNamespace(pull_messages=lambda tickets, one=broken: [one]))
        assert link.poll(["ticket"])["ticket"].sealed is None


def test_a_site_is_online_by_its_key_and_looked_up_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, gone, other = (CourierKey.generate().public for _ in range(3))
    nodes = [
        SimpleNamespace(public_key=adapter._raw(key.to_text()), node_id=node_id, status=status)
        for key, node_id, status in (
            (here, 5, "online"),
            (gone, 6, "offline"),
            (other, 7, "online"),
        )
    ]
    looks: list[Any] = []

    def looked(request: Any) -> Any:
        looks.append(request)
        return SimpleNamespace(nodes_info=nodes)

    roster = {here.to_text(): "duke", gone.to_text(): "yale"}
    link = linked(_control=SimpleNamespace(ListNodes=looked), _roster=roster)
    assert link.online() == link.online() == {"duke": 5}
    assert len(looks) == 1


def test_a_run_that_was_ended_or_takes_nothing_is_a_broken_link() -> None:
    lost = httpx.ConnectError("down")

    def down(*_: Any) -> Any:
        raise lost

    ended = linked(
        _client=SimpleNamespace(SendTaskHeartbeat=lambda _: SimpleNamespace(success=False)),
        _grid=SimpleNamespace(push_messages=lambda messages: [None]),
    )
    assert "ended the run" in fails(ended.beat).message
    adapter.TaskIdentity.run_id = adapter.TaskIdentity.task_id = 1
    adapter.TaskIdentity.node_id = adapter.SUPERLINK_NODE_ID
    assert "took no message" in fails(ended.send, 5, SEALED, {}).message
    for call, arguments in (
        (linked(_control=SimpleNamespace(ListNodes=down)).online, ()),
        (linked(_grid=SimpleNamespace(push_messages=down)).send, (5, SEALED, {})),
        (linked(_grid=SimpleNamespace(pull_messages=down)).poll, (["ticket"],)),
        (linked(_client=SimpleNamespace(SendTaskHeartbeat=down)).beat, ()),
    ):
        problem = fails(call, *arguments)
        assert "(ConnectError)" in problem.message
        assert problem.__cause__ is lost
