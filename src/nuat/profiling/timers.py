"""Clocks, and what they are held against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

Clock = Callable[[], float]

SECTIONS = ("data", "attack", "forward", "backward", "optimizer", "average")
"""Parts of a step. `forward` is the passes that the weights learn from, and the loss."""


def clock_of(device: torch.device) -> Clock:
    """Seconds of work: of this process on one thread of a CPU, else by the wall.

    A GPU is waited for.
    """
    if device.type == "cuda":
        return _after_the_device
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _after_the_device() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


class SectionTimer:
    """`laps("data")`: the time since the last call went there."""

    def __init__(self, clock: Clock):
        """The first lap begins now."""
        self.clock, self.last = clock, clock()
        self.spent = dict.fromkeys(SECTIONS, 0.0)

    def __call__(self, section: str) -> None:
        """End a lap."""
        now = self.clock()
        self.spent[section] += now - self.last
        self.last = now

    @property
    def shares(self) -> dict[str, float]:
        """Of all the time so far."""
        whole = sum(self.spent.values()) or 1.0
        return {section: spent / whole for section, spent in self.spent.items()}


class TimedModel(nn.Module):
    """A network that times the passes the weights learn from; what comes before one is attack."""

    def __init__(self, f: nn.Module, laps: SectionTimer):
        """Stand before `f`."""
        super().__init__()
        self.f, self.laps = f, laps

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.f.parameters())
        if learns:
            self.laps("attack")
        z: Tensor = self.f(x)
        if learns:
            self.laps("forward")
        return z


class Matmul:
    """A product of two square matrices, timed beside the rest: what the machine reaches."""

    def __init__(self, device: torch.device, precision: str, size: int | None = None):
        """Of a size that keeps the device busy, unless one is given; in float32 or bfloat16."""
        self.size = size or (8192 if device.type == "cuda" else 1024)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.a, self.b = torch.randn(2, self.size, self.size, device=device).to(dtype)
        self.times: list[float] = []

    def timed(self, clock: Clock) -> None:
        """Once more, once untimed before."""
        for _ in range(2):
            start = clock()
            self.a @ self.b
            spent = clock() - start
        self.times.append(spent)

    @property
    def flops_per_s(self) -> float:
        """At its fastest."""
        return 2 * self.size**3 / max(min(self.times), 1e-9)
