"""Rounds made of synthetic estimates; the matrices are those of Eng 2021."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from math import exp, sqrt
from typing import Any

import pytest

from fedcac.aggregate import FlowCounts, FlowStage
from fedcac.exchange.messages import PolicySummary
from fedcac.protocol import Protocol
from fedcac.report import PackageCard, RoundReport, SiteSummary
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import CellStatus, ExclusionReason, Measure, RefusalCode, RowStatus

LABELS = ("0", "1-10", "11-100", "101-400", ">400")
MERGED = ("0-100", ">100")
CUT_OFFS = ("1", "10", "100", "400")
MATRICES = {
    "Site-1": [[4, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 3, 0, 0], [0, 0, 1, 2, 1], [0, 0, 0, 0, 10]],  # noqa: E501
    "Site-2": [[20, 1, 1, 0, 0], [2, 0, 2, 0, 0], [2, 0, 12, 2, 1], [0, 0, 3, 10, 3], [0, 0, 0, 1, 15]],  # noqa: E501
    "Site-3": [[22, 3, 2, 1, 0], [1, 1, 2, 0, 0], [2, 1, 8, 2, 0], [0, 0, 3, 10, 1], [0, 0, 0, 1, 11]],  # noqa: E501
    "Site-4": [[47, 1, 3, 1, 0], [7, 2, 2, 0, 0], [5, 0, 13, 4, 0], [3, 0, 9, 17, 3], [0, 0, 1, 2, 15]],  # noqa: E501
}  # fmt: skip
SUPPRESSED_ACCURACY = {("Site-1", "1"), ("Site-1", "400"), ("Site-4", "400")}

Counts = list[list[int]]


def make_protocol(**changes: Any) -> Protocol:
    document: dict[str, Any] = {
        "schema_version": 1,
        "id": "eng-2021-external",
        "version": 2,
        "title": "Automated coronary calcium scoring on non-gated chest CT against gated CT",
        "purpose": "Measure agreement of an automated Agatston score on routine chest CT with the "
        "score that a reader gave on a gated exam of the same patient.",
        "citation": {
            "text": "Eng D et al. Automated coronary calcium scoring using deep learning with "
            "multicenter external validation. npj Digital Medicine 2021;4:88.",
            "doi": "10.1038/s41746-021-00460-1",
        },
        "modality": "non_gated_ct",
        "index_test": {"kind": "agatston_score", "model_family": "eng2021"},
        "reference": {"kind": "gated_ct_reader", "modality": "gated_ct"},
        "pairing": {"window_days": 365},
        "inclusion": ["Adults with both exams."],
        "exclusion": ["Coronary stent or bypass graft."],
        "categories": {
            "cut_offs": [1.0, 10.0, 100.0, 400.0],
            "convention": "upper_inclusive",
            "labels": list(LABELS),
        },
        "covariates": [
            {
                "name": "age",
                "type": "continuous",
                "description": "Age",
                "unit": "years",
                "scale": 10.0,
            },
            {
                "name": "smoking",
                "type": "categorical",
                "description": "Smoking",
                "levels": ["never", "former", "current"],
            },
        ],
        "endpoints": [{"name": "mace", "definition": "Death, MI or revascularisation."}],
        "analyses": [
            {"id": "kappa", "kind": "agreement"},
            {"id": "accuracy", "kind": "accuracy"},
            {"id": "difference", "kind": "bland_altman", "per_vessel": True},
            {
                "id": "outcome",
                "kind": "cox",
                "endpoint": "mace",
                "covariates": ["age", "smoking"],
                "risk_category": "index",
            },
        ],
        **changes,
    }
    return Protocol.model_validate_json(json.dumps(document))


def make_policy(profile: str = "research", minimum_cell: int = 5) -> PolicySummary:
    return PolicySummary(
        profile=profile,
        minimum_cell=minimum_cell,
        minimum_patients=20,
        digest="sha256:" + "ab" * 32,
    )


def make_flow(n: int) -> FlowCounts:
    stages = (n + 41, n + 23, n + 9, n + 7, n)
    return FlowCounts(
        n_patients=n,
        stages=dict(zip(FlowStage, stages, strict=True)),
        exclusions={
            ExclusionReason.SLICE_TOO_THICK: 12,
            ExclusionReason.CONTRAST_ENHANCED: 6,
            ExclusionReason.OUTSIDE_PAIRING_WINDOW: 14,
            ExclusionReason.INFERENCE_FAILED: CellStatus.SUPPRESSED,
        },
    )


def merge(matrix: Counts) -> Counts:
    return [
        [sum(map(sum, (row[:3] for row in matrix[:3]))), sum(sum(row[3:]) for row in matrix[:3])],
        [sum(sum(row[:3]) for row in matrix[3:]), sum(sum(row[3:]) for row in matrix[3:])],
    ]


def add(matrices: list[Counts]) -> Counts:
    size = range(len(matrices[0]))
    return [[sum(m[i][j] for m in matrices) for j in size] for i in size]


def count_rows(scope: str, labels: tuple[str, ...], matrix: Counts | None) -> Iterator[Estimate]:
    for i, group in enumerate(labels):
        for j, term in enumerate(labels):
            value = None if matrix is None else float(matrix[i][j])
            status = RowStatus.SUPPRESSED if matrix is None else RowStatus.OK
            yield Estimate(
                "kappa", scope, Measure.COUNT, group, term, estimate=value, status=status
            )


def kappa_rows(scope: str, matrix: Counts | None, term: str = "") -> Iterator[Estimate]:
    for shift, weights in enumerate(("unweighted", "linear", "quadratic")):
        measure = Measure(f"kappa_{weights}")
        if matrix is None:
            yield Estimate("kappa", scope, measure, term=term, status=RowStatus.SUPPRESSED)
            continue
        n = sum(map(sum, matrix))
        observed = sum(matrix[i][i] for i in range(len(matrix))) / n
        value = observed - 0.12 + 0.06 * shift
        half = 0.9 / sqrt(n)
        yield Estimate(
            "kappa", scope, measure, term=term, estimate=value, se=half / 1.96,
            ci_low=value - half, ci_high=min(1.0, value + half), ci_method="fleiss_cohen_everitt",
            p_value=1e-9, n=n,
        )  # fmt: skip


def proportion(scope: str, measure: Measure, cut_off: str, hits: int, n: int) -> Estimate:
    if n == 0:
        return Estimate("accuracy", scope, measure, term=cut_off, status=RowStatus.NOT_ESTIMABLE)
    p = hits / n
    half = 1.96 * sqrt((p * (1 - p) + 0.02) / n)
    return Estimate(
        "accuracy", scope, measure, term=cut_off, estimate=p, ci_low=max(0.0, p - half),
        ci_high=min(1.0, p + half), ci_method="wilson", n=n,
    )  # fmt: skip


def accuracy_rows(scope: str, cut_off: str, matrix: Counts, hidden: bool) -> Iterator[Estimate]:
    k = CUT_OFFS.index(cut_off) + 1
    tp = sum(sum(row[k:]) for row in matrix[k:])
    fn = sum(sum(row[:k]) for row in matrix[k:])
    fp = sum(sum(row[k:]) for row in matrix[:k])
    tn = sum(sum(row[:k]) for row in matrix[:k])
    for cell, count in (("tp", tp), ("fn", fn), ("fp", fp), ("tn", tn)):
        yield Estimate(
            "accuracy", scope, Measure.COUNT, cell, cut_off,
            estimate=None if hidden else float(count),
            status=RowStatus.SUPPRESSED if hidden else RowStatus.OK,
        )  # fmt: skip
    for measure, hits, n in (
        (Measure.SENSITIVITY, tp, tp + fn),
        (Measure.SPECIFICITY, tn, tn + fp),
        (Measure.PPV, tp, tp + fp),
        (Measure.NPV, tn, tn + fn),
        (Measure.F1, 2 * tp, 2 * tp + fp + fn),
    ):
        if hidden:
            yield Estimate("accuracy", scope, measure, term=cut_off, status=RowStatus.SUPPRESSED)
        else:
            yield proportion(scope, measure, cut_off, hits, n)


def difference_rows(scope: str, n: int | None, bias: float, term: str = "") -> Iterator[Estimate]:
    for measure, value, half in (
        (Measure.BIAS, bias, 40.0),
        (Measure.LOA_LOW, bias - 210, 70.0),
        (Measure.LOA_HIGH, bias + 210, 70.0),
    ):
        if n is None:
            yield Estimate("difference", scope, measure, term=term, status=RowStatus.SUPPRESSED)
            continue
        width = half * sqrt(30 / n)
        yield Estimate(
            "difference", scope, measure, term=term, estimate=value, ci_low=value - width,
            ci_high=value + width, ci_method="normal", n=n,
        )  # fmt: skip


def cox_rows() -> Iterator[Estimate]:
    for term, beta, se in (
        ("age", 0.31, 0.06),
        ("smoking=former", 0.12, 0.14),
        ("smoking=current", 0.45, 0.16),
        ("1-10", 0.33, 0.31),
        ("11-100", 0.79, 0.21),
        ("101-400", 1.52, 0.2),
        (">400", 1.78, 0.19),
    ):
        for measure, value in ((Measure.LOG_HAZARD_RATIO, beta), (Measure.HAZARD_RATIO, exp(beta))):
            is_log = measure is Measure.LOG_HAZARD_RATIO
            ends = (beta - 1.96 * se, beta + 1.96 * se)
            low, high = ends if is_log else (exp(ends[0]), exp(ends[1]))
            yield Estimate(
                "outcome", "pooled", measure, term=term, estimate=value, ci_low=low, ci_high=high,
                se=se if is_log else None, ci_method="wald", p_value=0.0004 if beta > 0.5 else 0.21,
                n=2271, n_events=320,
            )  # fmt: skip
    yield Estimate(
        "outcome", "pooled", Measure.LR_CHI2, estimate=182.4, p_value=1e-30, n=2271, n_events=320
    )


def heterogeneity_rows() -> Iterator[Estimate]:
    for cut_off in CUT_OFFS:
        for measure in ("sensitivity", "specificity"):
            yield Estimate(
                "accuracy", "meta", Measure.I2, measure, cut_off, estimate=0.23, p_value=0.2, n=210
            )
            yield Estimate("accuracy", "meta", Measure.TAU2, measure, cut_off, estimate=0.041)


def make_estimates(n_sites: int) -> tuple[Estimate, ...]:
    names = list(MATRICES)
    sites = {f"Site-{i + 1}": MATRICES[names[i % 4]] for i in range(n_sites)}
    rows: list[Estimate] = []
    full = {s: None if s in {"Site-1", "Site-3"} else m for s, m in sites.items()}
    for scope, matrix in {**full, "pooled": add([m for m in full.values() if m])}.items():
        rows.extend(count_rows(scope, LABELS, matrix))
        rows.extend(kappa_rows(scope, matrix))
    rows.append(Estimate("kappa", "meta", Measure.KAPPA_LINEAR, status=RowStatus.NOT_ESTIMABLE))
    merged = {s: None if s == "Site-3" else merge(m) for s, m in sites.items()}
    for scope, matrix in {**merged, "pooled": add([m for m in merged.values() if m])}.items():
        rows.extend(count_rows(scope, MERGED, matrix))
        rows.extend(kappa_rows(scope, matrix, " | ".join(MERGED)))
    for cut_off in CUT_OFFS:
        shown = []
        for site, matrix in sites.items():
            hidden = (site, cut_off) in SUPPRESSED_ACCURACY
            rows.extend(accuracy_rows(site, cut_off, matrix, hidden))
            if not hidden:
                shown.append(matrix)
        rows.extend(accuracy_rows("pooled", cut_off, add(shown), False))
    for term in ("", "lm", "lad"):
        for number, (site, matrix) in enumerate(sites.items()):
            n = None if (site, term) == ("Site-1", "lm") else sum(map(sum, matrix))
            rows.extend(difference_rows(site, n, -18.0 + 9 * (number % 5), term))
        rows.extend(difference_rows("pooled", 280, -6.4, term))
    return (*rows, *heterogeneity_rows(), *cox_rows())


def make_report(n_sites: int = 4, **changes: Any) -> RoundReport:
    sizes = [sum(map(sum, matrix)) for matrix in MATRICES.values()]
    sites = [
        SiteSummary(
            name=f"Site-{i + 1}",
            flow=None if i == 2 else make_flow(sizes[i % 4]),
            policy=make_policy("cms", 11) if i == 0 else make_policy(),
            refusals={
                "kappa": RefusalCode.TOO_FEW_PER_CATEGORY,
                "outcome": RefusalCode.TOO_FEW_EVENTS,
            }
            if i == 2
            else {},
            n_releases=9,
            bytes_left=4311 + 5000 * i,
            ledger_head="sha256:" + f"{i % 10}c" * 32,
            software="0.1.0",
            package="1.0.0",
        )
        for i in range(n_sites)
    ]
    return RoundReport(
        **{
            "round_id": "eng-1a2b",
            "protocol": make_protocol(),
            "sites": tuple(sites),
            "estimates": make_estimates(n_sites),
            "exchanges": 6,
            "started": datetime(2026, 11, 2, 9, tzinfo=UTC),
            "finished": datetime(2026, 11, 20, 17, tzinfo=UTC),
            "provenance": {"package_digest": "sha256:" + "0d" * 32, "python": "3.11.2"},
            "package_card": PackageCard(
                "demo-unet", "1.0.0", "Trained on synthetic phantoms only.", True
            ),
            **changes,
        }
    )


@pytest.fixture
def build() -> Callable[..., RoundReport]:
    return make_report


@pytest.fixture(scope="session")
def report() -> RoundReport:
    return make_report()
