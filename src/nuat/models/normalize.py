"""Normalization as the first layer of a network, so that images stay in [0, 1] outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel."""

STATISTICS: dict[str, Statistics] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What `normalize=NAME` stands for: of the training images, as customary in the field."""


class Normalise(nn.Module):
    """(x - mean) / std, channel by channel; both are buffers and travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] in [0, 1] -> the same, of about mean 0 and variance 1."""
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A network behind its normalization: images in [0, 1] [B, C, H, W] to logits [B, K]."""

    def __init__(self, network: nn.Module, statistics: Statistics):
        super().__init__()
        self.normalize = Normalise(*statistics)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        logits: Tensor = self.network(self.normalize(x))
        return logits


def check_statistics(given: Any, channels: int) -> Statistics:
    """The mean and std that `normalize=` was given, if they are for so many channels.

    Raises InputError for anything else.
    """
    if not (isinstance(given, tuple) and len(given) == 2 and all(map(_numbers, given))):
        raise InputError(
            f"normalize is {given!r}, but takes {', '.join(STATISTICS)}, None, or "
            "((mean, ...), (std, ...)) with a number for each channel"
        )
    mean, std = given
    if not len(mean) == len(std) == channels:
        raise InputError(
            f"normalize has {len(mean)} means and {len(std)} deviations, but the images have "
            f"{channels} channel{'' if channels == 1 else 's'}"
        )
    if min(std) <= 0:
        raise InputError(f"the standard deviations of normalize are {std}, but must be above 0")
    return mean, std


def _numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
