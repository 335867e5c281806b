"""Printing to the terminal: lines, tables, warnings and errors."""

from __future__ import annotations

from nuat.runtime.text import escape_unprintable, plain_console

console = plain_console()


def print_line(text: str) -> None:
    """Print one line to stdout as it is, without wrapping; control characters are escaped."""
    console.print(escape_unprintable(text), soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning to stderr."""
    _print_stderr(f"warning: {text}")


def print_error(text: str) -> None:
    """Print an error to stderr."""
    _print_stderr(f"error: {text}")


def _print_stderr(text: str) -> None:
    plain_console(stderr=True).print(escape_unprintable(text), soft_wrap=True)
