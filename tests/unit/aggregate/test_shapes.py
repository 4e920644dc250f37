"""What arrives from a site and has not the shape that its kind declares is turned away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from fedcac.aggregate import (
    BinnedCounts,
    CrossTable,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
    base,
    parse_aggregate,
)
from fedcac.aggregate.vectors import Layout, aggregate_of, layout_of
from fedcac.errors import GateError

TABLE: dict[str, Any] = {
    "matrix": [[4, 1, 0], [0, 5, 2], [1, 0, 6]],
    "two_by_two": [[4, 1, 1, 13], [6, 1, 2, 10]],
}
SOUND: dict[str, dict[str, Any]] = {
    "table": TABLE,
    "moments": {"n": [4, 5], "mean": [1.0, 2.0], "m2": [0.5, 0.5]},
    "paired": {
        "n": [4],
        **{part: [1.0] for part in ("mean_x", "mean_y", "m2_x", "m2_y", "cross")},
    },
    "bins": {"starts": [[[0, 2], [0]]], "counts": [[[3, 4], [5]]]},
    "life": {
        "edges": [[0, 1, 2]],
        "at_risk": [[9, 6]],
        "events": [[1, 1]],
        "censored": [[2, 5]],
        "n_events": 2,
    },
    "likelihood": {
        "n_events": 3,
        "log_likelihood": -4.5,
        "gradient": [0.1, 0.2],
        "information": [[2.0, 0.0], [0.0, 3.0]],
    },
    "totals": {"values": [[1.0, 2.0], []], "n_events": None},
}
SHAPES = {
    "table": CrossTable,
    "moments": Moments,
    "paired": PairedMoments,
    "bins": BinnedCounts,
    "life": SurvivalTable,
    "likelihood": LikelihoodTerms,
    "totals": Totals,
}


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    """Register one kind of every shape."""

    def kind_of(word: str, shape: Any) -> Any:
        return type(f"Shape_{word}", (shape,), {"kind": f"shape_{word}", "__module__": __name__})

    made = [kind_of(word, shape) for word, shape in SHAPES.items()]
    for aggregate_type in made:
        base.register(aggregate_type)
    yield
    for aggregate_type in made:
        del base._REGISTRY[aggregate_type.kind]


def arrived(word: str, **changed: Any) -> Any:
    document = {"kind": f"shape_{word}", "n_patients": 19, **SOUND[word], **changed}
    return parse_aggregate(document)


@pytest.mark.parametrize("word", SOUND)
def test_a_sound_document_keeps_its_numbers(word: str) -> None:
    document = arrived(word).to_payload()
    told = {name: document[name] for name in SOUND[word]}
    assert told == SOUND[word]


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("table", {"matrix": [[1, 2], [3]]}),
        ("table", {"matrix": [[1]], "two_by_two": []}),
        ("table", {"two_by_two": [[4, 1, 1, 13]]}),
        ("table", {"kept_cut_offs": [0], "collapsed": [[1, 2]]}),
        ("table", {"kept_cut_offs": [1, 0], "collapsed": [[1] * 3] * 3}),
        ("table", {"kept_cut_offs": [2], "collapsed": [[1, 2], [3, 4]]}),
        ("moments", {"mean": [1.0]}),
        ("moments", {"n": [], "mean": [], "m2": []}),
        ("paired", {"cross": [1.0, 2.0]}),
        ("bins", {"starts": [], "counts": []}),
        ("bins", {"counts": [[[3, 4]]]}),
        ("bins", {"starts": [[[1, 2], [0]]]}),
        ("bins", {"starts": [[[0, 0], [0]]]}),
        ("bins", {"counts": [[[3], [5]]]}),
        ("life", {"events": []}),
        ("life", {"edges": [[1, 2, 3]]}),
        ("life", {"edges": [[0]], "at_risk": [[]], "events": [[]], "censored": [[]]}),
        ("life", {"censored": [[2]]}),
        ("likelihood", {"gradient": [0.1]}),
        ("likelihood", {"information": [[2.0], [3.0]]}),
        ("totals", {"values": []}),
        ("totals", {"values": [[1.0], [1.0, 2.0]]}),
        ("totals", {"values": [[float("nan")]]}),
        ("moments", {"n": [-1, 5]}),
        ("moments", {"n_patients": 2**53 + 1}),
    ],
)
def test_another_shape_is_refused(word: str, changed: dict[str, Any]) -> None:
    with pytest.raises(GateError) as caught:
        arrived(word, **changed)
    assert caught.value.code == "gate.malformed_aggregate"


def test_a_merged_table_without_cut_offs_holds_all_patients_in_one_cell() -> None:
    # Nobody sends one, but it is the shape that the text declares, and it stops nothing.
    assert arrived("table", kept_cut_offs=[], collapsed=[[19]]).collapsed == ((19,),)


@pytest.mark.parametrize(
    "payload", [None, [], {}, {"kind": 3}, {"kind": "moments", "evidence": {}}]
)
def test_what_is_no_aggregate_is_refused(payload: Any) -> None:
    with pytest.raises(GateError) as caught:
        parse_aggregate(payload)
    assert caught.value.code == "gate.malformed_aggregate"


def test_merged_bins_cannot_be_added_over_sites() -> None:
    merged_life = arrived("life", edges=[[0, 2]], at_risk=[[9]], events=[[2]], censored=[[7]])
    for merged in (arrived("bins"), merged_life):
        with pytest.raises(GateError) as caught:
            layout_of(merged)
        assert caught.value.code == "gate.not_summable"
        assert "per_site" in str(caught.value.cure)


@pytest.mark.parametrize("n_numbers", [0, 3, 6])
def test_a_sum_of_another_length_is_refused(n_numbers: int) -> None:
    layout = Layout(kind="shape_bins", sizes=((2, 1),))
    assert layout.n_numbers == 4
    assert aggregate_of(layout, [12.0, 3.0, 4.0, 5.0]).n_patients == 12
    with pytest.raises(GateError) as caught:
        aggregate_of(layout, [1.0] * n_numbers)
    assert caught.value.code == "gate.malformed_aggregate"


def test_a_sum_below_nothing_is_refused() -> None:
    layout = Layout(kind="shape_bins", sizes=((2, 1),))
    with pytest.raises(GateError) as caught:
        aggregate_of(layout, [12.0, -3.0, 4.0, 5.0])
    assert caught.value.code == "gate.malformed_aggregate"


def test_a_kind_is_registered_once_and_under_a_name() -> None:
    class Nameless(Moments):
        kind: ClassVar[str] = ""

    class Taken(Moments):
        kind: ClassVar[str] = "shape_moments"

    for aggregate_type in (Nameless, Taken):
        with pytest.raises(ValueError, match="empty or taken"):
            base.register(aggregate_type)
