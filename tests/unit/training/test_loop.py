"""The training loop: a stopped run ends as one that was not, and its files can be trusted."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedcac.errors import IntegrityError, PackageError, UsageError
from fedcac.models.eng2021 import EngNetwork
from fedcac.models.hong2025 import HongNetwork
from fedcac.models.manifest import InputSpec
from fedcac.models.miller2023 import MillerNetwork
from fedcac.training.checkpoint import CHECKPOINT_FILE, write_atomically
from fedcac.training.exams import ExamStack, TrainingExam, split_by_patient, stack_exams
from fedcac.training.hong2025 import HongCourse, HongRecipe
from fedcac.training.loop import (
    Batch,
    EpochReport,
    ParameterGroup,
    Row,
    Run,
    cosine_with_warm_up,
    curves_csv,
    train,
)
from fedcac.training.miller2023 import MillerRecipe
from fedcac.training.miller2023_course import MillerCourse
from fedcac.training.recipe import EngCourse, Recipe, SlicePool, load_pretrained_encoder


class Killed(Exception):
    """Stands for a signal: the run ends here."""


class TinyCourse:
    """Dropout, batch statistics, noise drawn from both generators, and a state of its own."""

    def __init__(self, n_epochs: int = 5, gradient_norm: float | None = None) -> None:
        torch.manual_seed(11)
        self.network = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 1)
        )
        self.n_epochs, self.gradient_norm = n_epochs, gradient_norm
        self.offset = 0.0
        self.kill_at: int | None = None

    def groups(self) -> list[ParameterGroup]:
        first, last = self.network[0], self.network[-1]
        return [
            ParameterGroup(list(first.parameters()), 0.05, 1e-3, cosine_with_warm_up(3, 40, 6)),
            ParameterGroup(list(last.parameters()), 0.02),
        ]

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        for number in range(7):
            if self.kill_at == epoch and number == 4:
                raise Killed
            x = rng.normal(size=(6, 3)).astype(np.float32)
            yield torch.from_numpy(x), torch.from_numpy(x.sum(axis=1, keepdims=True))

    def loss(self, epoch: int, batch: Batch) -> torch.Tensor:
        x, y = batch
        return (self.network(x + 0.1 * torch.randn(3)) - y - self.offset).square().mean()

    def end_epoch(self, epoch: int) -> EpochReport:
        self.offset += 0.25
        return EpochReport("went on", {"offset": self.offset})

    def state(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.offset = state["offset"]


def run_of(folder: Path, is_resumed: bool = False, **identity: Any) -> Run:
    return Run(folder, {"seed": 1, "sizes": (1, 2), **identity}, is_resumed)


def trained(course: TinyCourse, run: Run | None) -> list[Row]:
    return train(course, np.random.default_rng(5), tell=lambda _: None, run=run)


def assert_same_weights(network: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_stopped_and_resumed_run_ends_bit_for_bit_as_one_that_was_not(
    tmp_path: Path, epoch: int
) -> None:
    whole = TinyCourse()
    rows = trained(whole, run_of(tmp_path / "whole"))
    stopped = TinyCourse()
    stopped.kill_at = epoch
    with pytest.raises(Killed):
        trained(stopped, run_of(tmp_path / "parts"))
    torch.manual_seed(999)
    resumed = TinyCourse()
    torch.manual_seed(999)
    assert trained(resumed, run_of(tmp_path / "parts", is_resumed=True)) == rows
    assert_same_weights(resumed.network, whole.network)
    assert not resumed.network.training
    for name in (CHECKPOINT_FILE, "curves.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # And it does matter where one goes on: from the weights alone it would have ended elsewhere.
    assert not torch.equal(stopped.network[0].weight, whole.network[0].weight)


def test_a_finished_run_is_resumed_without_a_step(tmp_path: Path) -> None:
    first = TinyCourse(2)
    rows = trained(first, run_of(tmp_path))
    again = TinyCourse(2)
    again.kill_at = 0
    assert trained(again, run_of(tmp_path, is_resumed=True)) == rows
    assert_same_weights(again.network, first.network)


def test_resuming_where_nothing_is_starts(tmp_path: Path) -> None:
    assert trained(TinyCourse(1), run_of(tmp_path, is_resumed=True)) == trained(TinyCourse(1), None)


def test_another_run_is_neither_overwritten_nor_gone_on_with(tmp_path: Path) -> None:
    trained(TinyCourse(1), run_of(tmp_path))
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(UsageError) as caught:
        trained(TinyCourse(2), run_of(tmp_path))
    assert caught.value.code == "usage.folder_in_use"
    with pytest.raises(UsageError) as caught:
        trained(TinyCourse(2), run_of(tmp_path, is_resumed=True, seed=2))
    assert caught.value.code == "usage.other_run"
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    trained(TinyCourse(1), run_of(tmp_path))
    path = tmp_path / CHECKPOINT_FILE
    content = path.read_bytes()
    other = nn.Linear(2, 2).state_dict()
    for damaged in (b"", content[:-1], content[: len(content) // 2], b"\x80\x04K\x01.", None):
        if damaged is None:
            save_file(other, path)
        else:
            path.write_bytes(damaged)
        with pytest.raises(IntegrityError) as caught:
            trained(TinyCourse(2), run_of(tmp_path, is_resumed=True))
        assert caught.value.code == "integrity.bad_checkpoint"


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained(TinyCourse(1), run_of(tmp_path))
    course = TinyCourse(2)
    course.network[-1] = nn.Linear(8, 2)
    with pytest.raises(IntegrityError, match="fit"):
        trained(course, run_of(tmp_path, is_resumed=True))


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="no space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_adam_steps_with_the_rates_of_its_groups() -> None:
    course = TinyCourse(2)
    course.network[3].p = 0.0
    trained(course, None)
    reference = TinyCourse(2)
    reference.network[3].p = 0.0
    groups = reference.groups()
    optimiser = torch.optim.Adam(
        [
            {"params": list(g.parameters), "lr": g.learning_rate, "weight_decay": g.weight_decay}
            for g in groups
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, [g.factor for g in groups])
    rng = np.random.default_rng(5)
    for epoch in range(2):
        reference.network.train()
        for batch in reference.batches(epoch, rng):
            optimiser.zero_grad()
            reference.loss(epoch, batch).backward()
            optimiser.step()
            schedule.step()
        reference.end_epoch(epoch)
    assert_same_weights(course.network, reference.network)


def test_gradients_are_clipped_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def watch(parameters: Any, norm: float) -> torch.Tensor:
        norms.append(norm)
        return original(parameters, norm)

    original = nn.utils.clip_grad_norm_
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", watch)
    free, clipped = TinyCourse(1), TinyCourse(1, gradient_norm=1e-12)
    trained(free, None)
    assert norms == []
    trained(clipped, None)
    assert norms == [1e-12] * 7
    assert not torch.equal(free.network[-1].weight, clipped.network[-1].weight)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    course = TinyCourse(1)
    course.offset = math.inf
    with pytest.raises(UsageError) as caught:
        trained(course, None)
    assert caught.value.code == "usage.training_diverged"


def test_the_schedule_by_hand() -> None:
    factor = cosine_with_warm_up(4, 12, delay=10)
    assert [factor(step) for step in (0, 9)] == [0, 0]
    assert [factor(step) for step in (10, 11, 13)] == [0.25, 0.5, 1.0]
    assert factor(14) == 1.0
    assert factor(18) == pytest.approx(0.5)
    assert factor(22) == pytest.approx(0)
    assert factor(500) == pytest.approx(0)


def test_curves_have_a_row_an_epoch_and_blanks_where_nothing_exists() -> None:
    rows: list[Row] = [{"epoch": 1, "loss": 0.123456}, {"epoch": 2, "loss": 1.0, "dice": None}]
    text = curves_csv(rows)
    assert text == "epoch,loss,dice\n1,0.1235,\n2,1,\n"
    assert len(list(csv.DictReader(io.StringIO(text)))) == 2


# --- the families' courses ------------------------------------------------------------------

SPEC = InputSpec(clip_hu=(-200.0, 800.0), centre_hu=300.0, scale_hu=500.0)


def small_stack(n_exams: int = 2, n_slices: int = 5, with_heart: bool = True) -> ExamStack:
    rng = np.random.default_rng(3)
    exams = []
    for _ in range(n_exams):
        hu = rng.normal(40, 5, (n_slices, 32, 32)).astype(np.float32)
        vessel_map, heart = np.zeros_like(hu, np.uint8), np.zeros_like(hu, np.uint8)
        hu[1, 8:14, 8:14], vessel_map[1, 8:14, 8:14] = 600, 2
        heart[:, 4:28, 4:28] = 1
        exams.append(
            TrainingExam(hu, vessel_map, (3.0, 1.0, 1.0), None, heart if with_heart else None)
        )
    return stack_exams(exams)


def eng_course(rng: np.random.Generator) -> EngCourse:
    torch.manual_seed(2)
    network = EngNetwork((8, 8, 8, 8), (1, 1, 1, 1), 1, 16, (8, 8, 8, 8))
    stack = small_stack()
    recipe = Recipe(3, 2, 3, negative_share=None, first_negatives=0.0, entropy_weight=0.0)
    return EngCourse(network, SPEC, SlicePool(stack.hu, stack.vessel_map), recipe, rng)


def miller_course(_: np.random.Generator) -> MillerCourse:
    torch.manual_seed(2)
    network = MillerNetwork(init_features=4, growth_rate=2, blocks=(1, 1))
    return MillerCourse(network, SPEC, small_stack(), MillerRecipe(2, 3), heart_epochs=1)


def hong_course(_: np.random.Generator) -> HongCourse:
    torch.manual_seed(2)
    network = HongNetwork(4, 2, (1, 1, 1, 1), dropout_rate=0.2)
    images = np.random.default_rng(1).random((8, 64, 64), dtype=np.float32)
    spec = InputSpec(clip_hu=(0.0, 1.0), centre_hu=0.5, scale_hu=0.5)
    scores = np.array([0, 0, 0, 12, 99, 100, 399, 400.0])
    return HongCourse(network, spec, images, scores, HongRecipe(3, 4, majority_per_minority=0.5))


@pytest.mark.parametrize("make", [eng_course, miller_course, hong_course])
def test_every_familys_course_resumes_exactly(tmp_path: Path, make: Any) -> None:
    def go(n_epochs: int, folder: str, is_resumed: bool) -> nn.Module:
        rng = np.random.default_rng(4)
        course = make(rng)
        course.n_epochs = n_epochs
        train(course, rng, tell=lambda _: None, run=run_of(tmp_path / folder, is_resumed))
        return cast("nn.Module", course.network)

    whole = go(3, "whole", is_resumed=False)
    go(2, "parts", is_resumed=False)
    assert_same_weights(go(3, "parts", is_resumed=True), whole)


def test_eng_begins_with_calcium_alone_and_takes_up_what_it_misreads() -> None:
    rng = np.random.default_rng(4)
    course = eng_course(rng)
    assert course.state() == {"negative": []}
    for hu, vessel_map in course.batches(0, rng):
        assert bool((vessel_map > 0).flatten(1).any(dim=1).all())
        assert hu.shape == vessel_map.shape == (3, 32, 32)
    course.restore({"negative": [0, 2]})
    seen = torch.cat([vessel_map for _ in range(20) for _, vessel_map in course.batches(1, rng)])
    # Two of four slices are empty: so are about half of those drawn.
    assert 0.3 < (seen > 0).flatten(1).any(dim=1).float().mean() < 0.7


def test_the_text_of_eng_in_numbers() -> None:
    recipe = Recipe.of_the_text(6400, is_pretrained=True)
    assert (recipe.batch, recipe.warm_up, recipe.anneal) == (64, 5000, 300_000)
    assert (recipe.learning_rate, recipe.pretrained_rate) == (1e-3, 1e-4)
    assert (recipe.weight_decay, recipe.pretrained_delay) == (1e-4, 10_000)
    assert recipe.epochs * recipe.iterations_per_epoch == 315_000
    assert (recipe.first_negatives, recipe.entropy_weight, recipe.negative_share) == (0, 0, None)


def test_a_pretrained_encoder_has_its_own_rate_and_waits(tmp_path: Path) -> None:
    torch.manual_seed(8)
    network = EngNetwork((8, 8, 8, 8), (1, 1, 1, 1), 1, 16, (8, 8, 8, 8))
    state = network.state_dict()
    encoder = {k: torch.rand_like(t.float()).to(t.dtype) for k, t in state.items()}
    encoder = {k: t for k, t in encoder.items() if k.startswith(("stem.", "stages."))}
    colour = torch.rand(8, 3, 7, 7)
    path = tmp_path / "encoder.safetensors"
    save_file(encoder | {"stem.0.weight": colour}, path)
    names = load_pretrained_encoder(network, path)
    found = network.state_dict()
    torch.testing.assert_close(found["stem.0.weight"], colour.sum(1, keepdim=True))
    assert torch.equal(
        found["stages.1.0.conv1.conv.weight"], encoder["stages.1.0.conv1.conv.weight"]
    )
    assert torch.equal(found["heads.weight"], state["heads.weight"])
    recipe = Recipe(2, 3, 2, pretrained_delay=2, warm_up=2)
    stack, rng = small_stack(), np.random.default_rng(0)
    pool = SlicePool(stack.hu, stack.vessel_map)
    course = EngCourse(network, SPEC, pool, recipe, rng, names)
    fresh, pretrained = course.groups()
    assert (fresh.learning_rate, pretrained.learning_rate) == (1e-3, 1e-4)
    assert [fresh.factor(s) for s in (0, 1)] == [0.5, 1.0]
    assert [pretrained.factor(s) for s in (0, 1, 2, 3)] == [0, 0, 0.5, 1.0]
    by_name = dict(network.named_parameters())
    assert {id(p) for p in pretrained.parameters} == {id(by_name[name]) for name in names}
    assert all(name.startswith(("stem.", "stages.")) for name in names)

    save_file({k: t for k, t in encoder.items() if k != "stem.1.weight"}, path)
    with pytest.raises(PackageError) as caught:
        load_pretrained_encoder(network, path)
    assert caught.value.code == "package.wrong_tensors"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(PackageError) as caught:
        load_pretrained_encoder(network, path)
    assert caught.value.code == "package.bad_tensors"


def test_miller_trains_the_heart_first_and_then_the_calcium_alone() -> None:
    rng = np.random.default_rng(4)
    course = miller_course(rng)
    parts: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def note(_: int) -> dict[str, Any]:
        network = course.network
        parts.append(
            tuple(  # type: ignore[arg-type]
                {k: t.clone() for k, t in part.state_dict().items()}
                for part in (network.heart, network.calcium)
            )
        )
        return {}

    note(-1)
    rows = train(course, rng, tell=lambda _: None, judge=note)
    assert [row["phase"] for row in rows] == ["heart", "calcium", "calcium"]
    hearts, calcia = ([part[i] for part in parts] for i in (0, 1))
    is_same = [
        [all(torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(p)]
        for p in (hearts, calcia)
    ]
    # The heart: only the first epoch. The calcium: only the later ones; batch statistics included.
    assert is_same == [[False, True, True], [True, False, False]]


def test_miller_draws_a_part_of_the_background_and_all_calcium() -> None:
    stack = small_stack()
    stack.calcium_map[1, 0, :8] = 2
    network = MillerNetwork(init_features=4, growth_rate=2, blocks=(1, 1))
    with pytest.raises(ValueError, match="background_per_calcium"):
        MillerCourse(network, SPEC, stack, MillerRecipe(1, 1), 0, 0.0)
    recipe = MillerRecipe(1, batch=4, empty_per_positive=1.0)
    course = MillerCourse(network, SPEC, stack, recipe, 0, background_per_calcium=5.0)
    rng = np.random.default_rng(7)
    targets = [target for _ in range(30) for _, target in course.batches(0, rng)]
    assert {(int((t == 1).sum()), int((t == 2).sum())) for t in targets} == {(72, 8)}
    counts = [int((target == 0).sum()) for target in targets]
    assert np.mean(counts) == pytest.approx(5 * 80, rel=0.05)
    # Drawn anew each time, and wherever background is.
    seen = sum((target == 0).int().sum(dim=0) for target in targets)
    assert int((seen > 0).sum()) > 0.95 * 32 * 32
    # An epoch of the heart leaves nothing out.
    heart = MillerCourse(network, SPEC, stack, recipe, 1, background_per_calcium=5.0)
    assert all(bool((target <= 1).all()) for _, target in heart.batches(0, rng))


def test_miller_refuses_to_train_a_heart_nobody_drew() -> None:
    network = MillerNetwork(init_features=4, growth_rate=2, blocks=(1, 1))
    stack = small_stack(with_heart=False)
    with pytest.raises(ValueError, match="heart"):
        MillerCourse(network, SPEC, stack, MillerRecipe(1, 1), heart_epochs=1)
    MillerCourse(network, SPEC, stack, MillerRecipe(1, 1), heart_epochs=0)


def test_hong_weighs_both_classes_of_a_threshold_the_same() -> None:
    course = hong_course(np.random.default_rng(0))
    images = torch.from_numpy(np.random.default_rng(1).random((8, 64, 64), dtype=np.float32))
    labels = course._labels
    batch = (images, torch.from_numpy(labels))
    course.network.eval()
    with torch.no_grad():
        loss = float(course.loss(0, batch))
        logits = course.network((images[:, None] - 0.5) / 0.5).numpy().astype(float)
    expected = 0.0
    for column in range(3):
        y, z = labels[:, column], logits[:, column]
        weight = (y == 0).sum() / y.sum()
        each = weight * y * np.log1p(np.exp(-z)) + (1 - y) * np.log1p(np.exp(z))
        expected += each.mean()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert labels.sum(axis=0).tolist() == [5, 3, 1]
    drawn = torch.cat([y for _, y in course.batches(0, np.random.default_rng(2))])
    # Three without calcium are the minority: all of them, and two of the five others.
    assert (drawn[:, 0] == 0).sum() == 3
    assert len(drawn) == 5


# --- exams ----------------------------------------------------------------------------------


def test_windows_stay_within_their_exam() -> None:
    exams = [
        TrainingExam(
            np.full((n, 4, 4), 100.0 * number, np.float32)
            + np.arange(n, dtype=np.float32)[:, None, None],
            np.zeros((n, 4, 4), np.uint8),
            (3.0, 1.0, 1.0),
        )
        for number, n in enumerate((3, 1, 2), start=1)
    ]
    stack = stack_exams(exams)
    windows = stack.windows(np.arange(6), 1)[:, :, 0, 0]
    expected = [
        [100, 100, 101],
        [100, 101, 102],
        [101, 102, 102],
        [200, 200, 200],
        [300, 300, 301],
        [300, 301, 301],
    ]
    assert windows.tolist() == expected


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_a_stack_gives_its_exams_back(tmp_path: Path, is_on_disk: bool) -> None:
    stack = small_stack(3)
    given = stack.exams
    again = stack_exams(given, tmp_path if is_on_disk else None)
    assert len(again.exams) == 3
    for one, other in zip(given, again.exams, strict=True):
        np.testing.assert_array_equal(one.hu, other.hu)
        np.testing.assert_array_equal(one.vessel_map, other.vessel_map)
        assert other.heart_map is not None
        assert other.spacing_mm == (3.0, 1.0, 1.0)
    assert small_stack(1, with_heart=False).exams[0].heart_map is None
    wide = TrainingExam(np.zeros((1, 8, 9), np.float32), np.zeros((1, 8, 9), np.uint8), (1, 1, 1))
    with pytest.raises(UsageError, match="matrix"):
        stack_exams([*given, wide])
    with pytest.raises(UsageError, match="no exam"):
        stack_exams([])


def test_patients_are_split_once_and_by_seed() -> None:
    patients = [str(number % 20) for number in range(60)]
    training, held_out = split_by_patient(patients, 0.2, np.random.default_rng(1))
    assert len(training) == 16
    assert len(held_out) == 4
    assert set(training) | set(held_out) == set(patients)
    assert not set(training) & set(held_out)
    reordered = split_by_patient(patients[::-1], 0.2, np.random.default_rng(1))
    assert reordered == (training, held_out)
    assert split_by_patient(patients, 0.2, np.random.default_rng(2)) != (training, held_out)
    assert [len(part) for part in split_by_patient(["a", "b"], 0.01, np.random.default_rng(0))] == [
        1,
        1,
    ]
    with pytest.raises(UsageError) as caught:
        split_by_patient(["a", "a"], 0.5, np.random.default_rng(0))
    assert caught.value.code == "usage.too_few_patients"
