"""Gradient attacks: FGSM, PGD, targeted and multi-targeted PGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import ascent_steps
from nuat.attacks.base import NOISE, Attack
from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState
from nuat.errors import InputError
from nuat.losses import ce_per_image, targeted_margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Bernoulli, NoStart, Start, Uniform


@dataclass(frozen=True)
class PGD(Attack):
    """x <- project(x + size * eps * steepest_direction(gradient of loss(f(x), y))), `steps` times.

    The last iterate counts. `size` is in units of eps: 1/4 is the usual 2/255 at 8/255. `loss`
    takes logits [B, K] and labels [B] and gives one number an image. With `snapshots` the iterates
    after so many steps of this one trajectory are evaluate_points too, each for itself.

    Source: arXiv:1706.06083, eq. 2.2 and section 3.
    """

    steps: int = 20
    size: Schedule = Constant(1 / 4)
    start: Start = Uniform()
    loss: Callable[[Tensor, Tensor], Tensor] = ce_per_image

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run from one start."""
        b.x_adv = self.start(b.x, self.ball, b.noise)
        return ascent_steps(g, b, lambda z, k: self.loss(z, b.y), self.ball, self.steps, self.size)


@dataclass(frozen=True)
class FGSM(PGD):
    """project(x + eps * steepest_direction(gradient of CE(f(x), y))): one full step from the clean image.

    Source: arXiv:1412.6572, section 4.
    """

    steps: int = 1
    size: Schedule = Constant(1.0)
    start: Start = NoStart()


@dataclass(frozen=True)
class RFGSM(PGD):
    """x' = x + eps/2 sign(N(0, 1)), then x' + eps/2 sign(gradient at x'): a random half step first.

    Source: arXiv:1705.07204; that the two halves are equal is ours, the training recipe is unknown.
    """

    steps: int = 1
    size: Schedule = Constant(1 / 2)
    start: Start = Bernoulli(1 / 2)


@dataclass(frozen=True)
class TargetedPGD(PGD):
    """PGD down the cross-entropy of another class: the image is to be taken for that one.

    As an attack on (x, y), the target is the class at `rank` among the clean logits of the other
    classes: 1 is the runner-up, -1 the least likely. `toward` takes the target classes themselves.
    """

    steps: int = 50
    rank: int = 1

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run toward the class at `rank`."""
        b.target = self.aims(g, b.x, b.y)
        return self._toward(g, b)

    def aims(self, g: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The class at `rank` for each image, [B]. Raises InputError if there are too few."""
        with torch.no_grad():
            z = g(x)
        others = z.shape[1] - 1
        if not (1 <= self.rank <= others or -others <= self.rank <= -1):
            raise InputError(f"rank is {self.rank}, but there are {others} classes to aim at")
        return classes_by_logit(z, y)[:, self.rank - 1 if self.rank > 0 else self.rank]

    def toward(self, f: nn.Module, x: Tensor, target: Tensor, noise: Noise = NOISE) -> Tensor:
        """Images in the ball that f should take for `target` [B]."""
        b = AttackState(x, target, noise, target=target)
        with frozen_eval(f) as g:
            for _ in self._toward(g, b):
                pass
        return b.x_adv.detach()

    def _toward(self, g: nn.Module, b: AttackState) -> Iterator[Tensor | None]:
        b.x_adv = self.start(b.x, self.ball, b.noise)
        nearness = lambda z, k: -self.loss(z, b.target)  # noqa: E731
        return ascent_steps(g, b, nearness, self.ball, self.steps, self.size)


@dataclass(frozen=True)
class MultiTargetedPGD(Attack):
    """PGD up the lead z_t - z_y of one other class t after another, the likeliest first.

    An image that has fallen to one class is spared the others. Any iterate counts.

    Source: arXiv:1910.09338; the step of 1/4 eps and the order of the classes are ours.
    """

    steps: int = 100
    size: Schedule = Constant(1 / 4)
    start: Start = Uniform()
    targets: int = 9
    success_at: SuccessAt = "any"

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run toward `b.target`."""
        b.x_adv = self.start(b.x, self.ball, b.noise)
        lead = lambda z, k: targeted_margin(z, b.y, b.target)  # noqa: E731
        return ascent_steps(g, b, lead, self.ball, self.steps, self.size)
