"""Progress of long computations: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from time import monotonic
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar

from nuat.runtime.text import escape_unprintable, plain_console

LINE_INTERVAL = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class Progress:
    """A progress bar, used as a context manager. Where there is no terminal, it prints lines.

    Example: `with Progress("training", total=600) as progress: progress.advance(1, loss="0.3")`.
    """

    def __init__(self, title: str, total: int, done: int = 0, hidden: bool = False):
        """Create the bar.

        Args:
            title: the text before the bar.
            total: the number of steps.
            done: the number of steps that are done already.
            hidden: print nothing at all.
        """
        self.console = plain_console(quiet=hidden)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
        )
        self.is_live = self.console.is_terminal and not hidden
        self.bar = ProgressBar(
            *columns, console=self.console, transient=True, disable=not self.is_live
        )
        title = escape_unprintable(title)
        self.task = self.bar.add_task(title, total=total, completed=done, values="")
        self.values: dict[str, str] = {}
        self.done_before = done
        self.started = self.last_line = monotonic()

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def advance(self, steps: int = 1, **values: str) -> None:
        """Add steps; each value is shown beside the bar until it is replaced."""
        self.values |= values
        text = "  ".join(f"{name} {value}" for name, value in self.values.items())
        self.bar.update(self.task, advance=steps, values=escape_unprintable(text))
        if not self.is_live and monotonic() - self.last_line >= LINE_INTERVAL:
            self.last_line = monotonic()
            self.print_line(self._format_line(text))

    def forget(self, name: str) -> None:
        """Show the value of this name no longer."""
        self.values.pop(name, None)

    def go_back_to(self, done: int) -> None:
        """Set the number of steps that are done, as after a return to an earlier state."""
        self.bar.update(self.task, completed=done)
        self.done_before, self.started = done, monotonic()

    def _format_line(self, values: str) -> str:
        """The state in one line: `attacking: 120/600 (20%), 4:00 left  attack pgd-20`."""
        task = self.bar.tasks[0]
        done, total = round(task.completed), round(task.total or 0)
        new = done - self.done_before
        left = (total - done) * (self.last_line - self.started) / new if new > 0 else None
        time_left = "" if left is None else f", {format_duration(left)} left"
        line = f"{task.description}: {done}/{total} ({done / max(total, 1):.0%}){time_left}"
        return f"{line}  {values}".rstrip()

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(escape_unprintable(text), soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Format seconds: `75` -> `1:15`, `3675` -> `1:01:15`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
