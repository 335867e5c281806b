"""The option `on_nonfinite`: what to do after a loss, weight or statistic is NaN or infinite.

"stop" ends the run with an error, and keeps its checkpoint. "skip" undoes the step and goes on with
the next batch; it copies the state before every step, and reads every loss at once. "rollback"
returns to the checkpoint before the newest one, because weights diverge before a loss is NaN, and
goes on with half the learning rate. Ours, not from the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nuat.errors import NonFiniteError
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import from_first
from nuat.training.messages import position
from nuat.training.saving import load_checkpoint

if TYPE_CHECKING:
    from nuat.training.trainer import Trainer

MIN_LR_FACTOR = 2.0**-10
"""The learning rate is halved ten times at most; then the run stops."""


def train_or_skip(trainer: Trainer, inputs: Sequence[Tensor]) -> None:
    """Take a training step, or undo it if anything in it is not finite.

    Raises:
        NonFiniteError: no batch of the epoch was finite.
    """
    before = copy.deepcopy((trainer.train_step.state_dict(), trainer.losses, trainer.logs))
    try:
        trainer.train_batch(inputs)
        trainer.losses.flush()
        _check_weights_finite(trainer.plan.model)
    except NonFiniteError as error:
        state, trainer.losses, trainer.logs = before
        trainer.train_step.load_state_dict(state)
        trainer.skipped += 1
        if trainer.skipped == trainer.batches:
            raise NonFiniteError(f"{error}, as in every other batch of the epoch") from error


def _check_weights_finite(model: nn.Module) -> None:
    """Raise NonFiniteError if a weight or a statistic of BatchNorm is NaN or infinite."""
    finite = [torch.isfinite(value).all() for value in model.state_dict().values()]
    if not bool(torch.stack(finite).all()):
        raise NonFiniteError("a weight or a statistic of the network is NaN or infinite")


def may_roll_back(trainer: Trainer) -> bool:
    """Whether a loss that is not finite is answered by `roll_back`."""
    wanted = trainer.recipe.on_nonfinite == "rollback"
    return wanted and trainer.train_step.lr_factor > MIN_LR_FACTOR


def roll_back(trainer: Trainer, error: NonFiniteError, bar: Progress) -> None:
    """Return to the checkpoint before the newest one, with half the learning rate."""
    # the cause is the error without the advice for a run that stops
    problem = f"epoch {trainer.epoch + 1}, batch {trainer.batch + 1}: {error.__cause__ or error}"
    factor = trainer.train_step.lr_factor / 2
    from_first(trainer.folder.drop_newest_checkpoint)
    load_checkpoint(trainer)
    trainer.train_step.lr_factor = factor
    bar.go_back_to(trainer.batches_done)
    bar.print_line(
        f"WARNING: {problem}. Back to the state after {position(trainer)}, with {factor:g} times "
        "the learning rate of the recipe"
    )
