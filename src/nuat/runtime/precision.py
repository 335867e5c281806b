"""The precision of float32 computations, whatever the global settings allow."""

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


@contextmanager
def convolution_precision(tf32: bool) -> Iterator[None]:
    """Compute float32 convolutions in TF32 on a GPU that has it, or everything in full precision.

    TF32 rounds the inputs of a product to 10 bits of mantissa. It is torch's default for
    convolutions, not for matrix products. A CPU computes float32 in full precision either way.
    """
    if not tf32:
        with full_precision():
            yield
        return
    cudnn: Any = torch.backends.cudnn
    settings = (cudnn.conv, cudnn.rnn)  # torch's older interface wants the two equal
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "tf32"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def has_tf32(device: torch.device) -> bool:
    """Whether the device computes TF32: an NVIDIA GPU of compute capability 8.0 or more."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
