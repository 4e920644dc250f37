"""The whole Miller protocol on generated patients with the published margins, through a round."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fedcac.cli import main

Row = dict[str, str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miller")
    assert main(["phantom", "tables", "miller2023", "--out", str(folder / "tables")]) == 0
    tables = sorted((folder / "tables").glob("*.csv"))
    arguments = ["analyze", "miller2023-ctac", "--policy", "open", "--out", str(folder / "out")]
    for table in tables:
        arguments += ["--site", f"{table.stem}={table}"]
    assert main(arguments) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def estimates(results: Path) -> list[Row]:
    with (results / "estimates.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def find(rows: list[Row], **wanted: str) -> Row:
    wanted = {"scope": "pooled", "group": "", "term": "", **wanted}
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def test_every_pooled_row_has_a_number(estimates: list[Row]) -> None:
    pooled = [row for row in estimates if row["scope"] == "pooled"]
    missing = [row for row in pooled if row["status"] != "ok"]
    # A univariable series has no likelihood ratio; nothing else is missing.
    assert missing == []


def test_figure_3_agreement(estimates: list[Row]) -> None:
    assert round(
        float(find(estimates, analysis="agreement", measure="kappa_linear")["estimate"]), 2
    ) == pytest.approx(0.80)
    counts = [
        [
            float(
                find(estimates, analysis="agreement", measure="count", group=expert, term=model)[
                    "estimate"
                ]
            )
            for model in ("<1", "1-100", "101-400", ">400")
        ]
        for expert in ("<1", "1-100", "101-400", ">400")
    ]
    assert counts == [[766, 175, 18, 3], [127, 376, 39, 6], [13, 40, 265, 44], [2, 5, 32, 360]]


@pytest.mark.parametrize(
    ("term", "published"),
    [
        ("sex=male", (368, 293, 200, 286)),
        ("hypertension", (423, 355, 240, 268)),
        ("diabetes", (136, 146, 111, 140)),
        ("dyslipidemia", (334, 246, 187, 236)),
        ("family_history", (453, 305, 155, 205)),
        ("smoking", (67, 35, 21, 27)),
    ],
)
def test_table_1_counts(estimates: list[Row], term: str, published: tuple[int, ...]) -> None:
    groups = ("<1", "1-100", "101-400", ">400")
    found = tuple(
        float(
            find(estimates, analysis="characteristics", measure="count", group=group, term=term)[
                "estimate"
            ]
        )
        for group in groups
    )
    assert found == published


@pytest.mark.parametrize(
    ("term", "published"),
    [
        ("index_score=<1", (856, 52)),
        ("index_score=1-100", (524, 72)),
        ("index_score=101-400", (273, 81)),
        ("index_score=>400", (298, 115)),
        ("stress_tpd=<1", (555, 36)),
        ("stress_tpd=1-<5", (889, 109)),
        ("stress_tpd=5-<10", (337, 65)),
        ("stress_tpd=>=10", (170, 110)),
        ("sex=male", (946, 201)),
        ("hypertension", (1092, 194)),
        ("diabetes", (432, 101)),
    ],
)
def test_supplemental_table_4_counts(
    estimates: list[Row], term: str, published: tuple[int, int]
) -> None:
    found = tuple(
        float(
            find(
                estimates,
                analysis="characteristics_by_mace",
                measure="count",
                group=group,
                term=term,
            )["estimate"]
        )
        for group in ("no event", "event")
    )
    assert found == published


def test_table_2_hazard_ratios_are_near_their_generating_truth(estimates: list[Row]) -> None:
    for analysis, published in (
        ("cox_unadjusted_model", {"1-100": 2.20, "101-400": 4.58, ">400": 5.92}),
        ("cox_adjusted_model", {"1-100": 1.90, "101-400": 3.32, ">400": 3.58}),
        ("cox_adjusted_expert", {"1-100": 2.20, "101-400": 3.57, ">400": 4.05}),
    ):
        for term, ratio in published.items():
            row = find(estimates, analysis=analysis, measure="hazard_ratio", term=term)
            assert float(row["ci_low"]) < ratio < float(row["ci_high"]), (analysis, term)


def test_added_value_has_intervals(estimates: list[Row]) -> None:
    for model in ("model", "expert", "visual"):
        for measure in ("nri_event", "nri_nonevent", "nri_overall", "auc_difference"):
            row = find(estimates, analysis=f"added_value_{model}", measure=measure)
            assert row["ci_method"] == "jackknife_t"
            assert float(row["ci_low"]) < float(row["estimate"]) < float(row["ci_high"])
        row = find(estimates, analysis=f"added_value_{model}", measure="lr_chi2_increase")
        assert float(row["p_value"]) < 1e-6


def test_the_round_needs_at_most_twenty_exchanges(results: Path) -> None:
    document = json.loads((results / "results.json").read_text(encoding="utf-8"))
    assert document["round"]["exchanges"] <= 20


def test_the_report_has_the_papers_tables_and_figures(results: Path) -> None:
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "368 (40.5%)" in page  # Table 1
    assert "Unadjusted HR (95% CI)" in page
    assert "Adjusted HR (95% CI)" in page  # Table 2
    assert "Increase in AUC" in page  # Supplemental Table 6
    names = {path.name for path in (results / "figures").iterdir()}
    assert {
        "survival_survival_model.svg",
        "survival_survival_expert.svg",
        "survival_survival_visual.svg",
        "nri_reclassification.svg",
    } <= names
