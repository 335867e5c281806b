"""The parts of AutoAttack on a CUDA GPU: verdicts first, then one table. Installs nothing.

    python benchmarks/gpu/attacks.py          # under 5 minutes on an H200; log and JSON go to $OUT
    python benchmarks/gpu/attacks.py --tiny   # an exercise on a CPU, of seconds; no times to trust

Needs torch and this repository, nothing else. First, for a small network: how many images fall on
the GPU and on the CPU, and how many verdicts differ; the two round differently, so an image at the
very edge may. Then the time of an iterate of each part on a ResNet-18 with random weights, within
an eps so small that every image stands and none leaves, for fewer steps than AutoAttack takes; the
last column is what the whole standard AutoAttack would take at that rate. TF32 is off. `waits` are
the times an iterate makes the host wait for the device, as torch warns of them.
"""

# ruff: noqa: E402
import argparse
import copy
import importlib.util
import json
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
sys.path.insert(0, str(SOURCE))
if importlib.util.find_spec("PIL") is None or importlib.util.find_spec("rich") is None:
    # what `import nuat` brings along is not there: its parts alone
    sys.modules["nuat"] = types.ModuleType("nuat")
    sys.modules["nuat"].__path__ = [str(SOURCE / "nuat")]

import torch
from torch import Tensor, nn

from nuat.attacks import Attack, Ensemble, classes_by_logit, logits, parse_attack, run_attack
from nuat.evaluation.search_model import SearchModel, build_search_model, fold_batchnorm
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.threat_models import L2, Ball, Linf

FULL = {"apgd-ce": 101, "apgd-t": 9 * 101, "fab-t": 9 * 100, "square": 5001}
"""Iterates of the standard AutoAttack on an image that stands."""

TIMED = {"apgd-ce": 20, "apgd-t": 20, "fab-t": 20, "square": 100}
SEARCHES = {
    "fp32": ("fp32", False, torch.contiguous_format),
    "fp32 folded": ("fp32", True, torch.contiguous_format),
    "fp32 folded channels_last": ("fp32", True, torch.channels_last),
    "bf16": ("bf16", False, torch.contiguous_format),
    "bf16 folded channels_last": ("bf16", True, torch.channels_last),
}
BEGAN = time.monotonic()


class Bench:
    """Where to run, how much, and where to write it."""

    def __init__(self, tiny: bool, out: Path, seconds: float):
        self.tiny, self.out, self.seconds = tiny, out, seconds
        self.device = torch.device("cpu" if tiny else "cuda")
        self.model = "small-cnn(width=4)" if tiny else "resnet18-nuat"
        self.batches = (4,) if tiny else (512, 128, 1024)
        self.images = 24 if tiny else 512
        self.repeats = 1 if tiny else 3
        self.found: dict = {"torch": torch.__version__, "checks": [], "rows": []}
        self.log = (out / "attacks.log").open("w")

    def say(self, text: str = "") -> None:
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def steps(self, part: str) -> int:
        return 3 if self.tiny else TIMED[part]

    @property
    def late(self) -> bool:
        return time.monotonic() - BEGAN > self.seconds

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def network(model: str) -> nn.Module:
    """Random weights, and BatchNorm statistics that are not those of a beginning."""
    torch.manual_seed(0)
    f = build_model(model, 10, 3)
    with torch.no_grad():
        for _ in range(15):
            f(torch.rand(32, 3, 32, 32))
    return f.eval()


def fallen(f: nn.Module, x: Tensor, y: Tensor, parts: Ensemble, batch: int) -> list[str]:
    """Of each image the part that it fell to, or "": as `nuat evaluate` packs its batches."""
    g = build_search_model(f, x[:32])
    by, ranking = [""] * len(x), classes_by_logit(logits(f, x), y)
    standing = list(range(len(x)))
    for name, each in parts.parts:
        for run in range(each.num_runs(10)):
            for group in torch.tensor(standing).split(batch):
                at = group.to(x.device)
                aims = ranking[at] if each.targets else None
                done = run_attack(
                    each, f, g, x[at], y[at], PerImageNoise(0, group, name), run, aims
                )
                for image in group[done.adversarial.cpu()].tolist():
                    by[image] = name
            standing = [image for image in standing if not by[image]]
            if not standing:
                return by
    return by


def short(ball: Ball, texts: tuple[str, ...]) -> Ensemble:
    return Ensemble(ball, tuple((text, parse_attack(text, ball)) for text in texts), "short")


def half_way(f: nn.Module, x: Tensor, y: Tensor, kind: type[Ball]) -> Ball:
    """The first of growing balls within which half of the images fall to a short attack."""
    for eps in (0.002 * 1.25**k for k in range(40)):
        ball = kind(round(eps if kind is Linf else 40 * eps, 5))
        if sum(map(bool, fallen(f, x, y, short(ball, ("apgd-ce-3",)), len(x)))) >= len(x) / 2:
            return ball
    raise SystemExit("error: the small network does not fall")


def check(bench: Bench) -> None:
    """The same verdicts on the device, in batches of another size, as on the CPU."""
    f, x = network("small-cnn(width=8)"), torch.rand(bench.images, 3, 32, 32)
    y = logits(f, x).argmax(1)
    texts = ("apgd-ce-5", "apgd-t-3", "fab-t-5", "square-200")
    if bench.tiny:
        texts = ("apgd-ce-3", "apgd-t-2(targets=1)", "fab-t-3(targets=1)", "square-10")
    for kind in (Linf, L2):
        parts = short(half_way(f, x[:16], y[:16], kind), texts)
        here = fallen(f, x, y, parts, 64)
        there = copy.deepcopy(f).to(bench.device)
        found = fallen(there, x.to(bench.device), y.to(bench.device), parts, 200)
        differ = sum(bool(a) != bool(b) for a, b in zip(here, found, strict=True))
        row = {
            "ball": repr(parts.ball),
            "images": len(x),
            "cpu": sum(map(bool, here)),
            "device": sum(map(bool, found)),
            "verdicts_that_differ": differ,
            "parts_that_differ": sum(a != b for a, b in zip(here, found, strict=True)),
        }
        row["holds"] = differ <= (0 if bench.tiny else 0.01 * len(x)) and 0 < row["cpu"] < len(x)
        bench.found["checks"].append(row)
        bench.say(("" if row["holds"] else "WRONG: ") + json.dumps(row))


def as_searched(f: nn.Module, name: str) -> nn.Module:
    precision, fold, layout = SEARCHES[name]
    twin = copy.deepcopy(f).eval().requires_grad_(False)
    twin = (fold_batchnorm(twin) if fold else twin).to(memory_format=layout)
    return SearchModel(twin, precision, layout)  # type: ignore[arg-type]


def waits(bench: Bench, run: Callable[[int], None]) -> float | None:
    """How often an iterate makes the host wait for the device."""
    if bench.device.type != "cuda":
        return None
    counts = []
    for steps in (11, 31):
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(steps)
        torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message) for warning in caught))
    return (counts[1] - counts[0]) / 20


def seconds(bench: Bench, run: Callable[[], object]) -> float:
    times = []
    for _ in range(bench.repeats):
        began = bench.clock()
        run()
        times.append(bench.clock() - began)
    return statistics.median(times)


def group(bench: Bench, f: nn.Module, x: Tensor, search: str) -> None:
    """A row for one batch size and one way of searching."""
    y, g, ball = logits(f, x).argmax(1), as_searched(f, search), Linf(1e-6)
    ranking, ids = classes_by_logit(logits(f, x), y), torch.arange(len(x))
    row: dict = {"batch": len(x), "search": search, "stood": len(x), "ms": {}, "waits": {}}
    for part in FULL:
        each: Attack = parse_attack(part, ball)

        def run(steps: int, each: Attack = each) -> None:
            some = replace(each, steps=steps)
            with frozen_eval(f):
                done = run_attack(some, f, g, x, y, PerImageNoise(0, ids), 0, ranking)
            row["stood"] = min(row["stood"], int((~done.adversarial).sum()))

        steps = bench.steps(part)
        run(2)
        row["ms"][part] = 1e3 * seconds(bench, lambda: run(steps)) / steps  # noqa: B023
        if len(x) == bench.batches[0]:
            row["waits"][part] = waits(bench, run)
    row["autoattack_images_per_s"] = 1e3 * len(x) / sum(row["ms"][p] * n for p, n in FULL.items())
    bench.found["rows"].append(row)
    bench.say(line(row))


def line(row: dict) -> str:
    cells = [f"{row['batch']:>6} {row['search']:<27} {row['stood']:>6}"]
    cells += [f"{row['ms'][part]:>9.2f}" for part in FULL]
    cells.append(f"{row['autoattack_images_per_s']:>10.3f}")
    if any(count is not None for count in row["waits"].values()):
        cells.append("  waits: " + " ".join(f"{row['waits'][part]:.2f}" for part in FULL))
    return " ".join(cells)


def theirs(bench: Bench, f: nn.Module, x: Tensor) -> None:
    """The same parts by torchattacks, if it is there."""
    try:
        import torchattacks
    except ImportError:
        bench.say("torchattacks is not there: no comparison")
        return
    y, steps = logits(f, x).argmax(1), {part: bench.steps(part) for part in FULL}
    more = {"eps": 1e-6, "n_restarts": 1, "seed": 0}
    made = {
        "apgd-ce": torchattacks.APGD(f, steps=steps["apgd-ce"], loss="ce", **more),
        "apgd-t": torchattacks.APGDT(f, steps=steps["apgd-t"], n_classes=10, **more),
        "fab-t": torchattacks.FAB(
            f, steps=steps["fab-t"], multi_targeted=True, n_classes=10, **more
        ),
        "square": torchattacks.Square(f, n_queries=steps["square"], **more),
    }
    row: dict = {"batch": len(x), "search": "torchattacks, fp32", "stood": len(x), "ms": {}}
    for part, each in made.items():
        runs = 9 if part.endswith("-t") else 1  # it takes the nine targets in one call
        each(x, y)
        row["ms"][part] = 1e3 * seconds(bench, lambda: each(x, y)) / steps[part] / runs  # noqa: B023
    row["autoattack_images_per_s"] = 1e3 * len(x) / sum(row["ms"][p] * n for p, n in FULL.items())
    row["waits"] = {}
    bench.found["rows"].append(row)
    bench.say(line(row))


def table(bench: Bench) -> None:
    steps = ", ".join(f"{part} {bench.steps(part)}" for part in FULL)
    bench.say(f"{bench.model}, random weights, linf 1e-6, TF32 off; steps timed: {steps}")
    heads = " ".join(f"{part:>9}" for part in FULL)
    bench.say(f"{'batch':>6} {'search':<27} {'stood':>6} {heads}    AA im/s   (ms an iterate)")
    f = network(bench.model).to(bench.device)
    for batch in bench.batches:
        x = torch.rand(batch, 3, 32, 32, device=bench.device)
        for search in SEARCHES:
            if bench.late:
                bench.say(f"no time left for batch {batch}, {search}")
            else:
                group(bench, f, x, search)
        if batch == bench.batches[0] and not bench.late:
            theirs(bench, f, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="an exercise on a CPU")
    parser.add_argument("--seconds", type=float, default=270, help="no new group after these")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    asked = parser.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA GPU here; --tiny exercises this script on a CPU")
    if not asked.out.is_dir():
        raise SystemExit(f"error: --out {asked.out}: there is no such folder")
    bench = Bench(asked.tiny, asked.out, asked.seconds)
    where = "a CPU" if asked.tiny else torch.cuda.get_device_name()
    bench.say(f"torch {torch.__version__}, python {sys.version.split()[0]}, {where}")
    cudnn = torch.backends.cudnn
    settings = torch.backends.cuda.matmul, cudnn.conv  # TF32 off, in the checks as in the table
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    check(bench)
    table(bench)
    for setting, old in zip(settings, before, strict=True):
        setting.fp32_precision = old
    bench.say(f"{time.monotonic() - BEGAN:.0f} s in all")
    (asked.out / "attacks.json").write_text(json.dumps(bench.found, indent=1) + "\n")
    raise SystemExit(0 if all(row["holds"] for row in bench.found["checks"]) else 1)


if __name__ == "__main__":
    main()
