"""The reporting checklist says what the report holds, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedcac.report import RoundReport
from fedcac.report.checklist import NOT_HERE, checklist_table
from fedcac.report.findings import Findings
from fedcac.report.page import render_page
from fedcac.vocabulary import RowStatus

GUIDELINES = {"STARD": 30, "STARD-AI": 40, "TRIPOD+AI": 27, "CLAIM": 44}
# Of the development of a model alone: class imbalance, and the model's full specification.
NOT_OF_A_VALIDATION = {"TRIPOD+AI": {13, 22}}
PRIME = {1: 5, 2: 6, 3: 6, 4: 2, 5: 4, 6: 3, 7: 2}
"""Sections of PRIME (Miller 2023, Supplemental Table 2) and how many items each has."""


def answers(report: RoundReport) -> dict[str, str]:
    return {row.head: row.cells[-1] for row in checklist_table(Findings(report)).rows if row.cells}


def mentioned(report: RoundReport, guideline: str) -> set[int]:
    table = checklist_table(Findings(report))
    column = table.columns.index(guideline) - 1
    found: set[int] = set()
    for row in table.rows:
        for part in row.cells[column].split(", ") if row.cells else ():
            numbers = [int(number) for number in re.findall(r"\d+", part)]
            found |= set(range(numbers[0], numbers[-1] + 1)) if numbers else set()
    return found


@pytest.mark.parametrize("guideline", list(GUIDELINES))
def test_every_item_of_a_guideline_has_its_line(report: RoundReport, guideline: str) -> None:
    every = set(range(1, GUIDELINES[guideline] + 1))
    assert mentioned(report, guideline) == every - NOT_OF_A_VALIDATION.get(guideline, set())


def test_every_item_of_prime_has_its_line(report: RoundReport) -> None:
    table = checklist_table(Findings(report))
    column = table.columns.index("PRIME") - 1
    found = {part for row in table.rows if row.cells for part in row.cells[column].split(", ")} - {
        "-"
    }
    assert found == {
        f"{section}.{item}" for section, n in PRIME.items() for item in range(1, n + 1)
    }


def test_what_only_authors_know_is_not_claimed(report: RoundReport) -> None:
    told = answers(report)
    for topic in ("Limitations", "Registration", "Blinding of readers", "Sample size", "Code"):
        assert told[topic] == NOT_HERE


def test_sections_named_are_in_the_page(report: RoundReport) -> None:
    findings = Findings(report)
    page = render_page(findings, (), {})
    contents = set(re.findall(r'<li><a href="#[a-z-]+">([^<]+)</a>', page))
    contents |= {"Discrimination and calibration", "Added value"}
    for topic, words in answers(report).items():
        if words.startswith((NOT_HERE, "in part", "analyses")):
            continue
        for section in re.split(r"[,;] ", re.sub(r" \(.*\)", "", words)):
            known = section in contents or section in {"margins of the matrices", "model package"}
            assert known, (topic, section)


def test_a_round_that_gave_nothing_claims_nothing(build: Callable[..., RoundReport]) -> None:
    empty = tuple(
        replace(
            row,
            estimate=None,
            se=None,
            ci_low=None,
            ci_high=None,
            p_value=None,
            status=RowStatus.SUPPRESSED,
        )
        for row in build().estimates
    )
    sites = tuple(replace(site, flow=None) for site in build().sites)
    told = answers(build(estimates=empty, sites=sites, package_card=None))
    for topic in (
        "Flow of patients",
        "Estimates with their precision",
        "Cross-tabulation",
        "Calibration",
        "Differences between sites",
        "Characteristics of patients",
    ):
        assert told[topic].startswith(NOT_HERE), topic
    assert told["Index test, model and version"].startswith("in part")


def test_a_missing_flow_is_said(report: RoundReport) -> None:
    assert answers(report)["Flow of patients"] == "in part: Flow (1 site(s) released none)"
    assert answers(report)["Estimates with their precision"].startswith("Performance")
