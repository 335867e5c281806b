"""Start functions on several ranks of this host, which are connected by gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nuat.runtime.ranks import connected_ranks

# One server process imports torch and nuat once, with what DistributedDataParallel imports when it
# is first used; every rank is a fork of it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.training.rank_steps", "torch._dynamo"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def on_ranks(
    ranks: int,
    folder: Path,
    function: Callable[..., Any],
    *args: Any,
    device: str = "cpu",
    **variables: str,
) -> list[Any]:
    """Call a function of a module on this many ranks; return what each returns.

    A rank that ends early, with exit status 0, returns None. `variables` are set in its
    environment.
    """
    variables = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **variables,
    }
    files = [folder / f"returned-{rank}-of-{ranks}.pt" for rank in range(ranks)]
    processes = [
        PROCESSES.Process(
            target=_call, args=(variables | {"RANK": str(rank)}, file, function, args, device)
        )
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * ranks
    return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _call(
    variables: dict[str, str],
    file: Path,
    function: Callable[..., Any],
    args: tuple,
    device: str,
) -> None:
    os.environ |= variables
    torch.set_num_threads(1)
    with connected_ranks(torch.device(device)):
        torch.save(function(*args), file)
