"""Gradients, whatever context nuat is called in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Record gradients, also inside the caller's `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
