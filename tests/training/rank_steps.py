"""Training steps on the ranks of a test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from nuat.data import Augment
from nuat.data.splits import InMemoryDataset
from nuat.recipes import Recipe, list_recipes
from nuat.runtime.ranks import rank, world_size
from nuat.training.distributed import prepare_model, share_of_batch, wrap_model
from nuat.training.train_step import TrainStep

SIZE, CLASSES, BATCH, IMAGES, STEPS = 6, 4, 10, 37, 20


def network(batchnorm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if batchnorm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        norm,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * SIZE**2, CLASSES),
    )


def images() -> InMemoryDataset:
    """Noise, of which a class is a brighter row."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(IMAGES) % CLASSES
    x = torch.rand(IMAGES, 1, SIZE, SIZE, generator=generator) / 2
    x[torch.arange(IMAGES), 0, y] += 0.4
    return InMemoryDataset(x, y)


def small(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with small batches, and with an attack from its second epoch at full strength."""
    return replace(recipe, batch_size=BATCH, augment=Augment(1, True), **changes)


def train(recipe: Recipe, batchnorm: bool = False) -> dict[str, Any]:
    """Train for 20 steps on this rank's share; return the state that a checkpoint has."""
    model, data = network(batchnorm), images()
    prepare_model(model, recipe.batchnorm)
    batches = -(-IMAGES // BATCH)
    step = TrainStep(
        recipe,
        model.train(),
        batches,
        make_batch=partial(data.make_batch, augment=recipe.augment),
        share_of=partial(share_of_batch, recipe, IMAGES),
    )
    if world_size() > 1:
        step.train_model = wrap_model(step.train_model)
    share = slice(rank(), None, world_size())
    losses, logs = [], []
    for epoch in range(STEPS // batches):
        inputs = data.shuffled_inputs(BATCH, epoch, recipe.augment, share=share)
        for batch, each in enumerate(inputs):
            ctx = step.prepare(epoch, batch)
            losses += [float(loss) for loss in step.step(each, ctx)]
            logs.append({name: float(value) for name, value in ctx.logs.items()})
    return step.state_dict() | {"losses": losses, "logs": logs}


def train_all(names: list[str], batchnorm: bool = False) -> dict[str, dict[str, Any]]:
    return {name: train(recipes()[name], batchnorm) for name in names}


def recipes() -> dict[str, Recipe]:
    return {r.name: small(r) for r in list_recipes() if r.data == "digits"}
