"""Progress of long computations: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar


class Progress:
    """A progress bar, used as a context manager.

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
        self.console = Console(quiet=hidden)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        is_live = self.console.is_terminal and not hidden
        self.bar = ProgressBar(*columns, console=self.console, transient=True, disable=not is_live)
        self.task = self.bar.add_task(title, total=total, completed=done, values="")
        self.values: dict[str, str] = {}

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
        self.bar.update(self.task, advance=steps, values=text)

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Format seconds: `75` -> `1:15`, `3675` -> `1:01:15`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
