"""Random points of the ball, without any search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import Attack, AttackState
from nuat.attacks.runner import SuccessAt
from nuat.rng import Noise


@dataclass(frozen=True)
class RandomNoise(Attack):
    """Random points on the surface of the ball: clamp(x + eps * steepest_direction(g), 0, 1).

    g ~ N(0, 1), so the points are random corners of the ball in Linf, and uniform on the sphere in
    L2. The attack succeeds if any of the points is misclassified. This is ours.

    Attributes:
        steps: number of points.
    """

    steps: int = 100
    success_at: SuccessAt = "any"

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        state = AttackState(x=x, y=y, noise=noise, x_adv=x)
        for _ in range(self.steps):
            direction = self.ball.steepest_direction(state.noise.normal(state.x))
            state.x_adv = self.ball.project(state.x + self.ball.eps * direction, state.x)
            state.z = None
            yield state
