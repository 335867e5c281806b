"""Checks that methods share: the reference of an attack, and a context that never advances."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args
from weakref import WeakKeyDictionary

from torch import nn

from nuat.errors import unknown_name
from nuat.methods.base import StepContext
from nuat.schedules import Constant, Schedule

Reference = Literal["train", "eval"]
"""The mode in which a single-step attack takes the clean logits."""


def check_reference(reference: str) -> None:
    """Raise InputError unless it is "train" or "eval"."""
    if reference not in get_args(Reference):
        raise unknown_name("reference", reference, get_args(Reference))


STUCK_STEPS = 50
"""Steps of one position that count as an epoch if the context does not know its length."""


@dataclass
class _Position:
    """The position of a model in training while a schedule is 0."""

    epoch: int
    batch: int
    repeated: int = 0
    warned: bool = False


_positions: WeakKeyDictionary[nn.Module, _Position] = WeakKeyDictionary()


def forget_position(model: nn.Module) -> None:
    """Forget the steps seen so far, around steps that are no training, such as a count of FLOPs."""
    _positions.pop(model, None)


def warn_if_stuck_at_zero(
    name: str, schedule: Schedule, model: nn.Module, ctx: StepContext
) -> None:
    """Warn, once per model, if a schedule stays 0 because the epoch of the context never rises.

    A method calls it in every step. A 0 is normal in the first epoch of a ramp. It is a mistake of
    the training loop if a whole epoch has passed at the same epoch number: the batch number begins
    again, or does not advance for as many steps as an epoch has.
    """
    if isinstance(schedule, Constant):
        return
    if schedule(ctx.epoch) != 0:
        _positions.pop(model, None)
        return
    last = _positions.setdefault(model, _Position(ctx.epoch, ctx.batch - 1))
    begins_again = ctx.epoch == last.epoch and ctx.batch < last.batch
    is_same = (ctx.epoch, ctx.batch) == (last.epoch, last.batch)
    last.repeated = last.repeated + 1 if is_same else 0
    last.epoch, last.batch = ctx.epoch, ctx.batch
    if last.warned or not (begins_again or last.repeated >= (ctx.batches or STUCK_STEPS)):
        return
    last.warned = True
    warnings.warn(
        f"{name} is still 0 after an epoch of steps, because every StepContext had epoch "
        f"{ctx.epoch}: {name} follows {schedule}, by epoch. Pass the current epoch and batch in "
        "every step: StepContext(epoch, batch, batch_size=...)",
        stacklevel=3,
    )
