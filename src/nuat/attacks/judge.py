"""Which images stand: the network's verdict, in float32, on points that are within the rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.network import frozen
from nuat.threat import Ball


@torch.no_grad()
def correct(f: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether f, in eval mode, gives each image its label, [B] bool."""
    with frozen(f) as g, torch.autocast(x.device.type, enabled=False):
        predicted: Tensor = g(x).argmax(1)
    return predicted == y


def stands(f: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball) -> Tensor:
    """Whether each image withstands `x_adv`, [B] bool.

    An image falls only to a point that is finite, in [0, 1], within eps + 1e-6 of it, and
    misclassified.
    """
    return correct(f, x_adv, y) | ~ball.contains(x_adv, x)
