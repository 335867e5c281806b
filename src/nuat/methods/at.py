"""Ordinary training, and training on the images an attack finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks import FGSM, PGD, RFGSM, Attack
from nuat.losses import ce, squared_l2
from nuat.methods.base import Method, StepContext
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class Standard(Method):
    """CE(f(x), y): ordinary training."""

    cycle: ClassVar[int | None] = 1

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        yield ce(f(x), y)


@dataclass(frozen=True)
class AT(Method):
    """CE(f(x'), y)  at  x' = inner(f, x, y): adversarial training.

    With FGSM inside it is FGSM-AT (arXiv:1412.6572), with RFGSM inside RFGSM-AT (arXiv:1705.07204),
    with PGD inside PGD-AT (arXiv:1706.06083), and with one step of 1.25 eps from a uniform start
    and an attack in train mode it is FBF (arXiv:2001.03994).

    Attributes:
        inner: the attack; it says whether it sees f in eval or in train mode. The published PGD-AT
            codes attack in train mode, and let BatchNorm count those passes and some that only log;
            ours counts the pass of the loss alone.
    """

    inner: Attack = PGD(steps=10, size=Constant(1 / 4))
    cycle: ClassVar[int | None] = 1

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        yield from self.descent(f, x, self.attack(f, x, y, t), y, t)

    def attack(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Tensor:
        """The images x' [B, C, H, W]."""
        return self.inner(f, x, y, t.noise)

    def descent(
        self, f: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, t: StepContext
    ) -> Iterator[Tensor]:
        """The loss at given x'."""
        yield ce(f(x_adv), y)


@dataclass(frozen=True)
class Free(Method):
    """CE(f(x + d), y), `replays` times in a row, d climbing on the gradient each pass leaves: ATF.

    One backward pass gives both gradients, the weights' and the image's. d belongs to the place in
    the batch, not to the image: it is zero once, at the start of training, and carried from replay
    to replay and from batch to batch. It stays in the ball; x + d is clamped to [0, 1] in the pass.
    A recipe's epochs are passes over the data: the published epochs divided by `replays`.

    Attributes:
        ball: the threat model.
        replays: m, how often each batch is used.
        size: length of a step of d in units of eps.

    Source: arXiv:1904.12843, algorithm 1, and its published code.
    """

    ball: Ball = Linf(8 / 255)
    replays: int = 8
    size: float = 1.0

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss for each replay."""
        carried = t.memory.setdefault("delta", torch.zeros_like(x))
        if len(carried) < len(x):
            carried = t.memory["delta"] = torch.cat([carried, torch.zeros_like(x[len(carried) :])])
        for _ in range(self.replays):
            delta = carried[: len(x)].clone().requires_grad_()
            yield ce(f((x + delta).clamp(0, 1)), y)
            assert delta.grad is not None, "the loss was not descended"
            uphill = self.size * self.ball.eps * self.ball.steepest_direction(delta.grad)
            carried[: len(x)] = self.ball.shrink(delta.detach() + uphill)


@dataclass(frozen=True)
class RMGM(Method):
    """(CE(f(x), y) + CE(f(x'), y)) / 2 + lam |f(x') - f(x'')|^2 / B,  x' by FGSM, x'' by R-FGSM.

    A reconstruction: the abstract of R-MGM says that the loss is cross-entropy on a batch with
    adversarial images and the distance of the logits of the FGSM and the R-FGSM image; no code was
    found. The halves, the squared distance and lam are ours. 13 forward-equivalents.

    Source: "Regularizers for single-step adversarial training" (arXiv:2002.00614), abstract.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = Constant(0.1)
    cycle: ClassVar[int | None] = 1

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        near, far = FGSM(self.ball), RFGSM(self.ball)
        x_near, x_far = near(f, x, y, t.noise), far(f, x, y, t.noise)
        z, z_near, z_far = f(x), f(x_near), f(x_far)
        apart = squared_l2(z_near, z_far) / len(x)
        yield (ce(z, y) + ce(z_near, y)) / 2 + self.lam(t.epoch) * apart
