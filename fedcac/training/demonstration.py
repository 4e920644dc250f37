"""Trains the demonstration package on generated pairs, from a seed, on the CPU.

`python -m fedcac.training.demonstration --out DIR --seed S`. What comes out is for trying the
software; it has never seen a patient's calcium and is not for clinical use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import nn

from fedcac.canonical import Digest, canonical_bytes, sha256_hex
from fedcac.console import progress, say
from fedcac.errors import PackageError
from fedcac.models import InferenceEngine, ModelPackage, PackageManifest, build_network
from fedcac.models.manifest import GOLDEN_FILE, MANIFEST_FILE, WEIGHTS_FILE
from fedcac.models.second_stage import RISK_CATEGORIES
from fedcac.phantom import (
    PhantomExam,
    PhantomPair,
    generate_hybrid_pair,
    generate_pair,
)
from fedcac.phantom.worker_pool import worker_pool
from fedcac.scoring import profile_named, score_volume
from fedcac.statistics.kappa import cohen_kappa
from fedcac.training.card import CARD_FILE, render_card
from fedcac.training.recipe import CALCIUM_THRESHOLD, Recipe, SlicePool, train_network
from fedcac.vocabulary import KappaWeights

__all__ = ["main", "make_pairs", "measure"]

_ARCHITECTURE = {
    "planes": [16, 32, 48, 64],
    "blocks": [2, 2, 3, 2],
    "groups": 4,
    "base_width": 32,
    "decoder": [64, 48, 32, 24],
}
_RECIPE = Recipe(epochs=9, iterations_per_epoch=330, batch=8)
_N_TRAINING, _N_HELD_OUT = 150, 160
_HYBRID_SHARE = 0.3
_FIELD_OF_VIEW_MM = 220.0
_TRAINING_STREAM, _HELD_OUT_STREAM = 1, 2

_CARD_TEXT = {
    "intended_use": (
        "Demonstration of the software only. Trained on generated data; not validated on "
        "patients' calcium. Not for clinical use."
    ),
    "training_data": (
        "Generated exam pairs: synthetic thoraces, and plaques of known mass splatted into one "
        "real chest CT (Lung-PET-CT-Dx, doi:10.7937/TCIA.2020.NNC20461, CC BY 4.0)."
    ),
    "limitations": (
        "Accuracy on patients is unknown. Held-out pairs come from the same generator as the "
        "training pairs, and hybrid ones from the same chest CT. Of slices wider than 220 mm only "
        "the middle is looked at. Trained on slices through the heart alone: above and below it, "
        "bone and vessel walls of a whole chest CT may be called calcium."
    ),
}


def _make_pair(task: tuple[int, int, int]) -> PhantomPair:
    rng = np.random.default_rng(task)
    if rng.random() < _HYBRID_SHARE:
        return generate_hybrid_pair(rng)
    return generate_pair(rng)


def make_pairs(seed: int, stream: int, n_pairs: int) -> list[PhantomPair]:
    """Return generated pairs; streams of one seed share no patient."""
    tasks = [(seed, stream, number) for number in range(n_pairs)]
    pairs = []
    with worker_pool() as workers, progress("Generating", n_pairs) as advance:
        for pair in workers.map(_make_pair, tasks, chunksize=4):
            pairs.append(pair)
            advance()
    return pairs


def _pool_of(exams: Sequence[PhantomExam]) -> SlicePool:
    return SlicePool(
        hu=np.concatenate([exam.hu.astype(np.int16) for exam in exams]),
        vessel_map=np.concatenate([exam.vessel_map for exam in exams]),
    )


def measure(
    package: ModelPackage,
    pairs: Sequence[PhantomPair],
    exam_of: Callable[[PhantomPair], PhantomExam],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (reference, index) risk categories of pairs; the reference is the true score."""
    engine = InferenceEngine(package, device="cpu")
    profile = profile_named("agatston1990")
    scores = []
    for pair in pairs:
        exam = exam_of(pair)
        mask = engine.predict(exam.hu, exam.spacing_mm).vessel_map
        scores.append(score_volume(exam.hu, mask, exam.spacing_mm, profile).total)
    reference = np.array([pair.reference_score for pair in pairs])
    return RISK_CATEGORIES.categorise(reference), RISK_CATEGORIES.categorise(np.array(scores))


def _manifest(
    files: dict[str, Digest], network: nn.Module, measurements: list[dict[str, object]]
) -> PackageManifest:
    document = {
        "schema_version": 1,
        "name": "eng2021-demo",
        "version": "1.0.0",
        "family": "eng2021",
        "architecture": _ARCHITECTURE,
        "input": {
            "clip_hu": [-800.0, 1200.0],
            "centre_hu": 200.0,
            "scale_hu": 1000.0,
            "field_of_view_mm": _FIELD_OF_VIEW_MM,
        },
        "calcium_threshold": CALCIUM_THRESHOLD,
        "files": files,
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in network.state_dict().items()
        },
        "golden_tolerance": 0.01,
        "licence": "Apache-2.0",
        "card": {**_CARD_TEXT, "is_demonstration": True, "measurements": measurements},
    }
    return PackageManifest.model_validate_json(canonical_bytes(document))


def _golden_case(manifest: PackageManifest, network: nn.Module, exam: PhantomExam) -> bytes:
    # The three slices with most calcium, cut to their middle: small, and every head speaks.
    richest = np.sort(np.argsort(exam.vessel_map.sum(axis=(1, 2)))[-3:])
    hu = torch.from_numpy(exam.hu[richest, 64:192, 64:192].copy())
    package = ModelPackage(manifest, b"", b"", b"")
    with torch.inference_mode():
        calcium, vessels = package.probabilities(network.eval(), hu)
    return save_tensors(
        {"hu": hu, "calcium": calcium.contiguous(), "vessels": vessels.contiguous()}
    )


def _measurements(package: ModelPackage, pairs: Sequence[PhantomPair]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, exam_of in (
        ("gated", lambda pair: pair.gated),
        ("non-gated", lambda pair: pair.non_gated),
    ):
        reference, index = measure(package, pairs, exam_of)
        matrix = np.zeros((RISK_CATEGORIES.n_categories,) * 2, dtype=np.int64)
        np.add.at(matrix, (reference, index), 1)
        kappa = cohen_kappa(matrix, KappaWeights.LINEAR)
        if kappa is None:
            raise PackageError(
                "The held-out pairs do not differ in category.",
                code="unmeasured",
                cure="Give another seed.",
            )
        low, high = (kappa.estimate + sign * 1.96 * kappa.se for sign in (-1, 1))
        found.append(
            {
                "name": f"linear kappa of risk categories, {name} against the true score",
                "value": round(kappa.estimate, 4),
                "ci_low": round(low, 4),
                "ci_high": round(high, 4),
                "n_exams": len(pairs),
            }
        )
        say(f"{name}: linear kappa {kappa.estimate:.3f} ({low:.3f} to {high:.3f})\n{matrix}")
    return found


def _write(folder: Path, manifest: PackageManifest, weights: bytes, golden: bytes) -> ModelPackage:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / GOLDEN_FILE).write_bytes(golden)
    (folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    card = render_card(manifest, "held-out generated pairs")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return ModelPackage.from_folder(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure and write the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="package folder")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(2)
    rng = np.random.default_rng((arguments.seed, 0))
    pairs = make_pairs(arguments.seed, _TRAINING_STREAM, _N_TRAINING)
    pool = _pool_of([exam for pair in pairs for exam in (pair.gated, pair.non_gated)])
    golden_exam = max(pairs, key=lambda pair: pair.reference_score).gated
    del pairs
    network = build_network("eng2021", dict(_ARCHITECTURE))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    unmeasured = _manifest({}, network, [])
    train_network(network, unmeasured.input, pool, _RECIPE, rng, say)
    weights = save_tensors({name: t.contiguous() for name, t in network.state_dict().items()})
    golden = _golden_case(unmeasured, network, golden_exam)
    files = {WEIGHTS_FILE: sha256_hex(weights), GOLDEN_FILE: sha256_hex(golden)}
    package = _write(arguments.out, _manifest(files, network, []), weights, golden)
    held_out = make_pairs(arguments.seed, _HELD_OUT_STREAM, _N_HELD_OUT)
    measurements = _measurements(package, held_out)
    _write(arguments.out, _manifest(files, network, measurements), weights, golden)
    return 0


if __name__ == "__main__":
    sys.exit(main())
