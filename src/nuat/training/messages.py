"""What a training run prints: epoch summaries, positions and errors."""

from __future__ import annotations

import math
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


def chance_note(trainer: Trainer, metrics: Mapping[str, Any]) -> str:
    """A note if clean accuracy is still that of guessing after a third of the epochs, or "".

    It is if it is at most two standard deviations of guessing above 1 / K, for K classes.
    """
    epochs, images = trainer.recipe.epochs, len(trainer.splits.val)
    if epochs < 3 or trainer.epoch != -(-epochs // 3):
        return ""
    chance = 1 / len(trainer.splits.classes)
    if metrics["val_clean"] > chance + 2 * math.sqrt(chance * (1 - chance) / images):
        return ""
    return (
        f"NOTE: after a third of the epochs clean accuracy is {metrics['val_clean']:.1%}, where "
        f"guessing has {chance:.1%}: the network has not learned to tell the classes apart. With "
        "few images, start from trained weights (--init), with a smaller --eps, or train for more "
        "epochs; see docs/small_data.md"
    )


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
        raise InputError(_advice_on_memory(trainer)) from None
    except OSError as error:
        reason = str(error) if error.strerror is None else f"{error.filename}: {error.strerror}"
        raise OSError(
            f"{reason}. Training stopped in epoch {trainer.epoch + 1}; when that is mended, run "
            "the same command to go on from the last checkpoint"
        ) from error
    except NonFiniteError as error:
        saved = (
            f"{trainer.folder.path} keeps its last checkpoint"
            if trainer.folder.has_checkpoint
            else "there is no checkpoint yet"
        )
        raise NonFiniteError(
            f"epoch {trainer.epoch + 1}, batch {trainer.batch + 1} of {trainer.batches}: {error}. "
            f"Training stopped; {saved}. "
            "A smaller learning rate (such as --set lr=0.01) or a smaller lam usually helps; "
            "--on-nonfinite skip leaves such a batch out, --on-nonfinite rollback returns to the "
            "checkpoint before the last one and halves the learning rate"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch has no type for this error
            raise
        raise InputError(
            f"a process that reads images has ended: {str(error).splitlines()[0]}. Run the same "
            "command to go on from the last checkpoint; NUAT_WORKERS=0 reads without processes"
        ) from None


def _advice_on_memory(trainer: Trainer) -> str:
    recipe = trainer.recipe
    text = f"batches of {recipe.batch_size} do not fit into the memory of {trainer.plan.device}: "
    if recipe.batch_size == 1:
        return text + "choose a smaller model, or --set precision=bf16"
    half = recipe.batch_size // 2
    notes = " ".join(recipe.method.startup_notes(half, len(trainer.splits.classes)))
    return (
        f"{text}choose a smaller batch (--set batch_size={half}, in a new folder), or "
        f"--set precision=bf16. {notes}"
    ).strip()
