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
from site_agent.rounds.review_words import (
    PAIRED,
    STEPS,
    TERMS,
    TOTALS,
    axis_names,
    bin_names,
    binned_variables,
    named,
    packed_names,
)

__all__ = ["HeldReply", "review_document", "review_text"]

_MOST_CELLS = 60  # Larger tables are summed up in the text, unless every number is asked for.


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
        "step_words": STEPS.get(query.step, query.step),
        "query": dict(query.values),
        "answered_before": _before(held.ledger, entry),
        "refusal": answer.refusal,
        "refusal_words": answer.refusal and REFUSAL_WORDS[answer.refusal],
        "release": answer.release,
        "layout": answer.layout and answer.layout.model_dump(mode="json"),
        "n_masked": answer.layout and answer.layout.n_numbers,
        "least_sites": entry.least_sites if entry and answer.layout else None,
    }
    # Of what is added under masks the reply holds the layout alone; the ledger has the numbers.
    told = entry.payload if entry is not None and answer.layout is not None else answer.release
    if told is None:
        return document
    aggregate, content = parse_aggregate(told), canonical_bytes(told)
    return {
        **document,
        "n_patients": aggregate.n_patients,
        "n_events": getattr(aggregate, "n_events", None),
        "n_bytes": len(content),
        "digest": sha256_hex(content),
        "is_likelihood": "gradient" in told,
        "summary": _summary(aggregate),
        "tables": [*_tables(aggregate, own, query.step)],
        "budget": _budget(held, entry, aggregate),
    }


def _entry_of(held: HeldReply, reply: Reply, name: str, answer: Answer) -> LedgerEntry | None:
    if answer.layout is not None:
        added = (reply.round_id, reply.exchange, name)
        found = (e for e in reversed(held.ledger) if (e.round_id, e.exchange, e.analysis) == added)
        return next((entry for entry in found if entry.least_sites), None)
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


def _table(title: str, columns: Sequence[str], labels: Sequence[str], rows: Any) -> dict[str, Any]:
    # A row that the gate emptied has no numbers at all.
    pairs = zip(labels, rows, strict=True)
    table = [{"label": a, "cells": list(row) or ["suppressed"] * len(columns)} for a, row in pairs]
    return {"title": title, "columns": list(columns), "rows": table}


def _tables(given: Aggregate, own: Any, step: str | None) -> Iterator[dict[str, Any]]:
    terms = axis_names(TERMS.get(given.kind, "terms"), own) if own else []
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
            names = named(terms, len(given.n), "term")
            yield _table("", ("patients", "mean", "squared deviations"), names, rows)
        case shapes.PairedMoments():
            parts = ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")
            yield _table("", ["value"], PAIRED, [getattr(given, part) for part in parts])
        case shapes.BinnedCounts():
            yield from _binned_tables(given, own)
        case shapes.SurvivalTable():
            yield from _life_tables(given, own)
        case LikelihoodTerms():
            names = named(terms, len(given.gradient), "parameter")
            yield _table("", ["value"], ["log-likelihood"], [[given.log_likelihood]])
            yield _table("First derivatives", ["value"], names, [[x] for x in given.gradient])
            yield _table("Second derivatives, times -1", names, names, given.information)
        case Totals():
            along, across = TOTALS.get(given.kind, ("", ()))
            if step == "maximum":
                along, across = "all", packed_names(own)
            across = axis_names(across, own) if isinstance(across, str) else across
            labels = named(axis_names(along, own), len(given.values), "row")
            columns = named(across, max(map(len, given.values)), "number")
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
    known = zip(binned_variables(given.kind, own), given.starts, given.counts, strict=True)
    for (title, groups, levels), starts, counts in known:
        for group, firsts, row in zip(groups, starts, counts, strict=True):
            labels = bin_names(levels, firsts) or ["every bin"]
            yield _table(f"{title}, {group}", ["patients"], labels, [[n] for n in row] or [[]])


def _life_tables(given: shapes.SurvivalTable, own: Any) -> Iterator[dict[str, Any]]:
    days, end = own.spec.bin_days, own.spec.horizon_days
    groups = axis_names("groups", own)
    parts = zip(groups, given.edges, given.at_risk, given.events, given.censored, strict=True)
    for group, edges, *counts in parts:
        times = [f"days {low * days}-{min(high * days, end)}" for low, high in pairwise(edges)]
        rows = list(zip(*counts, strict=True)) or [()]
        yield _table(group, ("at risk", "event", "lost"), times or ["every time"], rows)


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
    if answer["refusal"] is not None:
        yield from _wrapped(f"REFUSED: {answer['refusal_words']} ({answer['refusal']}).", 3)
        return
    if "summary" not in answer:
        yield from _wrapped("ADDED UNDER MASKS, but the ledger does not know it: reject it.", 3)
        return
    events = "" if answer["n_events"] is None else f", {answer['n_events']} with the event"
    if answer["layout"] is None:
        how = f"RELEASED, {answer['n_bytes']} bytes"
    else:
        how = (
            f"ADDED UNDER MASKS, {answer['n_masked']} numbers, to a sum over at least "
            f"{answer['least_sites']} sites; the coordinator reads the sum, and of these numbers "
            "none"
        )
    yield from _wrapped(f"{how}: {answer['summary']}", 3)
    yield from (f"   {answer['digest']}", f"   Behind it: {answer['n_patients']} patients{events}.")
    text = "not charged."
    if budget := answer["budget"]:
        allowed, most = (budget[name] or "?" for name in ("n_allowed", "n_asked_allowed"))
        text = f"{budget['n_told']} of {allowed} numbers about these patients "
        text += f"({budget['n_now']} by this answer); question {budget['n_asked']} of {most}."
    yield from _wrapped(f"Budget after it: {text}", 3)
    for table in answer["tables"]:
        # Derivatives are summed up above; whoever wants them asks for them.
        if is_full or not answer["is_likelihood"]:
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
