"""Out-of-memory errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU_OOM_TEXT = "DefaultCPUAllocator: can't allocate memory"
"""torch's CPU allocator raises a plain RuntimeError; only this text tells it from other errors."""


@contextmanager
def unify_oom_errors() -> Iterator[None]:
    """Raise torch.OutOfMemoryError on a CPU too, so that callers need to handle one type only."""
    try:
        yield
    except RuntimeError as error:
        if CPU_OOM_TEXT not in str(error):
            raise
        raise torch.OutOfMemoryError(str(error).splitlines()[0]) from error
