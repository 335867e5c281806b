"""The detection of catastrophic overfitting, and the reaction that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nuat.errors import InputError
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import from_first

if TYPE_CHECKING:
    from nuat.training.trainer import Trainer

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


def react_to_overfitting(trainer: Trainer, metrics: dict[str, Any], bar: Progress) -> None:
    """If this epoch overfits catastrophically, warn and do what the recipe asks for.

    "stop" marks the epoch as the last one; "rollback" restores the state after the last epoch
    that did not overfit.
    """
    if not trainer.recipe.method.threat_model:
        return
    reaction, epochs = trainer.recipe.on_overfitting, [*trainer.metrics, metrics]
    if not is_overfitting(epochs):
        if reaction == "rollback":
            from_first(trainer.folder.save_state, "good", trainer.train_step.state_dict())
        return
    # after a rollback, overfitting in the next epoch is a new event, not the same one
    describe = describe_overfitting if reaction == "rollback" else detect_overfitting
    if message := describe(epochs):
        metrics["catastrophic_overfitting"] = message
        bar.print_line(f"WARNING: {message} (on_overfitting={reaction})")
    if reaction == "stop":
        metrics["stopped"] = True
    elif reaction == "rollback":
        good = from_first(trainer.folder.load_state, "good", trainer.load_device)
        if good is None:
            raise InputError(
                f"{trainer.folder.path / 'good.pt'}, the state before the overfitting, is missing"
            )
        trainer.train_step.load_state_dict(good)
