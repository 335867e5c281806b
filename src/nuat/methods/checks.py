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
"""Repeated steps that count as an epoch if the context never tells the index of a batch."""

PROBES = 5
"""At least so many repeated steps: checks and cost counts take a few beside the training loop."""


@dataclass
class _Repeats:
    """The steps of one model in an epoch in which a schedule is 0."""

    epoch: int
    last_batch: int = -1
    count: int = 0
    warned: bool = False


_repeats: WeakKeyDictionary[nn.Module, _Repeats] = WeakKeyDictionary()


def warn_if_stuck_at_zero(
    name: str, schedule: Schedule, model: nn.Module, ctx: StepContext
) -> None:
    """Warn, once per model, if a schedule stays 0 because the epoch of the context never rises.

    A method calls it in every step. A 0 is normal in the first epoch of a ramp. It is a mistake of
    the training loop if an epoch of steps repeats batches that this epoch has had already.
    """
    if isinstance(schedule, Constant):
        return
    if schedule(ctx.epoch) != 0:
        _repeats.pop(model, None)
        return
    seen = _repeats.setdefault(model, _Repeats(ctx.epoch))
    if ctx.epoch != seen.epoch:
        seen.epoch, seen.last_batch, seen.count = ctx.epoch, -1, 0
    seen.count += ctx.batch <= seen.last_batch
    seen.last_batch = max(seen.last_batch, ctx.batch)
    batches = ctx.batches or (seen.last_batch + 1 if seen.last_batch else STUCK_STEPS)
    if seen.warned or seen.count < max(batches, PROBES):
        return
    seen.warned = True
    warnings.warn(
        f"{name} is still 0 after an epoch of repeated batches, because every StepContext had "
        f"epoch {ctx.epoch}: {name} follows {schedule}, by epoch. Pass the current epoch and batch "
        "in every step: StepContext(epoch, batch, batch_size=...)",
        stacklevel=3,
    )
