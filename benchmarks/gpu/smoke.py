"""Is the GPU right? Versions, ceilings, graphs against eager steps, norms, verdicts, resuming.

    bash benchmarks/gpu/run.sh smoke

Every check is made once; the same command goes on with those that are missing.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import io
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from common import (
    CARRY,
    DEVICE,
    TINY,
    WORK,
    Results,
    end_with_parent,
    run_pieces,
    say,
    seconds_asked,
)
from safetensors.torch import load_file
from torch import Tensor

import nuat
from nuat.checkpoints import load_model
from nuat.data import InMemoryDataset, Splits, load_dataset
from nuat.evaluation import evaluate
from nuat.matrix_norms import nuclear_norm
from nuat.profiling import get_clock
from nuat.runtime.precision import full_precision

METHODS = ("nuat-wa", "fbf") if TINY else ("nuat-wa", "fbf", "nuat", "gat", "trades", "pgd-at")
METHODS += () if TINY else ("nuat2-wa", "awp", "normal")
DIGITS = CARRY / "small" / "digits"
clock = get_clock(DEVICE)


def deterministic() -> None:
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def copy_speed() -> dict:
    x = torch.rand((1 if TINY else 1024) * 2**20, device=DEVICE)
    y, times = torch.empty_like(x), []
    for _ in range(10):
        began = clock()
        y.copy_(x)
        times.append(clock() - began)
    speed = 2 * x.nbytes / statistics.median(times[2:]) / 1e12
    say(f"device to device copy: {speed:.2f} TB/s, bytes read and written")
    return {"tb_per_s": speed}


def matmul_speed(dtype: torch.dtype, tf32: bool = False) -> dict:
    size = 256 if TINY else 8192
    a, b = torch.randn(2, size, size, device=DEVICE).to(dtype)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else "ieee"
    times = []
    for _ in range(8):
        began = clock()
        a @ b
        times.append(clock() - began)
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    speed = 2 * size**3 / statistics.median(times[3:]) / 1e12
    say(f"product of {size} x {size}, {dtype}, {tf32=}: {speed:.1f} TFLOP/s")
    return {"tflops": speed}


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


def norms(algorithm: str, tolerance: float) -> dict:
    """The norm on the device, with TF32 allowed for products, against float64 on the CPU."""
    worst, wrong = 0.0, []
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    for name, d in families().items():
        exact = float(torch.linalg.svdvals(d.double()).sum())
        there = d.clone().to(DEVICE).requires_grad_()
        value = nuclear_norm(there, algorithm)
        (gradient,) = torch.autograd.grad(value, there)
        length = float(torch.linalg.matrix_norm(gradient.double().cpu(), 2))
        off = abs(float(value.detach()) - exact) / max(exact, 1e-30)
        worst = max(worst, off)
        if not (off <= tolerance and length <= 1 + 1e-4):
            wrong.append(f"{name}: off by {off:.1e}, spectral norm of the gradient {length}")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    d = torch.randn(64, 10, device=DEVICE).requires_grad_()
    times = []
    for _ in range(4):
        began = clock()
        for _ in range(20):
            torch.autograd.grad(nuclear_norm(d, algorithm), d)
        times.append((clock() - began) / 20)
    us = 1e6 * statistics.median(times[1:])
    say(f"nuclear norm by {algorithm}: worst error {worst:.1e}, {us:.0f} us for 64 x 10; {wrong=}")
    return {"holds": not wrong, "worst": worst, "us": us, "wrong": wrong}


def weights_after(name: str, precision: str, cuda_graphs: bool) -> dict[str, Tensor]:
    """The weights after five epochs of nine batches, the last of each a short one."""
    recipe = nuat.get_recipe(name, "cifar10").with_epochs(5)
    model = "small-cnn(width=4)" if TINY else "resnet18-nuat(width=16)"
    recipe = replace(
        recipe, batch_size=8, precision=precision, tf32=False, model=model, lr=nuat.Constant(0.01)
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (88, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.arange(88) % 10
    parts = [InMemoryDataset(x[a:b], y[a:b]) for a, b in ((0, 68), (68, 78), (78, 88))]
    splits = Splits(*parts, tuple("abcdefghij"), "random")
    folder = WORK / "smoke" / f"{name}-{precision}-{cuda_graphs}"
    shutil.rmtree(folder, ignore_errors=True)
    with redirect_stdout(io.StringIO()) as told:
        nuat.fit(
            recipe, None, splits, out=folder, device=DEVICE, cuda_graphs=cuda_graphs and not TINY
        )
    words = " ".join(told.getvalue().split())
    if "as a CUDA graph" in words:  # the message of a method that runs eagerly
        raise RuntimeError(words)
    return load_file(folder / "last.safetensors")


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> tuple[float, str]:
    """The largest difference of two networks' weights, and where it is."""
    return max((float((a[key].double() - b[key].double()).abs().max()), key) for key in a)


def graphs(name: str, precision: str) -> dict:
    """A recorded step gives the weights of a step by Python, with deterministic kernels."""
    deterministic()
    eager, recorded = (weights_after(name, precision, each) for each in (False, True))
    apart, where = difference(eager, recorded)
    row = {"holds": apart == 0, "apart": apart}
    verdict = "equal"
    if apart:
        row["eager_twice"], _ = difference(eager, weights_after(name, precision, False))
        verdict = f"DIFFER by {apart:.1e} in {where}; eager twice: {row['eager_twice']:.1e}"
    say(f"graphs against eager, {name}, {precision}: {verdict}")
    return row


def verdicts() -> dict:
    """The verdicts on the digits network that was brought along, against those of a CPU."""
    found: dict = {"holds": True}
    theirs = json.loads((DIGITS / "verdicts.json").read_text())
    loaded = load_model(DIGITS / "model.safetensors", device=DEVICE)
    test = load_dataset(f"npz:{DIGITS / 'digits.npz'}").test
    assert loaded.ball is not None
    result = evaluate(loaded.model, test, loaded.ball, list(theirs))
    for name, robust in theirs.items():
        differ = sum(a != b for a, b in zip(robust, result.robust[name], strict=True))
        found[name] = [sum(robust), sum(result.robust[name]), differ]
        # an image at the very edge may fall to one rounding and stand to another
        found["holds"] &= differ <= max(1, 0.01 * len(robust))
        say(
            f"verdicts, {name}: {sum(robust)} of {len(robust)} robust on a CPU, "
            f"{sum(result.robust[name])} here, {differ} differ"
        )
    return found


def train_to_the_end(folder: str) -> None:
    """Train a small network with deterministic kernels; `resume` kills this."""
    deterministic()
    recipe = nuat.get_recipe("nuat-wa", "digits").with_epochs(12)
    data = load_dataset(f"npz:{DIGITS / 'digits.npz'}")
    own = {} if TINY else {"cuda_graphs": True}
    nuat.fit(recipe, "small-cnn(width=16)", data, out=folder, device=DEVICE, **own)


def start_training(folder: Path) -> subprocess.Popen:
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "--train", str(folder)],
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
        )


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def resume() -> dict:
    """A run that is killed and goes on gives the weights of one that is not."""
    (WORK / "smoke").mkdir(exist_ok=True)
    folders = [WORK / "smoke" / name for name in ("whole", "killed")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    whole, killed = (start_training(folder) for folder in folders)
    while killed.poll() is None and lines(folders[1] / "metrics.jsonl") < 3:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    at = lines(folders[1] / "metrics.jsonl")
    if start_training(folders[1]).wait() or whole.wait():
        raise RuntimeError("a run failed: see smoke/*.log")
    a, b = (load_file(folder / "last.safetensors") for folder in folders)
    apart, _ = difference(a, b)
    holds = apart == 0 and 0 < at < 12
    say(f"killed after {at} of 12 epochs and resumed: weights differ by {apart:.1e}")
    return {"holds": holds, "apart": apart, "killed_after": at}


def main() -> None:
    limit = seconds_asked(__doc__.splitlines()[0], 60)
    results = Results("smoke")
    pieces: dict[str, Callable[[], dict]] = {
        "copy": copy_speed,
        "product bf16": partial(matmul_speed, torch.bfloat16),
        "product fp32": partial(matmul_speed, torch.float32),
        "product tf32": partial(matmul_speed, torch.float32, True),
        "graphs nuat-wa bf16": partial(graphs, "nuat-wa", "bf16"),
        "norm polar": partial(norms, "polar", 5e-4),
        "norm svd": partial(norms, "svd", 1e-5),
        "verdicts": verdicts,
        "resume": resume,
    }
    for name in METHODS:
        for precision in ("fp32", "bf16"):
            pieces.setdefault(f"graphs {name} {precision}", partial(graphs, name, precision))
    with full_precision():
        run_pieces(results, pieces, limit)
    checks = {name: row["holds"] for name, row in results.done.items() if "holds" in row}
    failed = [name for name, holds in checks.items() if not holds]
    say(f"smoke: {sum(checks.values())} of {len(checks)} checks hold; failed: {failed}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train_to_the_end(sys.argv[2])
    else:
        main()
