"""MART, which weights the divergence of TRADES by how unsure the clean prediction is."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import ascend, check_reach
from nuat.losses import ce
from nuat.methods.base import Method, StepContext
from nuat.nn.freeze import frozen_eval
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Gaussian, Linf, Start


@dataclass(frozen=True)
class MART(Method):
    """MART minimizes  BCE(f(x'), y) + beta mean_i (1 - p_y(x_i)) KL(p(x_i) || p(x_i')).

        BCE(z', y) = CE(z', y) - mean_i log(1 - max_{j != y} p_j(x_i'))

    x' comes from PGD on the cross-entropy with the model in eval mode: by default ten steps of
    0.007 in a ball of radius 0.031 from x + 0.001 N(0, 1). A training step costs 26 forward passes.

    Attributes:
        ball: the threat model.
        beta: weight of the divergence, by epoch; 5 in the paper.
        steps: number of steps of the attack.
        rel_step_size: step size of the attack in units of eps.
        start: initial point of the attack.

    Source: "Improving adversarial robustness requires revisiting misclassified examples", ICLR
    2020, eq. 9 to 11; the constants 1.0001, 1.0000001 and 1e-12 are those of its published code.
    """

    ball: Ball = Linf(0.031)
    beta: Schedule = Constant(5.0)
    steps: int = 10
    rel_step_size: float = 0.007 / 0.031
    start: Start = Gaussian(0.001, clamp=False)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def startup_notes(self, batch_size: int, classes: int) -> list[str]:
        reach = check_reach(self.ball, self.steps * self.rel_step_size, self.start)
        return [*super().startup_notes(batch_size, classes), *reach]

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        x_adv = self.attack(model, x, y, ctx)
        z, z_adv = model(x), model(x_adv)
        beta = ctx.scalar(lambda ctx: self.beta(ctx.epoch))
        yield boosted_ce(z_adv, y) + beta * weighted_kl(z, z_adv, y)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        """The adversarial images x' [B, C, H, W]."""
        with frozen_eval(model) as frozen_model:
            attack_loss = lambda x_adv, k: ce(frozen_model(x_adv), y)  # noqa: E731
            start = self.start(x, self.ball, ctx.noise)
            return ascend(attack_loss, start, x, self.ball, self.steps, self.rel_step_size)


def boosted_ce(z_adv: Tensor, y: Tensor) -> Tensor:
    """CE(z', y) - mean_i log(1.0001 - max_{j != y} p_j' + 1e-12), of logits [B, K]."""
    others = z_adv.softmax(1).scatter(1, y[:, None], 0.0)
    return ce(z_adv, y) - (1.0001 - others.amax(1) + 1e-12).log().mean()


def weighted_kl(z: Tensor, z_adv: Tensor, y: Tensor) -> Tensor:
    """mean_i (1.0000001 - p_y) KL(p || p' + 1e-12), of logits [B, K]."""
    p = z.softmax(1)
    divergence = (p * (z.log_softmax(1) - (z_adv.softmax(1) + 1e-12).log())).sum(1)
    return (divergence * (1.0000001 - p.gather(1, y[:, None])[:, 0])).mean()
