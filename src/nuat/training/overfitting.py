"""Validation after an epoch, and the watch for catastrophic overfitting in what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from nuat.attacks import FGSM, PGD, correct, is_robust
from nuat.data import ImageDataset
from nuat.schedules import Constant
from nuat.threat_models import Ball, NoStart


def validate(
    f: nn.Module, images: ImageDataset, ball: Ball, batch_size: int = 500
) -> dict[str, float]:
    """Accuracy on clean images, under FGSM, and under 7 steps of eps/7 from the clean image.

    The last is the published way to choose the epoch that is kept; cheap, and never a result.
    """
    pgd = PGD(ball, steps=7, rel_step_size=Constant(1 / 7), start=NoStart())
    standing = {"val_clean": 0, "val_fgsm": 0, "val_robust": 0}
    for _, x, y in images.batches(batch_size):
        right = correct(f, x, y)
        standing["val_clean"] += int(right.sum())
        for name, attack in (("val_fgsm", FGSM(ball)), ("val_robust", pgd)):
            standing[name] += int((right & is_robust(f, x, y, attack(f, x, y), ball)).sum())
    return {name: count / len(images) for name, count in standing.items()}


def detect_overfitting(epochs: Sequence[Mapping[str, float]]) -> str:
    """Whether the last of these epochs shows a collapse, in a sentence; "" if it does not.

    It does if accuracy under PGD has fallen to half of the best so far, and by 10 points or more,
    while accuracy under FGSM stands 20 points above it. The thresholds are ours. Once seen, it is
    not said again until the accuracy under PGD has come back.

    Args:
        epochs: lines of metrics with val_robust (PGD) and val_fgsm, from 0 to 1.
    """
    new = is_overfitting(epochs) and not is_overfitting(epochs[:-1])
    return describe_overfitting(epochs) if new else ""


def describe_overfitting(epochs: Sequence[Mapping[str, float]]) -> str:
    """The collapse that the last of these epochs is in, in words."""
    best, now = max(epoch["val_robust"] for epoch in epochs), epochs[-1]
    return (
        f"catastrophic overfitting in epoch {now['epoch']}: accuracy under PGD fell from "
        f"{best:.1%} to {now['val_robust']:.1%}, while under FGSM it is {now['val_fgsm']:.1%}"
    )


def is_overfitting(epochs: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last of these epochs is in a collapse, new or not."""
    if not epochs:
        return False
    best, now = max(epoch["val_robust"] for epoch in epochs), epochs[-1]["val_robust"]
    return now <= best / 2 and now <= best - 0.1 and epochs[-1]["val_fgsm"] >= now + 0.2
