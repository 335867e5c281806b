"""Ending a long command on a signal or after a time, so that the same command goes on later."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

OUT_OF_TIME = 75
"""The exit status after `--max-time`: EX_TEMPFAIL of sysexits.h, "try again later"."""

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows lacks the last two
)
"""The signals that ask a command to end: Ctrl-C, `kill`, a closed terminal, and SLURM's warning."""


class Stopped(BaseException):
    """A command ends before its work is done; what is saved so far is complete.

    It is no Exception, so that no handler of errors takes it for one.

    Attributes:
        status: the exit status, `OUT_OF_TIME`, or 128 plus the number of the signal.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def stopped_by(number: int) -> Stopped:
    """The exception for a signal."""
    name = signal.Signals(number).name
    return Stopped(f"ended by {name}; run the same command again to go on", 128 + number)


def out_of_time(max_time: float) -> Stopped:
    """The exception for the end of `max_time` seconds."""
    message = f"ended after --max-time, {max_time:g} s; run the same command again to go on"
    return Stopped(message, OUT_OF_TIME)


@contextmanager
def handle_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle(number)` at the first of `SIGNALS`; a second one raises `Stopped` at once.

    The handlers of before are restored on exit. Only the main thread of a process can have
    handlers of signals: elsewhere, nothing changes. A signal that is ignored stays ignored, such
    as SIGHUP under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = False
    process = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if os.getpid() != process:  # a forked worker leaves the decision to this process
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            return
        if seen:
            raise stopped_by(number)
        seen = True
        _leave_lost_terminal()
        handle(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    changed = [number for number in SIGNALS if before[number] != signal.SIG_IGN]
    try:
        for number in changed:
            signal.signal(number, handler)
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _leave_lost_terminal() -> None:
    """Let output go nowhere if its terminal was closed, which is what sends SIGHUP.

    Otherwise the next line of progress would be an error, before anything is saved.
    """
    for output in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)


def ignore_signals(worker: int) -> None:
    """Let a worker process of a DataLoader ignore them: it ends with the process that started it.

    Ctrl-C, and the signals of a batch system, reach every process of a job.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Raise `Stopped` wherever a signal arrives, for work that loses little by that.

    Ctrl-C raises it too, in place of KeyboardInterrupt.
    """

    def handle(number: int) -> None:
        raise stopped_by(number)

    with handle_signals(handle):
        yield
