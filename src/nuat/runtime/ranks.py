"""The processes of a torchrun job, from the environment variables that torchrun sets."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

BARRIER_TIMEOUT = timedelta(days=7)
"""A rank may wait for hours until another has finished its share of an evaluation."""


def rank() -> int:
    """Return the rank of this process, 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Return the number of processes, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_device() -> str | None:
    """Return the GPU of this rank, such as "cuda:1"; None without torchrun or without GPUs."""
    if world_size() == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', rank())) % torch.cuda.device_count()}"


def barrier() -> None:
    """Wait until every rank has called this function."""
    if world_size() > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=BARRIER_TIMEOUT)
        dist.barrier()
