"""A held reply in words and numbers: exactly what would leave, for the person who lets it go.

`review_document` reads the reply's own bytes; `review_text` lays that document out.
"""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fedcac import aggregate as shapes
from fedcac.aggregate import Aggregate, LikelihoodTerms, Totals, parse_aggregate
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.disclosure import FLOW, LedgerEntry, Policy
from fedcac.disclosure.history import numbers_released, shape_is
from fedcac.exchange import Answer, Query, Reply, Request
from fedcac.protocol import Protocol
from fedcac.statistics import estimator_for
from fedcac.statistics.descriptive_variables import covariate_variable, score_variables
from fedcac.statistics.grids import probability_edges, score_edges
from fedcac.statistics.grouping import group_labels

__all__ = ["HeldReply", "review_document", "review_text"]

_MOST_CELLS = 60  # Larger tables are summed up in the text, unless every number is asked for.
_STEPS = {
    "by_site": "the coefficients of this site's own model",
    "maximum": "sums over patients at the fitted model",
    "measures": "sums behind reclassification, area under the curve and C-index",
    "newton": "a likelihood and its derivatives at the coefficients asked",
    "placements": "sums of ranks behind areas under the ROC curve",
    "refit": "gradients of both models without each group, or on each sample",
    "within": "this site's own area under the ROC curve",
}
_CLASSES = ("reference negative", "reference positive")
_BOTH = ("neither positive", "only second positive", "only first positive", "both positive")
_PAIRED = ("patients", "mean index", "mean reference", "M2 index", "M2 reference", "products")
_SUMS = ("patients", "sum 1", "sum 2", "squares 1", "squares 2", "products")
_MOVED = [f"{who}{how}" for who in ("event", "no event") for how in ("", ", up", ", down")]
_PAIRS = ("ordered 1", "ordered 2", "mixed", "concordant 1", "concordant 2", "usable")
# What the rows and columns of sums are: names, or a word that `_axis` resolves.
_TOTALS: dict[str, tuple[str, Sequence[str]]] = {
    "auc_totals": ("cuts", ("positive", "negative", "area", "variance")),
    "calibration_bins": ("cuts bins", ("patients", "positive", "sum of risks")),
    "cox_totals": ("terms", ("log hazard ratio", "its variance")),
    "fusion_placements": ("cuts classes", _SUMS),
    "fusion_sums": ("folds", "terms"),
    "log_rank_totals": ("rank", "groups"),
    "pair_sums": ("cuts classes", _SUMS),
    "reclassification_totals": ("samples", (*_MOVED, *(f"pairs, {name}" for name in _PAIRS))),
    "risk_bins": ("all bins", ("patients", "sum of risks", "n S(t)", "n^2 Var S(t)")),
    "zip_start": ("all", ("scores", "zeros", "sum of scores")),
}
_ZERO_INFLATED = ("log mean", "log rate ratio", "logit of zero", "log odds ratio", "log sigma")
_TERMS = {"calibration_terms": "cuts parts", "difference_moments": "differences"}
_TERMS |= {"characteristic_moments": "continuous", "zip_terms": "zip", "slope_terms": "slope"}


@dataclass(frozen=True)
class HeldReply:
    """A held reply's bytes, what they answer, the policy now in force for it, and the ledger."""

    envelope: bytes
    protocol: Protocol
    request: Request
    policy: Policy
    ledger: Sequence[LedgerEntry]


def review_document(held: HeldReply) -> dict[str, Any]:
    """Return what would leave and what it means, as a JSON document with every number."""
    signed = base64.b64decode(json.loads(held.envelope)["payload"])
    reply = Reply.model_validate_json(signed)
    queries = held.request.queries
    names = [spec.id for spec in held.protocol.analyses if spec.id in reply.answers]
    names += sorted(set(reply.answers) - set(names))
    return {
        **reply.model_dump(mode="json", exclude={"answers", "flow", "policy"}),
        "protocol": held.protocol.model_dump(include={"id", "version", "title"}),
        "digest": sha256_hex(held.envelope),
        "n_bytes": len(held.envelope),
        "signed_digest": sha256_hex(signed),
        "policy": reply.policy.model_dump(mode="json"),
        "is_policy_in_force": held.policy.digest() == reply.policy.digest,
        "answers": [_answer(held, reply, n, reply.answers[n], queries[n]) for n in names],
        "flow": _answer(held, reply, FLOW, reply.flow, Query(step=FLOW)),
    }


def _answer(
    held: HeldReply, reply: Reply, name: str, answer: Answer, query: Query
) -> dict[str, Any]:
    from fedcac.report.analysis_methods import describe_analysis
    from fedcac.report.wording import REFUSAL_WORDS

    own, asked = None, "The flow of patients, before and beside every analysis."
    if answer is not reply.flow:
        try:
            own = estimator_for(name, held.protocol)
            asked = describe_analysis(own.spec, held.protocol)
        except KeyError:
            asked = "The protocol has no such analysis."
    entry = _entry_of(held, reply, name, answer)
    document = {
        "analysis": name,
        "asked": asked,
        "step": query.step,
        "step_words": _STEPS.get(query.step, query.step),
        "query": dict(query.values),
        "answered_before": _before(held.ledger, entry),
        "refusal": answer.refusal,
        "refusal_words": answer.refusal and REFUSAL_WORDS[answer.refusal],
        "release": answer.release,
    }
    if answer.release is None:
        return document
    aggregate, content = parse_aggregate(answer.release), canonical_bytes(answer.release)
    return {
        **document,
        "n_patients": aggregate.n_patients,
        "n_events": getattr(aggregate, "n_events", None),
        "n_bytes": len(content),
        "digest": sha256_hex(content),
        "summary": _summary(aggregate),
        "tables": [*_tables(aggregate, own, query.step)],
        "budget": _budget(held, entry, aggregate),
    }


def _entry_of(held: HeldReply, reply: Reply, name: str, answer: Answer) -> LedgerEntry | None:
    digest = None if answer.release is None else sha256_hex(canonical_bytes(answer.release))
    about = (reply.round_id, reply.exchange, name, digest, answer.refusal)
    names = ("round_id", "exchange", "analysis", "release_digest", "refusal")
    same = (e for e in reversed(held.ledger) if tuple(getattr(e, name) for name in names) == about)
    return next(same, None)


def _before(ledger: Sequence[LedgerEntry], own: LedgerEntry | None) -> dict[str, Any] | None:
    """Return the ledger's first answer to the same question about the same patients."""
    for entry in ledger[: own.index] if own else ():
        if own and entry.key == own.key:
            names = {"index", "round_id", "exchange", "refusal"}
            return entry.model_dump(mode="json", include=names)
    return None


def _budget(held: HeldReply, own: LedgerEntry | None, given: Aggregate) -> dict[str, Any] | None:
    """Return what was told about these patients once this answer was made; None if not charged."""
    if own is None or own.profile == "open" or not isinstance(given, LikelihoodTerms | Totals):
        return None
    charged = [
        entry
        for entry in held.ledger[: own.index + 1]
        if entry.cohort_digest == own.cohort_digest
        and entry.profile != "open"
        and any(shape_is(entry.payload, shape) for shape in (LikelihoodTerms, Totals))
    ]
    told: list[dict[str, Any]] = [e.payload or {} for e in charged if e.repeats is None]
    largest = max(len(payload.get("gradient", [0])) for payload in told)
    # Another policy's limits are not those the answer was judged by.
    limits = held.policy.cox if held.policy.digest() == own.policy_digest else None
    return {
        "n_now": 0 if own.repeats is not None else numbers_released(own.payload or {}),
        "n_told": sum(numbers_released(payload) for payload in told),
        "n_allowed": limits and int(limits.budget_share * given.n_patients * largest),
        "n_asked": len({e.key for e in charged if e.analysis_digest == own.analysis_digest}),
        "n_asked_allowed": limits and limits.maximum_exchanges,
    }


def _summary(given: Aggregate) -> str:
    if isinstance(given, LikelihoodTerms):
        p = len(given.gradient)
        text = f"The log-likelihood, {p} first and {p * (p + 1) // 2} second derivatives over "
        return f"{text}{given.n_patients} patients, {given.n_events} events (see --full)."
    # The first paragraph of a registered type says what its numbers are.
    return " ".join((type(given).__doc__ or "Numbers.").split("\n\n")[0].split())


def _named(names: Sequence[Any], n: int, word: str) -> list[str]:
    return list(names) if len(names) == n else [f"{word} {i + 1}" for i in range(n)]


def _table(title: str, columns: Sequence[str], labels: Sequence[str], rows: Any) -> dict[str, Any]:
    # A row that the gate emptied has no numbers at all.
    pairs = zip(labels, rows, strict=True)
    table = [{"label": a, "cells": list(row) or ["suppressed"] * len(columns)} for a, row in pairs]
    return {"title": title, "columns": list(columns), "rows": table}


def _tables(given: Aggregate, own: Any, step: str | None) -> Iterator[dict[str, Any]]:
    terms = _axis(_TERMS.get(given.kind, "terms"), own) if own else []
    match given:
        case shapes.FlowCounts():
            from fedcac.report.wording import EXCLUSION_WORDS, STAGE_WORDS

            counts = {STAGE_WORDS[stage]: given.stages[stage] for stage in shapes.FlowStage}
            counts |= {f"Lost: {EXCLUSION_WORDS[why]}": n for why, n in given.exclusions.items()}
            yield _table("", ["patients"], list(counts), [[count] for count in counts.values()])
        case shapes.CrossTable():
            yield from _cross_tables(given, own)
        case shapes.Moments():
            rows = zip(given.n, given.mean, given.m2, strict=True)
            names = _named(terms, len(given.n), "term")
            yield _table("", ("patients", "mean", "squared deviations"), names, rows)
        case shapes.PairedMoments():
            parts = ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")
            yield _table("", ["value"], _PAIRED, [getattr(given, part) for part in parts])
        case shapes.BinnedCounts():
            yield from _binned_tables(given, own)
        case shapes.SurvivalTable():
            yield from _life_tables(given, own)
        case LikelihoodTerms():
            names = _named(terms, len(given.gradient), "parameter")
            yield _table("", ["value"], ["log-likelihood"], [[given.log_likelihood]])
            yield _table("First derivatives", ["value"], names, [[x] for x in given.gradient])
            yield _table("Second derivatives, times -1", names, names, given.information)
        case Totals():
            along, across = _TOTALS.get(given.kind, ("", ()))
            if step == "maximum":
                along, across = "all", _packed(own)
            across = _axis(across, own) if isinstance(across, str) else across
            labels = _named(_axis(along, own), len(given.values), "row")
            columns = _named(across, max(map(len, given.values)), "number")
            yield _table("", columns, labels, given.values)


def _cross_tables(given: shapes.CrossTable, own: Any) -> Iterator[dict[str, Any]]:
    labels = own.protocol.categories.labels
    cuts = [f"cut-off {cut:g}" for cut in own.protocol.categories.cut_offs]
    yield _table("Rows: reference; columns: index", labels, labels, given.matrix)
    columns = ("both positive", "only reference", "only index", "both negative")
    yield _table("At each cut-off", columns, cuts, given.two_by_two)
    if given.collapsed:
        bounds = (0, *(cut + 1 for cut in given.kept_cut_offs), len(labels))
        merged = [" or ".join(labels[low:high]) for low, high in pairwise(bounds)]
        yield _table("The first table, categories merged", merged, merged, given.collapsed)


def _binned_tables(given: shapes.BinnedCounts, own: Any) -> Iterator[dict[str, Any]]:
    known = zip(_variables(given.kind, own), given.starts, given.counts, strict=True)
    for (title, groups, levels), starts, counts in known:
        for group, firsts, row in zip(groups, starts, counts, strict=True):
            labels = _bin_names(levels, firsts) or ["every bin"]
            yield _table(f"{title}, {group}", ["patients"], labels, [[n] for n in row] or [[]])


def _life_tables(given: shapes.SurvivalTable, own: Any) -> Iterator[dict[str, Any]]:
    days, end = own.spec.bin_days, own.spec.horizon_days
    groups = _axis("groups", own)
    parts = zip(groups, given.edges, given.at_risk, given.events, given.censored, strict=True)
    for group, edges, *counts in parts:
        times = [f"days {low * days}-{min(high * days, end)}" for low, high in pairwise(edges)]
        rows = list(zip(*counts, strict=True)) or [()]
        yield _table(group, ("at risk", "event", "lost"), times or ["every time"], rows)


def _axis(word: str, own: Any) -> list[str]:
    """Return the names that a word of `_TOTALS` or `_TERMS` stands for in this analysis."""
    spec, groups = own.spec, group_labels(getattr(own.spec, "by", "all"), own.protocol)
    asked = getattr(own, "cut_offs", None) or [getattr(spec, "cut_off", 0)]
    cuts, bins = [f"cut-off {cut:g}" for cut in asked], getattr(own, "bin_labels", ())
    parts = ("intercept at slope 1", "intercept", "slope")
    names: dict[str, Any] = {
        "all": ["all patients"],
        "all bins": [*(f"risk {label}" for label in bins), "all patients"],
        "cuts": cuts,
        "cuts bins": [f"{cut}, risk {label}" for cut in cuts for label in bins],
        "cuts classes": [f"{cut}, {word}" for cut in cuts for word in ("positive", "negative")],
        "cuts parts": [f"{cut}, {part}" for cut in cuts for part in parts],
        "continuous": [f"{v.name}, {g}" for v in _listed(own) if v.is_continuous for g in groups],
        "differences": [f"difference, {term or 'total'}" for term in getattr(own, "terms", [""])],
        "samples": [f"sample {i + 1}" for i in range(getattr(spec, "replicates", 0))],
        "folds": [f"without fold {i + 1}" for i in range(getattr(spec, "folds", 0))],
        "groups": groups,
        "rank": ["observed", "expected", *(f"variance, {group}" for group in groups)],
        "slope": ["slope"],
        "terms": own.design.terms if hasattr(own, "design") else (),
        "zip": _ZERO_INFLATED[: getattr(own, "n_parameters", 0)],
    }
    return list(names.get(word, ()))


def _packed(own: Any) -> list[str]:
    """Return what stands where in the sums that `CoxPacking` lays in one row."""
    terms, spec, time = own.design.terms, own.spec, ("", "time x ", "time^2 x ")
    pairs = [f"{a} x {b}" for i, a in enumerate(terms) for b in terms[i:]]
    names = [f"residuals {pair}" for pair in pairs if spec.robust]
    if spec.proportionality:
        names += [f"{word}score {term}" for word in time[:2] for term in terms]
        names += [f"{word}variance {pair}" for word in time for pair in pairs]
    return names + ["concordant", "discordant", "tied", "aa", "ab", "bb"] * spec.concordance


def _listed(own: Any) -> list[Any]:
    spec, protocol = own.spec, own.protocol
    scores = [v for role in getattr(spec, "scores", ()) for v in score_variables(role, protocol)]
    names = spec.covariates if spec.kind == "descriptives" else ()
    return [*scores, *(covariate_variable(protocol.covariate(name)) for name in names)]


def _variables(kind: str, own: Any) -> Iterator[tuple[str, Sequence[str], Any]]:
    """Yield title, groups and bins of every variable: inner edges, or a tuple of names."""
    spec, cuts = own.spec, _axis("cuts", own)
    is_risk = kind == "fusion_histogram" or getattr(spec, "value", "") == "probability"
    edges = (probability_edges if is_risk else score_edges)(getattr(spec, "bins", 400))
    if kind == "class_histogram":
        yield from ((f"{spec.value}, {cut}", _CLASSES, edges) for cut in cuts)
    elif kind == "paired_cells":
        shared = "reference" if spec.compare == "index_tests" else "index"
        yield from ((cut, (f"{shared} negative", f"{shared} positive"), _BOTH) for cut in cuts)
    elif kind == "pair_histogram":
        both = ("index", "comparator")
        yield from ((f"{t}, {cut}", _CLASSES, edges) for cut in cuts for t in both)
    elif kind == "fusion_histogram":
        yield from ((f"risk, {t}", _CLASSES, edges) for t in ("clinical factors", "image alone"))
    elif kind == "score_histogram":
        yield from ((f"{role} score", ("all",), edges) for role in ("index", "reference"))
    elif kind == "characteristic_counts":
        groups = group_labels(spec.by, own.protocol)
        yield f"by {spec.by}", ("all",), tuple(groups)
        for v in _listed(own):
            terms = tuple(term for _, term in v.level_terms)
            levels = terms if len(terms) > 1 else (f"{v.name}=0", f"{v.name}=1")
            yield v.name, groups, v.edges if v.is_continuous else levels


def _bin_names(levels: Any, firsts: Sequence[int]) -> list[str]:
    if isinstance(levels, tuple):
        return [" or ".join(levels[a:b]) for a, b in zip(firsts, (*firsts[1:], None), strict=True)]
    # The first edge may be the next number after the smallest value, which has that bin alone.
    edges = [round(float(edge), 9) for edge in levels]
    word = "above" if edges and 0 < levels[0] - edges[0] < 1e-12 else "from"
    names = ["the lowest", *(f"from {edge:.6g}" for edge in edges)]
    return [f"{word} {edges[0]:.6g}" if first == 1 else names[first] for first in firsts]


def review_text(document: dict[str, Any], *, is_full: bool = False) -> str:
    """Return a review document as text of at most 80 columns; `is_full` shows every number."""
    policy, protocol = document["policy"], document["protocol"]
    now = "" if document["is_policy_in_force"] else " It is NOT the policy in force now."
    head = [
        f"Round {document['round_id']}, exchange {document['exchange']}: held, nothing has left.",
        f"Protocol: {protocol['title']} ({protocol['id']} v{protocol['version']})",
        f"Would leave: {document['n_bytes']} bytes, a signed file with this digest:",
        f"  {document['digest']}",
        f"Policy: {policy['profile']}; at least {policy['minimum_patients']} patients; a count "
        f"below {policy['minimum_cell']} is suppressed, and others that would give it away.{now}",
    ]
    lines = [line for text in head for line in _wrapped(text)]
    for number, answer in enumerate([*document["answers"], document["flow"]], 1):
        lines += ["", f"{number}. {answer['analysis']}", *_answer_lines(answer, is_full)]
    return "\n".join(lines)


def _answer_lines(answer: dict[str, Any], is_full: bool) -> Iterator[str]:
    yield from _wrapped(f"Asked: {answer['asked']}", 3)
    yield from _wrapped(f"Step '{answer['step']}': {answer['step_words']}", 3)
    if is_full:
        for name, values in answer["query"].items():
            yield from _wrapped(f"Asked at {name}: {', '.join(map(_cell, values))}", 3)
    text = "no."
    if before := answer["answered_before"]:
        told = before["refusal"] and f"refused ({before['refusal']})"
        text = f"round {before['round_id']}, exchange {before['exchange']}, ledger entry "
        text += f"{before['index']}: {told or 'the same numbers'}."
    yield from _wrapped(f"Asked before: {text}", 3)
    if answer["release"] is None:
        yield from _wrapped(f"REFUSED: {answer['refusal_words']} ({answer['refusal']}).", 3)
        return
    events = "" if answer["n_events"] is None else f", {answer['n_events']} with the event"
    yield from _wrapped(f"RELEASED, {answer['n_bytes']} bytes: {answer['summary']}", 3)
    yield from (f"   {answer['digest']}", f"   Behind it: {answer['n_patients']} patients{events}.")
    text = "not charged."
    if budget := answer["budget"]:
        allowed, most = (budget[name] or "?" for name in ("n_allowed", "n_asked_allowed"))
        text = f"{budget['n_told']} of {allowed} numbers about these patients "
        text += f"({budget['n_now']} by this answer); question {budget['n_asked']} of {most}."
    yield from _wrapped(f"Budget after it: {text}", 3)
    for table in answer["tables"]:
        # Derivatives are summed up above; whoever wants them asks for them.
        if is_full or "gradient" not in answer["release"]:
            yield from _table_lines(table, is_full)


def _table_lines(table: dict[str, Any], is_full: bool) -> Iterator[str]:
    if table["title"]:
        yield from _wrapped(f"{table['title']}:", 5)
    rows = [[row["label"], *map(_cell, row["cells"])] for row in table["rows"]]
    shown = [cell for row in table["rows"] for cell in row["cells"]]
    if len(shown) > _MOST_CELLS and not is_full:
        known = sorted(cell for cell in shown if not isinstance(cell, str))
        limits = f", {_cell(known[0])} to {_cell(known[-1])}" if known else ""
        text = f"{len(known)} numbers{limits}; {len(shown) - len(known)} suppressed"
        yield f"     {text} (--full lists them)"
        return
    grid = [["", *table["columns"]], *rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    if sum(widths) + 2 * len(widths) > 74:
        for label, *cells in rows:
            pairs = zip(table["columns"], cells, strict=True)
            yield from _wrapped(f"{label}: {'; '.join(f'{a} = {b}' for a, b in pairs)}", 5)
        return
    for label, *cells in grid:
        padded = map(str.rjust, cells, widths[1:])
        yield "     " + "  ".join((label.ljust(widths[0]), *padded)).rstrip()


def _cell(value: Any) -> str:
    return str(value).replace("_", " ") if isinstance(value, str | int) else f"{value:.12g}"


def _wrapped(text: str, indent: int = 0) -> list[str]:
    start = " " * indent
    return textwrap.wrap(text, 79, initial_indent=start, subsequent_indent=f"{start}  ")
