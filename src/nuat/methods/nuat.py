"""Nuclear norm adversarial training: NuAT, NuAT2 and the hybrid of the two.

Source: "Towards Efficient and Effective Adversarial Training" (NeurIPS 2021) and its published
code. Where the code differs from the formula of the paper, the code is followed: see the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.losses import Distance, ce, nuclear
from nuat.methods.base import Method, StepContext
from nuat.methods.gat import Guided
from nuat.methods.switching import CleanLossDrop, Trigger
from nuat.nn.freeze import frozen_eval
from nuat.schedules import LinearRamp, Schedule


@dataclass(frozen=True)
class NuAT(Guided):
    """One step up  CE(f(x'), y) + lam |f(x') - f(x)|_* / B,  then down  CE(f(x), y) + the same.

    |.|_* is the nuclear norm of a [B, K] matrix. B shrinks it like 1 / sqrt(B), so a lam is meant
    for a batch size; at another B it is multiplied by sqrt(B / lam_batch). The step itself is
    `Guided`'s; its other fields have the values of the published code.

    Attributes:
        lam: weight of the nuclear norm, by epoch; 0 in the first, which is so clean training.
        constant_divisor: published: B is the run's batch size also for the short last batch.
        lam_batch: the batch size that lam is meant for; None: every one.
    """

    lam: Schedule = LinearRamp(to=4.5, epochs=90)
    distance: Distance = nuclear
    constant_divisor: bool = True
    lam_batch: int | None = 64

    def weight(self, x: Tensor, t: StepContext) -> float:
        """Lam / B, at the scale of this batch size."""
        return super().weight(x, t) * self.scale(t.batch_size)

    def scale(self, batch_size: int | None) -> float:
        """sqrt(B / lam_batch): what lam is multiplied by. Ours; the published B is always 64."""
        return (batch_size / self.lam_batch) ** 0.5 if batch_size and self.lam_batch else 1.0

    def remarks(self, batch_size: int) -> list[str]:
        """Says so when lam is scaled."""
        if (scale := self.scale(batch_size)) == 1:
            return []
        return [
            f"lam is meant for batches of {self.lam_batch}; for {batch_size} it is multiplied by "
            f"sqrt({batch_size}/{self.lam_batch}) = {scale:.3g} (lam_batch=None leaves it)"
        ]


@dataclass(frozen=True)
class NuAT2(NuAT):
    """Two steps up: the first  CE + lam |f(x') - f(x)|_* / B,  the second CE; loss as in NuAT.

    Both steps are full eps. The attack compares eval-mode logits with eval-mode clean logits, and
    its B is the true size of the batch; there is nothing to alternate and nothing to replay. 11
    forward-equivalents.

    Attributes:
        teacher: decay of the average of the weights that the first step attacks in place of f, with
            its own clean logits (NuAT2-WA: 0.99); f stands in for it in epoch 0. None: f itself.
    """

    lam: Schedule = LinearRamp(to=4.0, epochs=55)
    alternate: bool = False
    replay: bool = False
    teacher: float | None = None

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        lam = self.weight(x, t)
        in_attack = lam * self.divisor(x, t) / len(x)
        x_adv = self.start(x, self.ball, t.noise)
        with frozen_eval(self.first_attacked(f, t)) as g:
            with torch.no_grad():
                z = g(x)
            x_adv = self.climb(g, x_adv, x, y, in_attack, z)
        with frozen_eval(f) as g:
            x_adv = self.climb(g, x_adv, x, y)
        z_adv, z = f(x_adv), f(x)
        clean = ce(z, y)
        t.note(clean_loss=clean)
        yield clean + lam * self.distance(z_adv, z)

    def first_attacked(self, f: nn.Module, t: StepContext) -> nn.Module:
        """The network that the first step attacks."""
        average = None if self.teacher is None else t.average(self.teacher)
        return f if average is None or t.epoch == 0 else average


@dataclass(frozen=True)
class NuATH(Method):
    """NuAT, and NuAT2 for a while whenever training shows the sign of gradient masking.

    A reconstruction: of NuAT-H it is known that it switches adaptively between single-step and
    two-step attacks, and that a curve of the clean cross-entropy goes with it; no code and no text
    with its trigger was found. The triggers are ours. For NuAT-WA-H the two-step method is
    NuAT2-WA's. The metrics hold the share of two-step batches, `two_step`, and the moments at which
    the trigger fired, `two_step_began`.

    Attributes:
        one: the method of every other moment.
        two: the method after the trigger.
        trigger: when, and for how long.
    """

    one: NuAT = NuAT()
    two: NuAT2 = NuAT2()
    trigger: Trigger = CleanLossDrop()

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss, by the method whose turn it is."""
        if self.two.teacher is not None:
            t.average(self.two.teacher)  # it begins with training, not at the first firing
        two_step = self.trigger.wants_two(f, x, y, t)
        yield from (self.two if two_step else self.one).step(f, x, y, t)
        t.note(two_step=float(two_step))
        self.trigger.observe(t)
