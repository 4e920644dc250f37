"""Ways to carry something else than numbers through the gate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import ConfigDict, ValidationError

from fedcac.aggregate import Aggregate, Evidence, Moments, base
from fedcac.aggregate.shapes import FlowStage
from fedcac.disclosure import Gate, MemoryLedger, Question, Refusal, load_policy
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

Ask = Callable[..., Question]
PATIENT = "MRN 4711"


@pytest.fixture(params=["research", "open"])
def gate(request: pytest.FixtureRequest) -> Gate:
    return Gate(load_policy(request.param), MemoryLedger())


@pytest.fixture
def enrol() -> Iterator[Callable[[type[Aggregate]], None]]:
    kinds: list[str] = []

    def add(aggregate_type: type[Aggregate]) -> None:
        base.register(aggregate_type)
        kinds.append(aggregate_type.kind)

    yield add
    for kind in kinds:
        del base._REGISTRY[kind]


def _nothing_left(gate: Gate) -> bool:
    return all(entry.payload is None for entry in gate._ledger.entries)


def test_a_declared_field_holds_no_text(make: SimpleNamespace) -> None:
    with pytest.raises(ValidationError):
        type(make.means(50, 50))(n_patients=50, n=(50,), mean=(PATIENT,), m2=(1.0,))
    with pytest.raises(ValidationError):
        type(make.means(50, 50))(n_patients=50, n=(50,), mean=(0.0,), m2=(1.0,), note=PATIENT)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (PATIENT,)},
        {"n_patients": PATIENT},
        {"mean": (0.0, 1.0)},
        {"evidence": SimpleNamespace(note=PATIENT)},
        {"mean": (object(),)},
    ],
)
def test_an_unvalidated_copy_is_looked_through(
    make: SimpleNamespace, ask: Ask, gate: Gate, change: dict[str, Any]
) -> None:
    forged = make.means(50, 50).model_copy(update=change)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(GateError) as caught:
            gate.release(ask(), forged)
    assert PATIENT not in str(caught.value)
    assert all(PATIENT not in str(warning.message) for warning in said)
    assert _nothing_left(gate)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_do_not_leave(
    make: SimpleNamespace, ask: Ask, gate: Gate, number: float
) -> None:
    forged = make.means(50, 50).model_copy(update={"mean": (number,)})
    assert gate.release(ask(), forged) == Refusal(RefusalCode.INTERNAL)
    assert _nothing_left(gate)


def test_what_is_not_registered_does_not_leave(make: SimpleNamespace, ask: Ask, gate: Gate) -> None:
    class Sneaky(type(make.means(50, 50))):  # type: ignore[misc]
        """Bears a registered kind, but is another type."""

        def to_payload(self) -> dict[str, Any]:
            return {"kind": type(self).kind, "note": PATIENT}

    class Unregistered(Moments):
        kind: ClassVar[str] = "unregistered"

    fields = {"n_patients": 50, "n": (50,), "mean": (0.0,), "m2": (1.0,)}
    for stranger in (Sneaky(**fields), Unregistered(**fields), fields, PATIENT, None):
        answer = gate.release(ask(), stranger)  # type: ignore[arg-type]
        assert answer == Refusal(RefusalCode.UNREGISTERED_TYPE)
    assert _nothing_left(gate)


def test_a_registered_type_with_more_fields_than_its_shape_does_not_leave(
    ask: Ask, gate: Gate, enrol: Callable[[type[Aggregate]], None]
) -> None:
    class Annotated(Moments):
        kind: ClassVar[str] = "smuggling_annotated"
        note: str

    class Shapeless(Aggregate):
        kind: ClassVar[str] = "smuggling_shapeless"
        anything: tuple[float, ...]

    enrol(Annotated)
    enrol(Shapeless)
    fields: dict[str, Any] = {"n_patients": 50, "n": (50,), "mean": (0.0,), "m2": (1.0,)}
    for stranger in (
        Annotated(**fields, note=PATIENT),
        Shapeless(n_patients=50, anything=(1.0, 2.0)),
    ):
        assert gate.release(ask(), stranger) == Refusal(RefusalCode.UNREGISTERED_TYPE)
    assert _nothing_left(gate)


def test_a_registered_type_that_lets_extra_fields_in_does_not_leave(
    ask: Ask, gate: Gate, enrol: Callable[[type[Aggregate]], None]
) -> None:
    class Loose(Moments):
        model_config = ConfigDict(extra="allow")
        kind: ClassVar[str] = "smuggling_loose"

    class Overriding(Moments):
        kind: ClassVar[str] = "smuggling_overriding"

        def to_payload(self) -> dict[str, Any]:
            return {**super().to_payload(), "note": PATIENT}

    enrol(Loose)
    enrol(Overriding)
    fields: dict[str, Any] = {"n_patients": 50, "n": (50,), "mean": (0.0,), "m2": (1.0,)}
    with pytest.raises(GateError) as caught:
        gate.release(ask(), Loose(**fields, note=PATIENT))
    assert caught.value.code == "gate.text_or_evidence"
    assert _nothing_left(gate)
    released = gate.release(ask(), Overriding(**fields))
    assert PATIENT not in str(released)


def test_a_flow_counts_no_reason_of_its_own(make: SimpleNamespace, ask: Ask, gate: Gate) -> None:
    flow = make.flow((50, 50, 50, 50, 50))
    forged = flow.model_copy(update={"exclusions": {PATIENT: 10}})
    with pytest.raises(GateError) as caught:
        gate.release(ask(), forged)
    assert PATIENT not in str(caught.value)
    forged = flow.model_copy(update={"stages": {**flow.stages, FlowStage.LISTED: PATIENT}})
    with pytest.raises(GateError):
        gate.release(ask(), forged)
    assert _nothing_left(gate)


def test_evidence_of_another_type_is_no_evidence(
    make: SimpleNamespace, ask: Ask, gate: Gate
) -> None:
    class Richer(Evidence):
        note: str = PATIENT

    forged = make.terms().model_copy(update={"evidence": Richer(n_parameters=2)})
    with pytest.raises(GateError) as caught:
        gate.release(ask(), forged)
    assert caught.value.code == "gate.malformed_evidence"
