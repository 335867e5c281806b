"""Are attacks as CUDA graphs the attacks? Graphs against eager runs, waits, verdicts, times.

    bash benchmarks/gpu/run.sh attacks_smoke
    python benchmarks/gpu/attacks_smoke.py [--seconds 40] [--out FOLDER] [--tiny]

Each part of AutoAttack runs with graphs and in Python: within an eps so small that every image
stands, the last iterates must be the same bits; within one at which half of them break, the
verdicts must be the same but for images at the very edge, because broken images leave the two at
different looks and kernels depend on the batch size. Between the looks, an iterate with graphs must
not make the host wait (torch.cuda.set_sync_debug_mode). Then the verdicts of `evaluate` against
those of the CPU, the launches of an iterate by the profiler, and its time for ResNet-18.

--tiny rehearses all of it on the pretended GPU of the tests.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seconds", type=float, default=40)
parser.add_argument("--out", type=Path, help="for attacks_smoke.log; default: $OUT, or here")
parser.add_argument("--tiny", action="store_true", help="a rehearsal on a CPU")
ASKED = parser.parse_args()
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if ASKED.tiny:
    os.environ["TINY"] = "1"
    os.environ.setdefault("WORK", tempfile.mkdtemp())

import torch
from common import CARRY, ROOT, TINY, WORK, Results, run_pieces, say
from torch import Tensor, nn

from nuat.attacks import AttackResult, classes_by_logit, logits, parse_attack, run_attack, runner
from nuat.attacks.graphs import GraphCapture, IterateGraphs
from nuat.attacks.state import AttackState
from nuat.evaluation import evaluate
from nuat.evaluation.search_model import SearchModel, build_search_model
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.runtime.cuda_graphs import capture_cuda_graph
from nuat.runtime.precision import full_precision
from nuat.threat_models import L2, Ball, Linf

sys.path.append(str(ROOT))
from tests.pretend_cuda import pretended_cuda, record_graph

DEVICE = torch.device("cuda")
PARTS = {"apgd-ce": 25, "apgd-dlr": 25, "apgd-t": 25, "fab": 12, "fab-t": 25, "square": 120}
if TINY:
    PARTS = dict.fromkeys(PARTS, 5)
"""The steps of each part in the checks."""

IMAGES = 12 if TINY else 512
TIMED = dict.fromkeys(("apgd-ce", "fab-t", "square"), 3 if TINY else 5)
"""Timed iterates of each part."""

LEFT_OUT = "apgd-t|apgd-dlr|bf16|L2|l2"
"""What a rehearsal leaves out: kinds of pieces of which it does another one."""

OUT = ASKED.out or Path(os.environ.get("OUT") or ".")


class BothOutputs:
    """Standard output that is also written to a file."""

    def __init__(self, file: Path):
        self.file, self.stdout = file.open("a"), sys.stdout

    def write(self, text: str) -> int:
        self.file.write(text)
        return self.stdout.write(text)

    def flush(self) -> None:
        self.file.flush()
        self.stdout.flush()


def capture(**settings: Any) -> GraphCapture:
    return GraphCapture(record_graph if TINY else capture_cuda_graph, **settings)


def trained_network() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained for seconds on noisy templates, the same on every device; and images."""
    generator = torch.Generator().manual_seed(0)
    templates = torch.rand(10, 3, 16, 16, generator=generator)

    def images(count: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(10, (count,), generator=generator)
        noise = torch.rand(count, 3, 16, 16, generator=generator)
        return (0.25 * templates[y] + 0.75 * noise), y

    torch.manual_seed(0)
    network = build_model("small-cnn(width=8)", 10, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40 if TINY else 150):
        x, y = images(64)
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, _ = images(IMAGES)
    network.eval()
    return network, x, logits(network, x).argmax(1)


NETWORK, X, Y = trained_network()


def attacked(
    name: str,
    ball: Ball,
    graphs: GraphCapture | None,
    network: nn.Module | None = None,
    steps: int | None = None,
) -> AttackResult:
    """One run of a part on the device."""
    network = copy.deepcopy(NETWORK).to(DEVICE) if network is None else network
    x, y = X.to(DEVICE), Y.to(DEVICE)
    attack = replace(parse_attack(name, ball), steps=steps or PARTS[name])
    ranking = classes_by_logit(logits(network, x), y) if attack.targets else None
    noise = PerImageNoise(0, torch.arange(len(x), device=DEVICE), name)
    search = build_search_model(network, x[:32])
    with frozen_eval(network):
        for _ in range(1 if graphs is None else 2):  # the second run uses the graphs of the first
            result = run_attack(attack, network, search, x, y, noise, 0, ranking, graphs)
    return result


@cache
def half_way(kind: type[Ball]) -> Ball:
    """The first of growing balls within which half of the images break."""
    for k in range(40):
        ball = kind(round((0.002 if kind is Linf else 0.04) * 1.3**k, 5))
        if attacked("apgd-ce", ball, None, steps=5).adversarial.float().mean() >= 0.5:
            return ball
    raise RuntimeError("the network does not break")


def equal(name: str, kind: type[Ball]) -> dict:
    """A part with graphs against the same part in Python."""
    torch.backends.cudnn.deterministic = True
    texts, holds = [], True
    balls = {"stands": kind(1e-6), "breaks": half_way(kind)}
    for title, ball in balls.items():
        graphs = capture()
        eager, replayed = attacked(name, ball, None), attacked(name, ball, graphs)
        apart = float((eager.x_adv - replayed.x_adv).abs().max())
        differ = int((eager.adversarial != replayed.adversarial).sum())
        holds &= not graphs.notes and differ <= (0.01 * len(X) if title == "breaks" else 0)
        holds &= title == "breaks" or apart == 0
        texts.append(
            f"{title}: {int(eager.adversarial.sum())} and {int(replayed.adversarial.sum())} of "
            f"{len(X)} broken, {differ} differ, x_adv apart by {apart:.1e} {graphs.notes or ''}"
        )
    say(f"graphs against eager, {name}, {kind.__name__}: {'; '.join(texts)}, {holds=}")
    return {"holds": holds, "texts": texts}


@contextmanager
def debug_mode(mode: str) -> Iterator[None]:
    if TINY:
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def within(mode: str, function: Callable) -> Callable:
    def wrapped(*args: object, **kwargs: object) -> object:
        with debug_mode(mode):
            return function(*args, **kwargs)

    return wrapped


def waits(name: str, kind: type[Ball]) -> dict:
    """No iterate waits, but for the looks and the end of the run."""
    ball, graphs = half_way(kind), capture()
    attacked(name, ball, capture())  # what is built once for a device, such as the eta of Square
    looks = ((runner, "verify_candidates"), (runner, "drop_inactive"), (runner, "passes_at"))
    patches = [
        mock.patch.object(where, look, within("default", getattr(where, look)))
        for where, look in (*looks, (IterateGraphs, "compare"))
    ]
    run = runner._run_until_adversarial
    patches.append(mock.patch.object(runner, "_run_until_adversarial", within("error", run)))
    for patch in patches:
        patch.start()
    try:
        result = attacked(name, ball, graphs)
    finally:
        for patch in patches:
            patch.stop()
    holds = not graphs.notes
    say(f"no waits, {name}, {kind.__name__}: {int(result.adversarial.sum())} broken, {holds=}")
    return {"holds": holds, "notes": graphs.notes}


def against_cpu(
    title: str, network: nn.Module, x: Tensor, y: Tensor, ball: Ball, attack: str
) -> dict:
    """The verdicts of `evaluate` on the device, with graphs, against those of the CPU."""
    found = {}
    for device in (torch.device("cpu"), DEVICE):
        began = time.monotonic()
        result = evaluate(copy.deepcopy(network).to(device), (x, y), ball, attack)
        found[device.type] = result.robust[attack], round(time.monotonic() - began, 1), result.notes
    (cpu, *_), (here, seconds, notes) = found["cpu"], found[DEVICE.type]
    differ = sum(a != b for a, b in zip(cpu, here, strict=True))
    holds = differ <= 0.01 * len(x) and not any("CUDA graphs" in note for note in notes)
    say(
        f"verdicts, {title}, {ball}: {sum(cpu)} of {len(x)} robust on the CPU, {sum(here)} here "
        f"in {seconds} s, {differ} differ, {holds=}; notes: {notes}"
    )
    return {"holds": holds, "differ": differ, "robust": [sum(cpu), sum(here)]}


SHORT = 'custom(parts=("apgd-ce-20", "apgd-t-10(targets=3)", "fab-t-10(targets=3)", "square-200"))'


def verdicts(kind: type[Ball]) -> dict:
    size = 12 if TINY else 200
    text = SHORT.replace("20", "3").replace("10", "2") if TINY else SHORT
    return against_cpu("templates", NETWORK, X[:size], Y[:size], half_way(kind), text)


def digits_verdicts() -> dict:
    from nuat.checkpoints import load_model
    from nuat.data import load_dataset

    folder = CARRY / "small" / "digits"
    if not (folder / "model.safetensors").exists():
        say("verdicts, digits: LEFT OUT, prepare.sh has not made the network")
        return {}
    loaded = load_model(folder / "model.safetensors", device="cpu")
    images = load_dataset(f"npz:{folder / 'digits.npz'}").test
    x, y = images.batch(torch.arange(32 if TINY else 150))
    assert loaded.ball is not None
    text = "apgd-ce-3" if TINY else SHORT
    return against_cpu("digits", loaded.model, x, y, loaded.ball, text)


def resnet(batch: int, precision: str) -> tuple[nn.Module, Tensor]:
    torch.backends.cudnn.deterministic = False  # only the checks of equal bits need it
    torch.manual_seed(0)
    network = build_model("small-cnn(width=4)" if TINY else "resnet18-nuat", 10, 3)
    for _ in range(3):
        network(torch.rand(32, 3, 32, 32))
    twin = network.eval().requires_grad_(False).to(DEVICE, memory_format=torch.channels_last)
    x = torch.rand(8 if TINY else batch, 3, 32, 32, device=DEVICE)
    return SearchModel(twin, precision, torch.channels_last), x


class Timed:
    """Runs of a part on a network, within so small an eps that every image stands.

    A run is as long as it is told. APGD as published has no checkpoint before iterate 22.
    """

    def __init__(self, name: str, search: nn.Module, x: Tensor):
        part, timed = parse_attack(name, Linf(1e-6)), self

        class First(type(part)):
            def iterates(self, *args: Any) -> Iterator[AttackState]:
                return islice(super().iterates(*args), timed.length)

        self.attack, self.length = First(**{f.name: getattr(part, f.name) for f in fields(part)}), 0
        self.search, self.x, z = search, x, logits(search.model, x)
        self.y = z.argmax(1)
        self.ranking = classes_by_logit(z, self.y) if part.targets else None
        self.noise = PerImageNoise(0, torch.arange(len(x), device=DEVICE), name)

    def run(self, length: int, graphs: GraphCapture | None) -> float:
        """The seconds of a run."""
        self.length, model = length, self.search.model
        began = time.perf_counter()
        run_attack(
            self.attack, model, self.search, self.x, self.y, self.noise, 0, self.ranking, graphs
        )
        if not TINY:
            torch.cuda.synchronize()
        return time.perf_counter() - began


def speed(batch: int, precision: str) -> dict:
    """The time of an iterate: of runs of 5 iterates and of 5 + n, the difference divided by n."""
    search, x = resnet(batch, precision)
    row: dict = {"notes": []}
    for name, more in TIMED.items():
        timed = Timed(name, search, x)
        timed.run(3, None)
        for mode in ("eager", "graphs"):
            graphs = capture() if mode == "graphs" else None
            row[f"{name} {mode} first"] = timed.run(5, graphs)
            seconds = timed.run(5 + more, graphs) - timed.run(5, graphs)
            row[f"{name} {mode}"] = 1e3 * seconds / more
            row["notes"] += graphs.notes if graphs else []
    cells = [f"{name} {row[f'{name} eager']:.2f} / {row[f'{name} graphs']:.2f}" for name in TIMED]
    say(f"ResNet-18, batch {batch}, {precision}: ms an iterate eager / graphs: {', '.join(cells)}")
    firsts = [f"{row[f'{n} eager first']:.2f} / {row[f'{n} graphs first']:.2f}" for n in TIMED]
    say(f"    a first run of 5, with captures: {', '.join(firsts)} s; notes: {row['notes']}")
    return row


def launches(precision: str) -> dict:
    """What the host launches for an iterate, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    search, x = resnet(64, precision)
    calls = ("LaunchKernel", "GraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    devices = [ProfilerActivity.CPU, *([] if TINY else [ProfilerActivity.CUDA])]
    row: dict = {}
    for name in TIMED:
        timed = Timed(name, search, x)
        for mode in ("eager", "graphs"):
            graphs, counts = capture() if mode == "graphs" else None, []
            timed.run(19, graphs)
            for length in (13, 19):  # one look each, at iterate 10
                with profile(activities=devices) as seen:
                    timed.run(length, graphs)
                events = seen.key_averages()
                counts.append(sum(e.count for e in events if any(c in e.key for c in calls)))
            row[f"{name} {mode}"] = (counts[1] - counts[0]) / 6
    say("launches an iterate: " + ", ".join(f"{name} {count:.1f}" for name, count in row.items()))
    return row


def memory() -> dict:
    """The memory of graphs is free after the run."""
    if TINY:
        return {}
    search, x = resnet(512, "fp32")
    timed, held = Timed("apgd-ce", search, x), list[float]()
    for mode in ("eager", "graphs", "graphs"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        timed.run(5, capture() if mode == "graphs" else None)
        peak = torch.cuda.max_memory_reserved() / 2**30
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved() / 2**30)
        say(f"memory, batch 512, {mode}: peak {peak:.2f} GiB, {held[-1]:.2f} GiB after it")
    return {"holds": held[2] <= held[0] + 0.2, "held": held}


def main() -> None:
    if not TINY and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA GPU here; --tiny rehearses this on a CPU")
    WORK.mkdir(parents=True, exist_ok=True)
    sys.stdout = BothOutputs(OUT / "attacks_smoke.log")  # type: ignore[assignment]
    say(f"torch {torch.__version__}, {len(X)} images, limit {ASKED.seconds:.0f} s")
    pieces: dict[str, Callable[[], dict]] = {}
    for kind in (Linf, L2):
        norm = kind.__name__
        for name in ("apgd-ce", "square", "fab-t", "apgd-t"):
            pieces[f"equal {name} {norm}"] = partial(equal, name, kind)
            pieces[f"waits {name} {norm}"] = partial(waits, name, kind)
        if kind is Linf:
            pieces["speed 1024 fp32"] = partial(speed, 1024, "fp32")
            pieces["verdicts linf"] = partial(verdicts, Linf)
            pieces["verdicts digits"] = digits_verdicts
            pieces["launches"] = partial(launches, "fp32")
            pieces["speed 1024 bf16"] = partial(speed, 1024, "bf16")
            pieces["memory"] = memory
    for name in ("apgd-dlr", "fab"):
        pieces[f"equal {name} Linf"] = partial(equal, name, Linf)
    pieces["speed 64 bf16"] = partial(speed, 64, "bf16")
    pieces["verdicts l2"] = partial(verdicts, L2)
    if TINY:
        pieces = {name: piece for name, piece in pieces.items() if not re.search(LEFT_OUT, name)}
    results = Results("attacks_smoke")
    graphs = mock.patch("nuat.evaluation.runner.GraphCapture", capture)
    with full_precision(), graphs, pretended_cuda() if TINY else nullcontext():
        run_pieces(results, pieces, ASKED.seconds)
    checks = {name: row["holds"] for name, row in results.done.items() if "holds" in row}
    failed = [name for name, holds in checks.items() if not holds]
    say(f"attacks_smoke: {sum(checks.values())} of {len(checks)} checks hold; failed: {failed}")


if __name__ == "__main__":
    main()
