"""Does training in bfloat16 change the result? The same recipe on real images, three seeds each.

    NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/arithmetic.py OUT

It takes 15 minutes on one core. Evaluation is float32. The runs are kept in OUT, and the same
command resumes them. Log: results/bf16.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import nuat

DATA = "cifar10(train=5000, val=500, test=1000)"
ATTACKS = ("pgd-20", "gama-40")
SEEDS = range(3)


MODEL, EPOCHS = "small-cnn(width=16)", 15


def scores(precision: str, seed: int, data: nuat.Splits, out: Path) -> nuat.EvaluationResult:
    """Train and attack the network of the last epoch of one run."""
    recipe = nuat.get_recipe("nuat", "cifar10").with_epochs(EPOCHS)
    recipe = replace(recipe, model=MODEL, precision=precision)
    run = nuat.fit(recipe, data=data, out=out / f"{precision}-{seed}", seed=seed, device="cpu")
    f = nuat.load_model(run.path / "last.safetensors").model
    return nuat.evaluate(f, data.test, recipe.ball, ATTACKS, batch_size=100)


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):5.2f} +- {100 * statistics.stdev(values):.2f}"


def main() -> None:
    out, data = Path(sys.argv[1]), nuat.load_dataset(DATA)
    found: dict[str, list[nuat.EvaluationResult]] = {"fp32": [], "bf16": []}
    for seed in SEEDS:
        for arm in found:
            found[arm].append(scores(arm, seed, data, out))
    print(f"\nnuat on {DATA}, {MODEL}, {EPOCHS} epochs, last epoch, seeds {[*SEEDS]}")
    robust = {}
    for measured, measure in {
        "clean": lambda s: s.clean_accuracy,
        **{attack: lambda s, attack=attack: s.robust_accuracy(attack) for attack in ATTACKS},
        "worst": lambda s: s.worst_case_accuracy,
    }.items():
        robust = {arm: [measure(s) for s in each] for arm, each in found.items()}
        print(f"{measured:8}", "   ".join(f"{arm} {spread(v)}" for arm, v in robust.items()))
    means = {arm: statistics.mean(values) for arm, values in robust.items()}
    deviation = statistics.stdev(robust["fp32"])
    apart = abs(means["fp32"] - means["bf16"])
    verdict = "within" if apart <= deviation else "NOT within"
    print(
        f"worst case: {100 * apart:.2f} points apart, {verdict} one standard deviation of fp32 "
        f"({100 * deviation:.2f})"
    )


if __name__ == "__main__":
    main()
