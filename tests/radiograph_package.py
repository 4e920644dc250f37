"""A package of the radiograph family, made in a moment: random features under a fitted head."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_packages import tiny_manifest

from fedcac.models import ModelPackage, build_network
from fedcac.models.assembly import assemble_package
from fedcac.models.radiograph_input import RadiographInput
from fedcac.phantom.radiographs import draw_radiograph
from fedcac.training.hong2025 import threshold_labels

__all__ = ["ARCHITECTURE", "INPUT", "SIZE", "write_radiograph_package"]

SIZE = 48
ARCHITECTURE: dict[str, Any] = {
    "init_features": 8,
    "growth_rate": 4,
    "block_config": [1, 1, 1, 1],
    "image": {"rows": SIZE, "columns": SIZE},
}
INPUT = {"clip_hu": [0.0, 1.0], "centre_hu": 0.5, "scale_hu": 0.5}


@cache
def _network() -> Any:
    torch.manual_seed(5)
    network: Any = build_network("hong2025", ARCHITECTURE)
    rng = np.random.default_rng(9)
    scores = np.repeat([0.0, 0.0, 30.0, 150.0, 700.0], 16)
    spec = RadiographInput(SIZE, SIZE)
    images = torch.cat([spec.prepare(draw_radiograph(rng, score)) for score in scores])
    labels = torch.from_numpy(threshold_labels(scores))
    with torch.no_grad():
        # Batch norms of this release's own drawings; then a ridge regression of every label.
        network.train()
        network((images - 0.5) / 0.5)
        network.eval()
        for number, classifier in enumerate(network.classifiers):
            body = torch.nn.Sequential(classifier.features, *list(classifier.class_layers)[:-1])
            features = body((images - 0.5) / 0.5).double()
            centred = features - features.mean(dim=0)
            target = labels[:, number].double() - labels[:, number].double().mean()
            gram = centred.T @ centred + 1e-3 * torch.eye(centred.shape[1])
            weight = torch.linalg.solve(gram, centred.T @ target)
            # Answers that differ: a logit's spread of 1.5 around even odds.
            weight *= 1.5 / (centred @ weight).std()
            classifier.class_layers.out.weight.copy_(weight[None].float())
            classifier.class_layers.out.bias.fill_(-float(features.mean(dim=0) @ weight))
    return network


def write_radiograph_package(folder: Path, **changes: Any) -> ModelPackage:
    """Write the package into a folder; `changes` replace parts of its manifest."""
    named = {"name": "tiny-radiograph", "input": INPUT, **changes}
    document = tiny_manifest("hong2025", ARCHITECTURE, **named)
    golden = torch.rand((2, SIZE, SIZE), generator=torch.Generator().manual_seed(5))
    return assemble_package(
        folder, document=document, weights=_network(), golden_inputs={"image": golden}
    )
