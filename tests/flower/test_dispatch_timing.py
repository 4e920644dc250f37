"""When an order is sent, and what goes with it: the engine writes while the courier looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.flower_courier.dispatch import Answered, Dispatcher
from coordinator.flower_courier.journal import CourierJournal
from fedcac.exchange.couriering import CourierKey, Order, Receipt, Sealed

LEAD, DUKE = CourierKey.generate(), CourierKey.generate()


class Line:
    """A site that answers every order with what it is told to."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.answers: dict[str, Answered] = {}

    def online(self) -> Mapping[str, int]:
        return {"duke": 1}

    def send(self, node: int, sealed: Sealed, bodies: Mapping[str, bytes]) -> str:
        self.orders.append(Order.open(sealed, LEAD.public))
        return str(len(self.orders))

    def poll(self, tickets: Sequence[str]) -> Mapping[str, Answered]:
        return {ticket: self.answers.pop(ticket) for ticket in tickets if ticket in self.answers}

    def receive(self, *delivered: str) -> None:
        receipt = Receipt(
            site="duke",
            serial=self.orders[-1].serial,
            delivered=delivered,
            missing={},
            refused={},
            collected={},
        )
        self.answers[str(len(self.orders))] = Answered(receipt.seal(DUKE), {})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_asked_for_a_moment_later_goes_with_what_is_sent(tmp_path: Path) -> None:
    journal, line, clock = CourierJournal(tmp_path), Line(), Clock()
    dispatcher = Dispatcher(
        journal=journal, link=line, roster={"duke": DUKE.public}, key=LEAD, clock=clock
    )
    journal.add("duke", "r-1.request-0001", b"question")
    assert not dispatcher.turn()
    journal.ask("duke", "r-1.reply-0001")
    clock.now += 1
    # What is asked for is new: the engine may be at work still.
    assert not dispatcher.turn()
    clock.now += 1
    assert dispatcher.turn()
    (order,) = line.orders
    assert [one.name for one in order.deliver] == ["r-1.request-0001"]
    assert list(order.collect) == ["r-1.reply-0001"]


def test_an_order_waits_long_for_a_new_answer_and_shorter_after_it_did_not_come(
    tmp_path: Path,
) -> None:
    journal, line, clock = CourierJournal(tmp_path), Line(), Clock()
    dispatcher = Dispatcher(
        journal=journal, link=line, roster={"duke": DUKE.public}, key=LEAD, clock=clock
    )
    journal.ask("duke", "r-1.reply-0001")
    for _ in range(3):
        for _ in range(2):
            dispatcher.turn()
            clock.now += 40
        line.receive()
    first, *later = [order.wait_s for order in line.orders]
    assert later
    assert all(wait_s < first for wait_s in later)
