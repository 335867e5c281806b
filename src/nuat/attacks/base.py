"""What an attack is: a frozen value, called with a network, images and labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.network import frozen
from nuat.noise import Noise
from nuat.schedules import numbers_become_schedules
from nuat.threat import Ball, Linf, check_ball

NOISE = Noise()


@dataclass(frozen=True)
class Attack:
    """`attack(f, x, y) -> x_adv`: images in the ball that f should misclassify.

    An attack holds its settings and no model. The network is attacked bare, in eval mode, and given
    back exactly as it was. To write one, derive a frozen dataclass and define `run`.

    Attributes:
        ball: the threat model.
        restarts: how many runs; each image keeps the first point that is misclassified.
        train_mode: attack the network in train mode; BatchNorm's running statistics stay.
    """

    ball: Ball = Linf(8 / 255)
    restarts: int = 1
    train_mode: bool = False

    def __post_init__(self) -> None:
        numbers_become_schedules(self)
        check_ball(self.ball)
        for name in ("steps", "restarts"):
            count = getattr(self, name, 1)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"{name} is {count!r}, but must be a whole number from 1 up")
        if not callable(loss := getattr(self, "loss", len)):
            raise InputError(f"loss is {loss!r}, but must be a function of logits and labels")

    def run(self, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One run against a frozen network: x_adv [B, C, H, W]."""
        raise NotImplementedError

    def __call__(self, f: nn.Module, x: Tensor, y: Tensor, noise: Noise = NOISE) -> Tensor:
        """Attack images `x` in [0, 1], [B, C, H, W], with labels `y` [B].

        With restarts, each image keeps the first point that is misclassified, or else the last.
        """
        with frozen(f, self.train_mode) as g:
            x_adv = self.run(g, x, y, noise.fork("restart", 0))
            for restart in range(1, self.restarts):
                with torch.no_grad():
                    standing = g(x_adv).argmax(1) == y
                if not standing.any():
                    break
                again = self.run(g, x, y, noise.fork("restart", restart))
                x_adv = torch.where(standing[:, None, None, None], again, x_adv)
        return x_adv
