"""Every shipped protocol that has a generated cohort runs through `fedcac analyze` on it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcac.cli import main
from fedcac.protocol.catalogue import load_shipped, shipped_protocols

Row = dict[str, str]

COHORTS = {
    "eng2021-nongated": "eng2021",
    "eng2021-gated": "eng2021",
    "eng2021-references": "eng2021",
    "hong2025-cxr": "hong2025",
}
N_PATIENTS = {"eng2021": 303, "hong2025": 2800}
# Tests of their own: the demonstration scores DICOM itself, and Miller's protocol is the longest.
ELSEWHERE = {"demo-nongated", "miller2023-ctac"}

ALWAYS = {"findings", "question", "flow", "disclosure", "methods", "provenance"}
SECTIONS = {
    "eng2021-nongated": {"performance", "agreement", "differences", "heterogeneity"},
    "eng2021-gated": {"performance", "agreement", "differences", "heterogeneity"},
    "eng2021-references": {"performance", "agreement", "comparison", "heterogeneity"},
    "hong2025-cxr": {"performance", "agreement", "discrimination", "survival", "heterogeneity"},
}
FIGURES = {
    "eng2021-nongated": {"bland_altman_bland_altman.svg", "confusion_agreement_pooled.svg"},
    "eng2021-gated": {f"bland_altman_bland_altman_{v}.svg" for v in ("lm", "lad", "lcx", "rca")},
    "eng2021-references": {
        "confusion_agreement_gated_pooled.svg",
        "confusion_agreement_nongated_pooled.svg",
    },
    "hong2025-cxr": {
        "calibration_calibration_100.svg",
        "survival_survival_actual.svg",
        "survival_survival_predicted.svg",
    },
}


def test_no_shipped_protocol_is_left_out() -> None:
    assert set(shipped_protocols()) == set(COHORTS) | ELSEWHERE


@pytest.fixture(scope="module")
def tables_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Return a function that gives a cohort's tables, written once."""
    written: dict[str, list[Path]] = {}

    def tables(cohort: str) -> list[Path]:
        if cohort not in written:
            folder = tmp_path_factory.mktemp(cohort) / "tables"
            assert main(["phantom", "tables", cohort, "--out", str(folder)]) == 0
            written[cohort] = sorted(folder.glob("*.csv"))
        return written[cohort]

    return tables


def analyze(protocol: str, tables: list[Path], out: Path) -> int:
    arguments = ["analyze", protocol, "--policy", "open", "--out", str(out)]
    for table in tables:
        arguments += ["--site", f"{table.stem}={table}"]
    return main(arguments)


@pytest.fixture(scope="module")
def results_of(
    tables_of: Callable[[str], list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that gives a protocol's output folder, made once."""
    made: dict[str, Path] = {}

    def results(protocol: str) -> Path:
        if protocol not in made:
            out = tmp_path_factory.mktemp(protocol) / "out"
            assert analyze(protocol, tables_of(COHORTS[protocol]), out) == 0
            made[protocol] = out
        return made[protocol]

    return results


def estimates(folder: Path) -> list[Row]:
    with (folder / "estimates.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def find(rows: list[Row], **wanted: str) -> Row:
    wanted = {"scope": "pooled", "group": "", "term": "", **wanted}
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def number(rows: list[Row], **wanted: str) -> float:
    return float(find(rows, **wanted)["estimate"])


# --- every protocol -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", sorted(COHORTS))
def test_every_row_has_a_number_or_a_stated_reason(
    results_of: Callable[[str], Path], protocol: str
) -> None:
    rows = estimates(results_of(protocol))
    assert {row["analysis"] for row in rows} == {a.id for a in load_shipped(protocol).analyses}
    assert [row for row in rows if row["scope"] == "pooled" and row["status"] != "ok"] == []
    for row in rows:
        if row["scope"] == "meta" and row["status"] != "ok":
            # Three or four sites do not tell two variances and a correlation between them apart.
            assert (row["group"], row["ci_method"]) == ("bivariate", "few_sites"), row
        assert (row["status"] == "ok") == bool(row["estimate"]), row
        if row["ci_low"]:
            assert float(row["ci_low"]) <= float(row["estimate"]) <= float(row["ci_high"]), row
        if row["p_value"]:
            assert 0 <= float(row["p_value"]) <= 1, row
        if row["scope"] == "pooled" and row["term"] == row["group"] == "" and row["n"]:
            assert int(row["n"]) == N_PATIENTS[COHORTS[protocol]], row


@pytest.mark.parametrize("protocol", sorted(COHORTS))
def test_the_report_has_the_sections_of_its_analyses(
    results_of: Callable[[str], Path], protocol: str
) -> None:
    folder = results_of(protocol)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'<h2 id="([a-z-]+)"', page)) == ALWAYS | SECTIONS[protocol]
    assert load_shipped(protocol).title in page
    assert "No disclosure control was applied (open policy)" in page
    assert {path.name for path in (folder / "figures").iterdir()} >= FIGURES[protocol]
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert document["round"]["exchanges"] <= 45
    # A patient's pseudonym or identifier has no place in what is handed on.
    assert "-00001" not in page


# --- Eng 2021 -------------------------------------------------------------------------------------

KAPPAS = {
    "site1": (0.8024, 0.9175),
    "site2": (0.6842, 0.8297),
    "site3": (0.6437, 0.7936),
    "site4": (0.5826, 0.7430),
}


@pytest.mark.parametrize(
    ("protocol", "analysis"),
    [
        ("eng2021-nongated", "agreement"),
        ("eng2021-gated", "agreement"),
        ("eng2021-references", "agreement_gated"),
    ],
)
def test_generated_sites_have_the_published_kappas(
    results_of: Callable[[str], Path], protocol: str, analysis: str
) -> None:
    rows = estimates(results_of(protocol))
    for site, (unweighted, linear) in KAPPAS.items():
        own = {"analysis": analysis, "scope": site}
        assert round(number(rows, measure="kappa_unweighted", **own), 4) == unweighted
        assert round(number(rows, measure="kappa_linear", **own), 4) == linear
    pooled = find(rows, analysis=analysis, measure="kappa_unweighted")
    assert round(float(pooled["estimate"]), 3) == 0.644
    assert round(float(pooled["se"]), 3) == 0.033
    assert round(number(rows, analysis=analysis, measure="kappa_linear"), 3) == 0.795


def test_vessels_add_up_and_scores_correlate(results_of: Callable[[str], Path]) -> None:
    rows = estimates(results_of("eng2021-gated"))
    whole = number(rows, analysis="bland_altman", measure="bias")
    vessels = [
        number(rows, analysis="bland_altman", measure="bias", term=vessel)
        for vessel in ("lm", "lad", "lcx", "rca")
    ]
    # The generated vessel scores sum to the totals, so their mean differences do too.
    assert sum(vessels) == pytest.approx(whole, abs=1e-6)
    for measure in ("pearson_r", "icc", "ccc"):
        found = [row for row in rows if row["measure"] == measure and row["scope"] == "pooled"]
        assert found
        assert all(0.5 < float(row["estimate"]) < 1 for row in found)
    bias = find(rows, analysis="bland_altman", measure="bias")
    low, high = (number(rows, analysis="bland_altman", measure=m) for m in ("loa_low", "loa_high"))
    assert low < float(bias["ci_low"]) < float(bias["ci_high"]) < high


def test_the_reader_of_the_same_scan_agrees_better(results_of: Callable[[str], Path]) -> None:
    rows = estimates(results_of("eng2021-references"))
    for measure in ("kappa_unweighted", "kappa_linear"):
        gated = number(rows, analysis="agreement_gated", measure=measure)
        nongated = number(rows, analysis="agreement_nongated", measure=measure)
        assert gated < nongated < 1
    # Table 4: the reference read on the same scan makes the same model look better.
    for cut_off in ("1", "10", "100", "400"):
        own = {"analysis": "references", "term": cut_off}
        gated = number(rows, measure="f1", group="reference", **own)
        nongated = number(rows, measure="f1", group="second_reference", **own)
        difference = find(rows, measure="f1_difference", **own)
        assert 0.7 < gated < nongated < 1
        assert float(difference["estimate"]) == pytest.approx(gated - nongated, abs=1e-9)
        assert float(difference["ci_high"]) < 0


# --- Hong 2025 ------------------------------------------------------------------------------------

INTEGRATION = {"1": "integration_zero", "100": "integration_100", "400": "integration_400"}


@pytest.mark.parametrize("cut_off", sorted(INTEGRATION))
def test_clinical_factors_add_to_the_radiograph(
    results_of: Callable[[str], Path], cut_off: str
) -> None:
    rows = estimates(results_of("hong2025-cxr"))
    alone = number(rows, analysis="discrimination", measure="auc", term=cut_off)
    assert 0.65 < alone < 0.9
    own = {"analysis": INTEGRATION[cut_off], "term": cut_off}
    image = number(rows, measure="auc", group="image", **own)
    fusion = number(rows, measure="auc", group="fusion", **own)
    # Both rank by the same probability, on two grids.
    bounds = number(rows, analysis="discrimination", measure="auc_error_bound", term=cut_off)
    bounds += number(rows, measure="auc_error_bound", group="image", **own)
    assert abs(image - alone) <= bounds
    assert image < fusion < 0.9
    difference = find(rows, measure="auc_difference", **own)
    assert float(difference["estimate"]) == pytest.approx(fusion - image, abs=1e-9)
    assert float(difference["ci_low"]) > 0
    assert 0.5 < number(rows, analysis="calibration", measure="oe_ratio", term=cut_off) < 2
    assert 0 < number(rows, analysis="calibration", measure="calibration_slope", term=cut_off) < 1


def test_the_radiograph_sees_less_of_the_prognosis_than_the_score(
    results_of: Callable[[str], Path],
) -> None:
    rows = estimates(results_of("hong2025-cxr"))
    indices = {
        model: number(rows, analysis=f"cox_{model}", measure="c_index")
        for model in ("predicted", "actual")
    }
    assert 0.5 < indices["predicted"] < indices["actual"] < 0.75
    ratios = [
        number(rows, analysis="cox_actual", measure="hazard_ratio", term=term)
        for term in ("1-99", "100-399", ">=400")
    ]
    assert 1 < ratios[0] < ratios[1] < ratios[2]
    kappa = number(rows, analysis="agreement", measure="kappa_linear")
    assert 0.2 < kappa < 0.6


# --- a newcomer's mistakes ------------------------------------------------------------------------


def broken(table: Path, folder: Path, edit: Callable[[list[Row]], None]) -> Path:
    """Write a copy of a table with one thing wrong in it."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    edit(rows)
    path = folder / f"{table.stem}-broken.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def without(column: str) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        for row in rows:
            del row[column]

    return edit


def with_cell(column: str, cell: str) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        # The first patient stands on line 2, this one on line 4.
        rows[2][column] = cell

    return edit


MISTAKES: dict[str, tuple[str, str, Callable[[list[Row]], None], str, tuple[str, ...]]] = {
    "a probability column missing": (
        "hong2025-cxr",
        "hong2025",
        without("index_probability_100"),
        "table.missing_column",
        ("index_probability_100", "'discrimination'", "Add the column", "index_probability_400"),
    ),
    "a probability in another unit": (
        "hong2025-cxr",
        "hong2025",
        with_cell("index_probability_100", "1.2"),
        "table.out_of_range",
        ("Line 4", "index_probability_100", "between 0 and 1"),
    ),
    "a category in other words": (
        "hong2025-cxr",
        "hong2025",
        with_cell("index_category", "moderate"),
        "table.unknown_level",
        ("Line 4", "index_category", "0, 1-99, 100-399, >=400", "labels"),
    ),
    "no word on early treatment": (
        "miller2023-ctac",
        "miller2023",
        with_cell("early_revascularisation", ""),
        "table.unknown_eligibility",
        ("Line 4", "early_revascularisation", "Fill in the cell"),
    ),
    "no second reference": (
        "eng2021-references",
        "eng2021",
        without("nongated_reader_score"),
        "table.missing_column",
        ("nongated_reader_score", "'agreement_nongated'", "Add the column"),
    ),
    "vessels, but no total": (
        "eng2021-gated",
        "eng2021",
        without("index_score"),
        "table.missing_column",
        ("'index_score'", "'agreement'", "index_lad"),
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_newcomers_mistake_is_named_with_its_cure(
    tables_of: Callable[[str], list[Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mistake: str,
) -> None:
    protocol, cohort, edit, code, words = MISTAKES[mistake]
    first, *others = tables_of(cohort)
    capsys.readouterr()
    assert analyze(protocol, [broken(first, tmp_path, edit), *others], tmp_path / "out") == 7
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    for word in words:
        assert word in said
    assert "Traceback" not in said
    # Lines and columns, never a patient; and nothing that looks like a result.
    assert f"{first.stem}-0" not in said
    assert not (tmp_path / "out").exists()


def test_a_policy_that_holds_replies_for_review_still_ends_on_one_machine(tmp_path: Path) -> None:
    assert main(["phantom", "tables", "hong2025", "--out", str(tmp_path / "tables")]) == 0
    arguments = ["analyze", "hong2025-cxr", "--policy", "cms", "--out", str(tmp_path / "out")]
    for table in sorted((tmp_path / "tables").glob("*.csv")):
        arguments += ["--site", f"{table.stem}={table}"]
    assert main(arguments) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "cms" in page
