"""How many threads a network is worth on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.cost import flops
from nuat.errors import InputError

SMALL = 1e9
"""Floating-point operations of a forward pass of a batch, below which one thread is better."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def settle_threads(asked: int | str | None, f: nn.Module, x: Tensor) -> str:
    """Set the number of threads for training `f` on batches like `x`, and say it in a sentence.

    A number is taken as it is; None leaves torch's. "auto" takes OMP_NUM_THREADS if it is set, one
    thread for a small network, whose threads would wait for each other more than they compute (on a
    busy machine ten times as long), and every core there is for others. Raises InputError for
    anything else.
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
    with torch.no_grad():
        work = flops(lambda: f(x))
    threads = 1 if work < SMALL else cores()
    torch.set_num_threads(threads)
    size = f"a forward pass of a batch is {work / 1e9:.2g} GFLOP"
    return f"threads: {threads} ({size}; --threads or OMP_NUM_THREADS for another number)"


def cores() -> int:
    """The cores this process may use: as many as torch sees, its affinity and its quota allow."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, period = (QUOTA.read_text().split() if QUOTA.exists() else ("max", "1"))[:2]
    share = -(-int(quota) // int(period)) if quota.isdigit() else allowed
    return max(1, min(allowed or 1, share or 1, torch.get_num_threads()))
