"""The model card of a manifest as Markdown."""

from __future__ import annotations

from fedcac.models import PackageManifest

__all__ = ["CARD_FILE", "render_card"]

CARD_FILE = "MODEL_CARD.md"


def render_card(manifest: PackageManifest, held_out: str = "held-out patients") -> str:
    """Return the model card as Markdown; a figure without an interval shows none.

    `held_out` says what was measured on.
    """
    card = manifest.card
    rows = []
    for found in card.measurements:
        interval = "none"
        if found.ci_low is not None and found.ci_high is not None:
            interval = f"{found.ci_low:.3f} to {found.ci_high:.3f}"
        rows.append(f"| {found.name} | {found.value:.3f} | {interval} | {found.n_exams} |")
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"**{card.intended_use}**",
        "",
        f"Training data: {card.training_data}",
        "",
        f"Limitations: {card.limitations}",
        "",
        f"| measured on {held_out} | value | 95 % CI | exams |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)
