"""From what a model made of an exam to the columns that a protocol's analyses read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedcac.models.threshold_answers import category_index
from fedcac.protocol.categories import category_scores
from fedcac.protocol.columns import PROBABILITY_PREFIX, threshold_of
from fedcac.site_table import NATIVE_CATEGORY, NATIVE_SCORE, ScoredExam

if TYPE_CHECKING:
    from fedcac.imaging import ExamPair
    from fedcac.models import ModelPackage
    from fedcac.protocol import Protocol
    from site_agent.state.records import ExamRecord

__all__ = ["scored_exam"]


def scored_exam(
    pair: ExamPair, record: ExamRecord, protocol: Protocol, package: ModelPackage
) -> ScoredExam:
    """Return a scored exam in the columns of the site table.

    A classifier's probabilities stand in `index_probability_0` and so on. As in a scored table
    with `index_category`, its `index_score` is a score inside the protocol's category that it
    answers: the one that as many of the protocol's cut-offs lie below as it passes. The model's own
    category is likewise a score inside the category of the protocol that has its name; there is
    none where the protocol's categories are others.

    Raises
    ------
    ValueError
        If the exam was not scored.
    KeyError
        If the classifier knows no probability for a cut-off (`check_package_fits` comes before).
    """
    of_category = category_scores(protocol.categories)
    total = record.total
    if record.probabilities:
        thresholds = [int(threshold_of(cut)) for cut in protocol.categories.cut_offs]
        decision = package.manifest.calcium_threshold
        index = category_index(record.probabilities, thresholds, decision)
        total = tuple(of_category.values())[index]
    if total is None:
        raise ValueError("the exam was not scored")
    further = {
        f"{PROBABILITY_PREFIX}{threshold}": probability
        for threshold, probability in record.probabilities.items()
    }
    native = record.native_score
    further[NATIVE_SCORE] = math.nan if native is None else native
    further[NATIVE_CATEGORY] = of_category.get((record.native_category or "").lower(), math.nan)
    return ScoredExam(pair.exam_key, pair.patient_id, total, record.vessels, further)
