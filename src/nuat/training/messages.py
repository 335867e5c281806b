"""What a training run prints: epoch summaries, positions and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from nuat.errors import InputError, NonFiniteError
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.progress import format_duration

if TYPE_CHECKING:
    from nuat.training.trainer import Trainer


def epoch_summary(trainer: Trainer, metrics: Mapping[str, Any]) -> str:
    """Return the metrics of the epoch that has just ended as one line of text."""
    recipe, epoch = trainer.recipe, trainer.epoch
    seconds_left = trainer.timer.seconds / epoch * (recipe.epochs - epoch)
    parts = (
        f"epoch {epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}",
        f"loss {metrics['loss']:.3f}",
        f"clean {metrics['val_clean']:.1%}",
        f"robust {metrics['val_robust']:.1%}",
        *(f"{name} {metrics[name]:.3g}" for name in recipe.method.schedules()),
        f"{trainer.images_per_s():.0f} images/s",
        f"{format_duration(seconds_left)} left",
    )
    return "  ".join(parts)


def position(trainer: Trainer) -> str:
    """Return how far the run is: "epoch 3", or "epoch 3, batch 5"."""
    batches = f", batch {trainer.batch}" if trainer.batch else ""
    return f"epoch {trainer.epoch}{batches}"


@contextmanager
def error_context(trainer: Trainer) -> Iterator[None]:
    """Add to an error where it happened, what is saved and what usually helps."""
    try:
        with unify_oom_errors():
            yield
    except torch.OutOfMemoryError:
        raise InputError(
            f"batches of {trainer.recipe.batch_size} do not fit into the memory of "
            f"{trainer.plan.device}: choose a smaller batch (--set batch_size=N, in a new folder), "
            "or --set precision=bf16"
        ) from None
    except NonFiniteError as error:
        saved = (
            f"{trainer.folder.path} holds the last good checkpoint"
            if trainer.folder.has_checkpoint
            else "there is no checkpoint yet"
        )
        raise NonFiniteError(
            f"epoch {trainer.epoch + 1}, batch {trainer.batch + 1} of {trainer.batches}: {error}. "
            f"Training stopped; {saved}. "
            "A smaller learning rate (such as --set lr=0.01) or a smaller lam usually helps"
        ) from error
