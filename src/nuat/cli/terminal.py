"""Printing to the terminal: lines, tables, warnings and errors."""

from __future__ import annotations

from rich.console import Console

console = Console()


def print_line(text: str) -> None:
    """Print one line to stdout, without markup and without wrapping."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning to stderr."""
    _print_stderr(f"warning: {text}")


def print_error(text: str) -> None:
    """Print an error to stderr."""
    _print_stderr(f"error: {text}")


def _print_stderr(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
