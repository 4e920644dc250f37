"""Which series of a study a protocol reads, and why: every candidate with its evidence.

For the site's own people: it names series, and nothing of it is sent or logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.errors import DicomError
from fedcac.imaging import Acquisition, Candidate, reason_of, select_series, survey_series

if TYPE_CHECKING:
    from fedcac.protocol import Protocol

__all__ = ["survey_study"]


def survey_study(protocol: Protocol, path: Path) -> tuple[str, dict[str, Any]]:
    """Return text and content about every series at a folder under a protocol's image criteria.

    The series chosen is the one that a manifest's line with this folder would read, were the whole
    study named and `choose_series` in force.

    Raises
    ------
    DicomError
        As `select_series`; where no series is eligible its message lists all of them.
    """
    criteria = protocol.image_criteria.model_copy(update={"choose_series": True})
    candidates, n_ignored = survey_series(path, criteria)
    lines = [f"The protocol asks for acquisition: {criteria.acquisition}."]
    try:
        chosen = select_series(path, criteria).chosen.series_uid
    except DicomError as error:
        raise DicomError(
            "\n".join([error.message, *lines, *_lines(candidates, "")]),
            code=reason_of(error),
            cure=error.cure,
        ) from error
    lines += _lines(candidates, chosen)
    lines += [f"{n_ignored} files are not DICOM."] if n_ignored else []
    if not protocol.image_criteria.choose_series:
        lines.append(
            "The protocol lets no folder hold several series: name one in the manifest as "
            f"{path.name}/{chosen}."
        )
    return "\n".join(lines), {
        "acquisition_asked_for": criteria.acquisition,
        "chosen": chosen,
        "series": [_content(one, chosen) for one in candidates],
        "n_ignored": n_ignored,
    }


def _lines(candidates: Sequence[Candidate], chosen: str) -> list[str]:
    lines = []
    for one in candidates:
        state = "chosen" if one.series_uid == chosen else one.rejection or "eligible"
        lines.append(f"{one.series_uid}: {state}{_described(one)}")
        if one.verdict is not None:
            kind = one.verdict.acquisition or "acquisition left open"
            reasons = ", ".join(
                f"{item.attribute} {item.points:+d}"
                + (" (attenuation)" if item.kind is Acquisition.ATTENUATION_CORRECTION else "")
                for item in one.verdict.evidence
            )
            lines.append(f"  {kind}: {reasons or 'no evidence'}")
    return lines


def _described(one: Candidate) -> str:
    if not one.n_slices:
        return f", {len(one.paths)} files"
    thickness = "" if one.thickness_mm is None else f" of {one.thickness_mm:g} mm"
    return f", {one.n_slices} slices{thickness}, kernel {one.kernel or 'not stated'}"


def _content(one: Candidate, chosen: str) -> dict[str, Any]:
    verdict = one.verdict
    return {
        "series_uid": one.series_uid,
        "is_chosen": one.series_uid == chosen,
        "rejection": one.rejection,
        "acquisition": None if verdict is None else verdict.acquisition,
        "evidence": []
        if verdict is None
        else [
            {"kind": item.kind, "attribute": item.attribute, "points": item.points}
            for item in verdict.evidence
        ],
        "n_slices": one.n_slices,
        "thickness_mm": one.thickness_mm,
        "kernel": one.kernel,
    }
