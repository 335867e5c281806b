"""Standard training and adversarial training."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import PGD, Attack
from nuat.losses import ce
from nuat.methods.base import Method, StepContext
from nuat.schedules import Constant


@dataclass(frozen=True)
class Standard(Method):
    """Standard training minimizes  CE(f(x), y)."""

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        yield ce(model(x), y)


@dataclass(frozen=True)
class AT(Method):
    """Adversarial training minimizes  CE(f(x'), y)  at  x' = inner(f, x, y).

    The inner attack decides which method this is:

        FGSM                                                      FGSM-AT    arXiv:1412.6572
        RFGSM                                                     RFGSM-AT   arXiv:1705.07204
        PGD                                                       PGD-AT     arXiv:1706.06083
        PGD, 1 step of 1.25 eps, uniform start, in train mode     FBF        arXiv:2001.03994

    The published PGD-AT and FBF codes attack in train mode and let the passes of the attack update
    the running statistics of BatchNorm. Here only the pass of the loss updates them.

    Attributes:
        inner: the attack, which also decides whether it runs the model in eval or in train mode.
    """

    inner: Attack = PGD(steps=10, rel_step_size=Constant(1 / 4))

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        x_adv = self.attack(model, x, y, ctx)
        yield from self.losses(model, x, x_adv, y, ctx)

    def startup_notes(self, batch_size: int, classes: int) -> list[str]:
        return [*super().startup_notes(batch_size, classes), *self.inner.notes()]

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        """The adversarial images x' [B, C, H, W]."""
        return self.inner(model, x, y, ctx.noise)

    def losses(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, ctx: StepContext
    ) -> Iterator[Tensor]:
        """Yield the loss at given adversarial images."""
        yield ce(model(x_adv), y)
