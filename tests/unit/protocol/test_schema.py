"""What a protocol answers about its own parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plans import BASE, FULL, plan

from fedcac.protocol import Protocol

PLAN = plan([BASE, FULL])


@pytest.mark.parametrize(
    ("look_up", "names"),
    [
        (PLAN.covariate, [one.name for one in PLAN.covariates]),
        (PLAN.endpoint, [one.name for one in PLAN.endpoints]),
        (PLAN.subgroup, [one.name for one in PLAN.subgroups]),
        (PLAN.analysis, [one.id for one in PLAN.analyses]),
    ],
)
def test_every_part_is_found_by_its_name_and_no_other(
    look_up: Callable[[str], Any], names: list[str]
) -> None:
    for name in names:
        found = look_up(name)
        assert name == getattr(found, "name", getattr(found, "id", None))
    for absent in ("absent", "", names[0].upper()):
        with pytest.raises(KeyError, match=repr(absent)):
            look_up(absent)


def test_the_columns_of_scores_are_those_declared() -> None:
    roles = ("index", "reference", "comparator", "second_reference")
    assert [PLAN.score_column(role) for role in roles] == [
        "index_score",
        "reference_score",
        "visual_score",
        "other_reader",
    ]
    with pytest.raises(KeyError, match="absent"):
        PLAN.score_column("absent")
    alone: Protocol = plan([BASE], comparator=None, second_reference=None)
    for role in roles[2:]:
        with pytest.raises(KeyError, match=role):
            alone.score_column(role)


def test_cut_offs_are_those_named_in_the_order_of_the_categories() -> None:
    assert PLAN.chosen_cut_offs(()) == (1, 10, 100, 400)
    assert PLAN.chosen_cut_offs((400, 10)) == (10, 400)
