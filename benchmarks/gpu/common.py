"""What the stages of the GPU run share: a clock, a deadline, a log, and a file of results."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402  # after the path of this repository

BEGAN = time.monotonic() - (time.time() - float(os.environ.get("STAGE_BEGAN", time.time())))
"""When the stage began, before the imports."""
TINY = bool(os.environ.get("TINY"))
WORK = Path(os.environ.get("WORK", "."))
CARRY = Path(os.environ.get("CARRY", ROOT / ".gpu"))
DEVICE = torch.device("cpu" if TINY else "cuda")


def say(text: str = "") -> None:
    print(text, flush=True)


def seconds_asked(description: str, default: float) -> float:
    """The time limit on the command line, after a check that there is a GPU."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=default)
    asked: float = parser.parse_args().seconds
    if not TINY and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA GPU here; TINY=1 exercises this on a CPU")
    WORK.mkdir(parents=True, exist_ok=True)
    return asked


def seconds_left(limit: float) -> float:
    return limit - (time.monotonic() - BEGAN)


class TimeUp(BaseException):
    """The limit has passed. No handler of ordinary exceptions catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the block after this many seconds.

    It is raised again every second, since Python drops what is raised in a weak reference's
    callback, as happened on the first GPU.
    """

    def stop(*_: object) -> None:
        raise TimeUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Results:
    """Results by name in a file of JSON lines, which a later call goes on with."""

    def __init__(self, name: str):
        self.file = WORK / f"{name}.jsonl"
        self.done: dict[str, dict] = {}
        if self.file.exists():
            # a kill may have cut the last line
            lines = self.file.read_text().split("\n")[:-1]
            self.file.write_text("".join(f"{line}\n" for line in lines))
            self.done = {row["name"]: row for row in map(json.loads, lines)}

    def add(self, name: str, **row: object) -> None:
        self.done[name] = {"name": name, **row}
        with self.file.open("a") as file:
            file.write(json.dumps(self.done[name]) + "\n")


def end_with_parent() -> None:
    """Linux ends this process when its parent ends, so that no stage leaves one behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_pieces(results: Results, pieces: dict[str, Callable[[], dict]], limit: float) -> None:
    """Run the pieces that have no result yet, in order, until the time is up."""
    current = ""
    try:
        with time_limit(seconds_left(limit)):
            for name, piece in pieces.items():
                if name in results.done:
                    say(f"{name}: done before")
                    continue
                current, began = name, time.monotonic()
                try:
                    row = piece()
                except Exception as error:
                    row = {"holds": False, "error": f"{type(error).__name__}: {error}"[:1000]}
                    say(f"{name}: FAILED: {traceback.format_exc(limit=-6)}")
                results.add(name, **row, seconds=round(time.monotonic() - began, 2))
    except TimeUp:
        say(f"time is up in {current}")
    if left_out := [name for name in pieces if name not in results.done]:
        say(f"LEFT OUT, no time: {', '.join(left_out)}")
