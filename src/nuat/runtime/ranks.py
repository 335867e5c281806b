"""The processes of a torchrun job, from the environment variables that torchrun sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

P = ParamSpec("P")
T = TypeVar("T")

CPU = torch.device("cpu")

BARRIER_TIMEOUT = timedelta(days=7)
"""A rank may wait for hours until another has finished its share of an evaluation."""

TRAINING_TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for another in training, where all take the same steps together."""


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


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks, by rank, once every rank has called this function."""
    if world_size() == 1:
        return [value]
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=BARRIER_TIMEOUT)
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def connected_ranks(device: torch.device) -> Iterator[None]:
    """Connect the ranks for training on these devices, by NCCL between GPUs, by gloo otherwise.

    A process group that the caller has initialized is used as it is; it must support the CPU, as
    "cpu:gloo,cuda:nccl" does.

    Raises:
        ConnectionError: another rank cannot be reached, has died, or has not answered for
            `TRAINING_TIMEOUT`.
    """
    if world_size() == 1:
        yield
        return
    was_initialized = dist.is_initialized()
    if not was_initialized:
        _connect(device)
    try:
        yield
    except RuntimeError as error:
        # torch has no class for this error: gloo's is a RuntimeError that names its source file
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise ConnectionError(
            f"rank {rank()} lost another rank, which has died or has not answered for "
            f"{TRAINING_TIMEOUT.seconds // 60} minutes: see its output. The same command resumes "
            f"from the last checkpoint ({str(error).splitlines()[0]})"
        ) from error
    finally:
        if not was_initialized:
            dist.destroy_process_group()


def _connect(device: torch.device) -> None:
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL refuses two ranks on one GPU
        if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= torch.cuda.device_count():
            backend = "cpu:gloo,cuda:nccl"
    try:
        store, number, count = next(rendezvous("env://", timeout=TRAINING_TIMEOUT))
        # torchrun restarts ranks with the store of the ranks before them, which holds the addresses
        # of these
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"attempt-{attempt}", store)
        dist.init_process_group(
            backend, store=store, rank=number, world_size=count, timeout=TRAINING_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:  # ValueError: a variable of torchrun is missing
        raise ConnectionError(
            f"rank {rank()} cannot connect to the other {world_size() - 1}: start the command with "
            f"torchrun ({str(error).splitlines()[0]})"
        ) from error


def from_first(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on rank 0 alone; return what it returns, or raise its error, on every rank.

    What it returns is pickled, and holds no tensor of a GPU.
    """
    if world_size() == 1:
        return function(*args, **kwargs)
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = function(*args, **kwargs)
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=CPU)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result


def any_rank(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set on any rank."""
    if world_size() == 1:
        return list(flags)
    tensor = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [bool(flag) for flag in tensor]


def sum_over_ranks(numbers: dict[str, int]) -> dict[str, int]:
    """Return the sums of whole numbers over all ranks, by name."""
    if world_size() == 1:
        return numbers
    tensor = torch.tensor(list(numbers.values()))
    dist.all_reduce(tensor)
    return dict(zip(numbers, tensor.tolist(), strict=True))


def all_gather_rows(rows: Tensor) -> list[Tensor]:
    """Return the tensors of all ranks, by rank; all have the same shape."""
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows)
    return gathered
