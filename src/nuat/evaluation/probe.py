"""The logits of a few images, which tell whether two models with equal weights are the same.

Equal weights do not make equal models: a factory may be edited, and plain attributes and
non-persistent buffers are not among the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nuat.nn.freeze import forward_padded, frozen_eval
from nuat.rng import seeded

TOLERANCE = 1e-3
"""Allowed difference, relative to the largest value: more than rounding on another device."""


def probe_model(
    model: nn.Module, batches: Sequence[Tensor], train_mode: bool = False
) -> list[float | None]:
    """Return a number for each image of the batches: the projection of its logits on a direction.

    Random numbers of torch, numpy and Python are seeded, so that a randomized model can be probed
    too. A number is None where it is not finite, or differs in a second call.

    Args:
        model: the model.
        batches: images [B, C, H, W] in [0, 1].
        train_mode: also probe the first batch in train mode, for attacks on that mode.
    """
    first, second = (_project(model, batches, train_mode) for _ in range(2))
    close = (first - second).abs() <= TOLERANCE * first.abs().amax()
    reproducible = close & first.isfinite()
    return [
        float(f"{value:.6g}") if is_valid else None
        for value, is_valid in zip(first.tolist(), reproducible.tolist(), strict=True)
    ]


def probes_differ(values: list[float | None], stored: object) -> bool:
    """Return whether two results of `probe_model`, one read from a file, are of other models."""
    if not isinstance(stored, list) or len(values) != len(stored):
        return True
    if not all(value is None or isinstance(value, float | int) for value in stored):
        return True
    scale = max((abs(value) for value in stored if value is not None), default=0.0)
    return any(
        (a is None) != (b is None)
        or (a is not None and b is not None and abs(a - b) > TOLERANCE * scale)
        for a, b in zip(values, stored, strict=True)
    )


@torch.no_grad()
def _project(model: nn.Module, batches: Sequence[Tensor], train_mode: bool) -> Tensor:
    device = batches[0].device
    with seeded(0, device), torch.autocast(device.type, enabled=False):
        with frozen_eval(model) as frozen_model:
            logits = [forward_padded(frozen_model, x) for x in batches]
        if train_mode:
            with frozen_eval(model, training=True) as frozen_model:
                logits.append(frozen_model(batches[0]))
    z = torch.cat(logits).double().cpu()
    return z @ torch.arange(1, z.shape[1] + 1, dtype=z.dtype).cos()
