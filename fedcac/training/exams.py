"""Annotated exams for training, stacked into slices, and drawn apart by patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.training.miller2023 import NOT_ANNOTATED

__all__ = ["ExamStack", "TrainingExam", "split_by_patient", "stack_exams"]

CORONARY, NON_CORONARY = 1, 2


@dataclass(frozen=True, eq=False)
class TrainingExam:
    """One exam with what readers, or the generator, marked in it.

    Attributes
    ----------
    hu
        Hounsfield units (slices, rows, columns), float32, superior to inferior.
    vessel_map
        uint8 of the same shape: 0 none, 1 to 4 LM, LAD, LCX, RCA.
    spacing_mm
        (slice increment, row, column).
    non_coronary_map
        uint8 of the same shape, 1 in calcium that is not coronary; None where nobody looked for it.
    heart_map
        uint8 of the same shape, 1 in the heart; None where nobody drew it.
    """

    hu: NDArray[np.float32]
    vessel_map: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    non_coronary_map: NDArray[np.uint8] | None = None
    heart_map: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class ExamStack:
    """The slices of many exams of one matrix size, all of shape (n, H, W).

    `hu` is int16. `calcium_map` is uint8: 0 background, 1 coronary, 2 non-coronary calcium.
    `heart_map` is uint8: 0, 1, or `NOT_ANNOTATED` throughout an exam without a drawn heart.
    `exam`, int64 (n,), says which exam a slice is of; the slices of one follow each other.
    `spacings_mm` has one (slice increment, row, column) per exam.
    """

    hu: NDArray[np.int16]
    vessel_map: NDArray[np.uint8]
    calcium_map: NDArray[np.uint8]
    heart_map: NDArray[np.uint8]
    exam: NDArray[np.int64]
    spacings_mm: tuple[tuple[float, float, float], ...]

    @property
    def exams(self) -> Sequence[TrainingExam]:
        """The exams again, each made when it is asked for."""
        return _StackedExams(self)

    def windows(self, indices: NDArray[np.int64], halo: int) -> NDArray[np.float32]:
        """Return slices with neighbours, (B, 2 x halo + 1, H, W); an exam's ends are repeated."""
        first = np.searchsorted(self.exam, self.exam[indices], side="left")
        last = np.searchsorted(self.exam, self.exam[indices], side="right") - 1
        steps = np.arange(-halo, halo + 1)
        neighbours = np.clip(indices[:, None] + steps, first[:, None], last[:, None])
        found: NDArray[np.float32] = self.hu[neighbours].astype(np.float32)
        return found


class _StackedExams(Sequence[TrainingExam]):
    """Exams of a stack; only the one in hand is in memory as float32."""

    def __init__(self, stack: ExamStack) -> None:
        self._stack = stack

    def __len__(self) -> int:
        return len(self._stack.spacings_mm)

    @overload
    def __getitem__(self, index: int) -> TrainingExam: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrainingExam]: ...
    def __getitem__(self, index: int | slice) -> TrainingExam | Sequence[TrainingExam]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        stack = self._stack
        first = int(np.searchsorted(stack.exam, number, side="left"))
        own = slice(first, int(np.searchsorted(stack.exam, number, side="right")))
        heart = np.array(stack.heart_map[own])
        return TrainingExam(
            hu=stack.hu[own].astype(np.float32),
            vessel_map=np.array(stack.vessel_map[own]),
            spacing_mm=stack.spacings_mm[number],
            non_coronary_map=(stack.calcium_map[own] == NON_CORONARY).astype(np.uint8),
            heart_map=None if heart.size and heart.flat[0] == NOT_ANNOTATED else heart,
        )


def stack_exams(exams: Iterable[TrainingExam], folder: Path | None = None) -> ExamStack:
    """Stack exams, in memory or, with a folder, in memory-mapped files there.

    Raises
    ------
    UsageError
        `no_exams` if there are none, `other_matrix` if their rows or columns differ.
    """
    columns = {name: _Column(name, dtype, folder) for name, dtype in _COLUMNS.items()}
    counts: list[int] = []
    spacings: list[tuple[float, float, float]] = []
    matrix: tuple[int, ...] | None = None
    for exam in exams:
        matrix = exam.hu.shape[1:] if matrix is None else matrix
        if exam.hu.shape[1:] != matrix:
            raise UsageError(
                f"One exam's slices are {exam.hu.shape[1:]}, the others' {matrix} pixels.",
                code="other_matrix",
                cure="Leave out exams of another matrix, or resample them first.",
            )
        for name, array in _arrays_of(exam).items():
            columns[name].append(array)
        counts.append(exam.hu.shape[0])
        spacings.append(exam.spacing_mm)
    if matrix is None:
        raise UsageError(
            "There is no exam to train on.", code="no_exams", cure="Look at the list of problems."
        )
    shape = (sum(counts), *matrix)
    stacked: dict[str, Any] = {name: column.whole(shape) for name, column in columns.items()}
    return ExamStack(
        **stacked, exam=np.repeat(np.arange(len(counts)), counts), spacings_mm=tuple(spacings)
    )


_COLUMNS: dict[str, type[np.generic]] = {
    "hu": np.int16,
    "vessel_map": np.uint8,
    "calcium_map": np.uint8,
    "heart_map": np.uint8,
}


def _arrays_of(exam: TrainingExam) -> dict[str, NDArray[np.generic]]:
    calcium = np.zeros(exam.hu.shape, dtype=np.uint8)
    if exam.non_coronary_map is not None:
        calcium[exam.non_coronary_map > 0] = NON_CORONARY
    calcium[exam.vessel_map > 0] = CORONARY
    heart = exam.heart_map
    if heart is None:
        heart = np.full(exam.hu.shape, NOT_ANNOTATED, dtype=np.uint8)
    hu = np.clip(np.rint(exam.hu), -1024, 32767).astype(np.int16)
    return {"hu": hu, "vessel_map": exam.vessel_map, "calcium_map": calcium, "heart_map": heart}


class _Column:
    """An array that grows along its first axis, in a list or in a file."""

    def __init__(self, name: str, dtype: type[np.generic], folder: Path | None) -> None:
        self._dtype = np.dtype(dtype)
        self._parts: list[NDArray[np.generic]] = []
        self._path = None if folder is None else folder / f"{name}.raw"
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(b"")

    def append(self, array: NDArray[np.generic]) -> None:
        array = np.ascontiguousarray(array, dtype=self._dtype)
        if self._path is None:
            self._parts.append(array)
            return
        with self._path.open("ab") as file:
            file.write(array.data)

    def whole(self, shape: tuple[int, ...]) -> NDArray[np.generic]:
        if self._path is None:
            return np.concatenate(self._parts)
        return np.memmap(self._path, dtype=self._dtype, mode="r", shape=shape)


def split_by_patient(
    patients: Sequence[str], held_out_share: float, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Return (training, held-out) patients in alphabetical order, each at least one.

    They are drawn at random, whatever the order and repetition in `patients`.

    Raises
    ------
    UsageError
        `too_few_patients` if there are fewer than two patients.
    ValueError
        If the share does not lie between 0 and 1.
    """
    if not 0 < held_out_share < 1:
        raise ValueError("held_out_share must lie between 0 and 1")
    names = sorted(set(patients))
    if len(names) < 2:
        raise UsageError(
            f"{len(names)} patients cannot be split into training and held-out patients.",
            code="too_few_patients",
            cure="Give more patients.",
        )
    order = [names[int(index)] for index in rng.permutation(len(names))]
    n_held_out = min(len(names) - 1, max(1, round(len(names) * held_out_share)))
    return sorted(order[n_held_out:]), sorted(order[:n_held_out])
