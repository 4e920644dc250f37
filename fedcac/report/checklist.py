"""The reporting checklist: which items of five guidelines this report fills, and where.

Item numbers are those of

- STARD 2015 (Bossuyt et al., BMJ 2015;351:h5527), 30 items;
- STARD-AI (Sounderajah et al., Nat Med 2025;31:3283), 40 items with their own numbers;
- TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), 27 items;
- CLAIM, 2024 update (Tejani et al., Radiol Artif Intell 2024;6:e240300), 44 items, which are
  numbered otherwise than the 42 of 2020;
- PRIME (Sengupta et al., JACC Cardiovasc Imaging 2020;13:2017), Table 1, 7 sections.

PRIME's numbers were compared with the published checklist, those of STARD-AI and TRIPOD+AI with
reproductions of the published tables, those of CLAIM with a summary of its table only. The wording
of the topics is ours; journals want the guidelines' own forms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcac.report.findings import Findings
from fedcac.report.table import Row, Table
from fedcac.vocabulary import RowStatus

__all__ = ["NOT_HERE", "checklist_table"]

NOT_HERE = "not in this report"
"""What a manuscript still has to say itself."""

_ANALYSES = {
    "Performance": ("agreement", "accuracy"),
    "Comparisons": ("comparison",),
    "Discrimination and calibration": (
        "auc",
        "fusion",
        "calibration",
        "survival_calibration",
    ),
    "Score differences": ("bland_altman", "correlation", "distribution", "zero_inflated"),
    "Survival": ("cox", "kaplan_meier"),
    "Added value": ("reclassification",),
}
_SURVIVAL = ("cox", "kaplan_meier", "reclassification", "survival_calibration")
_CALIBRATION = ("calibration", "survival_calibration")

Where = Callable[[Findings], str]


@dataclass(frozen=True)
class _Item:
    """One topic with its numbers in the five guidelines ('' for none)."""

    topic: str
    stard: str
    stard_ai: str
    tripod: str
    claim: str
    prime: str
    where: Where


def checklist_table(findings: Findings) -> Table:
    """Return, per topic, the guidelines' item numbers and where the report fills them.

    A topic that only a person can report, or whose analysis the round does not have, says
    `not in this report`; one that the report fills by half says `in part`.
    """
    rows: list[Row] = []
    for heading, items in _SECTIONS:
        rows.append(Row(heading))
        for item in items:
            numbers = (item.stard, item.stard_ai, item.tripod, item.claim, item.prime)
            rows.append(
                Row(item.topic, (*(number or "-" for number in numbers), item.where(findings)))
            )
    return Table(
        "Reporting checklist: item numbers of five guidelines, and where this report fills them.",
        ("Topic", "STARD", "STARD-AI", "TRIPOD+AI", "CLAIM", "PRIME", "In this report"),
        tuple(rows),
        note="STARD 2015, STARD-AI 2025, TRIPOD+AI 2024, CLAIM (2024 update), PRIME 2020. The "
        "topics are worded by us and the sections named are this report's own; the numbers of "
        "CLAIM were compared with a summary of its table only. What this report does not say is "
        "for the manuscript to say.",
    )


def _says(words: str) -> Where:
    return lambda _: words


_NOWHERE = _says(NOT_HERE)


def _has(findings: Findings, *kinds: str) -> bool:
    """Say whether an analysis of one of the kinds gave at least one number."""
    wanted = {spec.id for kind in kinds for spec in findings.analyses(kind)}
    return any(
        row.analysis in wanted and row.status is RowStatus.OK for row in findings.report.estimates
    )


def _flow(findings: Findings) -> str:
    released = [site for site in findings.report.sites if site.flow is not None]
    if not released:
        return f"{NOT_HERE}: no site released its flow"
    missing = len(findings.report.sites) - len(released)
    return f"in part: Flow ({missing} site(s) released none)" if missing else "Flow"


def _index_test(findings: Findings) -> str:
    if findings.report.package_card is None:
        return "in part: What was asked (already scored tables; no model package ran)"
    return "What was asked; Methods, model package; Provenance"


def _interval(findings: Findings) -> str:
    if findings.protocol.pairing is None:
        return "What was asked (one exam for both)"
    return "in part: What was asked (the longest allowed; intervals are not released)"


def _characteristics(findings: Findings) -> str:
    return "Characteristics" if _has(findings, "descriptives") else NOT_HERE


def _severity(findings: Findings) -> str:
    return "Agreement, margins of the matrices" if _has(findings, "agreement") else NOT_HERE


def _cross_table(findings: Findings) -> str:
    return "Performance, Agreement" if _has(findings, "accuracy", "agreement") else NOT_HERE


def _estimates(findings: Findings) -> str:
    found = [section for section, kinds in _ANALYSES.items() if _has(findings, *kinds)]
    return ", ".join(found) or f"{NOT_HERE}: no analysis gave a number"


def _endpoints(findings: Findings) -> str:
    return "Methods" if findings.protocol.endpoints else f"{NOT_HERE}: the protocol has none"


def _events(findings: Findings) -> str:
    return "Survival" if _has(findings, *_SURVIVAL) else NOT_HERE


def _calibration(findings: Findings) -> str:
    if _has(findings, *_CALIBRATION):
        return "Discrimination and calibration"
    return f"{NOT_HERE}: the protocol has no calibration, or it gave no number"


def _subgroups(findings: Findings) -> str:
    named = sorted(
        {spec.id for spec in findings.protocol.analyses if spec.subgroup is not None}
        & {row.analysis for row in findings.report.estimates if row.status is RowStatus.OK}
    )
    return f"analyses {', '.join(named)}" if named else f"{NOT_HERE}: no subgroup was analysed"


def _heterogeneity(findings: Findings) -> str:
    has_rows = any(
        row.measure.value == "i2" and row.status is RowStatus.OK
        for row in findings.report.estimates
    )
    return "Between sites" if has_rows else f"{NOT_HERE}: too few sites, or sums over sites only"


def _left_out(findings: Findings) -> str:
    has_rows = any(
        row.group.startswith("without ") and row.status is RowStatus.OK
        for row in findings.report.estimates
    )
    return "in part: Between sites (without each site in turn)" if has_rows else NOT_HERE


def _second_model(findings: Findings) -> str:
    has_any = _has(findings, "comparison", "fusion", "reclassification")
    return "Comparisons, Added value, Discrimination" if has_any else NOT_HERE


def _readers(findings: Findings) -> str:
    has_second = any(
        getattr(spec, "compare", "") == "references" for spec in findings.analyses("comparison")
    )
    return "Comparisons" if has_second and _has(findings, "comparison") else NOT_HERE


def _software(findings: Findings) -> str:
    known = all(site.software for site in findings.report.sites)
    return "Provenance" if known else "in part: Provenance (sites that replied)"


_SECTIONS: tuple[tuple[str, tuple[_Item, ...]], ...] = (
    (
        "Question and design",
        (
            _Item("Title and structured abstract", "1, 2", "1, 2", "1, 2", "1, 2", "", _NOWHERE),
            _Item("Background, intended use", "3", "3", "3a-c", "3", "1.1", _NOWHERE),
            _Item("Objectives", "4", "4", "4", "4, 6", "1.2, 1.3, 3.1", _says("What was asked")),
            _Item("Prospective or retrospective", "5", "5", "5a", "5", "", _NOWHERE),
            _Item("Ethics approval", "", "6", "17", "", "", _NOWHERE),
            _Item("Eligibility", "6", "7", "6b", "8", "", _says("What was asked; Methods")),
            _Item(
                "How, where and when patients were found",
                "7, 8, 9",
                "8, 9, 10, 11",
                "5a, 5b, 6a",
                "7, 10",
                "",
                _says("in part: sites are named; settings and dates of exams are not released"),
            ),
            _Item("Treatments received", "", "27", "6c", "", "", _NOWHERE),
            _Item("Sample size", "18", "22", "10", "21", "", _NOWHERE),
        ),
    ),
    (
        "Tests",
        (
            _Item(
                "Index test, model and version",
                "10a",
                "15a",
                "12c, 12g",
                "22, 23, 24",
                "3.2, 3.3",
                _index_test,
            ),
            _Item(
                "Training data and training of the model",
                "",
                "15b",
                "12a, 12b",
                "19, 20, 25-27, 32",
                "1.5, 2.4, 2.6, 3.5, 4.1, 4.2, 5.3",
                _NOWHERE,
            ),
            _Item(
                "Who uses the model, and with which training",
                "",
                "15d",
                "27a, 27b",
                "",
                "",
                _NOWHERE,
            ),
            _Item("Explanations of single outputs", "", "", "", "31", "3.6", _NOWHERE),
            _Item(
                "Acquisition, devices and preparation of the images",
                "",
                "13, 14",
                "7",
                "9, 13",
                "2.1, 2.2",
                _says("in part: Methods"),
            ),
            _Item("Reference standard", "10b", "16a", "8a", "14", "", _says("What was asked")),
            _Item("Rationale for the reference standard", "11", "16b", "8a", "15", "", _NOWHERE),
            _Item("Annotators and their tools", "", "12", "8b, 9c", "16, 17", "", _NOWHERE),
            _Item(
                "Cut-offs, fixed beforehand",
                "12a, 12b",
                "15c, 16c",
                "15",
                "",
                "",
                _says("What was asked (in the signed protocol)"),
            ),
            _Item(
                "Predictors",
                "",
                "",
                "9a, 9b",
                "",
                "6.2",
                _says("in part: Methods (as the protocol declares them)"),
            ),
            _Item("Blinding of readers", "13a, 13b", "17a, 17b", "8c, 9b", "", "", _NOWHERE),
            _Item("Variation between readers", "", "", "8b", "18", "", _readers),
            _Item("Endpoints", "", "", "8a", "", "", _endpoints),
            _Item("Interval between the tests", "22", "27", "", "", "", _interval),
        ),
    ),
    (
        "Analysis",
        (
            _Item(
                "Statistical methods, metrics", "14", "18", "12e", "28, 29", "5.1", _says("Methods")
            ),
            _Item("Failed or indeterminate outputs", "15", "19", "", "", "2.5", _flow),
            _Item(
                "Missing data",
                "16",
                "20",
                "11",
                "12",
                "2.3",
                _says("in part: Methods; counts where Characteristics has them"),
            ),
            _Item("Subgroups, fairness", "17", "21, 23", "14, 23a", "37", "", _subgroups),
            _Item("Differences between sites", "17", "21", "12d, 23b", "33", "7.2", _heterogeneity),
            _Item(
                "Differences from the training data", "", "28, 29", "16, 20c", "33", "7.2", _NOWHERE
            ),
            _Item("Robustness of the results", "", "", "", "30", "", _left_out),
            _Item("Updating of the model", "", "", "12f, 24", "", "", _NOWHERE),
            _Item(
                "Privacy, disclosure control", "", "", "", "11", "", _says("Disclosure; Methods")
            ),
        ),
    ),
    (
        "Results",
        (
            _Item("Flow of patients", "19", "24", "20a", "35", "", _flow),
            _Item("Characteristics of patients", "20", "25", "20b", "36", "1.4", _characteristics),
            _Item("Distribution of severity", "21a", "26a", "", "36", "5.2", _severity),
            _Item("Alternative diagnoses", "21b", "26b", "", "", "", _NOWHERE),
            _Item("Patients and events per analysis", "", "", "21", "", "", _events),
            _Item("Cross-tabulation", "23", "30", "", "39", "", _cross_table),
            _Item("Estimates with their precision", "24", "31", "23a", "37, 38", "5.1", _estimates),
            _Item("Calibration", "", "", "23a", "", "", _calibration),
            _Item("Against simpler or other models", "", "", "12e", "28", "3.4", _second_model),
            _Item("Errors looked at one by one", "", "23", "", "39", "5.4", _NOWHERE),
            _Item("Adverse events", "25", "32", "", "", "", _NOWHERE),
        ),
    ),
    (
        "Discussion and openness",
        (
            _Item("Limitations", "26", "33", "26", "40", "7.1", _NOWHERE),
            _Item("Implications for practice", "27", "34, 35", "25, 27c", "41", "", _NOWHERE),
            _Item("Registration", "28", "36", "18d", "34", "", _NOWHERE),
            _Item(
                "Protocol", "29", "37", "18c", "42", "", _says("Provenance (id, version, digest)")
            ),
            _Item("Software and versions", "", "13", "18f", "23", "6.3", _software),
            _Item("Code", "", "40a", "18f", "43", "6.1", _NOWHERE),
            _Item(
                "Data",
                "",
                "40a",
                "18e",
                "43",
                "6.1",
                _says("in part: estimates.csv and the released aggregates; patients' data never"),
            ),
            _Item(
                "Outputs kept for an audit",
                "",
                "40b",
                "",
                "",
                "",
                _says("Provenance"),
            ),
            _Item("Funding, conflicts of interest", "30", "38, 39", "18a, 18b", "44", "", _NOWHERE),
            _Item("Patient and public involvement", "", "", "19", "", "", _NOWHERE),
        ),
    ),
)
