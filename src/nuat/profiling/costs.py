"""The cost of a training step of several recipes, relative to standard training.

The recipes take turns in rounds, in rotated order, in one process. A relative time compares two
recipes within one round, so that other work on the machine slows both of them. Absolute times
describe only this machine at this moment.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nuat.data import Splits
from nuat.errors import InputError, check_positive_int
from nuat.methods import Standard
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.nn.precision import select_memory_format, set_memory_format
from nuat.nn.validation import check_logits
from nuat.profiling.candidate import Candidate
from nuat.profiling.timers import Clock, MatmulBaseline, get_clock
from nuat.recipes import Recipe
from nuat.runtime.cuda_graphs import use_cuda_graphs
from nuat.runtime.flops import count_flops
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.versions import versions


@dataclass(frozen=True)
class StepCost:
    """The cost of one training step of a recipe.

    Attributes:
        name: the name of the recipe.
        forward_equivalents: the counted work, in forward passes of the batch.
        ms: milliseconds per step, median over the rounds.
        images_per_s: training images per second.
        relative_time: time relative to standard training: median, lower and upper quartile over
            the rounds.
        gflops: billions of floating-point operations per second (counted work / measured time).
        matmul_fraction: `gflops` as a fraction of the speed of a matrix product on this device.
        peak_mib: peak memory in MiB: of this recipe on a GPU, of the process so far on a CPU.
        time_shares: share of the time of each section of the step, in [0, 1].
    """

    name: str
    forward_equivalents: float
    ms: float
    images_per_s: float
    relative_time: tuple[float, float, float]
    gflops: float
    matmul_fraction: float
    peak_mib: float
    time_shares: dict[str, float]


def benchmark(
    recipes: Sequence[Recipe],
    data: Splits,
    device: torch.device,
    *,
    rounds: int = 9,
    cuda_graphs: bool | None = None,
    print_line: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time recipes against standard training, with the model and batch size of the first recipe.

    Args:
        recipes: the recipes to compare. Each keeps its own precision and memory layout; standard
            training uses those of the first recipe.
        data: the images to train on. The trained weights are discarded.
        device: the device to time.
        rounds: number of timings per recipe; each covers two steps of the last epoch.
        cuda_graphs: record and replay the steps (see `nuat.training.cuda_graphs`), as is the
            default on a GPU.
        print_line: is called with each note for the user.

    Returns:
        A JSON-compatible dictionary: the settings, the versions, and under "costs" one `StepCost`
        per recipe as a dictionary, standard training first.

    Raises:
        InputError: an argument is invalid, or the batches do not fit into memory.
    """
    _check_arguments(recipes[0], data, rounds)
    cuda_graphs = use_cuda_graphs(cuda_graphs, device)
    torch.manual_seed(0)
    candidates = _build_candidates(recipes, data.to(device), device, cuda_graphs, print_line)
    clock, matmul = get_clock(device), MatmulBaseline(device, recipes[0].precision)
    try:
        with unify_oom_errors():
            _time_candidates(candidates, matmul, clock, rounds, warmup=4 if cuda_graphs else 1)
            costs = [_step_cost(each, candidates[0], matmul, clock) for each in candidates]
    except torch.OutOfMemoryError:
        raise InputError(
            f"batches of {recipes[0].batch_size} do not fit into the memory of {device}: "
            "give a smaller --batch-size"
        ) from None
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "model": recipes[0].model,
        "data": data.name,
        "batch_size": recipes[0].batch_size,
        "precision": recipes[0].precision,
        "channels_last": recipes[0].channels_last,
        "cuda_graphs": cuda_graphs,
        "rounds": rounds,
        "matmul_gflops": matmul.flops_per_s / 1e9,
        "versions": versions(),
        "costs": [asdict(cost) for cost in costs],
    }


def _check_arguments(first: Recipe, data: Splits, rounds: int) -> None:
    check_positive_int("rounds", rounds)
    if first.batch_size > len(data.train):
        raise InputError(
            f"a batch of {first.batch_size} is more than the {len(data.train)} training images "
            f"of {data.name}: give a smaller --batch-size"
        )


def _build_candidates(
    recipes: Sequence[Recipe],
    data: Splits,
    device: torch.device,
    cuda_graphs: bool,
    print_line: Callable[[str], None],
) -> list[Candidate]:
    first, classes = recipes[0], len(data.classes)
    initial = build_model(first.model, classes, data.train.channels).to(device)
    x, _ = data.train.batch(torch.arange(2))
    check_logits(initial, x, classes)
    candidates = []
    for recipe in (replace(first, name="standard", method=Standard(), ema_decay=None), *recipes):
        recipe = replace(recipe, model=first.model, batch_size=first.batch_size)
        model = copy.deepcopy(initial)
        memory_format, note = select_memory_format(model, x, recipe.channels_last)
        set_memory_format(model, memory_format)
        if note:
            print_line(f"{recipe.name}: {note}")
        candidates.append(Candidate(recipe, model, data.train, cuda_graphs, print_line=print_line))
    return candidates


def _time_candidates(
    candidates: list[Candidate], matmul: MatmulBaseline, clock: Clock, rounds: int, warmup: int
) -> None:
    for candidate in candidates:
        for _ in range(warmup):
            candidate.run_round()
    for first in range(rounds):
        matmul.measure(clock)
        for offset in range(len(candidates)):
            # The order rotates, so that no recipe always follows the same other one.
            candidates[(first + offset) % len(candidates)].time_round(clock)


def _step_cost(
    candidate: Candidate, standard: Candidate, matmul: MatmulBaseline, clock: Clock
) -> StepCost:
    model, batch_size = candidate.train_step.model, candidate.recipe.batch_size
    x, y = candidate.images.batch(torch.arange(2))
    forwards = forward_equivalents(candidate.recipe.method, model, x, y, candidate.epoch)
    with frozen_eval(model) as frozen_model, torch.no_grad():
        flops = forwards * count_flops(lambda: frozen_model(x)) / len(x) * batch_size
    seconds = statistics.median(candidate.seconds_per_step)
    return StepCost(
        name=candidate.recipe.name,
        forward_equivalents=forwards,
        ms=1e3 * seconds,
        images_per_s=batch_size / seconds,
        relative_time=paired_ratio(candidate.seconds_per_step, standard.seconds_per_step),
        gflops=flops / seconds / 1e9,
        matmul_fraction=flops / seconds / matmul.flops_per_s,
        peak_mib=candidate.peak_mib,
        time_shares=candidate.time_shares(clock),
    )


def paired_ratio(
    times: Sequence[float], reference_times: Sequence[float]
) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of the ratios times[i] / reference_times[i]."""
    ratios = [time / other for time, other in zip(times, reference_times, strict=True)]
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return median, lower, upper
