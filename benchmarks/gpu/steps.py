"""Training steps of ResNet-18 on a GPU: one table, the cells that matter most first.

    bash benchmarks/gpu/run.sh steps

A cell is a method, a precision, a batch size, and steps by Python or as CUDA graphs. "executed" MFU
credits the passes that are computed here, "model" MFU those of the published code; both are of the
fastest product of matrices in the same precision, measured beside the cell. "fp32" has TF32 off.
"""

from __future__ import annotations

import gc
import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from common import DEVICE, TINY, Results, run_pieces, say, seconds_asked
from torch import nn

import nuat
from nuat.data import InMemoryDataset
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model
from nuat.nn.precision import check_channels_last, set_memory_format
from nuat.profiling import Candidate, MatmulBaseline, get_clock
from nuat.runtime.flops import count_flops

PUBLISHED = {"normal": 3, "nuat": 11, "nuat-wa": 11, "nuat2-wa": 14, "fbf": 6, "pgd-at": 33}
PUBLISHED |= {"trades": 39}
"""Forward-equivalents of the published code, mean of both parities, counted."""

MODEL = "small-cnn(width=4)" if TINY else "resnet18-nuat"
EPOCH_IMAGES = 49_000
BLOCKS, BLOCK_SECONDS, WARMUP = (1, 0.0, 2) if TINY else (5, 0.1, 6)
clock = get_clock(DEVICE)


def cells() -> list[tuple[str, str, int, str]]:
    """(method, precision, batch, mode), in order of worth."""
    first = [("bf16", 64, "graphs"), ("bf16", 64, "compiled"), ("bf16", 256, "graphs")]
    first += [("bf16", 64, "eager"), ("bf16", 256, "compiled"), ("tf32", 64, "graphs")]
    first += [("bf16", 128, "graphs"), ("bf16", 256, "eager")]
    table = [("nuat-wa", *cell) for cell in first]
    table += [("normal", "bf16", 64, "graphs")]
    for precision in ("tf32", "fp32", "bf16"):
        for batch in (64, 256, 128):
            table += [("nuat-wa", precision, batch, mode) for mode in ("graphs", "eager")]
    others = ("fbf", "nuat", "gat", "trades", "nuat2-wa", "pgd-at", "awp", "rfgsm-at")
    table += [(method, "bf16", 64, "graphs") for method in others]
    if TINY:
        table = table[:8]
        table = [(*cell[:2], min(cell[2], 8), cell[3]) for cell in table]
    return list(dict.fromkeys(table))


def network() -> nn.Module:
    torch.manual_seed(0)
    f = build_model(MODEL, 10, 3).to(DEVICE)
    if not TINY:
        check_channels_last(f, torch.rand(2, 3, 32, 32, device=DEVICE))
        set_memory_format(f, torch.channels_last)
    return f


def waits(arm: Candidate) -> float | None:
    """How often the host waits for the device in a step."""
    if not arm.on_gpu:
        return None
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arm.run_round()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / 2


def launches(arm: Candidate) -> float | None:
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
    kinds = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in found if event.key.startswith(kinds)) / 2


def count_launches(mode: str) -> dict:
    """The profiler has a piece of its own: if it fails, the times are there."""
    arm, _ = candidate("nuat-wa", "bf16", 8 if TINY else 64, mode)
    for _ in range(WARMUP):
        arm.run_round()
    count = launches(arm)
    say(f"launches in a step of nuat-wa, bf16, 64, {mode}: {count}")
    return {"launches": count}


def candidate(
    method: str, precision: str, batch: int, mode: str
) -> tuple[Candidate, InMemoryDataset]:
    recipe = replace(
        nuat.get_recipe(method, "cifar10"),
        batch_size=batch,
        precision="bf16" if precision == "bf16" else "fp32",
        tf32=precision == "tf32",
        model=MODEL,
    )
    x = torch.randint(256, (16 * batch, 3, 32, 32), dtype=torch.uint8)
    images = InMemoryDataset(x, torch.randint(10, (len(x),))).to(DEVICE)
    graphs = mode != "eager" and not TINY
    compiled = mode == "compiled" and not TINY
    return Candidate(recipe, network(), images, graphs, compiled, say), images


def measure(method: str, precision: str, batch: int, mode: str) -> dict:
    gc.collect()
    if not TINY:
        torch.cuda.empty_cache()
    arm, images = candidate(method, precision, batch, mode)
    if arm.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began = clock()
    for _ in range(WARMUP):
        arm.run_round()
    warmup = clock() - began
    began = clock()
    arm.run_round()
    rounds = max(1, round(BLOCK_SECONDS / max(clock() - began, 1e-4)))
    matmul = MatmulBaseline(DEVICE, arm.recipe.precision, 64 if TINY else None)
    times = []
    for _ in range(BLOCKS):
        if precision == "tf32":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        matmul.measure(clock)
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        began = clock()
        for _ in range(rounds):
            arm.run_round()
        times.append((clock() - began) / rounds / 2)
    seconds = statistics.median(times)
    plain, two = network().eval(), images.batch(torch.arange(2))
    with torch.no_grad():
        forward = count_flops(lambda: plain(two[0])) / 2 * batch
    executed = forward_equivalents(
        arm.recipe.method, plain, *images.batch(torch.arange(2)), arm.epoch
    )
    share = forward / seconds / matmul.flops_per_s
    row = {
        "method": method,
        "precision": precision,
        "batch": batch,
        "mode": mode,
        "ms": 1e3 * seconds,
        "spread": (max(times) - min(times)) / seconds,
        "images_per_s": batch / seconds,
        "epoch_s": EPOCH_IMAGES / batch * seconds,
        "forward_equivalents": executed,
        "mfu_model": PUBLISHED[method] * share if method in PUBLISHED else None,
        "mfu_executed": executed * share,
        "matmul_tflops": matmul.flops_per_s / 1e12,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if arm.on_gpu else None,
        "warmup_s": warmup,
        "waits": waits(arm),
    }
    say(line(row))
    return row


HEADINGS = "method numbers batch mode ms spread images/s epoch,s F MFU,model executed waits"
HEADINGS += " MiB warm-up,s"
WIDTHS = (9, 8, 6, 9, 8, 7, 9, 8, 6, 10, 9, 6, 7, 10)


def line(row: dict) -> str:
    model = "" if row["mfu_model"] is None else f"{row['mfu_model']:.1%}"
    cells = [row["method"], row["precision"], row["batch"], row["mode"], f"{row['ms']:.3f}"]
    cells += [f"{row['spread']:.0%}", f"{row['images_per_s']:.0f}", f"{row['epoch_s']:.2f}"]
    cells += [f"{row['forward_equivalents']:.1f}", model, f"{row['mfu_executed']:.1%}"]
    cells += [row["waits"], row["peak_mib"] and round(row["peak_mib"])]
    cells.append(f"{row['warmup_s']:.1f}")
    return " ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def main() -> None:
    limit = seconds_asked(__doc__.splitlines()[0], 90)
    titles = [title.replace(",", " ") for title in HEADINGS.split()]
    say(" ".join(f"{t:>{w}}" for t, w in zip(titles, WIDTHS, strict=True)))
    pieces: dict[str, Callable[[], dict]] = {
        " ".join(map(str, cell)): partial(measure, *cell) for cell in cells()
    }
    counts: dict[str, Callable[[], dict]] = {
        f"launches {mode}": partial(count_launches, mode) for mode in ("graphs", "eager")
    }
    names = list(pieces)
    order = [*names[:7], *counts, *names[7:]]
    run_pieces(Results("steps"), {name: (pieces | counts)[name] for name in order}, limit)


if __name__ == "__main__":
    main()
