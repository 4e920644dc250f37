"""The report's tables as rows of words, ready to be printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from fedcac.protocol import AccuracySpec, AgreementSpec
from fedcac.report.content import SiteSummary
from fedcac.report.findings import CUT_OFF_CELLS, Findings, count_cell
from fedcac.report.many_sites import (
    accuracy_by_site,
    agreement_by_site,
    cross_by_site,
    is_many,
    n_sites_words,
    range_words,
    sites_words,
)
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    PERCENT_MEASURES,
    bytes_words,
    measure_words,
    number_words,
    refusal_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

__all__ = [
    "cross_table",
    "disclosure_by_site",
    "disclosure_table",
    "performance_by_site",
    "performance_table",
    "suppression_table",
]

_ACCURACY = (
    Measure.SENSITIVITY,
    Measure.SPECIFICITY,
    Measure.PPV,
    Measure.NPV,
    Measure.F1,
)


def performance_table(findings: Findings) -> Table | None:
    """Return agreement and accuracy of every site and pooled, in the layout of Eng 2021 Table 3."""
    rows = [*_kappa_rows(findings), *_accuracy_rows(findings)]
    if not rows:
        return None
    columns = [scope_words(scope) for scope in _columns(findings)]
    if is_many(findings):
        columns = ["Sites with a value", "Sites, median (range)", *columns]
    return Table(
        caption="Diagnostic performance: estimate (95% confidence interval).",
        columns=("Measure", *columns),
        rows=tuple(rows),
        has_summary=True,
        note="Sensitivity, specificity, PPV, NPV and F1 in percent. A suppressed value is not "
        "zero: the site's own policy does not let it leave. In brackets stands the smallest "
        "number that it lets leave, or the code with which the site refused the whole analysis. "
        "Not applicable: the value is not defined there. Not estimable: the patients do not "
        "determine it. Error: something failed, and a repetition may give it.",
    )


def performance_by_site(findings: Findings) -> tuple[Table, ...]:
    """Return every site's agreement, accuracy and cross-tabulation where sites have no column."""
    if not is_many(findings):
        return ()
    kappas = (Measure.KAPPA_LINEAR, Measure.KAPPA_UNWEIGHTED, Measure.KAPPA_QUADRATIC)
    return (
        *agreement_by_site(findings, kappas),
        *accuracy_by_site(findings, _ACCURACY),
        *cross_by_site(findings),
    )


def _columns(findings: Findings) -> tuple[str, ...]:
    """Return the scopes that have a column each."""
    if not is_many(findings):
        return findings.scopes
    return tuple(scope for scope in findings.scopes if scope in {META, POOLED})


def cross_table(findings: Findings) -> Table | None:
    """Return TP, FN, FP and TN at every cut-off, per site and pooled."""
    scopes = (POOLED,) if is_many(findings) else (*findings.sites, POOLED)
    rows: list[Row] = []
    for spec in findings.analyses("accuracy"):
        for cut_off in findings.protocol.categories.cut_offs:
            rows.append(Row(f"Cut-off {cut_off:g}"))
            for cell in CUT_OFF_CELLS:
                found = [
                    (scope, findings.find(spec.id, scope, Measure.COUNT, f"{cut_off:g}", cell))
                    for scope in scopes
                ]
                cells = tuple(count_cell(findings, spec.id, scope, row) for scope, row in found)
                rows.append(Row(cell.upper(), cells))
    if not rows:
        return None
    return Table(
        "Cross-tabulation of index test and reference standard at each cut-off (patients).",
        ("Cell", *(scope_words(scope) for scope in scopes)),
        tuple(rows),
        has_summary=True,
    )


def disclosure_table(findings: Findings) -> Table:
    """Return, per site, the policy in force, what left it, and what it refused and why.

    Of many sites those with the same policy share a line.
    """
    if not is_many(findings):
        return disclosure_by_site(findings)
    groups: dict[tuple[str, ...], list[SiteSummary]] = {}
    for site in findings.report.sites:
        groups.setdefault(_policy_cells(site), []).append(site)
    rows = []
    for policy, sites in groups.items():
        releases = [site.n_releases for site in sites]
        sent = bytes_words(sum(site.bytes_left for site in sites))
        n = f"{min(releases)}" if len(set(releases)) == 1 else f"{min(releases)}-{max(releases)}"
        names = sites_words([site.name for site in sites])
        rows.append(Row(names, (*policy, n, sent, _refused_by_any(sites))))
    return Table(
        "Disclosure policy in force, and what left the sites. Sites with the same policy share a "
        "line.",
        ("Sites", *_POLICY_COLUMNS, "Releases each", "Sent in all", "Refusals of an analysis"),
        tuple(rows),
    )


def _refused_by_any(sites: Sequence[SiteSummary]) -> str:
    """Return per code how many of the sites refused at least one analysis with it."""
    found: dict[RefusalCode, int] = {}
    for site in sites:
        for code in set(site.refusals.values()):
            found[code] = found.get(code, 0) + 1
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return "; ".join(f"{refusal_words(code)}: {n} sites" for code, n in ordered) or "none"


def disclosure_by_site(findings: Findings) -> Table:
    """Return the same with a row per site."""
    rows = tuple(
        Row(
            site.name,
            (
                *_policy_cells(site),
                str(site.n_releases),
                bytes_words(site.bytes_left),
                _refused_by(site),
            ),
        )
        for site in findings.report.sites
    )
    return Table(
        "Disclosure policy in force at each site, and what left it.",
        ("Site", *_POLICY_COLUMNS, "Releases", "Sent in all", "Refusals"),
        rows,
    )


_POLICY_COLUMNS = ("Policy", "Smallest count shown", "Smallest cohort")


def _policy_cells(site: SiteSummary) -> tuple[str, ...]:
    if site.policy is None:
        return ("no reply",) * 3
    minimum = site.policy.minimum_cell
    return site.policy.profile, _cell_rule(minimum), str(site.policy.minimum_patients)


def _refused_by(site: SiteSummary) -> str:
    words = (
        f"{refusal_words(code)}: {', '.join(analyses)}"
        for code, analyses in _by_code(site.refusals)
    )
    return "; ".join(words) or "none"


def _by_code(refusals: Mapping[str, RefusalCode]) -> list[tuple[RefusalCode, list[str]]]:
    names: dict[RefusalCode, list[str]] = {}
    for analysis, code in sorted(refusals.items()):
        names.setdefault(code, []).append(analysis)
    return sorted(names.items())


def suppression_table(findings: Findings) -> Table:
    """Return the pooled values that lack a site which answered but suppressed a part."""
    rows = []
    for pooled in findings.report.estimates:
        if pooled.scope != POOLED or pooled.measure in {Measure.COUNT, Measure.LOG_HAZARD_RATIO}:
            continue
        missing = [site for site in findings.report.sites if _is_withheld(findings, pooled, site)]
        if not missing:
            continue
        sizes = [findings.size(site) for site in missing]
        known = sum(size for size in sizes if size is not None)
        unknown = sizes.count(None)
        cost = f"{known:,}" + (f" and {unknown} site(s) of unstated size" if unknown else "")
        rows.append(
            Row(
                _title(pooled.measure, pooled.term),
                (
                    pooled.analysis,
                    "none" if pooled.n is None else f"{pooled.n:,}",
                    cost,
                    sites_words([site.name for site in missing]),
                ),
            )
        )
    return Table(
        "Pooled values without the patients of a site that answered the analysis and suppressed "
        "the part of it that they need.",
        ("Pooled value", "Analysis", "Patients pooled", "Patients missing", "Sites left out"),
        tuple(rows),
    )


def _kappa_rows(findings: Findings) -> Iterator[Row]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        measures = [Measure(f"kappa_{weights.value}") for weights in spec.weights]
        # Several agreements are told apart by their names.
        name = f" ({spec.id})" if len(findings.analyses("agreement")) > 1 else ""
        yield Row(f"Agreement over all categories{name}")
        yield Row("Patients", _numbers(findings, spec.id, measures[0], ""))
        for measure in measures:
            yield Row(measure_words(measure), _cells(findings, spec.id, measure, ""))
        # Categories merged at one site make a kappa of their own: it is never mixed with the full.
        for term in findings.terms(spec.id, measures[0]):
            if term:
                merged = " / ".join(term.split(" | "))
                yield Row(f"Agreement over merged categories {merged}")
                for measure in measures:
                    yield Row(
                        measure_words(measure), _cells(findings, spec.id, measure, term, "not used")
                    )


def _accuracy_rows(findings: Findings) -> Iterator[Row]:
    for spec in findings.analyses("accuracy"):
        if not isinstance(spec, AccuracySpec):
            continue
        for cut_off in findings.protocol.categories.cut_offs:
            term = f"{cut_off:g}"
            yield Row(f"Cut-off {term}")
            for measure in _ACCURACY:
                yield Row(measure_words(measure), _cells(findings, spec.id, measure, term))


def _cells(
    findings: Findings, analysis: str, measure: Measure, term: str, absent: str = ""
) -> tuple[str, ...]:
    cells = list(_over_sites(findings, analysis, measure, term))
    for scope in _columns(findings):
        row = findings.find(analysis, scope, measure, term)
        if row is None and (absent or scope == META):
            cells.append(absent or "not computed")
            continue
        gap = findings.gap(analysis, scope, row)
        cells.append(gap if gap or row is None else number_words(row))
    return tuple(cells)


def _over_sites(findings: Findings, analysis: str, measure: Measure, term: str) -> tuple[str, ...]:
    """Return how many sites have a value and its range, in place of a column for each of them."""
    if not is_many(findings):
        return ()
    own = [findings.find(analysis, site, measure, term) for site in findings.sites]
    if not own:
        return "in the sum", "in the sum"
    return n_sites_words(own), range_words(own) or findings.gap(analysis, findings.sites[0], own[0])


def _sizes_over_sites(
    findings: Findings, analysis: str, measure: Measure, term: str
) -> tuple[str, ...]:
    if not is_many(findings):
        return ()
    own = [findings.find(analysis, site, measure, term) for site in findings.sites]
    sizes = sorted(row.n for row in own if row is not None and row.n is not None)
    if not sizes:
        return n_sites_words(own), "not stated"
    reach = f"{median(sizes):,.0f} ({sizes[0]:,} to {sizes[-1]:,})"
    return f"{len(sizes)} of {len(own)}", reach


def _numbers(findings: Findings, analysis: str, measure: Measure, term: str) -> tuple[str, ...]:
    cells = list(_sizes_over_sites(findings, analysis, measure, term))
    for scope in _columns(findings):
        row = findings.find(analysis, scope, measure, term)
        n = row.n if row else None
        cells.append(
            f"{n:,}" if n is not None else findings.gap(analysis, scope, row) or "not stated"
        )
    return tuple(cells)


def _is_withheld(findings: Findings, pooled: Estimate, site: SiteSummary) -> bool:
    if site.refusal_of(pooled.analysis) is not None:
        return False
    row = findings.find(pooled.analysis, site.name, pooled.measure, pooled.term, pooled.group)
    return row is not None and row.status is RowStatus.SUPPRESSED


def _title(measure: Measure, term: str) -> str:
    title = measure_words(measure)
    if measure in PERCENT_MEASURES:
        return f"{title}, cut-off {term}"
    return f"{title}, {term_words(term)}" if term else title


def _cell_rule(minimum_cell: int) -> str:
    return "every count" if minimum_cell <= 1 else str(minimum_cell)
