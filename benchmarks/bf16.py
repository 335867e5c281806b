"""Is bfloat16 in training justified? The same recipe on real images in fp32 and bf16, three seeds.

    NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/bf16.py OUT

About 15 minutes on one core. Evaluation is float32 for both. The runs are kept in OUT; the same
command goes on with what is not done. The log is results/bf16/log.txt.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import nuat

DATA = "cifar10(train=5000, val=500, test=1000)"
MODEL = "small-cnn(width=16)"
EPOCHS = 15
ATTACKS = ("pgd-20", "gama-40")
SEEDS = range(3)


def scores(precision: str, seed: int, data: nuat.Splits, out: Path) -> nuat.Scores:
    """Train and attack the kept network of one run."""
    recipe = nuat.recipe("nuat", "cifar10").lasting(EPOCHS)
    recipe = replace(recipe, model=MODEL, precision=precision)
    run = nuat.fit(recipe, data=data, out=out / f"{precision}-{seed}", seed=seed, device="cpu")
    f = nuat.trained(run.path / "last.safetensors").f
    return nuat.evaluate(f, data.test, recipe.ball, ATTACKS, batch_size=100)


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):5.2f} +- {100 * statistics.stdev(values):.2f}"


def main() -> None:
    out = Path(sys.argv[1])
    data = nuat.load(DATA)
    found: dict[str, list[nuat.Scores]] = {"fp32": [], "bf16": []}
    for seed in SEEDS:
        for precision in found:
            found[precision].append(scores(precision, seed, data, out))
    print(f"\nnuat on {DATA}, {MODEL}, {EPOCHS} epochs, last epoch, seeds {[*SEEDS]}")
    robust = {}
    for name, measure in {
        "clean": lambda s: s.clean,
        **{attack: lambda s, attack=attack: s.robust(attack) for attack in ATTACKS},
        "worst": lambda s: s.worst,
    }.items():
        robust = {p: [measure(s) for s in each] for p, each in found.items()}
        print(f"{name:8}", "   ".join(f"{p} {spread(values)}" for p, values in robust.items()))
    means = {p: statistics.mean(values) for p, values in robust.items()}
    deviation = statistics.stdev(robust["fp32"])
    apart = abs(means["fp32"] - means["bf16"])
    verdict = "within" if apart <= deviation else "NOT within"
    print(
        f"worst case: {100 * apart:.2f} points apart, {verdict} one standard deviation of fp32 "
        f"({100 * deviation:.2f})"
    )


if __name__ == "__main__":
    main()
