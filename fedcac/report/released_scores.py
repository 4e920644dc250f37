"""Histograms of scores as the sites released them, out of the round's `releases.jsonl`.

Estimates hold no histogram; the releases do, for protocols with an analysis of kind
`distribution`. Nothing is read here that the gate did not let go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import parse_aggregate
from fedcac.statistics.distribution import N_BINS, ScoreHistogram
from fedcac.statistics.grids import common_bins, released_row, score_edges

__all__ = ["ScoreBins", "pooled_bins", "released_scores"]

_KIND = b'"score_histogram"'


def _grid() -> tuple[float, ...]:
    """Return the grid's edges as ln(score + 1), one more than there are bins."""
    inner = np.log1p(score_edges(N_BINS))
    return (0.0, *map(float, inner), float(2 * inner[-1] - inner[-2]))


_GRID = _grid()


@dataclass(frozen=True)
class ScoreBins:
    """Patients per bin of one score at one site, or summed over sites.

    `starts` (k) are the first grid bin of every bin, `counts` (k) its patients.
    """

    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins as ln(score + 1), k + 1 of them from 0 up."""
        return (*(_GRID[start] for start in self.starts), _GRID[-1])

    @property
    def n(self) -> int:
        """Number of patients."""
        return sum(self.counts)

    @property
    def n_zero(self) -> int | None:
        """Patients with a score of zero; None if the gate merged them with others."""
        return self.counts[0] if len(self.starts) > 1 and self.starts[1] == 1 else None


Pair = tuple[ScoreBins | None, ScoreBins | None]


def released_scores(releases: bytes) -> dict[str, dict[str, Pair]]:
    """Return per analysis and site the histograms of the index and the reference score.

    None stands for a histogram that is suppressed; a site that released none is absent.
    """
    found: dict[str, dict[str, Pair]] = {}
    for line in releases.splitlines():
        # Most lines are steps of a model; reading them all would take longer than the report.
        if _KIND not in line:
            continue
        record = json.loads(line)
        if record.get("what") != "reply":
            continue
        for analysis, answer in record["document"]["answers"].items():
            if (answer.get("release") or {}).get("kind") != ScoreHistogram.kind:
                continue
            histogram = parse_aggregate(answer["release"])
            if isinstance(histogram, ScoreHistogram):
                pair = (_bins(histogram, 0), _bins(histogram, 1))
                found.setdefault(analysis, {})[record["document"]["site"]] = pair
    return found


def pooled_bins(sites: list[ScoreBins]) -> ScoreBins | None:
    """Return the sum of histograms on the bins that all of them have."""
    if not sites:
        return None
    rows = [(np.array(site.starts), np.array(site.counts)) for site in sites]
    return _of(*common_bins(rows))


def _bins(histogram: ScoreHistogram, variable: int) -> ScoreBins | None:
    row = released_row(histogram, variable, 0)
    return None if row is None else _of(*row)


def _of(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> ScoreBins:
    return ScoreBins(tuple(map(int, starts)), tuple(map(int, counts)))
