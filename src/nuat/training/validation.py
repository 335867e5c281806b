"""Accuracies on the validation split, which select the epoch to keep."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from nuat.attacks import FGSM, Attack, correct, is_robust
from nuat.data import ImageDataset
from nuat.nn.precision import with_precision
from nuat.rng import PerImageNoise
from nuat.runtime.precision import full_precision
from nuat.runtime.ranks import rank, sum_over_ranks, world_size


@full_precision()
def validate(
    model: nn.Module,
    dataset: ImageDataset,
    attack: Attack,
    precision: str = "fp32",
    batch_size: int = 500,
    after_batch: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Return clean accuracy and the accuracies under FGSM and under `attack`, between 0 and 1.

    FGSM has the attack's threat model. An image counts as robust only if it is also correct without
    an attack. The noise of an attack with a random start belongs to the image, so it is the same
    after every epoch. The attack of a recipe selects an epoch; it may be too weak to report.
    Images are classified in full precision; the attacks search for adversarial images in the given
    precision, "fp32" or "bf16", as training does. The ranks share the images out among themselves.
    `after_batch` is called after each batch with the number of images of this rank that are done.
    """
    search_model = with_precision(model, precision)
    ball = attack.ball
    counts = {"val_clean": 0, "val_fgsm": 0, "val_robust": 0}
    share = torch.arange(rank(), len(dataset), world_size())
    images = dataset if world_size() == 1 else dataset.subset(share)
    for rows, x, y in images.batches(batch_size) if len(share) else ():
        indices = share[rows]
        is_correct = correct(model, x, y)
        counts["val_clean"] += int(is_correct.sum())
        noise = PerImageNoise(0, indices, "validation")
        for name, each in (("val_fgsm", FGSM(ball)), ("val_robust", attack)):
            robust = is_robust(model, x, y, each(search_model, x, y, noise), ball)
            counts[name] += int((is_correct & robust).sum())
        after_batch(int(rows[-1]) + 1)
    return {name: count / len(dataset) for name, count in sum_over_ranks(counts).items()}
