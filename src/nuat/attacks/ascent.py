"""The one inner loop of the gradient attacks, in training and in evaluation alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nuat.threat import Ball

Objective = Callable[[Tensor, int], Tensor]


def ascend(
    objective: Objective,
    x_adv: Tensor,
    x: Tensor,
    ball: Ball,
    steps: int = 1,
    size: float | Callable[[float], float] = 1.0,
) -> Tensor:
    """x_adv <- project(x_adv + size(k) * eps * steepest(gradient of the objective)), k = 0, 1, ...

    One forward and one input-only backward a step, if the objective calls a frozen network once.

    Args:
        objective: `objective(x_adv, k)`, a scalar or one number for each image [B] (summed).
        x_adv: where to start, [B, C, H, W].
        x: the clean images in [0, 1], [B, C, H, W].
        ball: the threat model.
        steps: how many steps.
        size: length of a step in units of eps, or a function of k.

    Returns:
        The last iterate, [B, C, H, W], detached.
    """
    for k in range(steps):
        at = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(at, k).sum(), at)
        length = ball.eps * (size(k) if callable(size) else size)
        x_adv = ball.project(at.detach() + length * ball.steepest(gradient), x)
    return x_adv.detach()
