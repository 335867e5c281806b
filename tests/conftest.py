"""What every test shares: a seed, one thread, and a network that is easy to reason about."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """`linear(classes, shape)`: images [B, *shape] -> W x + b, logits [B, classes]."""

    def build(classes: int = 3, shape: tuple[int, ...] = (1, 2, 2)) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))

    return build
