"""Ranks, as torchrun sets them; nothing of our own."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's place among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_device() -> str | None:
    """The GPU that is this process's own under torchrun, such as cuda:1; None if there is none."""
    if world_size() == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', rank())) % torch.cuda.device_count()}"


def barrier() -> None:
    """Go on when every rank has come here."""
    if world_size() > 1:
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        dist.barrier()
