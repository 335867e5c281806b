"""Is another arithmetic in training justified? The same recipe on real images, three seeds each.

    NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/arithmetic.py bf16 OUT
    NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/arithmetic.py winograd OUT

15 and 40 minutes on one core. Evaluation is float32, with torch's convolutions. The runs are kept
in OUT; the same command goes on with what is not done. Logs: results/bf16, results/winograd.
"""

import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

import nuat
from nuat.models import models

DATA = "cifar10(train=5000, val=500, test=1000)"
ATTACKS = ("pgd-20", "gama-40")
SEEDS = range(3)


@models.named("four-convolutions")
def four_convolutions(classes: int, channels: int) -> nn.Module:
    """Two of them suit Winograd's algorithm, and cost most."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, 96, 2), (96, 96, 1), (96, 128, 2), (128, 128, 1)):
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)
    return nn.Sequential(*layers, *pooled)


@dataclass(frozen=True)
class Case:
    """What stands beside float32 by torch's convolutions."""

    model: str
    epochs: int
    options: dict[str, str]


CASES = {
    "bf16": Case("small-cnn(width=16)", 15, {"precision": "bf16"}),
    "winograd": Case("four-convolutions", 12, {"convolutions": "winograd"}),
}


def scores(name: str, case: Case, seed: int, data: nuat.Splits, out: Path) -> nuat.Scores:
    """Train and attack the network of the last epoch of one run."""
    recipe = nuat.recipe("nuat", "cifar10").lasting(case.epochs)
    options = case.options if name != "fp32" else {}
    recipe = replace(recipe, model=case.model, **options)
    run = nuat.fit(recipe, data=data, out=out / f"{name}-{seed}", seed=seed, device="cpu")
    f = nuat.trained(run.path / "last.safetensors").f
    return nuat.evaluate(f, data.test, recipe.ball, ATTACKS, batch_size=100)


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):5.2f} +- {100 * statistics.stdev(values):.2f}"


def main() -> None:
    name, out = sys.argv[1], Path(sys.argv[2])
    case, data = CASES[name], nuat.load(DATA)
    found: dict[str, list[nuat.Scores]] = {"fp32": [], name: []}
    for seed in SEEDS:
        for arm in found:
            found[arm].append(scores(arm, case, seed, data, out))
    print(f"\nnuat on {DATA}, {case.model}, {case.epochs} epochs, last epoch, seeds {[*SEEDS]}")
    robust = {}
    for measured, measure in {
        "clean": lambda s: s.clean,
        **{attack: lambda s, attack=attack: s.robust(attack) for attack in ATTACKS},
        "worst": lambda s: s.worst,
    }.items():
        robust = {arm: [measure(s) for s in each] for arm, each in found.items()}
        print(f"{measured:8}", "   ".join(f"{arm} {spread(v)}" for arm, v in robust.items()))
    means = {arm: statistics.mean(values) for arm, values in robust.items()}
    deviation = statistics.stdev(robust["fp32"])
    apart = abs(means["fp32"] - means[name])
    verdict = "within" if apart <= deviation else "NOT within"
    print(
        f"worst case: {100 * apart:.2f} points apart, {verdict} one standard deviation of fp32 "
        f"({100 * deviation:.2f})"
    )


if __name__ == "__main__":
    main()
