"""The one inner loop of the gradient attacks, in training and in evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nuat.attacks.state import AttackState, value_and_grad
from nuat.threat_models import Ball

Objective = Callable[[Tensor, int], Tensor]
Size = float | Callable[[float], float]


def ascend(
    objective: Objective, x_adv: Tensor, x: Tensor, ball: Ball, steps: int = 1, size: Size = 1.0
) -> Tensor:
    """x_adv <- project(x_adv + size(k) * eps * steepest_direction(gradient of the objective)), k = 0, 1, ...

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
        x_adv = _uphill(at.detach(), gradient, size, k, x, ball)
    return x_adv.detach()


def ascent_steps(
    g: nn.Module, b: AttackState, objective: Objective, ball: Ball, steps: int, size: Size
) -> Iterator[Tensor | None]:
    """The same from `b.x_adv`, point by point, for an objective of the logits: `objective(z, k)`.

    Yields the logits of each point before it steps on; None for the last, which it has not seen.
    """
    for k in range(steps):
        z, _, b.gradient = value_and_grad(g, b.x_adv, lambda z, k=k: objective(z, k))  # type: ignore[misc]
        yield z
        b.x_adv = _uphill(b.x_adv, b.gradient, size, k, b.x, ball)
    yield None


def _uphill(x_adv: Tensor, gradient: Tensor, size: Size, k: int, x: Tensor, ball: Ball) -> Tensor:
    length = ball.eps * (size(k) if callable(size) else size)
    return ball.project(x_adv + length * ball.steepest_direction(gradient), x)
