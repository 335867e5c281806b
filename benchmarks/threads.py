"""One thread or all cores: a step of standard training, by the wall, in turn.

python benchmarks/threads.py | tee benchmarks/threads.log
"""

import os
import statistics
import time

import torch
from torch import nn

import nuat
from nuat.models import build_model
from nuat.runtime.flops import count_flops

CASES = [
    ("small-cnn(width=32)", (1, 8, 8), 64, 20),
    ("small-cnn(width=16)", (3, 32, 32), 64, 4),
    ("resnet18(width=16)", (3, 32, 32), 16, 3),
    ("resnet18", (3, 32, 32), 16, 1),
]


def steps(f: nn.Module, x: torch.Tensor, y: torch.Tensor, count: int) -> float:
    """Seconds of a step."""
    began = time.perf_counter()
    for _ in range(count):
        f.zero_grad()
        nuat.ce(f(x), y).backward()
    return (time.perf_counter() - began) / count


print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
for model, shape, batch, count in CASES:
    f, x, y = (
        build_model(model, 10, shape[0]),
        torch.rand(batch, *shape),
        torch.randint(10, (batch,)),
    )
    with torch.no_grad():
        work = count_flops(lambda f=f, x=x: f(x)) / 1e9
    times: dict[int, list[float]] = {1: [], os.cpu_count(): []}
    for _ in range(5):
        for threads, own in times.items():
            torch.set_num_threads(threads)
            own.append(steps(f, x, y, count))
    shown = (f"{1e3 * statistics.median(own):.0f} ms on {n}" for n, own in times.items())
    print(f"{model}, batch {batch}, a forward of {work:.2g} GFLOP: {', '.join(shown)}", flush=True)
