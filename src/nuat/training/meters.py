"""The books of a training run: losses without a device synchronisation each, and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nuat.errors import NonFiniteError


@dataclass
class LossMeter:
    """The mean loss of an epoch. LossMeter are read at once on a CPU, every 50 on a GPU."""

    total: float = 0.0
    count: int = 0
    pending: list[Tensor] = field(default_factory=list)

    def note(self, loss: Tensor) -> None:
        """Take a loss. Raises NonFiniteError if it, or an unread one before it, is NaN or infinite."""
        self.pending.append(loss.detach())
        if loss.device.type == "cpu" or len(self.pending) >= 50:
            self.read()

    def read(self) -> None:
        """Read what is pending. Raises NonFiniteError at the first that is NaN or infinite."""
        if not self.pending:
            return
        losses = torch.stack(self.pending).double().cpu()
        self.pending.clear()
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            ago = len(losses) - 1 - int(bad[0])
            when = f", {ago} losses before this one" if ago else ""
            raise NonFiniteError(f"the loss is {float(losses[bad[0]])}{when}")
        self.total += float(losses.sum())
        self.count += len(losses)

    @property
    def mean(self) -> float:
        """The mean of what has been read, NaN before anything has."""
        return self.total / self.count if self.count else float("nan")

    def close(self) -> float:
        """The mean of the epoch; the next one starts from nothing."""
        self.read()
        mean, self.total, self.count = self.mean, 0.0, 0
        return mean


@dataclass
class AverageMeter:
    """AverageMeter of named numbers over an epoch, kept on their device until they are asked for."""

    totals: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, notes: Mapping[str, Tensor | float]) -> None:
        """Take one step's numbers."""
        for name, number in notes.items():
            self.totals[name] = self.totals.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, Any]:
        """The totals and counts so far, as plain numbers."""
        self.totals = {name: float(total) for name, total in self.totals.items()}
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    def close(self) -> dict[str, float]:
        """The means of the epoch; the next one starts from nothing."""
        means = {name: float(total) / self.counts[name] for name, total in self.totals.items()}
        self.totals, self.counts = {}, {}
        return means


@dataclass
class Timer:
    """Seconds of work: `with watch.running(): ...` adds to them."""

    before: float = 0.0
    since: float | None = None

    @property
    def seconds(self) -> float:
        """So far, the present piece included."""
        return self.before + (time.monotonic() - self.since if self.since is not None else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time a piece of work."""
        self.since = time.monotonic()
        try:
            yield
        finally:
            self.before, self.since = self.seconds, None
