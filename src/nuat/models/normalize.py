"""Normalization as the first layer of a model, so that images and eps stay in units of [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, for images in [0, 1]."""

STATISTICS: dict[str, Statistics] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""The statistics of the training images that `normalize=NAME` stands for."""


class ChannelNormalization(nn.Module):
    """(x - mean) / std per channel; both are buffers and so are part of the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A model with a normalization before it: images [B, C, H, W] in [0, 1] to logits [B, K].

    Its state dict has the prefixes `normalize.` and `network.`.
    """

    def __init__(self, network: nn.Module, statistics: Statistics):
        super().__init__()
        self.normalize = ChannelNormalization(*statistics)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(x))
        return logits


def check_statistics(value: Any, channels: int) -> Statistics:
    """Return the value of the setting `normalize`. Raises InputError if it is not valid."""
    if not (isinstance(value, tuple) and len(value) == 2 and all(map(_is_numbers, value))):
        raise InputError(
            f"normalize is {value!r}, but must be {', '.join(STATISTICS)}, None, or "
            "((mean, ...), (std, ...)) with one number per channel"
        )
    mean, std = value
    if not len(mean) == len(std) == channels:
        raise InputError(
            f"normalize has {len(mean)} means and {len(std)} standard deviations, but the images "
            f"have {channels} channel{'' if channels == 1 else 's'}"
        )
    if min(std) <= 0:
        raise InputError(f"the standard deviations of normalize are {std}, but must be above 0")
    return mean, std


def _is_numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
