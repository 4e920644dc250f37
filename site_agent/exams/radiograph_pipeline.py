"""How a chest radiograph becomes probabilities, in the same three steps as a CT volume.

A worker process decodes the file and shrinks it to the network's input, so that a few hundred
kilobytes come back in the place of a whole radiograph; the device answers many at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging import load_radiograph
from fedcac.imaging.coding import exclusion
from fedcac.models.radiograph_input import RadiographInput
from fedcac.models.threshold_answers import category_index, category_labels
from fedcac.models.transport import Reading
from fedcac.vocabulary import ExclusionReason
from site_agent.exams.exam_pipeline import ExamPipeline, ExamScore

if TYPE_CHECKING:
    from fedcac.models import InferenceEngine, ModelPackage
    from fedcac.models.streams import StreamLimits
    from fedcac.protocol import ImageCriteria

__all__ = ["prepared_radiograph", "radiograph_answer", "radiograph_pipeline"]


def prepared_radiograph(
    path: Path, criteria: ImageCriteria, spec: RadiographInput
) -> NDArray[np.float32]:
    """Return the frontal radiograph at a path as network input, (rows, columns).

    Raises
    ------
    DicomError
        As `load_radiograph`; `corrupt_pixels` for one without any contrast, in which nothing can
        be seen.
    """
    radiograph = load_radiograph(path, criteria)
    if not spec.has_contrast(radiograph.intensity):
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "The radiograph has no contrast.")
    prepared: NDArray[np.float32] = spec.prepare(radiograph.intensity)[0, 0].numpy()
    return prepared


def radiograph_answer(package: ModelPackage, probabilities: NDArray[np.float32]) -> ExamScore:
    """Return what a classifier says of an exam; `probabilities` has shape (thresholds,)."""
    thresholds = package.family.thresholds
    found = {
        threshold: float(probability)
        for threshold, probability in zip(thresholds, probabilities, strict=True)
    }
    index = category_index(found, thresholds, package.manifest.calcium_threshold)
    return ExamScore(None, native_category=category_labels(thresholds)[index], probabilities=found)


def radiograph_pipeline(
    package: ModelPackage,
    engine: InferenceEngine,
    criteria: ImageCriteria,
    limits: StreamLimits,
) -> ExamPipeline[Any]:
    """Return the pipeline of a package that reads radiographs.

    Raises
    ------
    ValueError
        If the package reads volumes.
    """
    spec = package.family.radiograph
    if spec is None:
        raise ValueError("the package does not read radiographs")

    def answer(images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return list(engine.probabilities(images))

    def score(_: NDArray[np.float32], probabilities: NDArray[np.float32]) -> ExamScore:
        return radiograph_answer(package, probabilities)

    return ExamPipeline(
        read=partial(_read, criteria=criteria, spec=spec),
        restore=_restore,
        segment=answer,
        score=score,
        # A prepared radiograph is small: a whole batch may wait beside those that are read.
        limits=replace(limits, n_in_flight=limits.n_in_flight + engine.n_at_a_time),
        preload=("site_agent.exams.radiograph_pipeline",),
        batch=engine.n_at_a_time,
    )


def _read(path: Path, criteria: ImageCriteria, spec: RadiographInput) -> Reading:
    return Reading({"image": prepared_radiograph(path, criteria, spec)})


def _restore(reading: Reading) -> NDArray[np.float32]:
    image: NDArray[np.float32] = reading.arrays["image"]
    return image
