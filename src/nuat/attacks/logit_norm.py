"""Attacks without labels that maximize a matrix norm of the change of a batch of logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import PGDState
from nuat.attacks.limits import MAX_BATCH
from nuat.attacks.pgd import ProjectedGradientAttack
from nuat.losses import Distance, frobenius, nuclear
from nuat.rng import Noise
from nuat.threat_models import Bernoulli, Start


@dataclass(kw_only=True)
class LogitNormState(PGDState):
    """The state of an attack on the change of logits.

    Attributes:
        z_clean: logits of the clean images, [B, K].
    """

    z_clean: Tensor


@dataclass(frozen=True)
class NuclearAttack(ProjectedGradientAttack):
    """PGD on the nuclear norm |f(x') - f(x)|_* of the change of a batch of logits [B, K].

    The nuclear norm grows when the rows change in different directions, so errors spread over more
    classes than with the Frobenius norm. The result for an image depends on the other images of
    its batch; evaluations therefore always use batches of `batch` images in the order of the data.

    Source: the talk on "Towards Efficient and Effective Adversarial Training" (NeurIPS 2021), which
    shows confusion matrices of such an attack. Steps, step size, initial point and batch
    size are not from the talk.

    Attributes:
        steps: number of steps.
        rel_step_size: step size in units of eps, or a schedule over the steps.
        start: the initial point in the ball.
        distance: the norm of the change, a function of two batches of logits [B, K].
        batch: number of images in a batch.
    """

    start: Start = Bernoulli(1 / 2)
    distance: Distance = nuclear
    batch: int = 64

    limits = (("batch", 1, MAX_BATCH),)
    batchwise = True

    def initial_state(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise
    ) -> LogitNormState:
        x_adv = self.start(x, self.ball, noise)
        with torch.no_grad():
            z_clean = model(x)
        return LogitNormState(x=x, y=y, target=target, noise=noise, x_adv=x_adv, z_clean=z_clean)

    def objective(self, z: Tensor, state: LogitNormState, k: int) -> Tensor:
        return self.distance(z, state.z_clean)


@dataclass(frozen=True)
class FrobeniusAttack(NuclearAttack):
    """PGD on the Frobenius norm |f(x') - f(x)|_F, for comparison with the nuclear norm.

    Not from the paper.
    """

    distance: Distance = frobenius
