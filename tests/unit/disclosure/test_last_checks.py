"""The checks just before an answer leaves: words in it, and intervals that it confines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcac.aggregate import FlowCounts
from fedcac.disclosure.audit import Facts, Possible, is_any_exposed, is_any_narrowed
from fedcac.disclosure.payloads import holds_text
from fedcac.statistics.agreement import ConfusionCounts

TABLE = ConfusionCounts(n_patients=100, matrix=((40, 10), (10, 40)), two_by_two=((40, 10, 10, 40),))


@pytest.mark.parametrize("name", ["n_patients", "matrix", "two_by_two", "collapsed"])
def test_a_word_in_a_single_field_is_found(name: str) -> None:
    payload = TABLE.model_dump(mode="json", exclude={"evidence"}) | {"kind": TABLE.kind}
    assert not holds_text(payload, TABLE)
    assert not holds_text({**payload, "matrix": [["suppressed", 10], [10, 40]]}, TABLE)
    assert holds_text({**payload, name: [["Doe, Jane"]]}, TABLE)


@pytest.mark.parametrize(
    ("value", "is_word"),
    [
        (7, False),
        (0.5, False),
        (None, False),
        ("suppressed", False),
        ("Doe", True),
        (True, True),
        (False, True),
        (b"7", True),
        ([1, [2, None]], False),
        ([1, [2, "Doe"]], True),
        ({"listed": 7}, False),
        ({"listed": "Doe"}, True),
        ({"Doe": 7}, True),
        ({"Doe": 7, "listed": 7}, True),
        ({"Doe": None}, True),
        ({"listed": 7, "eligible": "Doe"}, True),
    ],
)
def test_what_is_no_number_is_a_word(value: Any, is_word: bool) -> None:
    fields = dict.fromkeys(FlowCounts.model_fields.keys() - {"evidence"}, 0)
    flow = FlowCounts.model_construct()
    assert not holds_text({**fields, "kind": "flow"}, flow)
    assert holds_text({**fields, "kind": "flow", "stages": value}, flow) is is_word
    # A field that the type does not have, or one too few.
    assert holds_text({**fields, "kind": "flow", "other": 0}, flow)
    assert holds_text(fields, flow)


def test_no_category_holds_fewer_than_nobody() -> None:
    # Of two cells together 4 patients, or 5: either cell has 0 to 4, or 0 to 5.
    facts = np.array([[True, True, False], [False, False, True]])
    cell = np.array([[True, False, False]])
    assert is_any_exposed(np.array([2, 2, 30]), facts, cell, 5, zero=True)
    assert not is_any_exposed(np.array([2, 3, 30]), facts, cell, 5, zero=True)


def test_nobody_or_one_patient_is_few_even_where_zeros_are_shown() -> None:
    before = Facts(np.array([[1, 1, 1]]), np.array([20]))
    cell = np.array([[True, False, False]])
    for together, zero, is_told in ((1, False, True), (1, True, True), (0, False, False)):
        after = before.joined(np.array([[True, True, False]]), np.array([together]))
        possible = (Possible(known, 20, 10) for known in (before, after))
        assert is_any_narrowed(*possible, cell, None, 5, zero=zero) is is_told
