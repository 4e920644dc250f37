"""STARD flow diagram of one site: counts per stage and coded exclusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcac.aggregate import Count, FlowCounts, FlowStage
from fedcac.report.figures.canvas import FONT_FAMILY, Figure, slug
from fedcac.report.wording import STAGE_WORDS, exclusion_words, suppressed_words
from fedcac.vocabulary import ExclusionReason

__all__ = ["count_words", "draw_flow", "draw_pooled_flow", "sum_words"]

_WIDTH, _STEP, _LINE = 500, 62, 19

_TEMPLATES = Environment(
    loader=PackageLoader("fedcac.report"), autoescape=True, undefined=StrictUndefined
)


def count_words(count: Count, minimum_cell: int) -> str:
    """Return a released count, or the words that stand in its place."""
    return f"{count:,}" if isinstance(count, int) else suppressed_words(minimum_cell)


def draw_flow(site: str, flow: FlowCounts, minimum_cell: int, note: str = "") -> Figure:
    """Draw the five stages from top to bottom, and beside them every reason for exclusion.

    `note` is said of the reference standard in the figure's title.
    """
    return _draw(
        _titled(site, note),
        slug("flow", site),
        {stage: count_words(flow.stages[stage], minimum_cell) for stage in FlowStage},
        {reason: count_words(flow.exclusions[reason], minimum_cell) for reason in flow.exclusions},
    )


def sum_words(counts: Sequence[Count]) -> str:
    """Return the sum of the sites' counts, a lower limit where some are suppressed."""
    known = [count for count in counts if isinstance(count, int)]
    n_hidden = len(counts) - len(known)
    if n_hidden == 0:
        return f"{sum(known):,}"
    places = f"suppressed at {n_hidden}"
    return f"{places} sites" if not known else f"≥ {sum(known):,} ({places})"


def draw_pooled_flow(flows: Sequence[FlowCounts], note: str = "") -> Figure:
    """Draw the sum of the sites' flows; a count that some sites suppressed is a lower limit."""
    reasons = {reason for flow in flows for reason in flow.exclusions}
    return _draw(
        _titled(f"All sites that released their flow (n = {len(flows)})", note),
        slug("flow", "all sites"),
        {stage: sum_words([flow.stages[stage] for flow in flows]) for stage in FlowStage},
        {reason: sum_words([f.exclusions.get(reason, 0) for f in flows]) for reason in reasons},
    )


def _titled(title: str, note: str) -> str:
    return f"{title}; {note}" if note else title


def _draw(
    title: str,
    name: str,
    counts: Mapping[FlowStage, str],
    lost: Mapping[ExclusionReason, str],
) -> Figure:
    stages = [(STAGE_WORDS[stage], words) for stage, words in counts.items()]
    exclusions = [(exclusion_words(reason), lost[reason]) for reason in sorted(lost)]
    alt = f"STARD flow of exams, {title}. " + ", ".join(
        f"{words.lower()}: {count}" for words, count in stages
    )
    if exclusions:
        alt += ". Excluded: " + ", ".join(
            f"{words.lower()}: {count}" for words, count in exclusions
        )
    panel = 34 + _LINE * max(1, len(exclusions))
    svg = _TEMPLATES.get_template("flow.svg.j2").render(
        alt=alt + ".",
        name=name,
        site=title,
        font=FONT_FAMILY,
        stages=stages,
        exclusions=exclusions,
        width=_WIDTH,
        height=max(36 + _STEP * len(stages), 30 + panel + 10),
        step=_STEP,
        line=_LINE,
        panel=panel,
    )
    return Figure(name, "flow", alt + ".", svg, _WIDTH)
