"""The report as one self-contained HTML page: no script, no font, no request."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcac.protocol import CoxSpec
from fedcac.report.between_sites import (
    bivariate_table,
    heterogeneity_table,
    leave_one_out_table,
)
from fedcac.report.characteristics import characteristics_tables
from fedcac.report.checklist import checklist_table
from fedcac.report.clinical_tables import (
    added_value_table,
    cox_by_site_tables,
    cox_tables,
    log_rank_table,
)
from fedcac.report.content import RoundReport
from fedcac.report.figures import Figure
from fedcac.report.findings import Findings
from fedcac.report.flow_tables import flow_by_site, flow_table
from fedcac.report.many_sites import is_many
from fedcac.report.methods import describe_question, write_methods
from fedcac.report.references import references_of
from fedcac.report.score_tables import (
    auc_by_site,
    comparison_tables,
    discrimination_table,
    fusion_table,
    score_test_table,
)
from fedcac.report.table import Row, Table
from fedcac.report.tables import (
    cross_table,
    disclosure_by_site,
    disclosure_table,
    performance_by_site,
    performance_table,
    suppression_table,
)
from fedcac.report.withheld_tables import withheld_table
from fedcac.report.wording import covariate_words, measure_words, number_words
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["Headline", "fill_template", "headlines", "render_page"]

_LONGEST_LIST = 12
_NOT_IN_A_STRING = re.compile(r"[^A-Za-z0-9 ,.;:()_-]")
_GAPS = ("suppressed", "not ", "error", "no reply")


@dataclass(frozen=True)
class Headline:
    """One of the figures at the head of the report."""

    label: str
    value: str
    detail: str


def render_page(
    findings: Findings, figures: tuple[Figure, ...], provenance: Mapping[str, Any]
) -> str:
    """Return the page. Every word of the round is escaped; only our own SVG goes in as it is."""
    report, protocol = findings.report, findings.protocol
    by_section: defaultdict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_section[figure.section].append(figure)
    parts: dict[str, Any] = {
        "performance": performance_table(findings),
        "cross": cross_table(findings),
        "characteristics": characteristics_tables(findings),
        "score_tests": score_test_table(findings),
        "comparisons": comparison_tables(findings),
        "discrimination": discrimination_table(findings),
        "fusion": fusion_table(findings),
        "cox": cox_tables(findings),
        "log_rank": log_rank_table(findings),
        "added_value": added_value_table(findings),
        "heterogeneity": heterogeneity_table(findings),
        "bivariate": bivariate_table(findings),
        "leave_one_out": leave_one_out_table(findings),
        "by_site": {
            "flow": flow_by_site(findings),
            "performance": performance_by_site(findings),
            "discrimination": auc_by_site(findings),
            "survival": cox_by_site_tables(findings),
            "disclosure": (disclosure_by_site(findings),) if is_many(findings) else (),
        },
        "accuracies": _ids(findings, "accuracy"),
        "agreements": _ids(findings, "agreement"),
        "bland_altmans": _ids(findings, "bland_altman"),
        "distributions": _ids(findings, "distribution"),
        "aucs": _ids(findings, "auc"),
        "coxes": _ids(findings, "cox"),
        "kaplan_meiers": _ids(findings, "kaplan_meier"),
        "calibrations": (
            *_ids(findings, "calibration"),
            *_ids(findings, "survival_calibration"),
        ),
    }
    return fill_template(
        "report.html.j2",
        f"{protocol.id}, version {protocol.version}; round {report.round_id}",
        report=report,
        protocol=protocol,
        period=_period(report),
        banners=_banners(report),
        contents=_contents(parts),
        headlines=headlines(findings),
        question=describe_question(protocol, report.editions),
        doi_url="https://doi.org/" + quote(protocol.citation.doi, safe="/"),
        figures=by_section,
        flow_table=flow_table(findings),
        disclosure=disclosure_table(findings),
        withheld=withheld_table(report),
        suppression=suppression_table(findings),
        methods=write_methods(protocol),
        references=references_of(protocol),
        checklist=checklist_table(findings),
        card=report.package_card,
        provenance=tuple(_flatten(_of_the_round(provenance))),
        provenance_by_site=_provenance_by_site(report),
        **parts,
    )


def fill_template(name: str, running_head: str, **values: Any) -> str:
    """Return a page with its style sheet and content policy; `running_head` tops printed pages."""
    environment = Environment(
        loader=PackageLoader("fedcac.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["gap"] = _is_gap
    css = _style_sheet(running_head)
    page = environment.get_template(name).render(css=css, policy=_security_policy(css), **values)
    return page.strip() + "\n"


def headlines(findings: Findings) -> tuple[Headline, ...]:
    """Return what a reader looks for first: size, agreement, accuracy, bias, strongest hazard."""
    sizes = [findings.size(site) for site in findings.report.sites]
    known = [size for size in sizes if size is not None]
    unknown = f"; {len(sizes) - len(known)} of unstated size" if len(known) < len(sizes) else ""
    found = [
        Headline(
            "Patients analysed",
            f"{sum(known):,}",
            f"at {len(known)} site{'' if len(known) == 1 else 's'}{unknown}",
        )
    ]
    # Of several analyses of a kind the first is the main one; the sections have them all.
    for spec in findings.analyses("agreement")[:1]:
        row = findings.find(spec.id, POOLED, Measure.KAPPA_LINEAR) or findings.find(
            spec.id, POOLED, Measure.KAPPA_UNWEIGHTED
        )
        found.extend(_headline(findings, row, ""))
    for spec in findings.analyses("accuracy")[:1]:
        for measure in (Measure.SENSITIVITY, Measure.SPECIFICITY):
            term = _main_cut_off(findings)
            row = findings.find(spec.id, POOLED, measure, term)
            found.extend(_headline(findings, row, f" at cut-off {term}, %"))
    for spec in findings.analyses("auc")[:1]:
        term = _main_cut_off(findings)
        row = findings.find(spec.id, POOLED, Measure.AUC, term)
        found.extend(_headline(findings, row, f" at cut-off {term}"))
    for spec in findings.analyses("bland_altman")[:1]:
        found.extend(_headline(findings, findings.find(spec.id, POOLED, Measure.BIAS), " of score"))
    for spec in _main_model(findings):
        row = _main_hazard(findings, spec.id)
        tail = f", {covariate_words(findings.protocol, row.term)}" if row else ""
        found.extend(_headline(findings, row, tail))
    for spec in findings.analyses("reclassification")[:1]:
        found.extend(_headline(findings, findings.find(spec.id, POOLED, Measure.NRI_OVERALL), ""))
    return tuple(found)


def _main_model(findings: Findings) -> tuple[CoxSpec, ...]:
    """Return the first model with several covariates that could be fitted, or else the first."""
    models = [spec for spec in findings.analyses("cox") if isinstance(spec, CoxSpec)]
    several = [spec for spec in models if spec.covariates and not spec.univariable]
    ordered = [*several, *models]
    fitted = [spec for spec in ordered if _main_hazard(findings, spec.id) is not None]
    return tuple((fitted or ordered)[:1])


def _headline(findings: Findings, row: Estimate | None, tail: str) -> Iterator[Headline]:
    if row is None:
        return
    label = measure_words(row.measure) + tail
    gap = findings.gap(row.analysis, row.scope, row)
    if gap:
        yield Headline(label, gap, "pooled")
        return
    value, _, interval = number_words(row).partition(" (")
    n = "" if row.n is None else f", n = {row.n:,}"
    yield Headline(label, value, f"95% CI {interval.rstrip(')')}{n}" if interval else f"pooled{n}")


def _main_cut_off(findings: Findings) -> str:
    # 100 is where the guideline treats (ACC/AHA 2018); without it, the middle one stands for all.
    cut_offs = findings.protocol.categories.cut_offs
    return f"{100.0 if 100.0 in cut_offs else cut_offs[len(cut_offs) // 2]:g}"


def _main_hazard(findings: Findings, analysis: str) -> Estimate | None:
    """Return the hazard ratio of the highest risk category, else the highest of all."""
    rows = [
        row
        for row in findings.rows(analysis, (Measure.HAZARD_RATIO,))
        if row.scope == POOLED and row.estimate is not None
    ]
    labels = findings.protocol.categories.labels
    categories = [row for row in rows if row.term in labels]
    return max(categories or rows, key=lambda row: row.estimate or 0.0, default=None)


def _ids(findings: Findings, kind: str) -> tuple[str, ...]:
    return tuple(spec.id for spec in findings.analyses(kind))


def _contents(parts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (anchor, title)
        for anchor, title, is_shown in (
            ("findings", "Main findings", True),
            ("question", "What was asked", True),
            ("flow", "Flow", True),
            ("characteristics", "Characteristics", parts["characteristics"]),
            ("performance", "Performance", parts["performance"] or parts["cross"]),
            ("comparison", "Comparisons", parts["comparisons"]),
            ("discrimination", "Discrimination", parts["discrimination"] or parts["fusion"]),
            ("agreement", "Agreement", parts["agreements"]),
            (
                "differences",
                "Score differences",
                parts["bland_altmans"] or parts["score_tests"],
            ),
            ("survival", "Survival", parts["cox"] or parts["log_rank"]),
            ("added-value", "Added value", parts["added_value"]),
            ("heterogeneity", "Between sites", parts["heterogeneity"]),
            ("disclosure", "Disclosure", True),
            ("methods", "Methods", True),
            ("checklist", "Checklist", True),
            ("provenance", "Provenance", True),
        )
        if is_shown
    )


def _banners(report: RoundReport) -> tuple[tuple[str, str], ...]:
    banners = []
    if report.is_demonstration:
        banners.append(
            (
                "Demonstration model - not for clinical use",
                "The model's own card says that its weights are for demonstration. The figures "
                "show that the round works, not how well a clinical model performs.",
            )
        )
    if report.is_open_policy:
        banners.append(
            (
                "No disclosure control was applied (open policy)",
                "At least one site released every count, however small. Do not publish this "
                "report if its patients are real.",
            )
        )
    return tuple(banners)


def _period(report: RoundReport) -> str:
    start, end = (f"{t.day} {t:%B %Y}" for t in (report.started, report.finished))
    return start if start == end else f"{start} to {end}"


def _style_sheet(running_head: str) -> str:
    css = files("fedcac.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    return css.replace("RUNNING_HEAD", _NOT_IN_A_STRING.sub(" ", running_head))


def _security_policy(css: str) -> str:
    # Admits this one style sheet and nothing else.
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _is_gap(words: str) -> bool:
    """Say whether a cell holds words in the place of a number."""
    return words.startswith(_GAPS)


def _of_the_round(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are not site by site; those have a table."""
    recorded = provenance.get("recorded")
    shown = {key: value for key, value in provenance.items() if key != "sites"}
    if isinstance(recorded, Mapping):
        shown["recorded"] = {key: value for key, value in recorded.items() if key != "sites"}
    return shown


def _provenance_by_site(report: RoundReport) -> Table:
    rows = tuple(
        Row(
            site.name,
            (
                site.software or "no reply",
                site.package or "none",
                site.policy.digest if site.policy else "no reply",
                site.ledger_head or "no reply",
            ),
        )
        for site in report.sites
    )
    return Table(
        "Software, package, policy and the head of its ledger at each site.",
        ("Site", "Software", "Package", "Policy's digest", "Head of the ledger"),
        rows,
        note="What a site sent must be what stands in its ledger: an auditor at the site compares "
        "the head. provenance.json has the digest of every release.",
    )


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}, ")
        elif isinstance(value, list | tuple) and len(value) > _LONGEST_LIST:
            yield name, f"{len(value)} entries, in provenance.json"
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(item) for item in value) or "none"
        else:
            yield name, "none" if value in (None, "") else str(value)
