"""Fits a second stage to the demonstration package on generated non-gated exams, and measures it.

`python -m fedcac.training.second_stage_demonstration --out DIR --seed S --exams N` writes
`second_stage.json` and says how well scores agree with the true gated score before and after, out
of fold. Generated data only: not for clinical use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcac.console import progress, say
from fedcac.models import InferenceEngine, Prediction, demonstration_package
from fedcac.models.manifest import SECOND_STAGE_FILE
from fedcac.models.second_stage import RISK_CATEGORIES
from fedcac.models.second_stage_features import FEATURE_NAMES, summarise_exam
from fedcac.phantom import PhantomPair, generate_pair
from fedcac.scoring import profile_named, score_volume
from fedcac.training.second_stage import (
    Agreement,
    SecondStageTarget,
    agreement_of,
    fit_second_stage,
)

__all__ = ["FirstStage", "main", "read_exams"]

_STREAM = 3
"""Stream of the seed; streams 1 and 2 trained and measured the first stage."""


class Engine(Protocol):
    """What finds calcium: `InferenceEngine`, or another with its one method."""

    def predict(
        self, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> Prediction:
        """Return the mask of a volume."""


@dataclass(frozen=True, eq=False)
class FirstStage:
    """What the first stage makes of n non-gated exams, beside their gated truth.

    `features` is (n, 20); `scores` and `reference_scores` are Agatston scores, (n,): of the
    non-gated exam under the first stage's mask, and of the gated exam under its true one.
    """

    features: NDArray[np.float64]
    scores: NDArray[np.float64]
    reference_scores: NDArray[np.float64]
    slice_increment_mm: float


def read_exams(engine: Engine, pairs: Iterable[PhantomPair]) -> FirstStage:
    """Run the first stage over the non-gated exams of at least one pair of one slice increment.

    Raises
    ------
    ValueError
        If the slice increments differ or there is no pair.
    """
    profile = profile_named("agatston1990")
    features, scores, references = [], [], []
    increments: set[float] = set()
    for pair in pairs:
        exam = pair.non_gated
        mask = engine.predict(exam.hu, exam.spacing_mm).vessel_map
        features.append(summarise_exam(exam.hu, mask, exam.spacing_mm))
        scores.append(score_volume(exam.hu, mask, exam.spacing_mm, profile).total)
        references.append(pair.reference_score)
        increments.add(exam.spacing_mm[0])
    if len(increments) != 1:
        raise ValueError(f"pairs must share one slice increment, not {sorted(increments)}")
    return FirstStage(
        np.array(features).reshape(-1, len(FEATURE_NAMES)),
        np.array(scores),
        np.array(references),
        increments.pop(),
    )


def _line(name: str, agreement: Agreement) -> str:
    kappa, error = agreement.kappa, agreement.median_absolute_error
    return (
        f"{name}: {agreement.n_exams} exams, linear kappa "
        + ("not estimable" if kappa is None else f"{kappa.estimate:.3f} (se {kappa.se:.3f})")
        + ("" if error is None else f", median absolute error {error:.1f}")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, read, fit, measure and write the trees that give scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help=f"folder of {SECOND_STAGE_FILE}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--exams", type=int, default=120)
    arguments = parser.parse_args(argv)
    engine = InferenceEngine(demonstration_package(), device="cpu")
    with progress("Reading", arguments.exams) as advance:

        def pairs() -> Iterable[PhantomPair]:
            for number in range(arguments.exams):
                yield generate_pair(np.random.default_rng((arguments.seed, _STREAM, number)))
                advance()

        first = read_exams(engine, pairs())
    patients = [str(number) for number in range(arguments.exams)]
    before = RISK_CATEGORIES.categorise(first.scores)
    say(_line("first stage", agreement_of(first.reference_scores, before, first.scores)))
    for target in SecondStageTarget:
        fit = fit_second_stage(
            first.features,
            first.reference_scores,
            patients,
            slice_increment_mm=first.slice_increment_mm,
            target=target,
            seed=arguments.seed,
        )
        say(_line(f"second stage, {target.value}, out of fold", fit.agreement))
        if target is SecondStageTarget.LOG_SCORE:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / SECOND_STAGE_FILE).write_bytes(fit.model_json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
