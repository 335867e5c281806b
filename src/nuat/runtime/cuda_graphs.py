"""CUDA graphs: launches recorded once and replayed by one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch

from nuat.errors import InputError
from nuat.runtime.ranks import world_size

Work = Callable[[], None]

_pools: dict[int, tuple[Any, WeakSet[torch.cuda.CUDAGraph]]] = {}
"""The memory pool of each device, and the graphs in it."""


def use_cuda_graphs(requested: bool | None, device: torch.device) -> bool:
    """Whether to use CUDA graphs: as requested, or by default on a GPU of a single rank.

    The GPU must be torch's current one, on which a capture takes place.

    Raises:
        InputError: they were requested on another device, or on several ranks.
    """
    if requested and world_size() > 1:
        raise InputError("CUDA graphs do not work on several ranks: leave out cuda_graphs=True")
    if requested and device.type != "cuda":
        raise InputError(f"CUDA graphs need a cuda device, but the device is {device}")
    current = device.type == "cuda" and device.index in (None, torch.cuda.current_device())
    if requested and not current:
        raise InputError(
            f"CUDA graphs need the current device, but the device is {device}: set "
            f"CUDA_VISIBLE_DEVICES={device.index} and use cuda, or turn CUDA graphs off"
        )
    return current and world_size() == 1 if requested is None else requested


def capture_cuda_graph(work: Work) -> Work:
    """Record the kernels that `work` launches, without running them; return their replay.

    All graphs of a device share one pool of memory. So they must not be replayed at the same time,
    and what a replay leaves in its output tensors holds until the replay of any other graph.
    """
    device = torch.cuda.current_device()
    if device not in _pools or not _pools[device][1]:
        # torch frees a pool with its last graph, and refuses one that is being freed
        _pools[device] = torch.cuda.graph_pool_handle(), WeakSet()
    pool, graphs = _pools[device]
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool):
            work()
    except BaseException:
        _restore_generator(device)
        raise
    finally:
        torch.cuda.set_stream(stream)  # torch stays on the stream of a capture that fails
    graphs.add(graph)
    replay: Work = graph.replay
    return replay


def _restore_generator(device: int) -> None:
    """Give the device's generator a new state: a failed capture leaves its own unusable."""
    state = torch.Generator(f"cuda:{device}").graphsafe_get_state()
    torch.cuda.default_generators[device].graphsafe_set_state(state)
