"""Every analysis kind has a card in the documentation, and the card names what the code has."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fedcac.aggregate.shapes import FlowCounts
from fedcac.protocol import AnalysisSpec
from fedcac.statistics import newton, refit, registered_estimators, zip_regression
from fedcac.vocabulary import Measure

CARDS = Path(__file__).parents[2] / "docs" / "reference" / "estimators"
KINDS = sorted(registered_estimators())
HEADINGS = [
    "Estimand",
    "Formula",
    "Options",
    "Exchanges",
    "What leaves a site",
    "Guards",
    "Known attacks",
    "Rows in estimates.csv",
    "Missing data",
    "Validation",
    "References",
]
SPECS: dict[str, type[BaseModel]] = {
    get_args(spec.model_fields["kind"].annotation)[0]: spec
    for spec in get_args(get_args(AnalysisSpec)[0])
}
NEWTON = ("newton", newton.MAXIMUM_EXCHANGES)
REFIT = ("refit", refit.MAXIMUM_EXCHANGES)
REPEATED = [
    ("calibration", *NEWTON),
    ("cox", *NEWTON),
    ("fusion", *NEWTON),
    ("fusion", *REFIT),
    ("reclassification", *REFIT),
    ("survival_calibration", *NEWTON),
    ("zero_inflated", "newton", zip_regression.MAXIMUM_EXCHANGES),
]
FIELDS = [
    (kind, name)
    for kind in KINDS
    for name in SPECS[kind].model_fields
    if name not in ("id", "kind")
]


def text_of(kind: str) -> str:
    return (CARDS / f"{kind}.md").read_text(encoding="utf-8")


def sections(kind: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text_of(kind), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def option_rows(kind: str) -> dict[str, str]:
    """Return the default written beside every option of a card."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", sections(kind)["Options"], re.MULTILINE)
    return dict(rows)


def rows_of_estimates(kind: str) -> list[list[str]]:
    """Return the cells of every row of the table of measures, without its head."""
    lines = re.findall(r"^\| (.+) \|$", sections(kind)["Rows in estimates.csv"], re.MULTILINE)
    return [re.split(r" ?\| ?", line) for line in lines[1:]]


def index_row(kind: str) -> list[str]:
    """Return the cells of a kind's row in the table of the index."""
    found = re.search(rf"^\| \[{kind}\].+$", text_of("index"), re.MULTILINE)
    assert found is not None
    return found.group().strip("| ").split(" | ")


def written(default: Any) -> str:
    """Return a default as a protocol's YAML has it."""
    if default is PydanticUndefined:
        return "required"
    return f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_plain(item) for item in value)}]"
    if isinstance(value, Enum):
        return str(value.value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_kind_has_a_card_and_every_card_a_kind() -> None:
    assert {path.stem for path in CARDS.glob("*.md")} == {*KINDS, "index"}
    assert set(SPECS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_has_its_headings_in_order(kind: str) -> None:
    assert list(sections(kind)) == HEADINGS
    assert text_of(kind).startswith(f"# `{kind}`\n")
    assert all(body.strip() for body in sections(kind).values())


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_option_is_on_the_card_with_its_default(kind: str, name: str) -> None:
    assert option_rows(kind)[name] == written(SPECS[kind].model_fields[name].default)


@pytest.mark.parametrize("kind", KINDS)
def test_no_card_has_an_option_that_does_not_exist(kind: str) -> None:
    assert set(option_rows(kind)) == {name for own, name in FIELDS if own == kind}


@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_names_every_aggregate_and_its_fields(kind: str) -> None:
    leaves = sections(kind)["What leaves a site"]
    for aggregate in registered_estimators()[kind].aggregate_types:
        assert aggregate is not FlowCounts
        for name in (aggregate.kind, *aggregate.model_fields):
            assert name == "evidence" or f"`{name}`" in leaves, name


@pytest.mark.parametrize(("kind", "step", "most"), REPEATED)
def test_the_most_exchanges_are_those_of_the_code(kind: str, step: str, most: int) -> None:
    exchanges = " ".join(sections(kind)["Exchanges"].split())
    assert re.search(rf"`{step}`[^;.]* at most {most} times", exchanges)
    assert re.search(rf"\b{most}\b", index_row(kind)[3])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_once_is_said_to_be(kind: str) -> None:
    once = any(one.is_given_once for one in registered_estimators()[kind].aggregate_types)
    assert ("A site answers one query" in sections(kind)["Exchanges"]) == once


@pytest.mark.parametrize("kind", KINDS)
def test_rows_name_measures_and_the_index_their_scopes(kind: str) -> None:
    rows = rows_of_estimates(kind)
    measures = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert measures
    assert measures <= {measure.value for measure in Measure}
    numbered = {scope for row in rows if "no number" not in " ".join(row) for scope in [row[1]]}
    scopes = {part for scope in numbered for part in scope.split(", ")}
    assert scopes == set(index_row(kind)[4].split(", "))


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_links_every_card(kind: str) -> None:
    assert f"[{kind}]({kind}.md)" in (CARDS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*KINDS, "index"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        found = CARDS / path if path else CARDS / f"{page}.md"
        assert found.is_file(), target
        if anchor:
            lines = found.read_text(encoding="utf-8").splitlines()
            titles = [line.lstrip("# ") for line in lines if line.startswith("#")]
            assert anchor in {_anchor(title) for title in titles}, target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("kind", KINDS)
def test_tests_that_a_card_refers_to_exist(kind: str) -> None:
    root = CARDS.parents[2]
    for path in re.findall(r"`(tests/[\w/]+\.(?:py|R))`", text_of(kind)):
        assert (root / path).is_file(), path
