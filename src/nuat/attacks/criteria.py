"""Which images stand: the network's verdict, in float32, on points that are within the rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.losses import margin
from nuat.nn.freeze import forward_padded, frozen_eval
from nuat.threat_models import Ball


@torch.no_grad()
def logits(f: nn.Module, x: Tensor) -> Tensor:
    """What f says of images [B, C, H, W] in eval mode, [B, K]: float32, the same in any batch."""
    with frozen_eval(f) as g, torch.autocast(x.device.type, enabled=False):
        z: Tensor = forward_padded(g, x.contiguous())
    return z


def correct(f: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether f, in eval mode, gives each image its label, [B] bool."""
    return logits(f, x).argmax(1) == y


def is_robust(f: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball) -> Tensor:
    """Whether each image withstands `x_adv`, [B] bool.

    An image falls only to a point that is finite, in [0, 1], within eps + 1e-6 of it, and
    misclassified by finite logits.
    """
    return evaluate_points(f, x, y, x_adv, ball)[0]


def evaluate_points(
    f: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball
) -> tuple[Tensor, Tensor]:
    """Whether each image withstands `x_adv`, [B] bool, and the lead of another class there, [B]."""
    z = logits(f, x_adv)
    fooled = (z.argmax(1) != y) & z.isfinite().all(1)
    return ~(fooled & ball.contains(x_adv, x)), margin(z, y)


def classes_by_logit(z: Tensor, y: Tensor) -> Tensor:
    """The other classes of each image, likeliest first, by its logits z [B, K]: [B, K - 1]."""
    others = z.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : z.shape[1] - 1]
