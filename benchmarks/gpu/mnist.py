"""The rows of the MNIST table: trained and attacked side by side on one GPU.

    bash benchmarks/gpu/run.sh mnist

First NuAT's lam, which is not published for MNIST: NuAT is trained with each value of LAMS, and the
one that is most robust on the validation split is used for every NuAT row. Each row has its own
process, log and run folder, goes on where it was stopped, and is attacked at once when it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import (
    DEVICE,
    TINY,
    WORK,
    TimeUp,
    end_with_parent,
    say,
    seconds_asked,
    seconds_left,
    time_limit,
)

import nuat
from nuat.checkpoints import LoadedModel, load_model
from nuat.checkpoints.run import Run
from nuat.data import ImageDataset, load_dataset
from nuat.evaluation import evaluate

LAMS = ("1", "4") if TINY else ("1", "2", "4", "8")
OF_NUAT = ("nuat-wa", "nuat2", "nuat2-wa")
FIRST = ("normal", "gat")
THEN = ("fbf", "rfgsm-at", "r-mgm", "gat-wa", "fgsm-at", "trades", "pgd-at", "trades-wa", "awp")
DATA = "mnist(train=200,val=50,test=50)" if TINY else "mnist"
EPOCHS = int(os.environ.get("MNIST_EPOCHS", "2" if TINY else "20"))
AT_ONCE = int(os.environ.get("MNIST_AT_ONCE", "2" if TINY else "6"))
WHOLE = ("pgd-3",) if TINY else ("pgd-100", "gama-100")
SAMPLED = ("square-20",) if TINY else ("autoattack-v1",)
SAMPLES = 20 if TINY else int(os.environ.get("MNIST_SAMPLES", "1000"))
FOLDER = WORK / "mnist"


def folder_of(row: str, lam: str | None) -> Path:
    return FOLDER / (row if lam is None else f"{row}-lam-{lam}")


def attack(
    run: Run, loaded: LoadedModel, test: ImageDataset, name: str, samples: int | None
) -> None:
    """Attack the test split, or samples of it, and save the scores in the run."""
    assert loaded.ball is not None
    out = run.path / "scores" / f"test-{samples or 'all'}-{name}"
    out.parent.mkdir(exist_ok=True)
    metadata = {"data": DATA, "split": "test", "model": loaded.model_name}
    result = evaluate(
        loaded.model,
        test,
        loaded.ball,
        [name],
        samples=samples,
        batch_size=10_000,
        out=out,
        metadata=metadata,
    )
    run.save_scores(out.name, result.to_dict())
    say(f"{run.path.name}: {result}")


def train_and_attack(row: str, lam: str | None, attacked: bool, seconds: float) -> None:
    """One process: train the row, then attack it."""
    began = time.monotonic()
    recipe = nuat.get_recipe(row, "mnist").with_epochs(EPOCHS)
    if lam is not None:
        recipe = recipe.with_override("lam.to", lam)
    model = "small-cnn(width=4)" if TINY else None
    splits, folder = load_dataset(DATA), folder_of(row, lam)
    run = nuat.fit(recipe, model, splits, out=folder, device=DEVICE, max_time=seconds)
    if not (run.finished and attacked):
        return
    loaded = load_model(folder, device=DEVICE)
    try:
        with time_limit(seconds - (time.monotonic() - began)):
            for attacks, samples in ((WHOLE, None), (SAMPLED, SAMPLES)):
                for name in attacks:
                    attack(run, loaded, splits.test, name, samples)
    except TimeUp:
        say(f"{row}: time is up in its attacks")


def start(row: str, lam: str | None, attacked: bool, seconds: float) -> subprocess.Popen:
    words = [sys.executable, __file__, "--row", row, "--seconds", str(seconds)]
    words += [] if lam is None else ["--lam", lam]
    words += ["--attacked"] if attacked else []
    FOLDER.mkdir(parents=True, exist_ok=True)
    with folder_of(row, lam).with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            words,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def epochs(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def best_lam() -> str | None:
    """The lam with the highest robust accuracy on the validation split, of those that are done."""
    found = {}
    for lam in LAMS:
        rows = epochs(folder_of("nuat", lam))
        if len(rows) == EPOCHS:
            found[lam] = max((row["val_robust"], row["val_clean"]) for row in rows)
    for lam, (robust, clean) in found.items():
        say(f"nuat with lam {lam}: {robust:.2%} robust, {clean:.2%} clean on validation")
    return max(found, key=lambda lam: found[lam]) if found else None


def run_all(jobs: list[tuple[str, str | None, bool]], limit: float) -> None:
    """Run the jobs, AT_ONCE at a time, until the time is up."""
    running: dict[subprocess.Popen, tuple[str, float]] = {}
    waiting = list(jobs)
    while waiting or running:
        while waiting and len(running) < AT_ONCE and seconds_left(limit) > 5:
            row, lam, attacked = waiting.pop(0)
            child = start(row, lam, attacked, seconds_left(limit) - 3)
            running[child] = (folder_of(row, lam).name, time.monotonic())
        if not running:
            break
        for child in [child for child in running if child.poll() is not None]:
            name, began = running.pop(child)
            say(f"{name}: exit {child.returncode} after {time.monotonic() - began:.0f} s")
        if seconds_left(limit) < 0:
            # each goes on from its checkpoint, or its log
            for child, (name, _) in running.items():
                child.kill()
                say(f"{name}: stopped, time is up")
            break
        time.sleep(0.05)
    for row, lam, _ in waiting:
        say(f"{folder_of(row, lam).name}: LEFT OUT, no time")


def table() -> None:
    say(f"{'row':<14} {'epochs':>7} {'train s':>8} {'val rob':>8}  on the test split")
    for folder in sorted(each for each in FOLDER.iterdir() if each.is_dir()):
        rows = epochs(folder)
        if not rows:
            continue
        robust = max(row["val_robust"] for row in rows)
        texts = []
        for file in sorted(folder.glob("scores/*.json")):
            scores = json.loads(file.read_text())
            pairs = zip(scores["labels"], scores["predicted"], strict=True)
            clean = [label == predicted for label, predicted in pairs]
            for name, each in scores["robust"].items():
                share = sum(each) / len(each)
                texts.append(f"{name} {share:.2%} of {len(each)}")
            texts.append(f"clean {sum(clean) / len(clean):.2%}")
        seconds = rows[-1]["seconds"]
        done = f"{len(rows)}/{EPOCHS}"
        texts = list(dict.fromkeys(texts))
        say(f"{folder.name:<14} {done:>7} {seconds:>8.1f} {robust:>8.2%}  {', '.join(texts)}")


def main() -> None:
    limit = seconds_asked(__doc__.splitlines()[0], 120)
    search: list[tuple[str, str | None, bool]] = [("nuat", lam, False) for lam in LAMS]
    run_all([*search, *((row, None, True) for row in FIRST)], limit)
    lam = best_lam()
    if lam is None:
        say("no lam of NuAT is trained to the end: the rows of NuAT wait")
    else:
        say(f"lam {lam} from here on")
        rows = [("nuat", lam, True), *((row, lam, True) for row in OF_NUAT[:1])]
        rows += [(row, None, True) for row in THEN]
        rows += [(row, lam, True) for row in OF_NUAT[1:]]
        run_all(rows, limit)
    table()


if __name__ == "__main__":
    if "--row" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--row")
        parser.add_argument("--lam")
        parser.add_argument("--attacked", action="store_true")
        parser.add_argument("--seconds", type=float)
        asked = parser.parse_args()
        train_and_attack(asked.row, asked.lam, asked.attacked, asked.seconds)
    else:
        main()
