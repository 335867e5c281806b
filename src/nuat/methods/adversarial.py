"""Ordinary training, and training on the images an attack finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import PGD, Attack
from nuat.losses import ce
from nuat.methods.base import Method, Moment
from nuat.schedules import Constant


@dataclass(frozen=True)
class Standard(Method):
    """CE(f(x), y): ordinary training."""

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: Moment) -> Iterator[Tensor]:
        """One loss."""
        yield ce(f(x), y)


@dataclass(frozen=True)
class AT(Method):
    """CE(f(x'), y)  at  x' = inner(f, x, y): adversarial training.

    With FGSM inside it is FGSM-AT (arXiv:1412.6572), with PGD inside PGD-AT (arXiv:1706.06083).
    The attack sees the network in eval mode; the published PGD-AT code attacks in train mode.
    """

    inner: Attack = PGD(steps=10, size=Constant(1 / 4))

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: Moment) -> Iterator[Tensor]:
        """One loss."""
        x_adv = self.inner(f, x, y, t.noise)
        yield ce(f(x_adv), y)
