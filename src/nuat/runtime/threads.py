"""The processors this process may use, and the number of threads that torch uses."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from nuat.errors import InputError, check_positive_int

CPU_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
"""Holds "QUOTA PERIOD" in microseconds, or "max PERIOD", in a Linux container (cgroup v2)."""


MAX_THREADS = 1024


def available_cpus() -> int:
    """Return the number of processors this process may use, at least 1.

    This is the CPU affinity, further limited by the CPU quota of a container, which Python's own
    counts ignore.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # missing on macOS
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA_FILE.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else min(cpus, math.ceil(int(quota) / int(period)))


def configure_threads(threads: int | None) -> None:
    """Set the number of threads that torch uses on a CPU; None keeps torch's default.

    The default is OMP_NUM_THREADS or, if that is unset, the number of cores. The number of threads
    changes the order of summation, so results differ in the last bits.

    Raises:
        InputError: `threads` is not a whole number from 1 up.
    """
    if threads is None:
        return
    check_positive_int("threads", threads)
    if threads > MAX_THREADS:
        raise InputError(f"threads is {threads}, but must be at most {MAX_THREADS}")
    torch.set_num_threads(threads)
