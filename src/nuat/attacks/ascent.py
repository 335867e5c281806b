"""Projected steepest ascent, the inner loop of PGD and of the training methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nuat.attacks.state import TargetedState, input_gradient, value_and_grad
from nuat.threat_models import Ball, Bernoulli, Start

Objective = Callable[[Tensor, int], Tensor]
StepSize = float | Callable[[float], float]


@dataclass(kw_only=True)
class PGDState(TargetedState):
    """The state of a projected gradient attack.

    Attributes:
        gradient: gradient of the objective at `x_adv`, [B, C, H, W].
    """

    gradient: Tensor = field(init=False)


def ascend(
    objective: Objective,
    x_adv: Tensor,
    x: Tensor,
    ball: Ball,
    steps: int = 1,
    rel_step_size: StepSize = 1.0,
) -> Tensor:
    """Maximize an objective in the ball around x by projected steepest ascent.

        x_adv <- project(x_adv + rel_step_size(k) * eps * steepest_direction(gradient))

    Each step costs one forward and one backward pass (with respect to the input only) if the
    objective calls a model with frozen weights once.

    Args:
        objective: `objective(x_adv, k)` returns a scalar, or one value per image [B], which are
            summed.
        x_adv: the initial point, [B, C, H, W].
        x: clean images in [0, 1], [B, C, H, W].
        ball: the threat model.
        steps: number of steps.
        rel_step_size: step size in units of eps, or a function of the step k = 0, 1, ...

    Returns:
        The last iterate, [B, C, H, W], detached.

    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> nuat.ascend(lambda x_adv, k: x_adv.sum(), x, x, nuat.Linf(0.1))
    tensor([[[[0.6000, 0.6000],
              [0.6000, 0.6000]]]])
    """
    for k in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            gradient = input_gradient(objective(x_adv, k).sum(), x_adv)
        x_adv = ascent_step(x_adv.detach(), gradient, rel_step_size, k, x, ball)
    return x_adv.detach()


def check_reach(ball: Ball, reach: float, start: Start) -> list[str]:
    """A note if an attack that moves by `reach`, in units of eps, cannot cross the ball.

    A Bernoulli start within the ball leaves the rest of the way to the steps, as in R+FGSM.
    """
    if isinstance(start, Bernoulli) and start.fraction < 1:
        reach += start.fraction
    if reach > 1 - 1e-6 or ball.eps == 0:
        return []
    return [
        f"all steps together move by {reach:.3g} eps, so the attack cannot reach the surface of "
        f"{ball}: rel_step_size is in units of eps, such as 1/4; take more or larger steps"
    ]


def ascent_steps(
    model: nn.Module,
    state: PGDState,
    objective: Objective,
    ball: Ball,
    steps: int,
    rel_step_size: StepSize,
    step_size: float | None = None,
) -> Iterator[PGDState]:
    """Run the same loop from `state.x_adv` and yield each iterate, for `objective(z, k)` of logits.

    A `step_size` in pixel units replaces the relative one.

    Each iterate is yielded with its logits before the next step is taken. The last iterate has
    none, because its logits are not needed for any gradient.
    """
    for k in range(steps):
        state.z, _, state.gradient = value_and_grad(
            model,
            state.x_adv,
            lambda z, k=k: objective(z, k),  # type: ignore[misc]  # mypy cannot infer the default
        )
        yield state
        state.x_adv = ascent_step(
            state.x_adv, state.gradient, rel_step_size, k, state.x, ball, step_size
        )
    state.z = None
    yield state


def ascent_step(
    x_adv: Tensor,
    gradient: Tensor,
    rel_step_size: StepSize,
    k: int,
    x: Tensor,
    ball: Ball,
    step_size: float | None = None,
) -> Tensor:
    """project(x_adv + rel_step_size(k) * eps * steepest_direction(gradient)).

    A `step_size` in pixel units replaces rel_step_size(k) * eps.
    """
    if step_size is None:
        step_size = ball.eps * (rel_step_size(k) if callable(rel_step_size) else rel_step_size)
    return ball.project(x_adv + step_size * ball.steepest_direction(gradient), x)
