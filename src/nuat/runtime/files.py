"""Reading and writing files that others may have made: links, devices, full disks."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nuat.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no fcntl: temporary files of killed processes stay there
    fcntl = None  # type: ignore[assignment]  # a module, or nothing

TEMPORARY_NAME = re.compile(r"(.*)\.[0-9a-f]{16}\.partial", re.DOTALL)
MAX_PREFIX = 50
"""Characters of the name of a file that the name of its temporary file begins with."""


def atomic_write(target: Path, write: Callable[[Path], Any]) -> None:
    """Write a file completely or not at all, even if the process or the machine stops.

    `write` writes to a new temporary file in the same folder, which is then flushed to the disk
    and renamed to `target`. A link in the place of `target` is replaced, not followed. Temporary
    files of this target that a killed process has left are removed.

    Raises:
        InputError: `target` is a folder, a device, a FIFO or a socket.
        OSError: the file cannot be written; the message names `target` and the reason.
    """
    check_regular(target)
    prefix = target.name[:MAX_PREFIX]
    partial = target.with_name(f"{prefix}.{secrets.token_hex(8)}.partial")
    with explain_write_errors(target):
        remove_leftovers(target.parent, prefix)
        try:
            with _locked(partial, os.O_CREAT | os.O_EXCL):
                write(partial)
                with partial.open("r+b") as file:
                    # Windows flushes only a file that is open for writing
                    os.fsync(file.fileno())
                os.replace(partial, target)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(target.parent)


@contextmanager
def explain_write_errors(target: Path) -> Iterator[None]:
    """Raise the OSError of a full disk, of a missing right and the like with a clear message."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # an error that has been explained already
            raise
        raise OSError(f"{target} cannot be written: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Flush the names of the files in a folder to the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path, prefix: str | None = None) -> None:
    """Remove the temporary files in a folder whose process has ended.

    Args:
        folder: the folder.
        prefix: how their names begin; None removes those of every target.
    """
    for path in folder.glob("*.partial") if fcntl else ():
        match = TEMPORARY_NAME.fullmatch(path.name)
        if match is None or prefix not in (None, match[1]) or path.is_symlink():
            continue
        with suppress(OSError), _locked(path, os.O_NOFOLLOW | os.O_NONBLOCK, fcntl.LOCK_NB):
            path.unlink()


@contextmanager
def _locked(path: Path, flags: int, wait: int = 0) -> Iterator[None]:
    """Hold a lock on a file, which the system releases when the process ends, however it ends.

    With `wait=LOCK_NB`, a lock that another process holds is an OSError.
    """
    descriptor = os.open(path, os.O_RDWR | flags, 0o666)
    if fcntl is None:
        os.close(descriptor)  # Windows renames no open file
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | wait)
        yield
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> None:
    """Raise InputError if `path` exists and is anything else than a file, or a link to one.

    A device would be replaced by a file, and a FIFO or a socket would be waited for.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_describe_mode(mode)}, but must be a file")


def _describe_mode(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((text for fits, text in kinds.items() if fits(mode)), "no file")


def read_text(path: Path) -> str:
    """Return the text of a file; bytes that are no text are replaced.

    Raises:
        InputError: it is a folder, a device, a FIFO or a socket, or cannot be read.
    """
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def check_inside(path: Path, folder: Path) -> None:
    """Raise InputError if `path`, which lies in `folder` by name, is a link that leads out of it.

    A folder of a stranger may contain links; what is written through them would land elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path} is a link that leads out of {folder}, to {path.resolve()}; nothing is written "
            "there: delete the link"
        )
