"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuat.errors import InputError


def atomic_write(target: Path, write: Callable[[Path], Any]) -> None:
    """Write a file completely or not at all, even if the process or the machine stops.

    `write` writes to a temporary file in the same folder, which is then flushed to the disk and
    renamed to `target`. A link in the place of one of the two is replaced, not followed.
    """
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    write(partial)
    with partial.open("r+b") as file:
        # Windows flushes only a file that is open for writing
        os.fsync(file.fileno())
    os.replace(partial, target)


def check_inside(path: Path, folder: Path) -> None:
    """Raise InputError if `path`, which lies in `folder` by name, is a link that leads out of it.

    A folder of a stranger may contain links; what is written through them would land elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path} is a link that leads out of {folder}, to {path.resolve()}; nothing is written "
            "there: delete the link"
        )
