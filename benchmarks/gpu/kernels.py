"""Where the time of a training step goes on the GPU, and what an epoch costs beside its steps.

bash benchmarks/gpu/run.sh kernels
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from common import DEVICE, TINY, WORK, Results, run_pieces, say, seconds_asked
from steps import MODEL, candidate

import nuat
from nuat.data import InMemoryDataset, Splits

STEPS = 10


def profile(mode: str) -> dict:
    """The kernels of STEPS eager or compiled steps of NuAT-WA, by their total time."""
    gc.collect()
    arm, _ = candidate("nuat-wa", "bf16", 8 if TINY else 64, mode)
    arm.train_step.cuda_graphs = None
    for _ in range(3):
        arm.run_round()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [] if TINY else [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS // 2):
            arm.run_round()
        if not TINY:
            torch.cuda.synchronize()
    cpu = torch.autograd.DeviceType.CPU
    events = [each for each in profiler.key_averages() if TINY or each.device_type != cpu]
    rows = [
        (each.self_cpu_time_total if TINY else each.self_device_time_total, each.count, each.key)
        for each in events
    ]
    rows.sort(reverse=True)
    total, count = sum(row[0] for row in rows), sum(row[1] for row in rows)
    say(f"{mode}: {total / STEPS:.0f} us and {count / STEPS:.0f} kernels a step")
    for microseconds, number, name in rows[:45]:
        say(f"{microseconds / STEPS:9.1f} us {number / STEPS:6.1f}  {name[:120]}")
    return {"us": total / STEPS, "kernels": count / STEPS, "rows": rows[:80]}


def epochs() -> dict:
    """Three epochs of `fit` on random images in the size of CIFAR-10: what is beside the steps."""
    sizes = (200, 20, 20) if TINY else (49_000, 1000, 1000)
    parts = [
        InMemoryDataset(
            torch.randint(256, (size, 3, 32, 32), dtype=torch.uint8), torch.arange(size) % 10
        )
        for size in sizes
    ]
    recipe = replace(nuat.get_recipe("nuat-wa", "cifar10").with_epochs(3), precision="bf16")
    folder = WORK / "kernels-run"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    nuat.fit(
        recipe,
        MODEL,
        Splits(*parts, tuple("abcdefghij"), "random"),
        out=folder,
        device=DEVICE,
    )
    seconds = time.monotonic() - began
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = [row["seconds"] for row in rows]
    say(f"three epochs: {seconds:.1f} s, of which training steps {times[-1]:.1f} s: {times}")
    return {"total_s": seconds, "step_s": times}


def main() -> None:
    limit = seconds_asked(__doc__.splitlines()[0], 60)
    pieces: dict[str, Callable[[], dict]] = {
        "kernels eager": partial(profile, "eager"),
        "epochs": epochs,
        "kernels compiled": partial(profile, "compiled"),
    }
    run_pieces(Results("kernels"), pieces, limit)


if __name__ == "__main__":
    main()
