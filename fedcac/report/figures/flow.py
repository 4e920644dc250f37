"""STARD flow diagram of one site: counts per stage and coded exclusions."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcac.aggregate import Count, FlowCounts, FlowStage
from fedcac.report.figures.canvas import FONT_FAMILY, Figure, slug
from fedcac.report.wording import STAGE_WORDS, exclusion_words, suppressed_words

__all__ = ["count_words", "draw_flow"]

_WIDTH, _STEP, _LINE = 500, 62, 19

_TEMPLATES = Environment(
    loader=PackageLoader("fedcac.report"), autoescape=True, undefined=StrictUndefined
)


def count_words(count: Count, minimum_cell: int) -> str:
    """Return a released count, or the words that stand in its place."""
    return f"{count:,}" if isinstance(count, int) else suppressed_words(minimum_cell)


def draw_flow(site: str, flow: FlowCounts, minimum_cell: int) -> Figure:
    """Draw the five stages from top to bottom, and beside them every reason for exclusion."""
    stages = [
        (STAGE_WORDS[stage], count_words(flow.stages[stage], minimum_cell)) for stage in FlowStage
    ]
    exclusions = [
        (exclusion_words(reason), count_words(flow.exclusions[reason], minimum_cell))
        for reason in sorted(flow.exclusions)
    ]
    alt = f"STARD flow of exams, {site}. " + ", ".join(
        f"{words.lower()}: {count}" for words, count in stages
    )
    if exclusions:
        alt += ". Excluded: " + ", ".join(
            f"{words.lower()}: {count}" for words, count in exclusions
        )
    name = slug("flow", site)
    panel = 34 + _LINE * max(1, len(exclusions))
    svg = _TEMPLATES.get_template("flow.svg.j2").render(
        alt=alt + ".",
        name=name,
        site=site,
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
