"""Training steps on a CUDA GPU: correct first, then one table. Installs nothing.

    python benchmarks/gpu.py             # under 8 minutes on an H200; the log and JSON go to $OUT
    python benchmarks/gpu.py --tiny      # an exercise on a CPU, of seconds; its times mean nothing

Each group (batch size, precision, eager or graphs) runs its methods in interleaved blocks, beside
standard training and a product of matrices. MFU is of that product at its best: "model" credits the
passes of the published code, "executed" those that are computed here. "fp32" has TF32 off; "tf32"
has it on, for products too. Deterministic kernels are used in the checks alone.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch import Tensor, nn

import nuat
from nuat.matrix_norms import nuclear_norm
from nuat.methods import Standard
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model
from nuat.nn.precision import check_channels_last, set_memory_format
from nuat.profiling import Candidate, MatmulBaseline, get_clock
from nuat.profiling.costs import paired_ratio
from nuat.recipes import Recipe
from nuat.runtime.cuda_graphs import capture_cuda_graph
from nuat.runtime.flops import count_flops
from nuat.runtime.versions import versions
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.train_step import TrainStep

PUBLISHED = {"standard": 3, "nuat": 11, "nuat-wa": 11, "nuat2-wa": 14, "fbf": 6, "pgd-at": 33}
PUBLISHED |= {"trades": 39}
"""Forward-equivalents of the published code, mean of both parities, counted."""

EPOCH_IMAGES = 49_000
DEADLINE = 450.0
BEGAN = time.monotonic()


class Bench:
    """Where to run, what to run, and where to write it."""

    def __init__(self, tiny: bool, out: Path):
        self.tiny, self.out = tiny, out
        self.device = torch.device("cpu" if tiny else "cuda")
        self.model = "small-cnn(width=4)" if tiny else "resnet18-nuat"
        self.small = "small-cnn(width=4)" if tiny else "resnet18-nuat(width=16)"
        self.batches = (4,) if tiny else (64, 128, 256)
        self.precisions = ("bf16",) if tiny else ("bf16", "tf32", "fp32")
        self.checked = ("nuat-wa", "fbf") if tiny else tuple(PUBLISHED)
        self.blocks, self.block_s = (1, 0.0) if tiny else (5, 0.12)
        # without a GPU the work is not recorded but done at each replay
        self.record: Callable = (lambda work: work) if tiny else capture_cuda_graph
        self.clock = get_clock(self.device)
        self.found: dict = {"versions": versions(), "checks": {}, "norm_us": {}, "rows": []}
        self.log = (out / "gpu.log").open("w")

    def say(self, text: str = "") -> None:
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def images(self, count: int) -> nuat.InMemoryDataset:
        x = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
        return nuat.InMemoryDataset(x, torch.randint(10, (count,))).to(self.device)

    def recipe(self, name: str, batch: int, precision: str) -> Recipe:
        row = nuat.get_recipe("nuat-wa" if name == "standard" else name, "cifar10")
        if name == "standard":
            row = replace(row, name=name, method=Standard(), ema_decay=None)
        own = "bf16" if precision == "bf16" else "fp32"
        return replace(row, batch_size=batch, precision=own, model=self.model)

    def network(self, model: str, layout: bool = True) -> nn.Module:
        torch.manual_seed(0)
        f = build_model(model, 10, 3).to(self.device)
        if layout:
            check_channels_last(f, torch.rand(2, 3, 32, 32, device=self.device))
            set_memory_format(f, torch.channels_last)
        return f

    @property
    def late(self) -> bool:
        return time.monotonic() - BEGAN > DEADLINE


@contextmanager
def numbers(precision: str) -> Iterator[None]:
    """TF32 as the name says."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee" if precision == "fp32" else "tf32"
        yield
    finally:
        for setting, old in zip(settings, before, strict=True):
            setting.fp32_precision = old


def families() -> dict[str, Tensor]:
    d = torch.randn(64, 10)
    u, _, vh = torch.linalg.svd(torch.randn(64, 10), full_matrices=False)
    return {
        "gauss": d,
        "condition 1e2": (u * torch.logspace(0, -2, 10)) @ vh,
        "condition 1e4": (u * torch.logspace(0, -4, 10)) @ vh,
        "row sums 0": d - d.mean(1, keepdim=True),
        "identical rows": d[:1].expand(64, 10),
        "zeros": torch.zeros(64, 10),
        "x 1e-6": 1e-6 * d,
        "256 x 1000": torch.randn(256, 1000),
    }


def check_norm(bench: Bench) -> None:
    """Both algorithms on the device against float64 on the CPU."""
    for name, d in families().items():
        exact = float(torch.linalg.svdvals(d.double()).sum())
        for algorithm, tolerance in (("svd", 1e-5), ("polar", 5e-4)):
            with numbers("tf32"):
                there = d.clone().to(bench.device).requires_grad_()
                value = nuclear_norm(there, algorithm)
                (gradient,) = torch.autograd.grad(value, there)
            length = float(torch.linalg.matrix_norm(gradient.double().cpu(), 2))
            off = abs(float(value.detach()) - exact) / max(exact, 1e-30)
            good = off <= tolerance and length <= 1 + 1e-4
            bench.found["checks"][f"nuclear norm, {algorithm}, {name}"] = good
            if not good:
                bench.say(f"WRONG: nuclear norm, {algorithm}, {name}: off by {off:.1e}, {length=}")


def after(bench: Bench, name: str, precision: str, graphs: bool) -> Tensor:
    """The weights after ten steps over two epochs, with a short batch in each."""
    recipe = replace(bench.recipe(name, 8, precision), lr=nuat.Constant(0.01))
    f = bench.network(bench.small)
    train_step = TrainStep(recipe, f, batches=5)
    if graphs:
        train_step.cuda_graphs = CudaGraphs(bench.say, bench.record)
    torch.manual_seed(1)
    images = bench.images(36)
    for epoch in (40, 41):
        for batch, (x, y) in enumerate(images.shuffled_batches(8, epoch)):
            for _ in train_step.step((x, y), train_step.prepare(epoch, batch)):
                pass
    return torch.cat([weight.detach().flatten() for weight in f.parameters()])


def check_graphs(bench: Bench) -> None:
    """A recorded step gives the weights of a step by Python, with deterministic kernels."""
    torch.backends.cudnn.deterministic = True
    for name in bench.checked:
        for precision in ("fp32", "bf16"):
            with numbers("fp32"):
                eager, graphed = (after(bench, name, precision, graphs) for graphs in (False, True))
            apart = float((eager - graphed).abs().max())
            bench.found["checks"][f"graphs, {name}, {precision}"] = apart == 0
            if apart:
                bench.say(f"NOT EQUAL: graphs, {name}, {precision}: weights differ by {apart:.1e}")
    torch.backends.cudnn.deterministic = False


def norms(bench: Bench) -> None:
    """Microseconds of value and gradient of the nuclear norm."""
    for rows, columns in ((64, 10), (256, 10), (64, 100)):
        for algorithm in ("svd", "polar"):
            d = torch.randn(rows, columns, device=bench.device).requires_grad_()
            count, times = (2 if bench.tiny else 50), []
            for _ in range(4):
                began = bench.clock()
                for _ in range(count):
                    torch.autograd.grad(nuclear_norm(d, algorithm), d)
                times.append((bench.clock() - began) / count)
            microseconds = 1e6 * statistics.median(times[1:])
            bench.found["norm_us"][f"{rows} x {columns}, {algorithm}"] = microseconds
            bench.say(f"nuclear norm {rows} x {columns}, {algorithm}: {microseconds:.0f} us")


def waits(arm: Candidate) -> int | None:
    """How often the host waits for the device in a step."""
    if not arm.on_gpu:
        return None
    arm.run_round()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arm.run_round()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) // 2


def launches(arm: Candidate) -> int | None:
    """Kernels, copies and graphs that the host launches in a step."""
    if not arm.on_gpu:
        return None
    try:
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            arm.run_round()
            torch.cuda.synchronize()
        found = profile.key_averages()
    except RuntimeError:
        return None  # no profiler on this machine
    kinds = ("Launch", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in found if any(kind in event.key for kind in kinds)) // 2


def group(bench: Bench, batch: int, precision: str, graphs: bool) -> None:
    """Time the methods at one batch size, precision and mode; a row of the table for each."""
    f, images = bench.network(bench.model), bench.images(16 * batch)
    arms, counts = {}, {}
    for name in PUBLISHED:
        arm = Candidate(bench.recipe(name, batch, precision), copy.deepcopy(f), images)
        if graphs:
            arm.train_step.cuda_graphs = CudaGraphs(bench.say, bench.record)
        for _ in range(2 if bench.tiny else 4):
            arm.run_round()
        began = bench.clock()
        arm.run_round()
        counts[name] = max(1, round(bench.block_s / max(bench.clock() - began, 1e-4)))
        arms[name] = arm
    matmul = MatmulBaseline(
        bench.device, "bf16" if precision == "bf16" else "fp32", 64 if bench.tiny else None
    )
    for turn in range(bench.blocks):
        matmul.measure(bench.clock)
        for place in range(len(arms)):
            name = list(arms)[(place + turn) % len(arms)]
            began = bench.clock()
            for _ in range(counts[name]):
                arms[name].run_round()
            arms[name].seconds_per_step.append((bench.clock() - began) / counts[name] / 2)
    x, y = images.batch(torch.arange(2))
    with torch.no_grad():
        forward = count_flops(lambda: f(x)) / 2 * batch
    for name, arm in arms.items():
        executed = forward_equivalents(arm.recipe.method, f, x, y, arm.epoch)
        seconds = statistics.median(arm.seconds_per_step)
        share = forward / seconds / matmul.flops_per_s
        row = {
            "method": name,
            "batch": batch,
            "precision": precision,
            "mode": "graphs" if graphs else "eager",
            "ms": 1e3 * seconds,
            "images_per_s": batch / seconds,
            "epoch_s": EPOCH_IMAGES / batch * seconds,
            "relative_time": paired_ratio(arm.seconds_per_step, arms["standard"].seconds_per_step),
            "forward_equivalents": executed,
            "mfu_model": PUBLISHED[name] * share,
            "mfu_executed": executed * share,
            "launches": launches(arm) if batch == bench.batches[0] else None,
            "waits": waits(arm),
            "recorded": graphs and arm.train_step.cuda_graphs.capturable,
            "matmul_tflops": matmul.flops_per_s / 1e12,
        }
        bench.found["rows"].append(row)
        bench.say(line(row))


HEADINGS = "method batch numbers mode ms images/s epoch,s standard F/3 MFU,model executed launches"
WIDTHS = (9, 6, 8, 7, 8, 9, 8, 9, 6, 10, 9, 9)


def line(row: dict) -> str:
    cells = [row["method"], row["batch"], row["precision"], row["mode"]]
    cells += [f"{row['ms']:.2f}", f"{row['images_per_s']:.0f}", f"{row['epoch_s']:.2f}"]
    cells += [f"{row['relative_time'][0]:.2f}", f"{row['forward_equivalents'] / 3:.2f}"]
    cells += [f"{row['mfu_model']:.1%}", f"{row['mfu_executed']:.1%}", row["launches"]]
    shown = " ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return f"{shown} {row['waits']!s:>6}"


def machine(bench: Bench) -> None:
    bench.say(f"torch {torch.__version__}, python {sys.version.split()[0]}")
    if bench.tiny:
        return
    query = ["nvidia-smi", "--query-gpu=name,clocks.sm,power.draw,temperature.gpu,memory.used"]
    try:
        told = subprocess.run([*query, "--format=csv"], capture_output=True, text=True, timeout=20)
        bench.say(told.stdout.strip())
    except (OSError, subprocess.TimeoutExpired) as error:
        bench.say(f"nvidia-smi: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="an exercise on a CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    asked = parser.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA GPU here; --tiny exercises this script on a CPU")
    if not asked.out.is_dir():
        raise SystemExit(f"error: --out {asked.out}: there is no such folder")
    bench = Bench(asked.tiny, asked.out)
    machine(bench)
    check_norm(bench)
    check_graphs(bench)
    checks = bench.found["checks"]
    bench.say(f"checks: {sum(checks.values())} of {len(checks)} hold")
    norms(bench)
    titles = [title.replace(",", " ") for title in HEADINGS.split()]
    bench.say(" ".join(f"{t:>{w}}" for t, w in zip(titles, WIDTHS, strict=True)) + "  waits")
    # what matters most first, in case the time runs out
    for precision in bench.precisions:
        for batch in bench.batches:
            for graphs in (True, False):
                if bench.late:
                    bench.say(f"no time left for batch {batch}, {precision}, {graphs=}")
                else:
                    with numbers(precision):
                        group(bench, batch, precision, graphs)
    machine(bench)
    bench.say(f"{time.monotonic() - BEGAN:.0f} s in all")
    text = json.dumps(bench.found, indent=1) + "\n"
    (asked.out / "gpu.json").write_text(text)
    raise SystemExit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
