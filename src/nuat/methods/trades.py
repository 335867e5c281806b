"""TRADES, which trades clean accuracy for robust accuracy by a KL divergence."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks import ascend, check_reach
from nuat.losses import ce, kl
from nuat.methods.base import Method, StepContext
from nuat.nn.batchnorm import record_bn_update
from nuat.nn.freeze import frozen_eval
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Gaussian, Linf, Start


@dataclass(frozen=True)
class TRADES(Method):
    """TRADES minimizes  CE(f(x), y) + beta KL(p(x) || p(x')) / B,  where x' maximizes the KL.

    The attack runs the model in eval mode. By default it takes ten steps of 0.007 in a ball of
    radius 0.031 from x + 0.001 N(0, 1), which is not clamped to [0, 1]. The attack computes the
    clean logits once, so a training step costs 27 forward passes.

    Attributes:
        ball: the threat model.
        beta: weight of the divergence, by epoch.
        steps: number of steps of the attack.
        rel_step_size: step size of the attack in units of eps.
        start: initial point of the attack.
        double_bn_update: apply the clean batch's BatchNorm update a second time, after backward.
            The published code gets this effect from a second clean forward pass.
        clean_first: run the clean pass before the adversarial pass, as the published TRADES code
            does; the published TRADES-AWP code runs it after. The order matters to BatchNorm alone.

    Source: arXiv:1901.08573, eq. 5, and its published code.
    """

    ball: Ball = Linf(0.031)
    beta: Schedule = Constant(6.0)
    steps: int = 10
    rel_step_size: float = 0.007 / 0.031
    start: Start = Gaussian(0.001, clamp=False)
    double_bn_update: bool = True
    clean_first: bool = True

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        x_adv = self.attack(model, x, y, ctx)
        yield from self.losses(model, x, x_adv, y, ctx)

    def startup_notes(self, batch_size: int, classes: int) -> list[str]:
        reach = check_reach(self.ball, self.steps * self.rel_step_size, self.start)
        return [*super().startup_notes(batch_size, classes), *reach]

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        """The adversarial images x' [B, C, H, W]."""
        with frozen_eval(model) as frozen_model:
            with torch.no_grad():
                z = frozen_model(x)
            start = self.start(x, self.ball, ctx.noise)
            attack_loss = lambda x_adv, k: kl(z, frozen_model(x_adv))  # noqa: E731
            return ascend(attack_loss, start, x, self.ball, self.steps, self.rel_step_size)

    def losses(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, ctx: StepContext
    ) -> Iterator[Tensor]:
        """Yield the loss at given adversarial images."""
        z_adv = None if self.clean_first else model(x_adv)
        with record_bn_update(model) as clean_pass:
            z = model(x)
        z_adv = model(x_adv) if z_adv is None else z_adv
        beta = ctx.scalar(lambda ctx: self.beta(ctx.epoch))
        yield ce(z, y) + beta * kl(z, z_adv) / len(x)
        if self.double_bn_update:
            clean_pass.apply_again()
