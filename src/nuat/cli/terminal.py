"""What the terminal shows: lines, tables, warnings, errors."""

from __future__ import annotations

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """A line, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def warn(message: Warning | str, *_: object) -> None:
    """A warning, on the error stream; has the shape of `warnings.showwarning`."""
    _aside(f"warning: {message}")


def error(text: str) -> None:
    """An error, on the error stream."""
    _aside(f"error: {text}")


def _aside(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
