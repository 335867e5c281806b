"""Validation after an epoch, and the detection of catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nuat.attacks import FGSM, Attack, correct, is_robust
from nuat.data import ImageDataset
from nuat.rng import PerImageNoise
from nuat.runtime.precision import full_precision

Metrics = Mapping[str, Any]


@full_precision()
def validate(
    model: nn.Module, dataset: ImageDataset, attack: Attack, batch_size: int = 500
) -> dict[str, float]:
    """Return clean accuracy and the accuracies under FGSM and under `attack`, between 0 and 1.

    FGSM has the attack's threat model. An image counts as robust only if it is also correct without
    an attack. The noise of an attack with a random start belongs to the image, so it is the same
    after every epoch. The attack of a recipe selects an epoch; it may be too weak to report.
    Everything is computed in full precision.
    """
    ball = attack.ball
    counts = {"val_clean": 0, "val_fgsm": 0, "val_robust": 0}
    for indices, x, y in dataset.batches(batch_size):
        is_correct = correct(model, x, y)
        counts["val_clean"] += int(is_correct.sum())
        noise = PerImageNoise(0, indices, "validation")
        for name, each in (("val_fgsm", FGSM(ball)), ("val_robust", attack)):
            robust = is_robust(model, x, y, each(model, x, y, noise), ball)
            counts[name] += int((is_correct & robust).sum())
    return {name: count / len(dataset) for name, count in counts.items()}


def is_overfitting(epochs: Sequence[Metrics]) -> bool:
    """Whether the model overfits catastrophically after the last of these epochs.

    It does if accuracy under PGD is at most half of its best so far, at least 10 points below it,
    and at least 20 points below accuracy under FGSM. The thresholds are not published.

    Args:
        epochs: the metrics of all epochs so far, with val_robust (PGD) and val_fgsm in [0, 1].
    """
    if not epochs:
        return False
    best, last = max(epoch["val_robust"] for epoch in epochs), epochs[-1]
    robust = last["val_robust"]
    return bool(robust <= best / 2 and robust <= best - 0.1 and last["val_fgsm"] >= robust + 0.2)


def detect_overfitting(epochs: Sequence[Metrics]) -> str:
    """Describe catastrophic overfitting that began in the last of these epochs; "" if none did.

    It is reported once, and again only after accuracy under PGD has recovered.
    """
    began = is_overfitting(epochs) and not is_overfitting(epochs[:-1])
    return describe_overfitting(epochs) if began else ""


def describe_overfitting(epochs: Sequence[Metrics]) -> str:
    """Describe the catastrophic overfitting of the last of these epochs."""
    best, last = max(epoch["val_robust"] for epoch in epochs), epochs[-1]
    return (
        f"catastrophic overfitting in epoch {last['epoch']}: accuracy under PGD fell from "
        f"{best:.1%} to {last['val_robust']:.1%}, while accuracy under FGSM is "
        f"{last['val_fgsm']:.1%}"
    )
