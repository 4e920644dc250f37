"""`fedcac score`: what a model package makes of one CT series or one chest radiograph."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.console import Outcome, add_format

if TYPE_CHECKING:
    from fedcac.imaging import Series, Volume
    from fedcac.models import ModelPackage, Prediction
    from site_agent.exams.exam_pipeline import ScoredMask

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "score", help="score one CT series or one chest radiograph with a model package"
    )
    parser.add_argument(
        "path", type=Path, help="a folder that holds one CT series, or a radiograph's study"
    )
    parser.add_argument(
        "--model", type=Path, help="model package folder (default: the demonstration package)"
    )
    parser.add_argument("--profile", default="agatston1990", help="scoring profile")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--any-kernel", action="store_true", help="accept sharp and lung kernels too"
    )
    parser.add_argument(
        "--artefacts",
        type=Path,
        metavar="DIR",
        help="write DICOM SEG, DICOM SR and an overlay page of the exam into a private folder",
    )
    parser.add_argument(
        "--pseudonym", default="exam", help="what the overlay page calls the exam (default: exam)"
    )
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from fedcac.models import demonstration_package
    from fedcac.models.package import ModelPackage

    package = (
        demonstration_package()
        if arguments.model is None
        else ModelPackage.from_folder(arguments.model)
    )
    if package.family.is_segmenting:
        return _score_volume(arguments, package)
    return _answer_radiograph(arguments, package)


def _answer_radiograph(arguments: argparse.Namespace, package: ModelPackage) -> Outcome:
    from fedcac.errors import UsageError
    from fedcac.models import InferenceEngine
    from fedcac.protocol import ImageCriteria
    from site_agent.exams.radiograph_pipeline import prepared_radiograph, radiograph_answer

    spec = package.family.radiograph
    if spec is None or arguments.artefacts is not None:
        raise UsageError(
            "A package that reads radiographs marks nothing: there are no artefacts of it.",
            code="no_artefacts",
            cure="Leave --artefacts out.",
        )
    criteria = ImageCriteria(min_slices=1, choose_series=True)
    image = prepared_radiograph(arguments.path, criteria, spec)
    engine = InferenceEngine(package, device=arguments.device)
    answer = radiograph_answer(package, engine.probabilities([image])[0])
    engine.close()
    thresholds = ", ".join(
        f"{'>' if threshold == 0 else '>='} {threshold}: {probability:.3f}"
        for threshold, probability in answer.probabilities.items()
    )
    return Outcome(
        f"Probability of a calcium score {thresholds}\n"
        f"Category {answer.native_category}, package {package.manifest.name}{_warning(package)}",
        {
            "probabilities": {str(name): value for name, value in answer.probabilities.items()},
            "native_category": answer.native_category,
            "package": package.manifest.name,
            "package_digest": package.digest,
            "is_demonstration": package.manifest.card.is_demonstration,
        },
    )


def _warning(package: ModelPackage) -> str:
    if package.manifest.card.is_demonstration:
        return "\nDemonstration model: not for clinical use."
    return "\nResearch use only."


def _score_volume(arguments: argparse.Namespace, package: ModelPackage) -> Outcome:
    from fedcac.imaging import build_volume, read_series
    from fedcac.models import InferenceEngine
    from fedcac.protocol import ImageCriteria
    from fedcac.scoring import profile_named
    from site_agent.exams.exam_pipeline import score_mask

    profile = profile_named(arguments.profile)
    if arguments.artefacts is not None:
        _check_pseudonym(arguments.pseudonym)
    criteria = ImageCriteria(allow_sharp_kernel=arguments.any_kernel)
    series = read_series(arguments.path, criteria)
    volume = build_volume(series)
    engine = InferenceEngine(package, device=arguments.device)
    prediction = engine.predict(volume.hu, volume.spacing_mm)
    scored = score_mask(volume, prediction.vessel_map, profile, package.second_stage())
    score = scored.score
    content = {
        "agatston": score.total,
        "vessels": {vessel.value: value for vessel, value in score.vessels.items()},
        "native_score": scored.native_score,
        "native_category": scored.native_category,
        "volume_mm3": score.volume_mm3,
        "n_lesions": score.n_lesions,
        "n_slices": int(volume.hu.shape[0]),
        "spacing_mm": list(volume.spacing_mm),
        "profile": profile.name,
        "package": package.manifest.name,
        "package_digest": package.digest,
        "is_demonstration": package.manifest.card.is_demonstration,
    }
    written = ""
    if arguments.artefacts is not None:
        paths = _write_artefacts(arguments, package, series, volume, prediction, scored)
        content["artefacts"] = [str(path) for path in paths]
        written = f"\nFor review, with the patient's identifiers: {arguments.artefacts}"
    vessels = ", ".join(f"{vessel.value.upper()} {v:.1f}" for vessel, v in score.vessels.items())
    text = (
        f"Agatston score {score.total:.1f} ({vessels or 'vessels not told by this model'})\n"
        f"{_native_line(scored.native_score, scored.native_category)}"
        f"{score.n_lesions} lesions, {score.volume_mm3:.1f} mm3, profile {profile.name}, "
        f"package {package.manifest.name}{_warning(package)}{written}"
    )
    return Outcome(text, content)


def _check_pseudonym(pseudonym: str) -> None:
    from fedcac.errors import UsageError
    from fedcac.imaging.review_artefacts.content import check_pseudonym

    try:
        check_pseudonym(pseudonym)
    except ValueError as error:
        raise UsageError(
            f"--pseudonym: {error}.", code="bad_pseudonym", cure="Leave it out, or give another."
        ) from error


def _write_artefacts(
    arguments: argparse.Namespace,
    package: ModelPackage,
    series: Series,
    volume: Volume,
    prediction: Prediction,
    scored: ScoredMask,
) -> tuple[Path, ...]:
    from fedcac.imaging.review_artefacts import write_review_artefacts
    from site_agent.exams.review_artefacts import model_identity, reviewed_score

    return write_review_artefacts(
        arguments.artefacts,
        series,
        volume,
        prediction.vessel_map,
        reviewed_score(
            scored.score, scored.score.vessels, arguments.profile, native_score=scored.native_score
        ),
        model_identity(package),
        pseudonym=arguments.pseudonym,
    )


def _native_line(score: float | None, category: int | None) -> str:
    if category is None:
        return ""
    from fedcac.models.second_stage import RISK_CATEGORIES

    exact = "" if score is None else f"score {score:.1f}, "
    return f"The model's own second stage: {exact}category {RISK_CATEGORIES.labels[category]}\n"
