"""Guided adversarial training: one attack step, and a loss, guided by a distance of two outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import ascend
from nuat.losses import Distance, ce, squared_l2_of_softmax
from nuat.methods.base import Method, StepContext
from nuat.nn.batchnorm import record_bn_update
from nuat.nn.freeze import frozen_eval
from nuat.schedules import LinearRamp, Schedule, StepDecay
from nuat.threat_models import Ball, Bernoulli, Linf, Start


@dataclass(frozen=True)
class Guided(Method):
    """One step up  CE(f(x'), y) + lam d(f(x'), f(x)) / B,  then down  CE(f(x), y) + the same term.

    The step is a full eps. The attack sees f in eval mode and compares it with the clean logits of
    the train-mode pass that the loss uses as well: 8 forward-equivalents. GAT and NuAT are this,
    with a distance each.

    Attributes:
        ball: the threat model.
        lam: weight of the distance, by epoch.
        start: where the attack starts.
        distance: of two logit matrices [B, K], a scalar.
        constant_divisor: B is the run's batch size also for the short last batch.
        alternate: published: the attack sees the distance in every other batch only, from the
            second of each epoch on.
        replay: published: the clean batch passes twice, so BatchNorm counts it twice; here the
            second pass is only its effect on the statistics.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = LinearRamp(to=4.5, epochs=90)
    start: Start = Bernoulli(1 / 2)
    distance: Distance = squared_l2_of_softmax
    constant_divisor: bool = False
    alternate: bool = True
    replay: bool = True

    @property
    def cycle(self) -> int | None:  # type: ignore[override]
        """Two steps if the attack alternates, else one."""
        return 2 if self.alternate else 1

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        lam = self.weight(x, t)
        in_attack = lam * (t.batch % 2) if self.alternate else lam
        with record_bn_update(f) as clean_pass:
            z = f(x)
        with frozen_eval(f) as g:
            x_adv = self.climb(g, self.start(x, self.ball, t.noise), x, y, in_attack, z.detach())
        clean = ce(z, y)
        t.note(clean_loss=clean)
        yield clean + lam * self.distance(f(x_adv), z)
        if self.replay:
            clean_pass.replay()

    def climb(
        self,
        g: nn.Module,
        x_adv: Tensor,
        x: Tensor,
        y: Tensor,
        lam: float = 0.0,
        z: Tensor | None = None,
    ) -> Tensor:
        """One step of eps up  CE(g(x'), y) + lam d(g(x'), z)."""

        def objective(v: Tensor, k: int) -> Tensor:
            z_adv = g(v)
            return (
                ce(z_adv, y) + lam * self.distance(z_adv, z)
                if lam and z is not None
                else ce(z_adv, y)
            )

        return ascend(objective, x_adv, x, self.ball)

    def weight(self, x: Tensor, t: StepContext) -> float:
        """Lam / B."""
        return self.lam(t.epoch) / self.divisor(x, t)

    def divisor(self, x: Tensor, t: StepContext) -> int:
        """B: the run's batch size if it is to be constant, else the size of this batch."""
        return t.batch_size if self.constant_divisor and t.batch_size else len(x)


@dataclass(frozen=True)
class GAT(Guided):
    """Guided adversarial training: the distance is |softmax f(x') - softmax f(x)|^2.

    One step up  CE(f(x'), y) + lam |p(x') - p(x)|^2 / B,  then down  CE(f(x), y) + the same term.
    lam is 10, and 40 from epoch 86 of 100 on.

    Source: arXiv:2011.14969 and its published code for CIFAR-10. The published MNIST recipe does
    not alternate and starts at a full eps.
    """

    lam: Schedule = StepDecay(10.0, at=(86,), by=4.0)
