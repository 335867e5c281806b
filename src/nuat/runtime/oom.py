"""Out-of-memory errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

OOM_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",  # torch on a CPU
    "could not create a memory object",  # oneDNN, which gives no reason in these
    "could not create a primitive",
    "could not execute a primitive",
    "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What libraries say in a plain RuntimeError; only the text tells it from other errors."""


@contextmanager
def unify_oom_errors() -> Iterator[None]:
    """Raise torch.OutOfMemoryError for every error that says that memory has run out.

    torch raises it on a GPU only; Python, numpy, oneDNN and torch's CPU allocator have others.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(each in text for each in OOM_TEXTS):
            raise
        raise torch.OutOfMemoryError((text or "out of memory").splitlines()[0]) from error
