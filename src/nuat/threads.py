"""How many threads a network is worth on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.cost import flops
from nuat.errors import InputError
from nuat.network import frozen

SMALL = 1e9
"""Floating-point operations of a forward pass of a batch, below which one thread is better."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def settle_threads(
    asked: int | str | None, f: nn.Module, x: Tensor, before: int | None = None
) -> str:
    """Set the number of threads for training `f` on batches like `x`, and say it in a sentence.

    A number is taken as it is; None leaves torch's. "auto" takes OMP_NUM_THREADS if it is set, or
    what this run began with (`before`), so that it goes on to the same bits. Else it takes one
    thread for a small network, and the cores that nothing else keeps busy for others: threads that
    share a core wait for each other, and a step takes 3 to 35 times as long
    (benchmarks/threads.log). Raises InputError for anything else.
    """
    if asked is None or x.device.type != "cpu":
        return ""
    if asked != "auto":
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise InputError(f"threads is {asked!r}, but must be a whole number from 1 up, or auto")
        torch.set_num_threads(asked)
        return f"threads: {asked}, as asked"
    if "OMP_NUM_THREADS" in os.environ:
        return f"threads: {torch.get_num_threads()} (OMP_NUM_THREADS)"
    if before is not None:
        torch.set_num_threads(before)
        return f"threads: {before}, as this run began"
    with frozen(f) as g, torch.no_grad():
        work = flops(lambda: g(x))
    torch.set_num_threads(1 if work < SMALL else idle_cores())
    return (
        f"threads: {torch.get_num_threads()} ({cores()} cores, {idle_cores()} of them idle; a "
        f"forward pass of a batch is {work / 1e9:.2g} GFLOP); --threads or OMP_NUM_THREADS for more"
    )


def cores() -> int:
    """The cores this process may use: what its affinity and its quota allow."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, period = (QUOTA.read_text().split() if QUOTA.exists() else ("max", "1"))[:2]
    share = -(-int(quota) // int(period)) if quota.isdigit() else allowed
    return max(1, min(allowed or 1, share or 1))


def idle_cores() -> int:
    """Those of them that nothing kept busy in the last minute, at least one."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, cores() - round(load))
