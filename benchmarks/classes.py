"""The weight of NuAT's nuclear norm, and of GAT's distance, for 2, 10, 30 and 100 classes.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/classes.py OUT [PART ...]

The parts are those of PARTS, with all of their seeds or, as in 30:2, with one; by default all of
them, in order. The runs are kept in OUT; the same command goes on with what is not done. It writes
results/classes/: runs.json and table.txt.

An image is two of the bundled digits side by side, of which the label is (left mod P, right mod Q).
So 2, 10, 30 and 100 classes have the same images, network and optimizer. 100 classes train for 20
epochs, the others for 10. The last epoch's weights are attacked; nothing is selected.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn

import nuat
from nuat.data import InMemoryDataset, Splits
from nuat.losses import nuclear
from nuat.methods import NuAT, StepContext
from nuat.recipes import Recipe

RESULTS = Path(__file__).parent.parent / "results" / "classes"
EPOCHS = {2: 10, 10: 10, 30: 10, 100: 20}
PAIRS = {"train": 8000, "val": 500, "test": 500}
MODULI = {2: (2, 1), 10: (10, 1), 30: (10, 3), 100: (10, 10)}
"""The label of a pair, by the number of classes: (left mod P, right mod Q)."""
ATTACK = "gama-100"
SEEDS = (0, 1, 2)


@nuat.register_model("two-digits")
def two_digits(classes: int, channels: int) -> nn.Module:
    """The digits' network, small-cnn(width=32), with a mean over each half of the image.

    Its own mean over the whole image forgets which of the two digits is on the left.
    """
    features = nuat.build_model("small-cnn(width=32)", classes, channels).features
    return nn.Sequential(
        features, nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(2 * 4 * 32, classes)
    )


@dataclass(frozen=True)
class MeasuredNuAT(NuAT):
    """NuAT that logs the norms of the loss's difference D: |D|_*, |D|_F, and its effective rank.

    The effective rank is (|D|_* / |D|_F)^2, which is at most min(B, K).
    """

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        def distance(z_adv: Tensor, z: Tensor) -> Tensor:
            value = nuclear(z_adv, z)
            frobenius = torch.linalg.vector_norm((z_adv - z).detach())
            rank = (value.detach() / frobenius.clamp(min=1e-12)) ** 2
            row = frobenius / len(z) ** 0.5
            # the call of the loss comes last and is the one that stays
            ctx.log(nuclear=value, row_norm=row, effective_rank=rank)
            return value

        yield from NuAT.step(replace(self, distance=distance), model, x, y, ctx)


@dataclass(frozen=True)
class Arm:
    """One method with one weight: `factor` multiplies the row's lam, and the rule is off.

    None leaves the factor to the rule.
    """

    recipe: str
    factor: float | None = 1.0
    eps: float = 0.15

    @property
    def name(self) -> str:
        factor = "rule" if self.factor is None else f"x {self.factor:.3g}"
        name = self.recipe if self.recipe == "pgd-at" else f"{self.recipe} {factor}"
        return name if self.eps == 0.15 else f"{name} eps {self.eps}"


@dataclass(frozen=True)
class Part:
    """The runs of a set of numbers of classes, arms and seeds."""

    classes: tuple[int, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = SEEDS


PLAIN, RULE = Arm("nuat-wa"), Arm("nuat-wa", None)


def some(name: str, *factors: float, eps: float = 0.15) -> tuple[Arm, ...]:
    return tuple(Arm(name, factor, eps) for factor in factors)


PARTS = {
    "100": Part((100,), (PLAIN, RULE)),
    "2": Part((2,), some("nuat-wa", 1, 5**0.5)),
    "gat": Part((100,), some("gat-wa", 1, 10**0.5), seeds=(0,)),
    "gat-far": Part((100,), some("gat-wa", 0.1**0.5, 1, 10**0.5, eps=0.25), seeds=(0,)),
    "far": Part((100,), (Arm("nuat-wa", None, 0.25), Arm("nuat-wa", 1, 0.25)), seeds=(0,)),
    "factors-100": Part((100,), some("nuat-wa", 0.2, 0.6), seeds=(0,)),
    "10": Part((10,), (PLAIN,)),
    "30": Part((30,), (PLAIN, RULE)),
    "factors-10": Part((10,), some("nuat-wa", 0.5), seeds=(0,)),
    "factors-2": Part((2,), some("nuat-wa", 0.5), seeds=(0,)),
    "pgd": Part((100,), (Arm("pgd-at"),), seeds=(0,)),
}


def pairs(split: InMemoryDataset, count: int, classes: int, seed: int) -> InMemoryDataset:
    """So many pairs of images of a split, each drawn at random, with labels of so many classes."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(len(split), (2, count), generator=generator)
    p, q = MODULI[classes]
    x = torch.cat([split.x[left], split.x[right]], dim=3)
    return InMemoryDataset(x, split.y[left] % p * q + split.y[right] % q)


def digit_pairs(classes: int) -> Splits:
    """The splits; no digit of a pair of one split is in a pair of another."""
    digits = nuat.load_dataset("digits")
    splits = {
        name: pairs(digits[name], count, classes, seed)
        for seed, (name, count) in enumerate(PAIRS.items())
    }
    names = tuple(str(label) for label in range(classes))
    return Splits(splits["train"], splits["val"], splits["test"], names, f"pairs-{classes}")


def recipe(arm: Arm, classes: int) -> Recipe:
    """The digits' row of this method, its schedules in EPOCHS, with the weight of the arm."""
    row = nuat.get_recipe(arm.recipe, "digits").with_epochs(EPOCHS[classes])
    row = row.with_threat_model(nuat.Linf(arm.eps))
    method = row.method
    if isinstance(method, NuAT):
        own = {} if arm.factor is None else {"lam_classes": None}
        made = {field.name: getattr(method, field.name) for field in fields(method)}
        method = MeasuredNuAT(**made | own)
    if arm.factor not in (None, 1.0):
        field = "to" if isinstance(method, NuAT) else "value"
        lam = replace(method.lam, **{field: getattr(method.lam, field) * arm.factor})
        method = replace(method, lam=lam)
    return replace(row, method=method, model="two-digits")


def measure(arm: Arm, classes: int, seed: int, data: Splits, out: Path) -> dict:
    """Train one arm with one seed and attack what came of it."""
    made = recipe(arm, classes)
    run = nuat.fit(made, data=data, out=out, seed=seed, device="cpu", threads=1)
    scores = run.scores.get("classes")
    if scores is None:
        model = nuat.load_model(run.path / "last.safetensors").model
        found = nuat.evaluate(model, data.test, made.ball, [ATTACK], batch_size=250)
        scores = {"clean": found.clean_accuracy, ATTACK: found.robust_accuracy(ATTACK)}
        run.save_scores("classes", scores)
    return {"classes": classes, "arm": arm.name, "seed": seed, **scores, "metrics": run.metrics}


def table(runs: list[dict]) -> str:
    """A line for each number of classes and arm: the means over the seeds, and their spread."""
    alike: dict[tuple[int, str], list[dict]] = {}
    for run in runs:
        alike.setdefault((run["classes"], run["arm"]), []).append(run)
    lines = [
        "Pairs of digits, linf 0.15: mean and standard deviation over the seeds, %.",
        "rank: effective rank of the difference of logits; norm: of its rows; in the last epoch.",
        "",
        f"{'classes':>7}  {'arm':25}{'seeds':>5}{'clean':>8}{ATTACK:>17}{'rank':>7}{'norm':>7}",
    ]
    for (classes, arm), some in sorted(alike.items(), key=lambda pair: pair[0][0]):
        robust = [100 * run[ATTACK] for run in some]
        spread = f" +- {stdev(robust):.1f}" if len(some) > 1 else ""
        last = [run["metrics"][-1] for run in some]
        marks = [
            f"{mean(m[key] for m in last):7.2f}" if key in last[0] else f"{'-':>7}"
            for key in ("effective_rank", "row_norm")
        ]
        clean = mean(100 * run["clean"] for run in some)
        lines.append(
            f"{classes:7}  {arm:25}{len(some):5}{clean:8.1f}{f'{mean(robust):.1f}{spread}':>17}"
            + "".join(marks)
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    out, asked = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs: dict[tuple[int, str, int], dict] = {}
    known = RESULTS / "runs.json"
    if known.exists():
        for run in json.loads(known.read_text()):
            runs[run["classes"], run["arm"], run["seed"]] = run
    for name in asked:
        part = PARTS[name.partition(":")[0]]
        seeds = (int(name.partition(":")[2]),) if ":" in name else part.seeds
        for classes, seed, arm in product(part.classes, seeds, part.arms):
            folder = out / f"{classes}-{arm.name.replace(' ', '-')}-{seed}"
            found = measure(arm, classes, seed, digit_pairs(classes), folder)
            runs[classes, arm.name, seed] = found
            known.write_text(json.dumps(list(runs.values())) + "\n")
            (RESULTS / "table.txt").write_text(table(list(runs.values())))
    print((RESULTS / "table.txt").read_text())


if __name__ == "__main__":
    main()
