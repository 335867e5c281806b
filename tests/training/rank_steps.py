"""What the ranks of a test do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import nuat
from nuat.data import Augment
from nuat.data.splits import InMemoryDataset
from nuat.methods import Standard
from nuat.recipes import Recipe, get_recipe
from nuat.runtime.ranks import rank, world_size
from nuat.training import Trainer
from nuat.training.distributed import prepare_model, share_of_batch, wrap_model
from nuat.training.train_step import TrainStep

SIZE, CLASSES, BATCH, IMAGES, EPOCHS = 6, 4, 10, 37, 5

TRIGGER = "CleanLossDrop(short=2, long=6, warmup=5, drop=0.01, hold=3)"

METHODS = {
    "atf": {},
    "awp": {"gamma": "0.01"},
    "fbf": {},
    "fgsm-pgi": {},
    "gat": {},
    "gradalign": {},
    "mart": {},
    "n-fgsm": {},
    "normal": {},
    "nuat": {},
    "nuat-h": {"trigger": TRIGGER},
    "nuat2-wa": {},
    "r-mgm": {},
    "trades-wa": {},
}
"""Every training method, with settings at which each of its parts is in use from early on."""


@dataclass(frozen=True)
class Case:
    """A training run of 5 epochs, 20 batches, of which every fourth is smaller."""

    name: str
    batchnorm: str | None = None
    dtype: torch.dtype = torch.float64
    nuclear_norm: str = "gather"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.name}-{self.batchnorm}"

    @property
    def recipe(self) -> Recipe:
        recipe = get_recipe(self.name, "digits").with_epochs(EPOCHS)
        for field, text in METHODS[self.name].items():
            recipe = recipe.with_override(field, text)
        return replace(
            recipe,
            batch_size=BATCH,
            augment=Augment(1, True),
            nuclear_norm=self.nuclear_norm,
            batchnorm=self.batchnorm or "local",
        )


def network(case: Case) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if case.batchnorm else nn.Identity()
    features = nn.Conv2d(1, 8, 3, padding=1), norm, nn.ReLU(), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(8 * SIZE**2, CLASSES)).to(case.device, case.dtype)


def images(case: Case) -> InMemoryDataset:
    """Noise, of which a class is a brighter row."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(IMAGES) % CLASSES
    x = torch.rand(IMAGES, 1, SIZE, SIZE, generator=generator) / 2
    x[torch.arange(IMAGES), 0, y] += 0.4
    return InMemoryDataset(x, y).to(case.device)


def batches(case: Case, share: slice) -> Iterator[tuple[int, int, tuple[Tensor, ...]]]:
    for epoch in range(EPOCHS):
        inputs = images(case).shuffled_inputs(BATCH, epoch, case.recipe.augment, share=share)
        yield from ((epoch, batch, each) for batch, each in enumerate(inputs))


def train_step(case: Case) -> TrainStep:
    recipe, model, data = case.recipe, network(case), images(case)
    if case.device == "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm = synchronize_batchnorm
    prepare_model(model, recipe.batchnorm)

    def make_batch(inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x, y = data.make_batch(inputs, recipe.augment)
        return x.to(case.dtype), y

    share_of = partial(share_of_batch, recipe, IMAGES)
    step = TrainStep(recipe, model.train(), -(-IMAGES // BATCH), 0, make_batch, share_of)
    if world_size() > 1:
        x = torch.zeros(1, 1, SIZE, SIZE, dtype=case.dtype, device=case.device)
        step.train_model = wrap_model(step.train_model, x)
    return step


def train(case: Case) -> dict[str, Any]:
    """Train on this rank's share; return what a checkpoint holds, the losses and the logs."""
    step = train_step(case)
    losses, logs = [], []
    for epoch, batch, inputs in batches(case, slice(rank(), None, world_size())):
        ctx = step.prepare(epoch, batch)
        losses += [float(loss) for loss in step.step(inputs, ctx)]
        logs.append({name: float(value) for name, value in ctx.logs.items()})
    return step.state_dict() | {"losses": losses, "logs": logs}


def train_all(cases: list[Case]) -> dict[Case, dict[str, Any]]:
    return {case: train(case) for case in cases}


class SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """What torch's SyncBatchNorm computes, which needs a GPU."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        rows = x.transpose(0, 1).flatten(1)
        count = torch.full_like(rows[:, 0], rows.shape[1])
        sums = torch.stack([rows.sum(1), rows.square().sum(1), count])
        total, squares, count = SumOverRanks.apply(sums)
        mean = total / count
        variance = squares / count - mean**2
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        shift = self.bias - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def synchronize_batchnorm(model: nn.Module) -> None:
    """In place of torch's function, which converts to a layer for GPUs alone."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = SynchronizedBatchNorm


def small_recipe(name: str = "nuat-wa") -> Recipe:
    return get_recipe(name, "digits").with_epochs(1).with_override("model", "small-cnn(width=4)")


def fit_until(folder: Path, name: str, batches: int) -> tuple[bool, list[int]]:
    """Fit until the time of rank 1 alone is up; return whether it finished, and its metrics."""
    steps = iter(range(batches))
    Trainer.time_is_up = property(lambda self: rank() == 1 and next(steps, None) is None)
    run = nuat.fit(small_recipe(name), out=folder)
    return run.finished, [line["epoch"] for line in run.metrics]


def errors_of_fit(folder: Path) -> list[str]:
    """The errors of a run in the folder of another, and of a recipe that differs among ranks."""
    messages = []
    different = replace(small_recipe(), weight_decay=float(rank()))
    for recipe, out in ((small_recipe("fbf"), "nuat-wa"), (different, "different")):
        try:
            nuat.fit(recipe, out=folder / out)
        except nuat.InputError as error:
            messages.append(str(error))
    return messages


@dataclass(frozen=True)
class Dies(Standard):
    """Standard training, of which rank 1 dies in the third batch."""

    def step(self, model, x, y, ctx):
        if rank() == 1 and ctx.batch == 2:
            os._exit(0)
        yield from super().step(model, x, y, ctx)


def error_after_a_death(folder: Path) -> str:
    try:
        nuat.fit(replace(small_recipe(), method=Dies()), out=folder / "run")
    except ConnectionError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class NaNOnOneRank(Standard):
    """Standard training, of which the third loss of rank 1 is NaN."""

    def step(self, model, x, y, ctx):
        factor = float("nan") if rank() == 1 and ctx.batch == 2 else 1.0
        for loss in super().step(model, x, y, ctx):
            yield loss * factor


def error_after_nan(folder: Path) -> str:
    try:
        nuat.fit(replace(small_recipe(), method=NaNOnOneRank()), out=folder / "run")
    except nuat.NonFiniteError as error:
        return str(error)
    return ""


def fit_cases(folder: Path) -> list[Any]:
    """Every call of `fit` that all ranks survive, in one job."""
    return [
        fit_until(folder / "atf", "atf", 7),
        fit_until(folder / "nuat-wa", "nuat-wa", 10**6),
        errors_of_fit(folder),
        error_after_nan(folder / "nan"),
    ]
