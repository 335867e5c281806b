"""Projected gradient attacks: FGSM, PGD, targeted and multi-targeted PGD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import PGDState, ascent_steps, check_reach
from nuat.attacks.base import TORCH_NOISE, Attack
from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.limits import MAX_STEP_SIZE, MAX_TARGETS
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState
from nuat.errors import InputError
from nuat.losses import ce_per_image, targeted_margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Bernoulli, Linf, NoStart, Start, Uniform


def both_step_sizes() -> InputError:
    """The error for two step sizes at once."""
    return InputError(
        "step_size and rel_step_size are both given; give only one: step_size=2/255 is in pixel "
        "units, rel_step_size=1/4 is in units of eps"
    )


def format_step(size: float) -> str:
    """A step size in pixel units as text, rounded to 4 digits: `2/255`."""
    in_255ths = f"{size * 255:.4g}"
    return f"{in_255ths}/255" if len(in_255ths) < len(f"{size:.4g}") else f"{size:.4g}"


@dataclass(frozen=True)
class ProjectedGradientAttack(Attack):
    """An attack that takes ascent steps on an objective from `start`; see `ascend`.

    Attributes:
        steps: number of steps.
        rel_step_size: step size in units of eps, or a schedule over the steps.
        start: the initial point in the ball.
        step_size: step size in pixel units, such as 2/255, in place of `rel_step_size`.
    """

    steps: int = 20
    rel_step_size: Schedule = Constant(1 / 4)
    start: Start = Uniform()
    step_size: float | None = None

    limits = (("rel_step_size", 0, MAX_STEP_SIZE),)

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.step_size
        if size is None:
            return
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
            raise InputError(f"step_size is {size!r}, but must be a number above 0, such as 2/255")
        if isinstance(self.ball, Linf) and size > 1:
            raise InputError(
                f"step_size is {size:g}, but pixels lie in [0, 1]; did you mean {size:g}/255?"
            )
        if self.rel_step_size != type(self).rel_step_size:
            raise both_step_sizes()

    def rel_step_at(self, k: float) -> float:
        """The size of step k in units of eps."""
        if self.step_size is None:
            return self.rel_step_size(k)
        return self.step_size / self.ball.eps if self.ball.eps else math.inf

    def describe(self) -> str:
        first = self.step_size or self.rel_step_size(0) * self.ball.eps
        shrinking = (
            "" if self.step_size or isinstance(self.rel_step_size, Constant) else " at first"
        )
        return (
            f"{self.steps} step{'s' if self.steps > 1 else ''} of {format_step(first)}{shrinking}, "
            f"start={self.start}, {self.iterate_that_counts()}"
        )

    def notes(self) -> list[str]:
        reach = sum(self.rel_step_at(k) for k in range(self.steps))
        return check_reach(self.ball, reach, self.start)

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        state = self.initial_state(model, x, y, target, noise)
        objective = lambda z, k: self.objective(z, state, k)  # noqa: E731
        return ascent_steps(
            model, state, objective, self.ball, self.steps, self.rel_step_size, self.step_size
        )

    def initial_state(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise
    ) -> PGDState:
        """The state at the initial point."""
        return PGDState(x=x, y=y, target=target, noise=noise, x_adv=self.start(x, self.ball, noise))

    def objective(self, z: Tensor, state: Any, k: int) -> Tensor:
        """What step k maximizes, for logits z [B, K]: one value per image [B], or a scalar."""
        raise NotImplementedError


@dataclass(frozen=True)
class PGD(ProjectedGradientAttack):
    """Projected gradient descent on the threat model (gradient ascent on the loss).

        x_0     = start(x)
        x_{k+1} = project(x_k + s_k * eps * steepest_direction(grad loss(f(x_k), y)))

    The steepest direction is the sign of the gradient in Linf and the normalized gradient in L2.

    Source: arXiv:1706.06083, eq. 2.2 and section 3. The step size of eps / 4 (2/255 at eps 8/255)
    is the usual one in the literature; judging the last iterate follows the published code.

    Attributes:
        steps: number of steps.
        rel_step_size: s_k, the step size in units of eps, or a schedule over k.
        start: the initial point in the ball.
        step_size: the step size s_k * eps in pixel units, such as 2/255, in place of
            `rel_step_size`.
        loss: a function of logits [B, K] and labels [B] that returns one value per image [B].
        snapshots: step numbers whose iterates are evaluated too, each as a separate result: one
            trajectory gives PGD-7, PGD-20, ... at once.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = ce_per_image

    def objective(self, z: Tensor, state: PGDState, k: int) -> Tensor:
        return self.loss(z, state.y)


@dataclass(frozen=True)
class FGSM(PGD):
    """Fast gradient sign method: one step of length eps from the clean image.

        x_adv = project(x + eps * steepest_direction(grad CE(f(x), y)))

    Source: arXiv:1412.6572, section 4.
    """

    steps: int = 1
    rel_step_size: Schedule = Constant(1.0)
    start: Start = NoStart()


@dataclass(frozen=True)
class RFGSM(PGD):
    """FGSM after a random step: R+FGSM.

        x'    = clamp(x + eps/2 * sign(N(0, 1)), 0, 1)
        x_adv = project(x' + eps/2 * sign(grad CE(f(x'), y)))

    Source: arXiv:1705.07204. The equal split of eps between the two steps is not from the paper.
    """

    steps: int = 1
    rel_step_size: Schedule = Constant(1 / 2)
    start: Start = Bernoulli(1 / 2)


@dataclass(frozen=True)
class TargetedPGD(PGD):
    """PGD that minimizes the loss of a target class t.

        x_{k+1} = project(x_k - s_k * eps * steepest_direction(grad loss(f(x_k), t)))

    As an attack on (x, y), t is the class at position `target_rank` of the other classes, sorted by
    the clean logits. `run_targeted` takes the target classes themselves. As in AutoAttack, the
    attack succeeds if the image is misclassified as any class.

    Source: arXiv:1607.02533, section 2.3 (one target class, there the least likely); the choice of
    the target by `target_rank` is not from the paper.

    Attributes:
        target_rank: 1 is the most likely other class, 2 the next, ..., -1 the least likely.
    """

    steps: int = 50
    target_rank: int = 1

    limits = (("target_rank", -MAX_TARGETS, MAX_TARGETS),)

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        target = self.target_classes(model, x, y)
        return super().iterates(model, x, y, target, noise, restart)

    def objective(self, z: Tensor, state: PGDState, k: int) -> Tensor:
        return -self.loss(z, state.target)

    def target_classes(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The class at `target_rank` for each image, [B].

        Raises:
            InputError: the model has fewer classes than `target_rank` needs.
        """
        with torch.no_grad():
            z = model(x)
        others = z.shape[1] - 1
        rank = self.target_rank
        if not (1 <= rank <= others or -others <= rank <= -1):
            raise InputError(
                f"target_rank is {rank}, but must be from 1 to {others}, or from -1 to -{others}: "
                f"the model has {others} other classes"
            )
        return classes_by_logit(z, y)[:, rank - 1 if rank > 0 else rank]

    def run_targeted(
        self, model: nn.Module, x: Tensor, target: Tensor, noise: Noise = TORCH_NOISE
    ) -> Tensor:
        """Perturb images x in [0, 1], [B, C, H, W], so that the model predicts `target` [B]."""
        x_adv = x
        with frozen_eval(model) as frozen_model:
            for state in super().iterates(frozen_model, x, target, target, noise, 0):
                x_adv = state.x_adv
        return x_adv.detach()


@dataclass(frozen=True)
class MultiTargetedPGD(ProjectedGradientAttack):
    """PGD on the difference of logits z_t - z_y, for one target class t after another.

    The targets are the `targets` most likely other classes by the clean logits. The attack on an
    image stops once an iterate is misclassified, as any class.

    Source: arXiv:1910.09338. The step size of eps / 4 and the order of the targets are not from
    the paper.

    Attributes:
        steps: number of steps for each target.
        rel_step_size: step size in units of eps, or a schedule over the steps.
        start: the initial point in the ball.
        targets: number of target classes; with K classes at most K - 1 are used.
    """

    steps: int = 100
    targets: int = 9
    success_at: SuccessAt = "any"

    limits = (("targets", 1, MAX_TARGETS),)

    def objective(self, z: Tensor, state: PGDState, k: int) -> Tensor:
        return targeted_margin(z, state.y, state.target)
