"""The words in place of a number: by status, by the rule in force and by the code of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedcac.report import RoundReport, estimates_csv, read_estimates
from fedcac.report.findings import Findings
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.statistics.rows import refusal_status
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

SITES = ("Site-1", "Site-2", "Site-3", "Site-4")


def gap(
    build: Callable[..., RoundReport],
    scope: str,
    status: RowStatus,
    codes: dict[str, RefusalCode] | None = None,
) -> str:
    """Return the words for a row of `accuracy` where sites refused it with these codes."""
    sites = [
        replace(site, refusals={"accuracy": code} if (code := (codes or {}).get(site.name)) else {})
        for site in build().sites
    ]
    row = Estimate("accuracy", scope, Measure.SENSITIVITY, term="1", status=status)
    report = build(sites=tuple(sites), estimates=(row,))
    return Findings(report).gap("accuracy", scope, row)


@pytest.mark.parametrize(
    ("scope", "status", "words"),
    [
        ("Site-1", RowStatus.SUPPRESSED, "suppressed (<11)"),
        ("Site-2", RowStatus.SUPPRESSED, "suppressed (<5)"),
        (POOLED, RowStatus.SUPPRESSED, "suppressed (<11)"),
        ("Site-2", RowStatus.NOT_APPLICABLE, "not applicable"),
        ("Site-2", RowStatus.NOT_ESTIMABLE, "not estimable"),
        (POOLED, RowStatus.ERROR, "error (not_converged)"),
    ],
)
def test_a_status_has_its_words(
    build: Callable[..., RoundReport], scope: str, status: RowStatus, words: str
) -> None:
    assert gap(build, scope, status) == words


@pytest.mark.parametrize("code", list(RefusalCode))
def test_a_refusal_is_said_with_its_code(
    build: Callable[..., RoundReport], code: RefusalCode
) -> None:
    status = refusal_status(code)
    words = gap(build, "Site-2", status, {"Site-2": code})
    if code is RefusalCode.TOO_FEW_PATIENTS:
        assert words == "suppressed (<20 patients)"
    elif status is RowStatus.NOT_APPLICABLE:
        assert words == "not applicable"
    else:
        assert words == f"{status.value} ({code.value})"


def test_a_pooled_gap_names_the_codes_only_if_no_site_showed_anything(
    build: Callable[..., RoundReport],
) -> None:
    spent = dict.fromkeys(SITES, RefusalCode.BUDGET_SPENT)
    assert gap(build, POOLED, RowStatus.SUPPRESSED, spent) == "suppressed (budget_spent)"
    two = {**spent, "Site-3": RefusalCode.NESTED_COHORT}
    assert gap(build, POOLED, RowStatus.SUPPRESSED, two) == (
        "suppressed (budget_spent, nested_cohort)"
    )
    some = {name: code for name, code in spent.items() if name != "Site-4"}
    assert gap(build, POOLED, RowStatus.SUPPRESSED, some) == "suppressed (<11)"


def test_a_pooled_error_names_the_sites_codes(build: Callable[..., RoundReport]) -> None:
    codes = {"Site-1": RefusalCode.NO_REPLY, "Site-2": RefusalCode.INTERNAL}
    codes |= {"Site-3": RefusalCode.BUDGET_SPENT}
    assert gap(build, POOLED, RowStatus.ERROR, codes) == "error (internal, no_reply)"


def test_a_number_is_no_gap_although_a_later_step_was_refused(
    build: Callable[..., RoundReport],
) -> None:
    row = Estimate("kappa", "Site-3", Measure.KAPPA_LINEAR, estimate=0.7)
    report = build(estimates=(row,))
    assert report.sites[2].refusals["kappa"] is RefusalCode.TOO_FEW_PER_CATEGORY
    assert Findings(report).gap("kappa", "Site-3", row) == ""


def test_every_status_survives_the_table(tmp_path: Path) -> None:
    rows = tuple(
        Estimate("a", POOLED, Measure.COUNT, estimate=1.0 if status is RowStatus.OK else None,
                 status=status)
        for status in RowStatus
    )  # fmt: skip
    path = tmp_path / "estimates.csv"
    path.write_text(estimates_csv(rows), encoding="utf-8")
    assert read_estimates(path) == rows
