"""Time to quality: what each method spends until a network withstands so many attacks.

    NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/quality.py OUT [PROBLEM ...]

About 20 minutes on one core for mnist and cifar10, 2 hours for cifar10-long. The runs are kept in
OUT; the same command goes on with what is not done. It then writes results/quality/: runs.json
(every epoch of every run), table.txt, curves.svg; problems that were not asked for stay in them.

Every method is trained from scratch for a few lengths, chosen so that all spend about the same
forward-equivalents on a training image, its schedules stretched to each. Network, optimizer and
learning rates are the same for all. The last epoch's weights are attacked; nothing is selected.
"""

import json
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import nuat
from nuat.recipes import Recipe

RESULTS = Path(__file__).parent.parent / "results" / "quality"
COST = {"nuat-wa": 8, "pgd-at": 23, "fgsm-at": 5, "trades": 27}
"""The methods, and the forward-equivalents of a step: these choose the lengths, no more."""
ATTACKS = ("pgd-20", "gama-40")


@dataclass(frozen=True)
class Problem:
    """A data set with a network, the row whose settings all methods share, and the budgets.

    `own_steps` is the length of the row's own runs, `samples` how many test images are attacked;
    methods in `once` run with the first seed alone.
    """

    data: str
    rows: str
    base: str
    ball: nuat.Linf
    budgets: tuple[int, ...]
    levels: tuple[int, ...]
    own_steps: int
    model: str = "small-cnn(width=16)"
    seeds: tuple[int, ...] = (0,)
    once: tuple[str, ...] = ()
    samples: int = 500
    precision: str = "fp32"


PROBLEMS = {
    "mnist": Problem(
        data="mnist(train=2500, val=100, test=1000)",
        rows="digits",
        base="normal",
        ball=nuat.Linf(0.15),
        budgets=(46, 92, 138),
        levels=(15, 20, 30, 40, 50, 60),
        own_steps=40 * 19,
    ),
    "cifar10": Problem(
        data="cifar10(train=2500, val=100, test=1000)",
        rows="cifar10",
        base="nuat-wa",
        ball=nuat.Linf(8 / 255),
        budgets=(46, 92, 138),
        levels=(10, 12, 14, 15, 16),
        own_steps=100 * 766,
    ),
    "cifar10-long": Problem(
        data="cifar10(train=5000, val=100, test=1000)",
        rows="cifar10",
        base="nuat-wa",
        ball=nuat.Linf(8 / 255),
        budgets=(46, 138, 414),
        levels=(14, 16, 18, 20, 22, 24),
        own_steps=100 * 766,
        model="small-cnn(width=32)",
        seeds=(0, 1, 2),
        once=("fgsm-at", "trades"),
        samples=1000,
        precision="bf16",
    ),
}


def recipe(problem: Problem, name: str, epochs: int, images: int) -> Recipe:
    """A method with the optimizer of the problem's base row, over so many epochs.

    The decay of the average is raised to (steps of its own row / steps here), so that it forgets
    over the same part of a run.
    """
    row = nuat.get_recipe(name, problem.rows)
    shared = nuat.get_recipe(problem.base, problem.rows).with_epochs(epochs)
    steps = epochs * -(-images // shared.batch_size)
    average = row.ema_decay and row.ema_decay ** (problem.own_steps / steps)
    row = row.with_epochs(epochs).with_threat_model(problem.ball)
    made = replace(
        shared, name=name, method=row.method, ema_decay=average, model=problem.model, ball=row.ball
    )
    fast = problem.precision == "bf16"
    return replace(made, precision="bf16", channels_last=True) if fast else made


def measure(
    problem: Problem, name: str, budget: int, seed: int, data: nuat.Splits, out: Path
) -> dict:
    """Train one method at one length with one seed, and attack what came of it, in float32."""
    epochs = max(1, round(budget / COST[name]))
    made = recipe(problem, name, epochs, len(data.train))
    run = nuat.fit(made, data=data, out=out, seed=seed, device="cpu", threads=1)
    scores = run.scores.get("quality")
    if scores is None:
        f = nuat.load_model(run.path / "last.safetensors").model
        found = nuat.evaluate(
            f, data.test, made.ball, ATTACKS, samples=problem.samples, batch_size=250
        )
        scores = {attack: found.robust_accuracy(attack) for attack in ATTACKS}
        scores |= {"clean": found.clean_accuracy, "robust": found.worst_case_accuracy}
        run.save_scores("quality", scores)
    return {
        "method": name,
        "seed": seed,
        "epochs": epochs,
        "passes": round(run.metrics[0]["forward_equivalents"] * epochs, 1),
        "seconds": round(run.metrics[-1]["seconds"], 1),
        **scores,
        "metrics": run.metrics,
    }


def reached(runs: list[dict], level: float, unit: str) -> str:
    """What it took to reach a robust accuracy: on the line through the best runs so far."""
    before: dict[str, Any] | None = None
    for run in sorted(runs, key=lambda run: run[unit]):
        if run["robust"] >= level:
            if before is None:
                return f"< {run[unit]:.0f}"
            share = (level - before["robust"]) / (run["robust"] - before["robust"])
            return f"{before[unit] + share * (run[unit] - before[unit]):.0f}"
        if before is None or run["robust"] > before["robust"]:
            before = run
    return "-"


def mean_runs(runs: list[dict]) -> list[dict]:
    """One for each method and length: the means over the seeds, the spread of `robust` with it."""
    alike: dict[tuple[str, int], list[dict]] = {}
    for run in runs:
        alike.setdefault((run["method"], run["epochs"]), []).append(run)
    figures = ("passes", "seconds", "clean", *ATTACKS, "robust")
    return [
        {"method": method, "epochs": epochs, "seeds": len(some)}
        | {key: mean(run[key] for run in some) for key in figures}
        | {"spread": stdev(run["robust"] for run in some) if len(some) > 1 else None}
        for (method, epochs), some in alike.items()
    ]


def table(name: str, problem: Problem, runs: list[dict]) -> str:
    """Every length of every method, the mean of its seeds; then what each level took."""
    runs = mean_runs(runs)
    lines = [
        f"{name}: {problem.data}, {problem.model}, {problem.ball}, {problem.precision}",
        f"{'method':10}{'epochs':>8}{'passes':>8}{'seconds':>9}{'clean':>8}{'pgd-20':>8}{'both':>8}",
    ]
    for run in runs:
        lines.append(
            f"{run['method']:10}{run['epochs']:8}{run['passes']:8.0f}{run['seconds']:9.0f}"
            f"{run['clean']:8.1%}{run['pgd-20']:8.1%}{run['robust']:8.1%}"
            + (f" +- {run['spread']:.1%} of {run['seeds']} seeds" if run["spread"] else "")
        )
    for unit, what in (("passes", "forward passes per training image"), ("seconds", "seconds")):
        lines.append(f"\n{what} to reach a robust accuracy of")
        lines.append(f"{'method':10}" + "".join(f"{level:>7}%" for level in problem.levels))
        for method in COST:
            own = [run for run in runs if run["method"] == method]
            marks = (reached(own, level / 100, unit) for level in problem.levels)
            lines.append(f"{method:10}" + "".join(f"{mark:>8}" for mark in marks))
    return "\n".join(lines) + "\n"


def draw(found: dict[str, list[dict]], file: Path) -> None:
    """Robust accuracy against both budgets, a row of panels for each problem."""
    figure, panels = plt.subplots(len(found), 2, figsize=(8, 3 * len(found)), squeeze=False)
    units = (("passes", "forward passes per training image"), ("seconds", "seconds"))
    for row, (name, runs) in zip(panels, found.items(), strict=True):
        for panel, (unit, label) in zip(row, units, strict=True):
            for method in COST:
                own = sorted(
                    (run for run in mean_runs(runs) if run["method"] == method),
                    key=lambda run: run[unit],
                )
                panel.errorbar(
                    [run[unit] for run in own],
                    [100 * run["robust"] for run in own],
                    [100 * (run["spread"] or 0) for run in own],
                    marker="o",
                    ms=4,
                    capsize=2,
                    label=method,
                )
            panel.set(xlabel=label, ylabel=f"{name}: withstood both, %")
            panel.set_xlim(left=0)
            panel.grid(alpha=0.3)
    panels[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def write(found: dict[str, list[dict]]) -> None:
    """What has been found so far."""
    tables = (table(name, PROBLEMS[name], runs) for name, runs in found.items() if runs)
    (RESULTS / "table.txt").write_text("\n".join(tables))
    (RESULTS / "runs.json").write_text(json.dumps(found) + "\n")
    draw(found, RESULTS / "curves.svg")


def main() -> None:
    out, asked = Path(sys.argv[1]), sys.argv[2:] or list(PROBLEMS)
    RESULTS.mkdir(parents=True, exist_ok=True)
    known = RESULTS / "runs.json"
    found = json.loads(known.read_text()) if known.exists() else {}
    for name in asked:
        problem, found[name] = PROBLEMS[name], []
        data = nuat.load_dataset(problem.data)
        for place, budget in enumerate(problem.budgets):
            for seed, method in product(problem.seeds, COST):
                if method in problem.once and seed != problem.seeds[0]:
                    continue
                folder = out / f"{name}-{method}-{place}-{seed}"
                found[name].append(measure(problem, method, budget, seed, data, folder))
                write(found)
    print((RESULTS / "table.txt").read_text())


if __name__ == "__main__":
    main()
