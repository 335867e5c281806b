"""Recipes timed in interleaved rounds, in rotated order, in one process.

A ratio is that of two neighbours in a round, so that what else the machine does falls on both.
Times alone are those of this machine at this moment.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nuat.data import Splits
from nuat.errors import InputError
from nuat.methods import Standard
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.nn.precision import set_memory_format
from nuat.nn.validation import check_logits
from nuat.profiling.candidate import Candidate
from nuat.profiling.timers import Clock, Matmul, clock_of
from nuat.recipes import Recipe
from nuat.runtime.flops import flops
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.versions import versions

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """What a step of a recipe costs: a row of the table.

    Attributes:
        name: of the recipe.
        forward_equivalents: counted, in forward passes of the batch.
        ms: milliseconds, median over the rounds.
        images_per_s: training images a second.
        standard_steps: in steps of standard training: median of the ratios in each round, and their
            lower and upper quartile.
        gflops: floating-point operations a second, in billions, counted over timed.
        of_matmul: the same as a share of what a product of matrices reaches beside it.
        peak_mib: most memory in use, MiB: of this recipe on a GPU, of the process so far on a CPU.
        shares: of the time, by section of the step.
    """

    name: str
    forward_equivalents: float
    ms: float
    images_per_s: float
    standard_steps: tuple[float, float, float]
    gflops: float
    of_matmul: float
    peak_mib: float
    shares: dict[str, float]


def benchmark(
    recipes: Sequence[Recipe],
    data: Splits,
    device: torch.device,
    *,
    rounds: int = 9,
    graphs: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Time recipes against standard training, on the network and the batch size of the first.

    Args:
        recipes: what to compare. Precision and memory layout are each recipe's own; standard
            training takes those of the first.
        data: images to train on; nothing is kept.
        device: where.
        rounds: how often each is timed, two steps at a time, in the last epoch of its schedules.
        graphs: in recorded steps (see nuat.training.cuda_graphs).
        say: told what there is to remark.

    Returns:
        For JSON: the circumstances, and under "costs" a `Cost` for each recipe, standard first.

    Raises:
        InputError: something given cannot be used, or does not fit into memory.
    """
    _check(recipes[0], data, device, rounds, graphs)
    torch.manual_seed(0)
    arms = _arms(recipes, data.to(device), device, graphs, say)
    clock, matmul = clock_of(device), Matmul(device, recipes[0].precision)
    try:
        with unify_oom_errors():
            _time(arms, matmul, clock, rounds, warm=4 if graphs else 1)
            costs = [_cost(arm, arms[0], matmul, clock) for arm in arms]
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
        "graphs": graphs,
        "rounds": rounds,
        "matmul_gflops": matmul.flops_per_s / 1e9,
        "versions": versions(),
        "costs": [asdict(cost) for cost in costs],
    }


def _check(first: Recipe, data: Splits, device: torch.device, rounds: int, graphs: bool) -> None:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise InputError(f"rounds is {rounds!r}, but must be a whole number from 1 up")
    if graphs and device.type != "cuda":
        raise InputError(f"CUDA graphs need a cuda device, but this is {device}")
    if first.batch_size > len(data.train):
        raise InputError(
            f"a batch of {first.batch_size} is more than the {len(data.train)} training images "
            f"of {data.name}: give a smaller --batch-size"
        )


def _arms(
    recipes: Sequence[Recipe], data: Splits, device: torch.device, graphs: bool, say: Say
) -> list[Candidate]:
    first, classes = recipes[0], len(data.classes)
    f = build_model(first.model, classes, data.train.channels).to(device)
    x, _ = data.train.batch(torch.arange(2))
    check_logits(f, x, classes)
    arms = []
    for recipe in (replace(first, name="standard", method=Standard(), ema_decay=None), *recipes):
        alike = replace(recipe, model=first.model, batch_size=first.batch_size)
        g = copy.deepcopy(f)
        if remark := set_memory_format(g, x, alike.channels_last):
            say(f"{recipe.name}: {remark}")
        arms.append(Candidate(alike, g, data.train, graphs, say))
    return arms


def _time(arms: list[Candidate], matmul: Matmul, clock: Clock, rounds: int, warm: int) -> None:
    for arm in arms:
        for _ in range(warm):
            arm.run()
    for turn in range(rounds):
        matmul.timed(clock)
        for place in range(len(arms)):
            arms[(place + turn) % len(arms)].timed(clock)


def _cost(arm: Candidate, standard: Candidate, matmul: Matmul, clock: Clock) -> Cost:
    f, batch = arm.descent.f, arm.recipe.batch_size
    x, y = arm.images.batch(torch.arange(2))
    forwards = forward_equivalents(arm.recipe.method, f, x, y, arm.epoch)
    with frozen_eval(f) as g, torch.no_grad():
        operations = forwards * flops(lambda: g(x)) / len(x) * batch
    seconds = statistics.median(arm.times)
    return Cost(
        name=arm.recipe.name,
        forward_equivalents=forwards,
        ms=1e3 * seconds,
        images_per_s=batch / seconds,
        standard_steps=ratio(arm.times, standard.times),
        gflops=operations / seconds / 1e9,
        of_matmul=operations / seconds / matmul.flops_per_s,
        peak_mib=arm.peak,
        shares=arm.shares(clock),
    )


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The median of the paired ratios, and their lower and upper quartile."""
    ratios = [one / other for one, other in zip(times, others, strict=True)]
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high
