"""The images that an attack works on, with what it keeps for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.rng import Noise


class AttackState:
    """Images under attack; attributes are free, and a tensor among them has a row for each image.

    An attack keeps its state here rather than in variables of its own, so that images that are done
    with can leave between two iterates: after a `yield`, `b.x` and the rest may be shorter.

    Attributes:
        x: clean images in [0, 1], [B, C, H, W].
        y: labels [B].
        noise: where randomness comes from.
        x_adv: the point that the attack is at, [B, C, H, W].
        target: for targeted attacks, the class to aim at [B].
    """

    x: Tensor
    y: Tensor
    noise: Noise
    x_adv: Tensor
    target: Tensor

    def __init__(self, x: Tensor, y: Tensor, noise: Noise, **more: Any):
        self.__dict__.update(x=x, y=y, noise=noise, x_adv=x, **more)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this attack has not set b.{name}")

    def __len__(self) -> int:
        return len(self.y)

    def keep(self, places: Tensor) -> None:
        """Go on with the images at these places [M] only."""
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                self.__dict__[name] = value[places]
        self.noise = self.noise.take(places)


def value_and_grad(
    g: nn.Module, x_adv: Tensor, objective: Callable[[Tensor], Tensor], draws: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits z [B, K], objective(z) [B], and its gradient at `x_adv` [B, C, H, W].

    With more `draws` of a randomized network, the gradient is the mean of theirs; logits and
    objective are those of the last.
    """
    at = x_adv.detach().requires_grad_()
    total = torch.zeros_like(x_adv)
    for _ in range(draws):
        with torch.enable_grad():
            z = g(at)
            value = objective(z)
            check_differentiable(value)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        total = gradient if draws == 1 else total + gradient / draws
    return z.detach(), value.detach(), total


def check_differentiable(value: Tensor) -> None:
    """Raise InputError unless a gradient with respect to the images can be taken."""
    if not value.requires_grad:
        raise InputError(
            "no gradient gets through the network to its images: is there a no_grad, a detach or "
            "numpy in it? Of the attacks only square needs none"
        )
