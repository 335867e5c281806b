"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def atomic_write(target: Path, write: Callable[[Path], Any]) -> None:
    """Write a file completely or not at all, even if the process or the machine stops.

    `write` writes to a temporary file in the same folder, which is then flushed to the disk and
    renamed to `target`.
    """
    partial = target.with_name(target.name + ".partial")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)
