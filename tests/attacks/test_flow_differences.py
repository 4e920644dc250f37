"""Subtracting the numbers of a released flow never yields fewer than k patients."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.disclosure import load_policy
from fedcac.disclosure.rules import apply_rule
from fedcac.vocabulary import ExclusionReason, RefusalCode

RESEARCH = load_policy("research")
K = RESEARCH.minimum_cell
COUNTS = st.one_of(st.just(0), st.integers(1, 4), st.integers(5, 30))


@settings(max_examples=300, deadline=None)
@given(
    lost=st.lists(COUNTS, min_size=4, max_size=4),
    coded=st.lists(COUNTS, min_size=0, max_size=5),
    is_coded=st.booleans(),
)
def test_no_difference_of_a_flow_is_small(
    make: SimpleNamespace, lost: list[int], coded: list[int], is_coded: bool
) -> None:
    # Either every loss has its own reason, or the reasons have nothing to do with the losses.
    counts = lost if is_coded else coded
    exclusions = {str(reason): n for reason, n in zip(ExclusionReason, counts, strict=False)}
    stages = tuple(100 + sum(lost[step:]) for step in range(5))
    released = apply_rule(make.flow(stages, **exclusions), RESEARCH)
    assert not isinstance(released, RefusalCode)
    payload = released.to_payload()

    shown_stages = [n for n in payload["stages"].values() if n != "suppressed"]
    assert payload["stages"]["analysed"] == 100
    assert all(abs(a - b) >= K or a == b for a, b in combinations(shown_stages, 2))

    shown = [n for n in payload["exclusions"].values() if n != "suppressed"]
    assert all(n >= K or n == 0 for n in shown)
    n_hidden = len(payload["exclusions"]) - len(shown)
    listed = payload["stages"]["listed"]
    if listed not in ("suppressed", 100):
        remainder = listed - 100 - sum(shown)
        if n_hidden:
            assert n_hidden >= 2
            assert remainder >= K or not is_coded
        else:
            assert remainder == 0 or abs(remainder) >= K
