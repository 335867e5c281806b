"""Running averages and timers; losses are read without synchronizing the GPU at every step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nuat.errors import NonFiniteError

FLUSH_EVERY = 50
"""Number of losses on a GPU that are collected before they are copied to the CPU together."""


@dataclass
class LossMeter:
    """The mean loss of an epoch. A loss on a CPU is read at once, losses on a GPU in groups."""

    total: float = 0.0
    count: int = 0
    pending: list[Tensor] = field(default_factory=list)

    def update(self, loss: Tensor) -> None:
        """Add the loss of a step. Raises NonFiniteError as `flush` does."""
        self.pending.append(loss.detach())
        if loss.device.type == "cpu" or len(self.pending) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Read the pending losses. Raises NonFiniteError at the first NaN or infinite one."""
        if not self.pending:
            return
        losses = torch.stack(self.pending).double().cpu()
        self.pending.clear()
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            steps_ago = len(losses) - 1 - int(bad[0])
            when = f", {steps_ago} losses before this one" if steps_ago else ""
            raise NonFiniteError(f"the loss is {float(losses[bad[0]])}{when}")
        self.total += float(losses.sum())
        self.count += len(losses)

    @property
    def mean(self) -> float:
        """The mean of the losses read so far; NaN if there are none."""
        return self.total / self.count if self.count else float("nan")

    def pop_mean(self) -> float:
        """Return the mean of the epoch and reset the meter."""
        self.flush()
        mean, self.total, self.count = self.mean, 0.0, 0
        return mean


@dataclass
class AverageMeter:
    """The means of named scalars over an epoch. Tensors are summed on their device."""

    totals: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def update(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Add the scalars of a step."""
        for name, scalar in scalars.items():
            self.totals[name] = self.totals.get(name, 0.0) + scalar
            self.counts[name] = self.counts.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the totals and counts so far, as Python numbers."""
        self.totals = {name: float(total) for name, total in self.totals.items()}
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    def pop_means(self) -> dict[str, float]:
        """Return the means of the epoch and reset the meter."""
        means = {name: float(total) / self.counts[name] for name, total in self.totals.items()}
        self.totals, self.counts = {}, {}
        return means


@dataclass
class Timer:
    """Seconds spent inside `with timer.running(): ...`, over all such blocks."""

    elapsed: float = 0.0
    started: float | None = None

    @property
    def seconds(self) -> float:
        """The total so far, including the block that is running."""
        running = time.monotonic() - self.started if self.started is not None else 0.0
        return self.elapsed + running

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the enclosed block."""
        self.started = time.monotonic()
        try:
            yield
        finally:
            self.elapsed, self.started = self.seconds, None
