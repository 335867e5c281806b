"""Full float32 precision, whatever the global settings allow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products and convolutions in float32: without TF32, and without bfloat16."""
    backends: Any = torch.backends  # torch annotates these settings only in part
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    settings = (backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
