"""The inference engine: volumes and radiographs through a package's network, in batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.models.acceleration import FastNetwork
from fedcac.models.blocks import THRESHOLD_HU, VolumeBlocks, label_voxels
from fedcac.models.devices import choose_device
from fedcac.models.lanes import Lanes
from fedcac.models.package import ModelPackage

__all__ = ["InferenceEngine", "Prediction"]

# Slices per batch: enough to fill a GPU; on a CPU more only costs memory.
_BATCH = {"cuda": 32, "cpu": 4}


@dataclass(frozen=True, eq=False)
class Prediction:
    """The model's mask of one exam.

    `vessel_map` is uint8 of the volume's shape: 0 none, 1 to 4 LM, LAD, LCX, RCA, and 5
    (`VESSEL_UNKNOWN`) coronary calcium of a family that tells no vessel.
    """

    vessel_map: NDArray[np.uint8]
    seconds: float


class InferenceEngine:
    """Runs one package on one device. The same exam gives the same mask on every run.

    Networks are fully convolutional and see slices at their native pixel spacing. Slices that
    hold no voxel over the calcium threshold need no network and are skipped: nothing could be
    scored in them. On a CPU every core takes batches of its own; on a GPU batches have one shape,
    transfers overlap with arithmetic, and the host waits once per exam.

    Raises
    ------
    UsageError
        `no_cuda` if CUDA is asked for and absent.
    PackageError
        `golden_mismatch` if the network does not reproduce its golden case on the device.
    """

    threshold_hu = THRESHOLD_HU

    def __init__(self, package: ModelPackage, *, device: str = "auto") -> None:
        self.device = choose_device(device)
        self._package = package
        self._network = FastNetwork(package, self.device)
        self._batch = _BATCH[self.device.type]
        self._lanes = Lanes() if self.device.type == "cpu" else None

    @property
    def arithmetic(self) -> str:
        """What was verified at the start: the floating-point type, and whether norms are folded."""
        name = str(self._network.dtype).removeprefix("torch.")
        return f"{name}{', batch norms folded' if self._network.is_folded else ''}"

    @property
    def n_at_a_time(self) -> int:
        """How many radiographs keep the device busy: a batch, or one for every core."""
        return self._lanes.count if self._lanes is not None else self._batch

    def close(self) -> None:
        """Give back threads. The engine is not used afterwards."""
        if self._lanes is not None:
            self._lanes.close()

    def predict(
        self, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> Prediction:
        """Return the calcium mask of a volume (slices, rows, columns) in Hounsfield units.

        A voxel is calcium where the calcium probability exceeds the package's threshold and the
        voxel reaches 130 HU; its vessel is the most probable one.

        Raises
        ------
        ValueError
            If the volume is not three-dimensional or a spacing is not positive.
        UsageError
            If the package reads radiographs.
        """
        if hu.ndim != 3 or min(spacing_mm) <= 0:
            raise ValueError("hu must be (slices, rows, columns) with positive spacing")
        family = self._package.family
        if not family.is_segmenting:
            raise _wrong_kind(family.name, "CT volumes")
        started = time.monotonic()
        vessel_map = np.zeros(hu.shape, dtype=np.uint8)
        field_mm = self._package.manifest.input.field_of_view_mm
        blocks = VolumeBlocks.of(hu, spacing_mm, family, field_mm)
        if blocks.candidates.size:
            labels = self._segment_all(blocks)
            vessel_map[blocks.candidates, blocks.rows, blocks.columns] = labels
        return Prediction(vessel_map=vessel_map, seconds=time.monotonic() - started)

    def classify(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return a radiograph family's outputs for a batch of its inputs, by the golden names.

        Raises
        ------
        UsageError
            If the package reads CT volumes.
        ValueError
            If an input is missing or surplus.
        """
        family = self._package.family
        if family.is_segmenting:
            raise _wrong_kind(family.name, "radiographs")
        if set(inputs) != set(family.inputs):
            raise ValueError(f"inputs are {', '.join(family.inputs)}")
        given = {name: self._to_device(array) for name, array in inputs.items()}
        return {name: value.cpu().numpy() for name, value in self._network(given).items()}

    def probabilities(self, images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the probability of every threshold, (n, thresholds), of n prepared radiographs.

        An exam's answer does not depend on those beside it: on a CPU each is answered alone, on
        every core one; on a GPU batches have one shape.

        Parameters
        ----------
        images
            Each (rows, columns), as the family's `radiograph` prepares it.

        Raises
        ------
        UsageError
            If the package reads CT volumes.
        ValueError
            If an image has another shape, or an answer is not finite.
        """
        family = self._package.family
        if family.radiograph is None:
            raise _wrong_kind(family.name, "radiographs")
        shape = (family.radiograph.rows, family.radiograph.columns)
        if any(image.shape != shape for image in images):
            raise ValueError(f"radiographs must be {shape[0]} x {shape[1]}")
        found = np.zeros((len(images), len(family.thresholds)), dtype=np.float32)
        if self._lanes is not None:
            alone = [image[None] for image in images]
            for row, answer in enumerate(self._lanes.map(self._positive, alone)):
                found[row] = answer[0]
        else:
            self._fill_batches(images, found)
        if not bool(np.isfinite(found).all()):
            raise ValueError("a probability is not finite")
        return found

    def _fill_batches(
        self, images: Sequence[NDArray[np.float32]], found: NDArray[np.float32]
    ) -> None:
        start = 0
        while start < len(images):
            part = list(images[start : start + self._batch])
            padded = np.stack(part + part[-1:] * (self._batch - len(part)))
            try:
                found[start : start + len(part)] = self._positive(padded)[: len(part)]
            except torch.cuda.OutOfMemoryError:
                if self._batch == 1:
                    raise
                self._shrink_batch()
                continue
            start += len(part)

    def _positive(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = (
            self._network({"image": self._to_device(images)})["positive"].cpu().numpy()
        )
        return answers

    def _shrink_batch(self) -> None:
        self._batch //= 2
        torch.cuda.empty_cache()

    def _segment_all(self, blocks: VolumeBlocks) -> NDArray[np.uint8]:
        """Return the labels of every candidate slice, (candidates, rows, columns)."""
        found: list[torch.Tensor] = []
        position = 0
        while position < blocks.candidates.size:
            lanes = self._lanes.count if self._lanes else 1
            wave = blocks.candidates[position : position + lanes * self._batch]
            # Short waves are shared out evenly, so that no core waits for another.
            size = min(self._batch, -(-wave.size // lanes))
            parts = [wave[start : start + size] for start in range(0, wave.size, size)]
            try:
                found += self._run(blocks, parts)
            except torch.cuda.OutOfMemoryError:
                if self._batch == 1:
                    raise
                self._shrink_batch()
                continue
            position += wave.size
        rows, columns = blocks.hu.shape[1:]
        labels: NDArray[np.uint8] = torch.cat(found).cpu().numpy()
        return labels[:, :rows, :columns]

    def _run(self, blocks: VolumeBlocks, parts: list[NDArray[np.intp]]) -> list[torch.Tensor]:
        if self._lanes is None or len(parts) == 1:
            return [self._segment(blocks, part) for part in parts]
        return self._lanes.map(lambda part: self._segment(blocks, part), parts)

    def _segment(self, blocks: VolumeBlocks, indices: NDArray[np.intp]) -> torch.Tensor:
        """Return the labels of some slices, on the device; on a GPU they may still be computing."""
        n_slices = indices.size
        if self.device.type == "cuda" and n_slices < self._batch:
            # One shape for every batch: one choice of kernels, and memory that is used again.
            indices = np.concatenate([indices, np.repeat(indices[-1:], self._batch - n_slices)])
        block = self._to_device(blocks.block(indices))
        middle = block[:, blocks.family.halo] if block.ndim == 4 else block
        with torch.inference_mode():
            outputs = self._network({"hu": block})
            threshold = self._package.manifest.calcium_threshold
            return label_voxels(outputs, middle, threshold)[:n_slices]

    def _to_device(self, array: NDArray[np.float32]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return tensor
        # Pinned memory is copied while the GPU works; the allocator keeps it until then.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _wrong_kind(family: str, wanted: str) -> UsageError:
    return UsageError(
        f"A package of family '{family}' does not read {wanted}.",
        code="wrong_input_kind",
        cure="Choose a package for this modality.",
    )
