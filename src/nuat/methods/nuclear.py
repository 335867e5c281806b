"""Nuclear norm adversarial training: NuAT and NuAT2.

Source: "Towards Efficient and Effective Adversarial Training" (NeurIPS 2021) and its published
code. Where the code differs from the formula of the paper, the code is followed: see the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import ascend
from nuat.losses import Distance, ce, nuclear
from nuat.methods.base import Method, Moment
from nuat.network import frozen, recorded
from nuat.schedules import Ramp, Schedule
from nuat.threat import Ball, Bernoulli, Linf, Start


@dataclass(frozen=True)
class _Nuclear(Method):
    """What the methods share: the threat, the nuclear term and the step up.

    Attributes:
        ball: the threat model.
        lam: weight of the nuclear norm, by epoch; 0 in the first, which is therefore clean training.
        start: where the attack starts.
        distance: what stands for the nuclear norm of the difference of two logit matrices [B, K].
        constant_divisor: published: B is the run's batch size also for the short last batch.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = Ramp(to=4.5, epochs=90)
    start: Start = Bernoulli(1 / 2)
    distance: Distance = nuclear
    constant_divisor: bool = True

    def _climb(
        self, g: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, lam: float = 0.0, z: Any = None
    ) -> Tensor:
        """One step of eps up  CE(g(x'), y) + lam |g(x') - z|_*."""

        def objective(v: Tensor, k: int) -> Tensor:
            z_adv = g(v)
            return ce(z_adv, y) + lam * self.distance(z_adv, z) if lam else ce(z_adv, y)

        return ascend(objective, x_adv, x, self.ball)

    def _divisor(self, x: Tensor, t: Moment) -> int:
        return t.batch_size if self.constant_divisor and t.batch_size else len(x)


@dataclass(frozen=True)
class NuAT(_Nuclear):
    """One step up  CE(f(x'), y) + lam |f(x') - f(x)|_* / B,  then down  CE(f(x), y) + the same term.

    The step is a full eps from a Bernoulli start. The attack sees f in eval mode and compares it
    with the clean logits of the train-mode pass that the loss uses as well: 8 forward-equivalents.

    Attributes:
        alternate: published: the attack sees the nuclear term in every other batch only, from the
            second of each epoch on.
        replay: published: the clean batch passes twice, so BatchNorm counts it twice; here the
            second pass is only its effect on the statistics.
    """

    alternate: bool = True
    replay: bool = True

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: Moment) -> Iterator[Tensor]:
        """One loss."""
        lam = self.lam(t.epoch) / self._divisor(x, t)
        in_attack = lam * (t.batch % 2) if self.alternate else lam
        with recorded(f) as clean_pass:
            z = f(x)
        with frozen(f) as g:
            x_adv = self._climb(g, self.start(x, self.ball, t.noise), x, y, in_attack, z.detach())
        yield ce(z, y) + lam * self.distance(f(x_adv), z)
        if self.replay:
            clean_pass.replay()


@dataclass(frozen=True)
class NuAT2(_Nuclear):
    """Two steps up, the first on  CE + lam |f(x') - f(x)|_* / B,  the second on CE; loss as in NuAT.

    Both steps are full eps. The attack compares eval-mode logits with eval-mode clean logits, and
    its B is the true size of the batch. 11 forward-equivalents.

    Attributes:
        teacher: decay of the average of the weights that the first step attacks in place of f, with
            its own clean logits (NuAT2-WA: 0.99); f stands in for it in epoch 0. None: f itself.
    """

    lam: Schedule = Ramp(to=4.0, epochs=55)
    teacher: float | None = None

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: Moment) -> Iterator[Tensor]:
        """One loss."""
        lam = self.lam(t.epoch)
        x_adv = self.start(x, self.ball, t.noise)
        with frozen(self._first_attacked(f, t)) as g:
            with torch.no_grad():
                z = g(x)
            x_adv = self._climb(g, x_adv, x, y, lam / len(x), z)
        with frozen(f) as g:
            x_adv = self._climb(g, x_adv, x, y)
        z_adv, z = f(x_adv), f(x)
        yield ce(z, y) + lam / self._divisor(x, t) * self.distance(z_adv, z)

    def _first_attacked(self, f: nn.Module, t: Moment) -> nn.Module:
        average = None if self.teacher is None else t.average(self.teacher)
        return f if average is None or t.epoch == 0 else average
