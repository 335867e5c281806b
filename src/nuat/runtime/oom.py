"""Memory that does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU_REFUSAL = "DefaultCPUAllocator: can't allocate memory"


@contextmanager
def unify_oom_errors() -> Iterator[None]:
    """Raise torch.OutOfMemoryError on a CPU too, where torch raises a mere RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if CPU_REFUSAL not in str(error):
            raise
        raise torch.OutOfMemoryError(str(error).splitlines()[0]) from error
