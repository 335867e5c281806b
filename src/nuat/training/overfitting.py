"""The detection of catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, Any]


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
