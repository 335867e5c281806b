"""FAB-T: the published algorithm, ours with all 25 Newton steps, and ours with an early exit.

    OMP_NUM_THREADS=1 python benchmarks/fab.py | tee benchmarks/fab.log

`published` does what the code published with AutoAttack does: its projection sorts the pixels and
bisects, and its backward pass also computes the gradients of the weights. It is written from that
description and runs in our loop, so that nothing else differs. `25 steps` is our projection before
the early exit, and `as evaluated` attacks the copy that `nuat evaluate` attacks, with BatchNorm
folded. Every image stands, so every arm does the same work: ratios of processor time within a
round, median (lowest to highest) over the rounds. NUAT_DATA is the folder of MNIST and CIFAR-10.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn

import nuat
from nuat.attacks import FABT, box_projection, classes_by_logit, fab, logits, run_attack
from nuat.attacks.fab import FABState
from nuat.data import ImageDataset, load_dataset
from nuat.evaluation.search_model import build_search_model
from nuat.losses import targeted_margin
from nuat.models import build_model
from nuat.rng import PerImageNoise
from nuat.runtime.flops import count_flops
from nuat.runtime.versions import versions
from nuat.threat_models import Ball, Linf

MNIST, CIFAR = "mnist(train=4000,val=200,test=200)", "cifar10(train=1000,val=100,test=100)"
NETWORKS = {
    "small-cnn": ("digits", 64, 64),
    "small-cnn(width=8)": (MNIST, 64, 64),
    "mnist-net": (MNIST, 64, 32),
    "resnet18": (CIFAR, 10, 8),
}
"""Data set, steps of training and number of attacked images of each network."""

BALLS = {"linf": nuat.Linf(1e-4), "l2": nuat.L2(1e-3)}


def project_by_sorting(x: Tensor, w: Tensor, b: Tensor, ball: Ball) -> Tensor:
    """The projection of `project_to_hyperplane`, by sorting and bisection.

    Pixel i stops moving at t_i = room_i / speed_i. With the t_i in increasing order, cumulative
    sums give the decrease of <w, x> + b at each t_i; bisection finds the piece with the root.
    """
    flat, normal = x.flatten(1), w.flatten(1)
    level = (flat * normal).sum(1) + b
    normal = normal * torch.where(level < 0, -1.0, 1.0)[:, None]
    level, weight = level.abs(), normal.abs()
    room = torch.where(normal > 0, flat, 1 - flat) * (weight > 0)
    speed = torch.ones_like(weight) if isinstance(ball, Linf) else weight
    stops, order = (room / speed.clamp_min(1e-30)).sort(dim=1)
    done = (weight * room).gather(1, order).cumsum(1)
    rates = (weight * speed).gather(1, order)
    moving = rates.sum(1, keepdim=True) - rates.cumsum(1)
    decrease = done + stops * moving
    low = torch.zeros(len(x), dtype=torch.long, device=x.device)
    high = torch.full_like(low, stops.shape[1])
    for _ in range(math.ceil(math.log2(stops.shape[1])) + 1):
        middle = (low + high) // 2
        short = decrease.gather(1, middle.clamp_max(stops.shape[1] - 1)[:, None])[:, 0] < level
        short = short & (middle < high)
        low, high = torch.where(short, middle + 1, low), torch.where(short, high, middle)
    before = (low - 1).clamp_min(0)[:, None]
    some = low > 0
    saturated = torch.where(some, done.gather(1, before)[:, 0], 0.0)
    rate = torch.where(some, moving.gather(1, before)[:, 0], rates.sum(1))
    move = torch.empty_like(room)
    reached = low < stops.shape[1]
    if reached.any():
        t = ((level - saturated) / rate.clamp_min(1e-30))[reached, None]
        move[reached] = (t * speed[reached]).minimum(room[reached])
    if not reached.all():
        move[~reached] = room[~reached]
    return (-normal.sign() * move).reshape(x.shape)


@dataclass(frozen=True)
class PublishedFABT(FABT):
    """FAB-T whose backward pass computes the gradients of the weights too."""

    def linearize(self, model: nn.Module, state: FABState) -> tuple[Tensor, Tensor]:
        """The difference of logits at the iterate, [B], and its gradient, [B, C, H, W]."""
        x_adv = state.x_adv.detach().requires_grad_()
        with torch.enable_grad():
            value = targeted_margin(model(x_adv), state.y, state.target)
            value.sum().backward()
        assert x_adv.grad is not None
        return value.detach(), x_adv.grad


@torch.no_grad()
def project_with_every_step(x: Tensor, w: Tensor, b: Tensor, ball: Ball) -> Tensor:
    """Our projection without the early exit."""
    with mock.patch.object(box_projection.torch, "equal", lambda a, b: False):
        return box_projection.project_to_hyperplane(x, w, b, ball)


@dataclass
class Arm:
    """One way to run FAB-T."""

    model: nn.Module
    attack: FABT
    project: Callable[[Tensor, Tensor, Tensor, Ball], Tensor]

    def run(self, f: nn.Module, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Processor seconds and last iterates, for the first target class."""
        ranking, noise = classes_by_logit(logits(f, x), y), PerImageNoise(0, torch.arange(len(x)))
        with mock.patch.object(fab, "project_to_hyperplane", self.project):
            start = time.process_time()
            result = run_attack(self.attack, f, self.model, x, y, noise, 0, ranking)
            taken = time.process_time() - start
        assert not result.adversarial.any(), "an image was broken: the work is not equal"
        return taken, result.x_adv


def arms(f: nn.Module, x: Tensor, ball: Ball, steps: int) -> dict[str, Arm]:
    """The arms; the first is the one that the others are compared with."""
    live, frozen = copy.deepcopy(f), copy.deepcopy(f).requires_grad_(False)
    ours = FABT(ball, steps=steps)
    return {
        "published": Arm(live, PublishedFABT(ball, steps=steps), project_by_sorting),
        "25 steps": Arm(frozen, ours, project_with_every_step),
        "early exit": Arm(frozen, ours, box_projection.project_to_hyperplane),
        "as evaluated": Arm(build_search_model(f, x), ours, box_projection.project_to_hyperplane),
    }


def newton_steps(arm: Arm, f: nn.Module, x: Tensor, y: Tensor) -> list[int]:
    """The number of Newton steps of each projection."""
    counts, equal = [0], torch.equal

    def counted(a: Tensor, b: Tensor) -> bool:
        counts[-1] += 1
        if same := equal(a, b):
            counts.append(0)
        return same

    with mock.patch.object(box_projection.torch, "equal", counted):
        arm.run(f, x, y)
    return counts[:-1]


def trained(name: str, images: ImageDataset, steps: int) -> nn.Module:
    """A network after a few steps of Adam, so that its decision boundary is near."""
    torch.manual_seed(0)
    f = build_model(name, 10, images.batch(torch.arange(1))[0].shape[1])
    optimizer = torch.optim.Adam(f.parameters(), lr=2e-3)
    for _ in range(steps):
        x, y = images.batch(torch.randint(len(images), (64,)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(f(x), y).backward()
        optimizer.step()
    return f.eval()


def measure(name: str, steps: int, rounds: int) -> None:
    """Print one line for each norm."""
    data, training_steps, count = NETWORKS[name]
    splits = load_dataset(data)
    f = trained(name, splits.train, training_steps)
    x = splits.test.batch(torch.arange(count))[0]
    y = logits(f, x).argmax(1)
    with torch.no_grad():
        operations = count_flops(lambda: f(x[:1])) / 2
    for norm, ball in BALLS.items():
        every = arms(f, x, ball, steps)
        counts = newton_steps(every["early exit"], f, x, y)
        points = {arm: every[arm].run(f, x, y)[1] for arm in ("25 steps", "early exit")}
        assert torch.equal(points["25 steps"], points["early exit"])
        first = {arm: each.run(f, x, y)[1] for arm, each in arms(f, x, ball, 1).items()}
        apart = float((first["published"] - first["early exit"]).abs().max())
        taken = {arm: [] for arm in every}
        order = list(every)
        for turn in range(rounds):
            for arm in order[turn % len(order) :] + order[: turn % len(order)]:
                taken[arm].append(every[arm].run(f, x, y)[0])
        print(f"{name}, {operations / 1e6:.3g} M multiply-adds, {count} images, {norm}:", end=" ")
        print(f"{statistics.mean(counts):.1f} Newton steps, at most {max(counts)};", end=" ")
        print(f"after one step of FAB-T, published and ours are {apart:.0e} apart")
        for arm in order[1:]:
            against = ("published", "25 steps") if arm == "early exit" else ("published",)
            ratios = (f"{against_ratio(taken[other], taken[arm])} of {other}" for other in against)
            print(f"    {arm:13} times faster: {', '.join(ratios)}", flush=True)


def against_ratio(slower: list[float], faster: list[float]) -> str:
    """The median of the ratios within a round, with the lowest and the highest."""
    ratios = sorted(a / b for a, b in zip(slower, faster, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--networks", nargs="+", default=list(NETWORKS))
    reader.add_argument("--steps", type=int, default=10)
    reader.add_argument("--rounds", type=int, default=7)
    options = reader.parse_args()
    torch.set_num_threads(1)
    print(f"{versions()}, {options.steps} steps of FAB-T, one thread")
    for each in options.networks:
        measure(each, options.steps, options.rounds)
