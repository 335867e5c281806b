"""A folder is written by one process at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nuat.errors import InputError
from nuat.runtime.files import check_regular, explain_write_errors, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows has no fcntl: folders are not locked there
    fcntl = None  # type: ignore[assignment]  # a module, or nothing


@contextmanager
def lock_folder(folder: Path, name: str = "lock") -> Iterator[None]:
    """Hold the lock file `name` in a folder; it disappears on exit.

    Temporary files that a killed process has left in the folder are removed.

    The operating system releases the lock when the process ends, however it ends, so that a killed
    run can be resumed at once.

    Raises:
        InputError: another process holds the lock; the message names its host and number.
    """
    if fcntl is None:
        yield
        return
    path = folder / name
    check_regular(path)
    with explain_write_errors(path):
        descriptor = _acquire(path)
    remove_leftovers(folder)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise InputError(
                f"{path.parent} is in use by {owner!r}: wait until it ends, or choose another --out"
            ) from None
        # The former owner may have removed the file between our opening and our locking it.
        if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
        os.close(descriptor)
