"""Attacks without labels: push the logits of a whole batch away from where they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import ascent_steps
from nuat.attacks.base import Attack
from nuat.attacks.state import AttackState
from nuat.losses import Distance, frobenius, nuclear
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Bernoulli, Start


@dataclass(frozen=True)
class NuclearAttack(Attack):
    """Ascend |f(x') - f(x)|_*, the nuclear norm of the change of a batch of logits.

    The nuclear norm grows when the rows change in different directions, so errors spread over more
    classes than under the Frobenius norm. Images are attacked jointly: what becomes of one depends
    on the others in its batch, so batches are made in the order of the data, of `batch` images,
    however the evaluation is run.

    Source: the talk with "Towards Efficient and Effective Adversarial Training" (NeurIPS 2021)
    shows its confusion matrices; steps, start and size of the batch are not given there: ours.
    """

    steps: int = 20
    size: Schedule = Constant(1 / 4)
    start: Start = Bernoulli(1 / 2)
    distance: Distance = nuclear
    batch: int = 64

    joint = True

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run from one start."""
        b.x_adv = self.start(b.x, self.ball, b.noise)
        with torch.no_grad():
            b.clean = g(b.x)
        away = lambda z, k: self.distance(z, b.clean)  # noqa: E731
        return ascent_steps(g, b, away, self.ball, self.steps, self.size)


@dataclass(frozen=True)
class FrobeniusAttack(NuclearAttack):
    """Ascend |f(x') - f(x)|_F; the rest as the nuclear one, for comparison with it."""

    distance: Distance = frobenius
