"""An attack of your own, run by its name.

nuat evaluate nuat:digits/nuat-wa --import examples/own_attack.py --attack random-corners-20
"""

from dataclasses import dataclass

import torch

from nuat import Attack, register_attack
from nuat.threat_models import Ball


@dataclass(frozen=True)
class RandomCorners(Attack):
    """Of `corners` random corners of the ball, keep the one with the largest cross-entropy."""

    corners: int = 10

    def run(self, model, x, y, noise):
        """Return the adversarial images."""
        best, worst_loss = x, torch.full((len(x),), -torch.inf, device=x.device)
        for k in range(self.corners):
            sign = noise.fold_in("corner", k).sign(x)
            x_adv = self.ball.project(x + self.ball.eps * sign, x)
            loss = torch.nn.functional.cross_entropy(model(x_adv), y, reduction="none")
            is_worse = loss > worst_loss
            best = torch.where(is_worse[:, None, None, None], x_adv, best)
            worst_loss = torch.maximum(loss, worst_loss)
        return best


@register_attack("random-corners")
def random_corners(ball: Ball, steps: int = 10) -> Attack:
    """Random corners of the ball; random-corners-20 tries 20 of them."""
    return RandomCorners(ball, corners=steps)
