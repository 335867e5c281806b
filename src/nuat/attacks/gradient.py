"""Gradient attacks: FGSM, PGD, targeted PGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import ascend
from nuat.attacks.base import NOISE, Attack
from nuat.errors import InputError
from nuat.losses import ce_each
from nuat.network import frozen
from nuat.noise import Noise
from nuat.schedules import Constant, Schedule
from nuat.threat import Bernoulli, Clean, Start, Uniform


@dataclass(frozen=True)
class PGD(Attack):
    """x <- project(x + size * eps * steepest(gradient of loss(f(x), y))), `steps` times.

    The last iterate counts. `size` is in units of eps: 1/4 is the usual 2/255 at 8/255. `loss`
    takes logits [B, K] and labels [B] and gives one number an image.

    Source: arXiv:1706.06083, eq. 2.2 and section 3.
    """

    steps: int = 20
    size: Schedule = Constant(1 / 4)
    start: Start = Uniform()
    loss: Callable[[Tensor, Tensor], Tensor] = ce_each

    def run(self, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One run from one start."""
        start = self.start(x, self.ball, noise)
        return ascend(lambda v, k: self.loss(g(v), y), start, x, self.ball, self.steps, self.size)


@dataclass(frozen=True)
class FGSM(PGD):
    """project(x + eps * steepest(gradient of CE(f(x), y))): one full step from the clean image.

    Source: arXiv:1412.6572, section 4.
    """

    steps: int = 1
    size: Schedule = Constant(1.0)
    start: Start = Clean()


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

    def run(self, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One run toward the class at `rank`."""
        return self._toward(g, x, self.targets(g, x, y), noise)

    def targets(self, g: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The class at `rank` for each image, [B]. Raises InputError if there are too few."""
        with torch.no_grad():
            z = g(x)
        others = z.shape[1] - 1
        if not (1 <= self.rank <= others or -others <= self.rank <= -1):
            raise InputError(f"rank is {self.rank}, but there are {others} classes to aim at")
        order = z.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :others]
        return order[:, self.rank - 1 if self.rank > 0 else self.rank]

    def toward(self, f: nn.Module, x: Tensor, target: Tensor, noise: Noise = NOISE) -> Tensor:
        """Images in the ball that f should take for `target` [B]."""
        with frozen(f) as g:
            return self._toward(g, x, target, noise)

    def _toward(self, g: nn.Module, x: Tensor, target: Tensor, noise: Noise) -> Tensor:
        start = self.start(x, self.ball, noise)

        def nearness(v: Tensor, k: int) -> Tensor:
            return -self.loss(g(v), target)

        return ascend(nearness, start, x, self.ball, self.steps, self.size)
