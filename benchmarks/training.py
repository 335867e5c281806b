"""The published NuAT iteration against ours, change by change.

    OMP_NUM_THREADS=1 python benchmarks/training.py | tee benchmarks/training.log

Before any time is taken, two iterations must give equal weights where a change is exact. Then the
arms run in one process, one thread, in interleaved rounds of two steps (both parities of NuAT), in
rotated order, on random images; times are `process_time`, figures are medians of the ratios within
a round, with quartiles. Numbers go to training.json beside this file.
"""

import argparse
import copy
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from published import CHANGES, Published, nuclear
from torch import Tensor, nn

import nuat
from nuat.losses import nuclear_svd
from nuat.matrix_norms import nuclear_norm
from nuat.methods import Standard
from nuat.models import build_model
from nuat.nn.precision import check_channels_last, set_memory_format
from nuat.profiling.costs import paired_ratio
from nuat.recipes import Recipe
from nuat.rng import derive_seed
from nuat.runtime.versions import versions
from nuat.training.train_step import TrainStep

EPOCH = 60
BATCHES = 700
OPTIONS: dict[str, dict[str, str]] = {"": {}, ", bf16": {"precision": "bf16"}}
ROUNDED = ("+ foreach average", "ours, torch's norm")
"""Where the averages, which NuAT2-WA attacks, are rounded in another order."""


def torch_nuclear(z_adv: Tensor, z: Tensor) -> Tensor:
    """The nuclear norm of the published code, in ours."""
    return nuclear(z_adv - z)


def nuclear_polar(z_adv: Tensor, z: Tensor) -> Tensor:
    """The nuclear norm by matrix products, on a CPU too."""
    return nuclear_norm(z_adv - z, "polar")


class Ours:
    """A recipe's step by nuat's engine."""

    def __init__(self, recipe: Recipe, f: nn.Module, layout: bool = False):
        self.train_step = TrainStep(recipe, f, BATCHES)
        if layout:
            x = torch.zeros(2, 3, 32, 32, dtype=next(f.parameters()).dtype)
            check_channels_last(f, x)
            set_memory_format(f, torch.channels_last)

    def step(self, x: Tensor, y: Tensor, epoch: int, place: int) -> None:
        for _ in self.train_step.step((x, y), self.train_step.prepare(epoch, place)):
            pass


def with_distance(recipe: Recipe, distance) -> Recipe:
    method = replace(recipe.method, distance=distance, lam_batch_size=None, constant_divisor=False)
    return replace(recipe, method=method)


def ladder(recipe: Recipe, f: nn.Module, short: bool) -> dict:
    """The arms by name, in order."""

    def published(count: int) -> Published:
        return Published(
            with_distance(recipe, nuclear_svd), copy.deepcopy(f), BATCHES, CHANGES[:count]
        )

    def ours(distance=nuclear_svd, layout: bool = False, **options: str) -> Ours:
        changed = replace(with_distance(recipe, distance), **options)
        return Ours(changed, copy.deepcopy(f), layout)

    standard = replace(recipe, method=Standard(), ema_decay=None)
    arms = {"standard": Ours(standard, copy.deepcopy(f)), "published": published(0)}
    if not short:
        arms |= {f"+ {CHANGES[i]}": published(i + 1) for i in range(4)}
        arms |= {"ours, torch's norm": ours(torch_nuclear), "ours, polar norm": ours(nuclear_polar)}
        arms["ours"] = ours()
    for name, options in OPTIONS.items():
        arms[f"ours, channels_last{name}"] = ours(layout=True, **options)
        arms[f"standard, channels_last{name}"] = Ours(
            replace(standard, **options), copy.deepcopy(f), True
        )
    return arms


def weights(arm: Published | Ours) -> Tensor:
    f = arm.f if isinstance(arm, Published) else arm.train_step.model
    return torch.cat([p.detach().flatten() for p in f.parameters()])


GATED = (*(f"+ {change}" for change in CHANGES), "ours, torch's norm", "ours")


def two_iterations(recipe: Recipe, model: str, batch: int, dtype: torch.dtype) -> dict[str, float]:
    """How far each arm's weights are from the published ones after them, in units of the update."""
    torch.manual_seed(0)
    arms = ladder(recipe, build_model(model, 10, 3).to(dtype), short=False)
    arms = {name: arms[name] for name in ("published", *GATED)}
    start = weights(arms["published"])
    for place in range(2):
        x, y = torch.rand(batch, 3, 32, 32).to(dtype), torch.randint(10, (batch,))
        for arm in arms.values():
            torch.manual_seed(derive_seed(0, "step", EPOCH, place))
            arm.step(x, y, EPOCH, place)
    expected = weights(arms["published"])
    update = (expected - start).norm()
    return {name: float((weights(arms[name]) - expected).norm() / update) for name in GATED}


def gate(recipe: Recipe, model: str, batch: int) -> None:
    """Two iterations: equal to the last bit where a change is exact. Stops if they are not.

    What is not exact (another rounding, another nuclear norm) must be equal in float64 to rounding;
    in float32 it is told, for a sign that rounding turns moves a pixel by eps.
    """
    single = two_iterations(recipe, model, batch, torch.float32)
    double = two_iterations(recipe, model, batch, torch.float64)
    sees_average = hasattr(recipe.method, "attack_ema_decay")
    for name in GATED:
        exact = name != "ours" and not (sees_average and name in ROUNDED)
        apart = f"differs by {single[name]:.1e}, in float64 by {double[name]:.1e}"
        print(f"{recipe.name:9} {name:20} {apart if single[name] else 'the same bits'}", flush=True)
        if (exact and single[name]) or double[name] > 1e-9:
            raise SystemExit(f"{recipe.name}: {name!r} does not give the published weights")


def timed(arms: dict, batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each arm in each round."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(-1, rounds):
        x, y = torch.rand(batch, 3, 32, 32), torch.randint(10, (batch,))
        for offset in range(len(arms)):
            name = list(arms)[(offset + max(turn, 0)) % len(arms)]
            began = time.process_time()
            for place in range(2):
                arms[name].step(x, y, EPOCH, place)
            if turn >= 0:
                times[name].append((time.process_time() - began) / 2)
    return times


def shown(times: dict[str, list[float]]) -> dict[str, dict]:
    """Print a line for each arm: how much faster than published, how many standard steps."""
    found = {}
    print(f"  {'':30} {'ms':>8}   faster than published    in standard steps (same options)")
    for name, own in times.items():
        options = name.partition(", channels_last")[1:]
        standard = times["standard" + ("".join(options) if "ours" in name else "")]
        faster, steps = paired_ratio(times["published"], own), paired_ratio(own, standard)
        found[name] = {"ms": 1e3 * statistics.median(own), "faster": faster, "standard": steps}
        ms = found[name]["ms"]
        figures = [f"{m:6.2f} ({low:.2f} to {high:.2f})" for m, low, high in (faster, steps)]
        print(f"  {name:30} {ms:8.1f}   {figures[0]:24} {figures[1]}")
    return found


def norm_share(step_ms: dict[str, float]) -> dict[str, float]:
    """The nuclear norm, value and gradient, 1.5 times a step (NuAT), as a share of a step."""
    d = torch.randn(64, 10).requires_grad_()
    found = {}
    for name, norm in {"torch": nuclear, "svd": nuclear_svd, "polar": nuclear_polar}.items():
        again = []
        for _ in range(200):
            began = time.process_time()
            value = norm(d) if norm is nuclear else norm(d, torch.zeros(()))
            torch.autograd.grad(value, d)
            again.append(time.process_time() - began)
        found[name] = 1e3 * statistics.median(again)
        shares = (f"{1.5 * found[name] / ms:.3%} of {arm}" for arm, ms in step_ms.items())
        print(f"  nuclear norm of 64 x 10, {name}: {found[name]:.3f} ms; {'; '.join(shares)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="an exercise of seconds")
    parser.add_argument("--rounds", type=int, default=5, help="at full width, batch 64")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [nuat.get_recipe(name, "cifar10") for name in ("nuat-wa", "nuat", "nuat2-wa")]
    narrow, wide = "resnet18-nuat(width=16)", "resnet18-nuat"
    sizes = [(narrow, 16, 9, False), (wide, 64, asked.rounds, True)]
    if asked.tiny:
        rows, narrow = rows[::2], "small-cnn(width=4)"
        sizes = [(narrow, 4, 1, False)]
    found: dict = {"versions": versions(), "threads": 1, "epoch": EPOCH, "ladders": []}
    print("weights after two iterations, against the published ones")
    for row in rows:
        gate(row, narrow, batch=4 if asked.tiny else 16)
    for model, batch, rounds, short in sizes:
        for row in rows[:1] if short else rows:
            print(f"\n{row.name}, {model}, batch {batch}, {rounds} rounds", flush=True)
            torch.manual_seed(0)
            figures = shown(timed(ladder(row, build_model(model, 10, 3), short), batch, rounds))
            about = {"recipe": row.name, "model": model, "batch": batch, "rounds": rounds}
            found["ladders"].append(about | {"arms": figures})
    steps = {name: arm["ms"] for name, arm in figures.items() if name.startswith("ours, ch")}
    print(f"\n{found['ladders'][-1]['recipe']}, {model}, batch {batch}")
    found["nuclear_norm_ms"] = norm_share(steps)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
