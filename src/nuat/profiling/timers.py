"""Clocks, a timer for the sections of a training step, and a matrix product to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

Clock = Callable[[], float]
"""A function that returns seconds since some fixed moment."""

SECTIONS = ("data", "attack", "forward", "backward", "optimizer", "average")
"""The sections of a training step.

`forward` is the forward passes whose gradient reaches the weights, and the loss.
"""


def get_clock(device: torch.device) -> Clock:
    """Return the clock for work on `device`.

    On a GPU the clock waits for the device before it is read. On a CPU with one thread it counts
    the processor time of this process, so that other processes do not disturb it.
    """
    if device.type == "cuda":
        return _synchronized_clock
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _synchronized_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


class SectionTimer:
    """Measures how the time of a step divides into `SECTIONS`."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.last_read = clock()
        self.seconds = dict.fromkeys(SECTIONS, 0.0)

    def end_section(self, section: str) -> None:
        """Add the time since the last call (or since the start) to `section`."""
        now = self.clock()
        self.seconds[section] += now - self.last_read
        self.last_read = now

    @property
    def shares(self) -> dict[str, float]:
        """The share of each section in the time measured so far, in [0, 1]."""
        total = sum(self.seconds.values()) or 1.0
        return {section: seconds / total for section, seconds in self.seconds.items()}


class TimedModel(nn.Module):
    """A model that times its training passes and counts the time before each one as attack.

    A training pass is one with gradients enabled and at least one trainable parameter; attacks
    freeze the parameters, which tells the two apart.
    """

    def __init__(self, model: nn.Module, timer: SectionTimer):
        super().__init__()
        self.model, self.timer = model, timer

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, C] of `x`."""
        is_training_pass = torch.is_grad_enabled() and any(
            parameter.requires_grad for parameter in self.model.parameters()
        )
        if is_training_pass:
            self.timer.end_section("attack")
        z: Tensor = self.model(x)
        if is_training_pass:
            self.timer.end_section("forward")
        return z


class MatmulBaseline:
    """The product of two square matrices, as an estimate of the device's attainable speed.

    They are in bfloat16 for the precision "bf16", else in float32. By default they have a `size`,
    rows and columns, that keeps the device busy.
    """

    def __init__(self, device: torch.device, precision: str, size: int | None = None):
        self.size = size or (8192 if device.type == "cuda" else 1024)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.a, self.b = torch.randn(2, self.size, self.size, device=device).to(dtype)
        self.seconds: list[float] = []

    def measure(self, clock: Clock) -> None:
        """Time one product, after one product that warms up and is not counted."""
        for _ in range(2):
            start = clock()
            self.a @ self.b
            elapsed = clock() - start
        self.seconds.append(elapsed)

    @property
    def flops_per_s(self) -> float:
        """Floating-point operations per second of the fastest product measured so far."""
        return 2 * self.size**3 / max(min(self.seconds), 1e-9)
