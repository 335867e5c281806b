"""APGD: projected gradient ascent with momentum and adaptive step sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks.base import Attack
from nuat.attacks.limits import MAX_SAMPLES, MAX_TARGETS, Limits
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState, TargetedState, value_and_grad
from nuat.losses import ce_per_image, dlr_loss, targeted_dlr_loss
from nuat.rng import Noise
from nuat.threat_models import Ball, Linf


@dataclass(kw_only=True)
class APGDState(TargetedState):
    """The state of APGD: iterates [B, C, H, W], and one loss, step size and counter per image [B].

    Attributes:
        loss, gradient: of the objective at `x_adv`.
        x_prev, loss_prev: the iterate before, and the loss that the next one is compared with.
        x_best, loss_best, gradient_best: the iterate with the largest loss so far.
        loss_best_at_checkpoint: `loss_best` at the last checkpoint.
        num_increases: steps since the last checkpoint at which the loss increased.
        step_size: in pixel units.
        step_reduced: whether the last checkpoint halved the step size.
    """

    loss: Tensor
    gradient: Tensor
    x_prev: Tensor
    loss_prev: Tensor
    x_best: Tensor
    loss_best: Tensor
    gradient_best: Tensor
    loss_best_at_checkpoint: Tensor
    num_increases: Tensor
    step_size: Tensor
    step_reduced: Tensor


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD: gradient ascent with momentum that halves its step size where progress stops.

        u       = P(x_k + s_k * direction(grad loss(x_k)))
        x_{k+1} = P(x_k + a (u - x_k) + (1 - a)(x_k - x_{k-1})),   a = 0.75, and a = 1 at k = 0

    P projects onto the ball and [0, 1]; s_0 = 2 eps. The direction is the sign of the gradient in
    Linf, and gradient / (|gradient| + 1e-12) in L2. At a checkpoint, an image halves s and goes
    back to its best iterate if the loss increased in at most `rho` of the steps since the last
    checkpoint, or if the last checkpoint did not halve s and the best loss has not changed since.
    With 100 steps, checkpoints are after steps 22, 41, 57, 70, 80, 87, 93, 99. The attack
    succeeds if any iterate is adversarial, including the random initial point on the surface of
    the ball.

    Source: arXiv:2003.01690, Algorithm 1, and its published code. Where the two differ, the fields
    marked "published" follow the code, because tables in the literature are made with it.

    Attributes:
        steps: number of steps.
        loss: a function of logits [B, K] and labels [B] that returns one value per image [B].
        rho: the fraction of increasing steps up to which progress counts as too slow.
        eot_samples: forward passes of a randomized model that each gradient is averaged over.
        first_window: published: the first step counts as an increase if its loss is above 0,
            rather than above the loss at the initial point.
        reduced_at_start: published: the step size is treated as just halved before the first
            checkpoint, so that an unchanged best loss has no effect there.
        stored_gradient: published: a restart from the best iterate uses the gradient stored with
            it; otherwise the gradient is computed again, which differs for randomized models.
    """

    steps: int = 100
    loss: Callable[[Tensor, Tensor], Tensor] = ce_per_image
    rho: float = 0.75
    eot_samples: int = 1
    success_at: SuccessAt = "any"
    first_window: bool = True
    reduced_at_start: bool = True
    stored_gradient: bool = True

    limits: ClassVar[Limits] = (
        ("rho", 0, 1),
        ("eot_samples", 1, MAX_SAMPLES),
    )

    capturable = True

    def objective(self, z: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """The loss that is maximized, one value per image [B]."""
        return self.loss(z, y)

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        state = self._initial_state(model, x, y, target, noise)
        yield state
        windows = checkpoints(self.steps)
        for k in range(self.steps):
            if k == 0:
                self.next_iterate(model, state, 1.0)
            else:
                state.advance("iterate", partial(self.next_iterate, model, state, 0.75))
            yield state
            if k + 1 in windows:
                self.adapt_step_size(model, state, windows[k + 1])

    def next_iterate(self, model: nn.Module, state: APGDState, a: float) -> None:
        """Take a step, evaluate the network there, and keep the best iterate."""
        self.step(state, a)
        self.evaluate(model, state)
        self.update_best(state)

    def _initial_state(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise
    ) -> APGDState:
        x_adv = random_boundary_point(x, self.ball, noise)
        z, loss, gradient = value_and_grad(
            model, x_adv, lambda z: self.objective(z, y, target), self.eot_samples
        )
        zeros = torch.zeros_like(loss)
        return APGDState(
            x=x,
            y=y,
            target=target,
            noise=noise,
            x_adv=x_adv,
            z=z,
            loss=loss,
            gradient=gradient,
            x_prev=x_adv,
            loss_prev=zeros if self.first_window else loss,
            x_best=x_adv,
            loss_best=loss,
            gradient_best=gradient,
            loss_best_at_checkpoint=loss,
            num_increases=zeros,
            step_size=torch.full_like(loss, 2 * self.ball.eps),
            step_reduced=torch.full_like(loss, self.reduced_at_start, dtype=torch.bool),
        )

    def evaluate(self, model: nn.Module, state: APGDState) -> None:
        """Compute logits, loss and gradient at the iterate."""
        state.z, state.loss, state.gradient = value_and_grad(
            model,
            state.x_adv,
            lambda z: self.objective(z, state.y, state.target),
            self.eot_samples,
        )

    def step(self, state: APGDState, a: float) -> None:
        """Take one step; `a` weighs the gradient step, 1 - a the momentum."""
        project, step_size = self.ball.project, state.step_size[:, None, None, None]
        u = project(state.x_adv + step_size * ascent_direction(state.gradient, self.ball), state.x)
        momentum = (1 - a) * (state.x_adv - state.x_prev)
        state.x_prev, state.x_adv = (
            state.x_adv,
            project(state.x_adv + a * (u - state.x_adv) + momentum, state.x),
        )

    def update_best(self, state: APGDState) -> None:
        """Count an increase of the loss; store the best iterate with its loss and gradient."""
        state.num_increases = state.num_increases + (state.loss > state.loss_prev)
        state.loss_prev = state.loss
        better = state.loss > state.loss_best
        mask = better[:, None, None, None]
        state.x_best = torch.where(mask, state.x_adv, state.x_best)
        state.gradient_best = torch.where(mask, state.gradient, state.gradient_best)
        state.loss_best = torch.where(better, state.loss, state.loss_best)

    def adapt_step_size(self, model: nn.Module, state: APGDState, window: int) -> None:
        """At a checkpoint, `window` steps after the last: halve the step size if required."""
        too_few_increases = state.num_increases <= self.rho * window
        no_progress = ~state.step_reduced & (state.loss_best <= state.loss_best_at_checkpoint)
        state.step_reduced = too_few_increases | no_progress
        state.loss_best_at_checkpoint = state.loss_best
        state.num_increases = torch.zeros_like(state.num_increases)
        state.step_size = torch.where(state.step_reduced, state.step_size / 2, state.step_size)
        # the published code moves x_adv back but not x_prev, so the next momentum term jumps
        mask = state.step_reduced[:, None, None, None]
        state.x_adv = torch.where(mask, state.x_best, state.x_adv)
        state.gradient = torch.where(mask, state.gradient_best, state.gradient)
        if not self.stored_gradient:
            self.evaluate(model, state)


@dataclass(frozen=True)
class APGDDLR(APGD):
    """APGD on the difference of logits ratio (DLR) loss. Needs 3 classes.

    Source: arXiv:2003.01690, eq. 6.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = dlr_loss

    min_classes = 3


@dataclass(frozen=True)
class APGDT(APGD):
    """Targeted APGD: maximizes the targeted DLR loss for one target class after another.

    The targets are the most likely other classes by the clean logits. The attack on an image stops
    once it is misclassified, as any class. Needs 4 classes.

    Source: arXiv:2003.01690, eq. 7, and its published code.

    Attributes:
        targets: number of target classes; with K classes at most K - 1 are used.
    """

    targets: int = 9

    limits = (("targets", 1, MAX_TARGETS),)
    min_classes = 4

    def objective(self, z: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return targeted_dlr_loss(z, y, target)


def ascent_direction(gradient: Tensor, ball: Ball) -> Tensor:
    """sign(gradient) in Linf; gradient / (|gradient| + 1e-12) in L2, as published.

    Where the loss is constant, such as the DLR loss while the true class has the third largest
    logit, the gradient is rounding noise, and the 1e-12 keeps APGD from a full step along it.
    """
    direction = ball.steepest_direction(gradient)
    if isinstance(ball, Linf):
        return direction
    norm = ball.distance(gradient, torch.zeros_like(gradient)).reshape(-1, 1, 1, 1)
    return direction * (norm / (norm + 1e-12)).to(direction.dtype)


def random_boundary_point(x: Tensor, ball: Ball, noise: Noise, fraction: float = 1.0) -> Tensor:
    """A random point at distance fraction * eps from x, clamped to [0, 1].

    The direction is U(-1, 1) divided by its largest entry in Linf, and N(0, 1) normalized in L2.
    """
    if isinstance(ball, Linf):
        direction = 2 * noise.uniform(x) - 1
        direction = direction / direction.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    else:
        direction = ball.steepest_direction(noise.normal(x))
    return (x + fraction * ball.eps * direction).clamp(0, 1)


def checkpoints(steps: int) -> dict[int, int]:
    """The step numbers after which there is a checkpoint, with the steps since the one before.

    The first window is 22% of the steps; each next one is 3% shorter, down to 6%. With 100
    steps they are after 22, 41, 57, 70, 80, 87, 93, 99.
    """
    window, min_window = (max(int(fraction * steps), 1) for fraction in (0.22, 0.06))
    decrease = max(int(0.03 * steps), 1)
    windows, step = {}, window
    while step <= steps:
        windows[step] = window
        window = max(window - decrease, min_window)
        step += window
    return windows
