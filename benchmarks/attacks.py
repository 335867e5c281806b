"""Our AutoAttack against that of torchattacks: the same verdicts, and how fast.

    python benchmarks/attacks.py networks NETS             # trains three small networks: 5 minutes
    python benchmarks/attacks.py verdicts NETS | tee benchmarks/attacks-verdicts.log
    python benchmarks/attacks.py seeds NETS | tee benchmarks/attacks-seeds.log
    python benchmarks/attacks.py speed NETS | tee benchmarks/attacks-speed.log
    python benchmarks/attacks.py profile NETS | tee benchmarks/attacks-profile.log

torchattacks 3.5.1 is set right by hand: 100 steps in APGD and FAB, where its AutoAttack leaves 10,
and Square's published schedule. It is no dependency: pip install torchattacks into the environment
this runs in. NUAT_DATA is the folder of MNIST and CIFAR-10.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchattacks
from torch import nn
from torchattacks.attack import Attack as Theirs
from torchattacks.wrappers.multiattack import MultiAttack

import nuat
from nuat.attacks import classes_by_logit, logits, run_attack
from nuat.data import class_balanced, load_dataset
from nuat.evaluation.search_model import SearchModel, build_search_model, fold_batchnorm
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.runtime.versions import versions

MNIST, CIFAR = "mnist(train=4000,val=200,test=1000)", "cifar10(train=5000,val=200,test=1000)"
NETWORKS = {
    "digits": ["--data", "digits", "--eps", "0.1", "--epochs", "8"],
    "mnist": ["--data", MNIST, "--model", "mnist-net", "--eps", "0.1", "--epochs", "3"],
    "cifar": ["--data", CIFAR, "--model", "resnet18(width=8)", "--eps", "4/255", "--epochs", "6"],
}
CASES = {"digits": (0.16, 120), "cifar": (4 / 255, 120), "mnist": (0.1, 24)}
"""For the verdicts: eps, and how many images, balanced over the classes."""

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def train(nets: Path) -> None:
    for name, options in NETWORKS.items():
        command = [sys.executable, "-m", "nuat.cli", "train", "fgsm-at", *options]
        subprocess.run([*command, "--threads", "1", "--out", str(nets / name)], check=True)


def theirs(f: nn.Module, eps: float, seed: int, share: int = 1) -> dict[str, Theirs]:
    """The four parts, with the steps of the paper divided by `share`."""
    gradient = {"eps": eps, "steps": 100 // share, "seed": seed}
    every = {
        "apgd-ce": torchattacks.APGD(f, loss="ce", **gradient),
        "apgd-t": torchattacks.APGDT(f, n_classes=10, **gradient),
        "fab-t": torchattacks.FAB(f, multi_targeted=True, n_classes=10, **gradient),
        "square": torchattacks.Square(
            f, eps=eps, n_queries=5000 // share, resc_schedule=False, seed=seed
        ),
    }
    return {name: every[name] for name in STANDARD}


def verdicts(nets: Path) -> None:
    for name, (eps, count) in CASES.items():
        run = nuat.load_model(nets / name)
        images, ball = load_dataset(run.data).test, nuat.Linf(eps)
        ids = class_balanced(images.y, count, seed=0)
        x, y = images.batch(ids)
        standing = [
            nuat.evaluate(run.model, (x, y), ball, "autoattack", seed=seed).robust["autoattack"]
            for seed in range(3)
        ]
        ours = [sum(each) for each in standing]
        tier = nuat.evaluate(run.model, (x, y), ball, "autoattack", search_precision="bf16")
        weaker = tier.robust["autoattack"]
        differ = sum(a != b for a, b in zip(standing[0], weaker, strict=True))
        print(f"{name}: {sum(weaker)} stand with a bf16 search; {differ} verdicts of a seed differ")
        found = []
        for seed in range(3):
            f = copy.deepcopy(run.model).eval()
            right = f(x).argmax(1) == y
            adversarial = MultiAttack(list(theirs(f, eps, seed).values()))(x[right], y[right])
            found.append(int((f(adversarial).argmax(1) == y[right]).sum()))
        within = min(found) <= max(ours) and min(ours) <= max(found)
        print(
            f"{name}: {run.model}, linf {eps:.4g}, {count} images, {int(right.sum())} right; "
            f"standing after AutoAttack: ours {ours}, torchattacks {found}; "
            f"{'within' if within else 'NOT WITHIN'} each other's spread",
            flush=True,
        )


def more_seeds(nets: Path) -> None:
    """Six further seeds on the digits: how far either varies."""
    eps, count = CASES["digits"]
    run = nuat.load_model(nets / "digits")
    images, ball = load_dataset(run.data).test, nuat.Linf(eps)
    x, y = images.batch(class_balanced(images.y, count, seed=0))
    f = copy.deepcopy(run.model).eval()
    right = f(x).argmax(1) == y
    for seed in range(3, 9):
        adversarial = MultiAttack(list(theirs(f, eps, seed).values()))(x[right], y[right])
        found = int((f(adversarial).argmax(1) == y[right]).sum())
        scores = nuat.evaluate(run.model, (x, y), ball, "autoattack", seed=seed)
        ours = sum(scores.robust["autoattack"])
        print(f"seed {seed}: ours {ours}, torchattacks {found}", flush=True)


def all_standing(
    name: str, nets: Path, count: int
) -> tuple[nn.Module, torch.Tensor, torch.Tensor, float]:
    """A network and images that all withstand: the full work for each. Labels are its guesses."""
    torch.manual_seed(0)
    if name == "mnist-net":
        f = nuat.load_model(nets / "mnist").model
        x, _ = load_dataset("mnist").test.batch(torch.arange(count))
    else:
        f = build_model("resnet18", 10, 3).eval()
        x = load_dataset("cifar10(train=100,val=100,test=100)").test.batch(torch.arange(count))[0]
    return f, x, logits(f, x).argmax(1), 1e-4


class Candidate:
    """One way to run the four parts with a share of the steps: processor seconds, by part."""

    def __init__(self, f: nn.Module, g: nn.Module | None, eps: float, share: int):
        self.f, self.g, self.eps, self.share = f, g, eps, share

    def seconds(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        found = {}
        for name in STANDARD:
            begun = time.process_time()
            left = self.left(name, x, y)
            found[name] = time.process_time() - begun
            assert left == len(x), f"{name}: {left} of {len(x)} images stand; the work is not equal"
        return found

    def left(self, name: str, x: torch.Tensor, y: torch.Tensor) -> int:
        if self.g is None:
            adversarial = theirs(self.f, self.eps, 0, self.share)[name](x, y)
            return int((self.f(adversarial).argmax(1) == y).sum())
        steps = (5000 if name == "square" else 100) // self.share
        attack = nuat.parse_attack(f"{name}-{steps}", nuat.Linf(self.eps))
        ranking = classes_by_logit(logits(self.f, x), y)
        standing = torch.arange(len(x))
        with frozen_eval(self.f):
            for run in range(attack.num_runs(10)):
                noise = PerImageNoise(0, standing, name)
                some, own = (x[standing], y[standing]), ranking[standing]
                done = run_attack(
                    attack, self.f, self.g, *some, noise, run, own if attack.targets else None
                )
                standing = standing[~done.adversarial]
        return len(standing)


def speed(nets: Path, count: int, share: int, rounds: int) -> None:
    for name in ("resnet18", "mnist-net"):
        f, x, y, eps = all_standing(name, nets, count)
        plain = copy.deepcopy(f).requires_grad_(False)
        smaller = fold_batchnorm(copy.deepcopy(f)).to(memory_format=torch.channels_last)
        arms = {
            "torchattacks": Candidate(f, None, eps, share),
            "ours, the network as it is": Candidate(f, plain, eps, share),
            "+ BatchNorm folded: ours": Candidate(f, build_search_model(f, x), eps, share),
            "+ channels_last": Candidate(
                f, SearchModel(smaller, "fp32", torch.channels_last), eps, share
            ),
            "build_search_model in bf16": Candidate(
                f, build_search_model(f, x, "bf16"), eps, share
            ),
        }
        print(f"{name}, {len(x)} images, all of which stand; steps of AutoAttack / {share}")
        taken = {arm: [] for arm in arms}
        order = list(arms)
        for turn in range(rounds):
            for arm in order[turn % len(order) :] + order[: turn % len(order)]:
                taken[arm].append(arms[arm].seconds(x, y))
        report(taken)


NETWORK = ("conv", "addmm", "mm", "max_pool2d", "avg_pool2d", "clamp_min", "threshold", "mean")
"""What a network is made of, in torch's names of operations."""


def profiled(nets: Path, count: int, share: int) -> None:
    """Of our time in each part, how much is convolutions, and how much the network in all."""
    for name in ("resnet18", "mnist-net"):
        f, x, y, eps = all_standing(name, nets, count)
        arm = Candidate(f, build_search_model(f, x), eps, share)
        for part in STANDARD:
            arm.left(part, x[:4], y[:4])
            with torch.profiler.profile() as watch:
                arm.left(part, x, y)
            times = {each.key: each.self_cpu_time_total for each in watch.key_averages()}
            convolutions, network = (
                sum(took for key, took in times.items() if any(word in key for word in words))
                / sum(times.values())
                for words in (("conv",), NETWORK)
            )
            print(f"{name} {part:8} convolutions {convolutions:.0%}, the network {network:.0%}")


def report(taken: dict[str, list[dict[str, float]]]) -> None:
    """Medians over the rounds of the ratios within a round, with the lowest and the highest."""
    first = taken["torchattacks"]
    print(f"{'times faster than torchattacks':32}" + "".join(f"{name:>10}" for name in STANDARD))
    for arm, times in taken.items():
        pairs = list(zip(first, times, strict=True))
        parts = [statistics.median(a[name] / b[name] for a, b in pairs) for name in STANDARD]
        whole = sorted(sum(a.values()) / sum(b.values()) for a, b in pairs)
        print(
            f"{arm:32}" + "".join(f"{part:10.2f}" for part in parts),
            f"   whole {statistics.median(whole):.2f} ({whole[0]:.2f} to {whole[-1]:.2f}),",
            f"{statistics.median(sum(b.values()) for b in times):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("what", choices=("networks", "verdicts", "seeds", "speed", "profile"))
    reader.add_argument("nets", type=Path)
    reader.add_argument("--images", type=int, default=64, help="for speed")
    reader.add_argument("--share", type=int, default=25, help="of the steps, for speed: 1 / share")
    reader.add_argument("--rounds", type=int, default=3)
    asked = reader.parse_args()
    torch.set_num_threads(1)
    print(f"torchattacks {torchattacks.__version__}, {versions()}")
    if asked.what == "networks":
        train(asked.nets)
    elif asked.what == "verdicts":
        verdicts(asked.nets)
    elif asked.what == "seeds":
        more_seeds(asked.nets)
    elif asked.what == "profile":
        profiled(asked.nets, asked.images, asked.share)
    else:
        speed(asked.nets, asked.images, asked.share, asked.rounds)
