"""How training survives faults: killed, asked to stop, files with a changed byte, a full disk.

    OMP_NUM_THREADS=1 python benchmarks/faults.py [kills] [signals] [bytes] [disk] [--seed N]

Each part trains a tiny network on 128 of the digits, again and again, in a temporary folder of its
own, and compares the end with that of an undisturbed run: weights, averages, metrics and
checkpoint, bit for bit, but for the seconds. The last line says how many of which ended how; the
exit status is 1 if one ended otherwise than it should.
"""

import argparse
import contextlib
import fcntl
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which an optimizer imports: once here, and not in every process

import nuat
from nuat import cli
from nuat.checkpoints import read_weights
from nuat.checkpoints.run import Run
from nuat.runtime.signals import SIGNALS
from nuat.training import trainer

EPOCHS = 6
TIMED = ("seconds", "metrics", "checksum")
fork = multiprocessing.get_context("fork")


def write_data() -> None:
    """Write 128 of the digits to digits.npz."""
    digits = nuat.load_dataset("digits")
    arrays = {}
    for split, count in (("train", 128), ("val", 40), ("test", 40)):
        x, y = digits[split].batch(torch.arange(count))
        arrays |= {f"x_{split}": (x * 255).byte().numpy(), f"y_{split}": y.numpy()}
    np.savez("digits.npz", **arrays)


def words(out: str, *more: str) -> list[str]:
    fixed = "train nuat2-wa --data npz:digits.npz --eps 0.1 --seed 3 --set batch_size=16"
    return [
        *fixed.split(),
        "--model",
        "small-cnn(width=4)",
        f"--epochs={EPOCHS}",
        f"--out={out}",
        *more,
    ]


def command(line: list[str], log: str, limit: int | None) -> None:
    """What a forked process does: the command, with checkpoints every 50 ms."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["nuat", *line]
    trainer.CHECKPOINT_SECONDS = 0.05
    torch.set_num_threads(1)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    cli.main()


def start(line: list[str], limit: int | None = None) -> multiprocessing.Process:
    process = fork.Process(target=command, args=(line, "log", limit))
    process.start()
    return process


def finish(out: str) -> int:
    process = start(words(out))
    process.join()
    return process.exitcode


def outcome(out: str) -> dict:
    """All that must be equal of two finished runs."""
    folder = Path(out)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    lines = Run(folder).metrics
    return {
        "model": read_weights(folder / "model.safetensors"),
        "last": read_weights(folder / "last.safetensors"),
        "checkpoint": {k: v for k, v in state.items() if k not in TIMED},
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def wait_until_training(process: multiprocessing.Process, out: str) -> None:
    while process.is_alive() and not running(out):
        time.sleep(0.01)


def running(out: str) -> bool:
    """Whether a process holds the lock of the run; a killed one leaves the file behind."""
    try:
        with open(f"{out}/lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def progress(out: str) -> tuple[int, int]:
    with contextlib.suppress(nuat.InputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may be read while it is replaced
        if state := Run(Path(out)).load_checkpoint(torch.device("cpu")):
            return state["epoch"], state["batch"]
    return 0, 0


def kills(whole: dict, rng: random.Random, count: int = 100) -> Counter:
    """SIGKILL at random moments; whatever is finished is compared, and the next run begins."""
    seen, run = Counter(), 0
    while seen["killed"] < count:
        out = f"kill-{run}"
        process = start(words(out))
        if rng.random() < 0.8:  # the others may be killed before they train
            wait_until_training(process, out)
        process.join(rng.uniform(0.0, 0.7))
        if process.is_alive():
            process.kill()
            process.join()
            seen["killed"] += 1
        elif process.exitcode:
            return seen + Counter({f"BAD exit {process.exitcode}: {Path('log').read_text()}": 1})
        else:
            seen["runs bit-equal" if equal(outcome(out), whole) else "BAD runs"] += 1
            run += 1
    seen["runs bit-equal" if finish(f"kill-{run}") == 0 and equal(outcome(f"kill-{run}"), whole)
         else "BAD runs"] += 1  # fmt: skip
    return seen


def signals(whole: dict, rng: random.Random, count: int = 20) -> Counter:
    """Each polite signal, sent in the middle of training; the same command goes on."""
    seen = Counter()
    for number in SIGNALS:
        run, sent = 0, 0
        while sent < count:
            out = f"{number.name}-{run}"
            before = progress(out)
            process = start(words(out))
            wait_until_training(process, out)
            process.join(rng.uniform(0.0, 0.6))
            if process.is_alive():
                os.kill(process.pid, number)
            process.join()
            after = progress(out)
            if process.exitcode == 128 + number and after >= before:
                sent += 1
                steps = "after some steps" if after > before else "before the first step"
                seen[f"{number.name} {steps}: saved, exit {128 + number}"] += 1
            elif process.exitcode:
                seen[f"BAD {number.name}: exit {process.exitcode}, {before} -> {after}"] += 1
                sent += 1
            else:
                seen["runs bit-equal" if equal(outcome(out), whole) else "BAD runs"] += 1
                run += 1
        seen["runs bit-equal" if finish(out) == 0 and equal(outcome(out), whole)
             else "BAD runs"] += 1  # fmt: skip
    return seen


def resume(out: str) -> tuple[str, list[str]]:
    """The command in this process: its error, or "", and its warnings."""
    shown = io.StringIO()
    sys.argv = ["nuat", *words(out)]
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            cli.main()
        except SystemExit as end:
            lines = shown.getvalue().splitlines()
            told = [line for line in lines if line.startswith("warning: ") and "case/" in line]
            return (lines[-1] if end.code else ""), told
    raise AssertionError("a command ends with its exit status")


def changed_bytes(whole: dict, rng: random.Random, count: int = 200) -> Counter:
    """One changed byte: its file is read, and, less often, the run goes on.

    `part` is a run in its last epoch, `whole` one that is finished.
    """
    seen = Counter()
    process = start(words("part"))
    while process.is_alive() and progress("part") < (EPOCHS - 1, 0):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM, Path("log").read_text()
    for name in READERS:
        show(seen, f"reading {name}", (read_changed_byte(name, rng) for _ in range(count)))
    for base, name in product(("part", "whole"), READERS):
        endings = (one_changed_byte(base, name, whole, rng) for _ in range(max(1, count // 20)))
        show(seen, f"going on with {base}/{name}", endings)
    return seen


def show(seen: Counter, title: str, endings: Iterator[str]) -> None:
    for ending, number in Counter(endings).items():
        print(f"bytes: {number:4d}  {title}: {ending}", flush=True)
        seen[ending] += number


READERS = {
    "checkpoint.pt": lambda run: run.load_state("checkpoint", torch.device("cpu")),
    "checkpoint.previous.pt": lambda run: run.load_state(
        "checkpoint.previous", torch.device("cpu")
    ),
    "metrics.jsonl": lambda run: run.metrics,
    "config.json": lambda run: run.config,
    "model.safetensors": lambda run: run.weights(),
    "last.safetensors": lambda run: read_weights(run.path / "last.safetensors"),
}


def change_byte(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    file.write_bytes(content)


def read_changed_byte(name: str, rng: random.Random) -> str:
    file = Path("part") / name
    content, right = file.read_bytes(), READERS[name](Run(file.parent))
    change_byte(file, rng)
    try:
        found = READERS[name](Run(file.parent))
        return "the same contents" if equal(found, right) else "BAD: other contents"
    except nuat.InputError:
        return "refused"
    finally:
        file.write_bytes(content)


def one_changed_byte(base: str, name: str, whole: dict, rng: random.Random) -> str:
    shutil.rmtree("case", ignore_errors=True)
    shutil.copytree(base, "case")
    change_byte(Path("case") / name, rng)
    error, told = resume("case")
    if error:
        return "refused in one line" if error.startswith("error: ") else f"BAD: {error}"
    try:
        if equal(outcome("case"), whole):
            return "named, then bit-equal" if told else "bit-equal"
    except nuat.InputError:  # nothing depends on the last weights of a run that is finished
        return "refused when it is read"
    return "named, the best of later epochs kept" if told else "BAD: silently different"


def disk(whole: dict, rng: random.Random, count: int = 20) -> Counter:
    """A limit on the size of files stands for the full disk; then the same command without it."""
    seen = Counter()
    largest = (Path("whole") / "checkpoint.pt").stat().st_size
    for index in range(count):
        out, limit = f"disk-{index}", 2000 + index * largest // count
        process = start(words(out), limit)
        process.join()
        lines = Path("log").read_text().splitlines()
        told = lines[-1] if lines else ""
        is_line = (
            process.exitcode == 2 and told.startswith("error: ") and "Traceback" not in str(lines)
        )
        left = [path.name for path in Path(out).glob("*") if "partial" in path.name]
        good = is_line and not left and finish(out) == 0 and equal(outcome(out), whole)
        seen[
            "one line, no half file, then bit-equal" if good else f"BAD at {limit}: {told} {left}"
        ] += 1
    return seen


PARTS = {"kills": kills, "signals": signals, "bytes": changed_bytes, "disk": disk}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[*PARTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="cases of each kind, instead of the usual number")
    options = parser.parse_args()
    warnings.simplefilter("always")  # not only the first of each
    torch.set_num_threads(1)
    bad = False
    with tempfile.TemporaryDirectory(prefix="nuat-faults-") as folder:
        os.chdir(folder)
        write_data()
        assert finish("whole") == 0, Path("log").read_text()
        whole = outcome("whole")
        for part in options.parts:
            began, rng = time.monotonic(), random.Random(options.seed)
            extra = {} if options.count is None else {"count": options.count}
            for ending, number in sorted(PARTS[part](whole, rng, **extra).items()):
                bad |= "BAD" in ending
                print(f"{part}: {number:4d}  {ending}", flush=True)
            print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
        os.chdir("/")
    sys.exit(bad)


if __name__ == "__main__":
    main()
