"""The reporting checklist: which items of four guidelines this report fills, and where.

Item numbers are those of STARD 2015 (Bossuyt et al., BMJ 2015;351:h5527), TRIPOD+AI (Collins et
al., BMJ 2024;385:e078378), CLAIM (Mongan et al., Radiol Artif Intell 2020;2:e200029) and PRIME
(Sengupta et al., JACC Cardiovasc Imaging 2020;13:2017). STARD-AI extends STARD 2015; what it adds
about a model stands by topic. The wording of the topics is ours.
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
    """One topic with its numbers in STARD 2015, TRIPOD+AI, CLAIM 2020 and PRIME ('' for none)."""

    topic: str
    stard: str
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
            numbers = (item.stard, item.tripod, item.claim, item.prime)
            rows.append(
                Row(item.topic, (*(number or "-" for number in numbers), item.where(findings)))
            )
    return Table(
        "Reporting checklist. Item numbers of STARD 2015 (extended by STARD-AI), TRIPOD+AI 2024, "
        "CLAIM 2020 and PRIME 2020; what this report does not say is for the manuscript to say.",
        ("Topic", "STARD", "TRIPOD+AI", "CLAIM", "PRIME", "In this report"),
        tuple(rows),
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
            _Item("Title and structured abstract", "1, 2", "1, 2", "1, 2", "", _NOWHERE),
            _Item("Background, intended use", "3", "3a-c", "3", "1.1", _NOWHERE),
            _Item("Objectives", "4", "4", "4, 6", "1.2, 3.1", _says("What was asked")),
            _Item("Prospective or retrospective", "5", "5a", "5", "1.3", _NOWHERE),
            _Item("Eligibility", "6", "6b", "8", "", _says("What was asked; Methods")),
            _Item(
                "How, where and when patients were found",
                "7, 8, 9",
                "5a, 5b, 6a",
                "7, 10",
                "",
                _says("in part: sites are named; settings and dates of exams are not released"),
            ),
            _Item("Sample size", "18", "10", "19", "", _NOWHERE),
        ),
    ),
    (
        "Tests",
        (
            _Item("Index test, model and version", "10a", "12c, 15", "22, 23", "3.2", _index_test),
            _Item(
                "Training data and training of the model",
                "AI",
                "12a, 12b, 16",
                "20, 21, 24-27",
                "4.1, 4.2",
                _NOWHERE,
            ),
            _Item("Explanations of single outputs", "AI", "", "31", "3.6", _NOWHERE),
            _Item("Reference standard", "10b", "8a", "14, 16", "", _says("What was asked")),
            _Item("Tools of annotation", "", "", "17", "", _NOWHERE),
            _Item("Rationale for the reference standard", "11", "8a", "15", "", _NOWHERE),
            _Item(
                "Cut-offs, fixed beforehand",
                "12a, 12b",
                "15",
                "",
                "",
                _says("What was asked (in the signed protocol)"),
            ),
            _Item("Blinding of readers", "13a, 13b", "8b, 9b", "", "", _NOWHERE),
            _Item("Variation between readers", "AI", "8b", "18", "", _readers),
            _Item("Endpoints", "", "8a", "11", "", _endpoints),
            _Item("Interval between the tests", "22", "", "", "", _interval),
        ),
    ),
    (
        "Analysis",
        (
            _Item(
                "Statistical methods, metrics", "14", "12e, 12g", "28, 29", "5.1", _says("Methods")
            ),
            _Item("Failed or indeterminate outputs", "15", "", "", "2.5", _flow),
            _Item(
                "Missing data",
                "16",
                "11",
                "13",
                "2.3",
                _says("in part: Methods; counts where Characteristics has them"),
            ),
            _Item(
                "Preparation of the images", "AI", "7", "9", "2.1, 2.2", _says("in part: Methods")
            ),
            _Item("Subgroups, fairness", "17", "14, 23a", "", "", _subgroups),
            _Item(
                "Differences between sites",
                "AI",
                "12d, 23b",
                "32",
                "7.2",
                _heterogeneity,
            ),
            _Item("Robustness of the results", "", "", "30", "", _left_out),
            _Item("Updating of the model", "", "12f, 24", "", "", _NOWHERE),
            _Item(
                "Privacy, disclosure control",
                "AI",
                "",
                "12",
                "",
                _says("Disclosure; Methods"),
            ),
        ),
    ),
    (
        "Results",
        (
            _Item("Flow of patients", "19", "20a", "33", "", _flow),
            _Item("Characteristics of patients", "20", "20b", "34", "1.4", _characteristics),
            _Item("Distribution of severity", "21a", "", "34", "5.2", _severity),
            _Item("Patients and events per analysis", "", "21", "", "", _events),
            _Item("Cross-tabulation", "23", "", "36", "", _cross_table),
            _Item("Estimates with their precision", "24", "23a", "35, 36", "5.1", _estimates),
            _Item("Calibration", "", "23a", "", "", _calibration),
            _Item("Against simpler or other models", "AI", "", "", "3.4", _second_model),
            _Item("Errors looked at one by one", "AI", "", "37", "5.4", _NOWHERE),
            _Item("Adverse events", "25", "", "", "", _NOWHERE),
        ),
    ),
    (
        "Discussion and openness",
        (
            _Item("Limitations", "26", "26", "38", "7.1", _NOWHERE),
            _Item("Implications for practice", "27", "25, 27a-c", "39", "", _NOWHERE),
            _Item("Registration", "28", "18d", "40", "", _NOWHERE),
            _Item(
                "Protocol",
                "29",
                "18c",
                "41",
                "",
                _says("Provenance (id, version, digest)"),
            ),
            _Item("Software and versions", "AI", "18f", "23", "6.3", _software),
            _Item("Code", "AI", "18f", "41", "6.1", _NOWHERE),
            _Item(
                "Data",
                "AI",
                "18e",
                "41",
                "6.2",
                _says("in part: estimates.csv and the released aggregates; patients' data never"),
            ),
            _Item("Funding, conflicts of interest", "30", "18a, 18b", "42", "", _NOWHERE),
            _Item("Ethics, patient involvement", "AI", "17, 19", "", "", _NOWHERE),
        ),
    ),
)
