"""The success criterion of an attack: float32 predictions on points inside the threat model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.losses import margin
from nuat.nn.freeze import forward_padded, frozen_eval
from nuat.threat_models import Ball


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Float32 logits [B, K] of images [B, C, H, W] in eval mode, independent of the batch."""
    with frozen_eval(model) as frozen_model, torch.autocast(x.device.type, enabled=False):
        z: Tensor = forward_padded(frozen_model, x.contiguous())
    return z


def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the network classifies each image correctly in eval mode, [B] bool."""
    return logits(model, x).argmax(1) == y


def is_robust(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball) -> Tensor:
    """Whether the network withstands `x_adv` at each image, [B] bool.

    A point is adversarial only if it is finite, in [0, 1], within eps + 1e-6 of the image, and
    misclassified with finite logits.
    """
    return evaluate_adversarial(model, x, y, x_adv, ball)[0]


def evaluate_adversarial(
    model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball
) -> tuple[Tensor, Tensor]:
    """`is_robust`, [B] bool, and the margin max_{j != y} z_j - z_y at `x_adv`, [B]."""
    z = logits(model, x_adv)
    misclassified = (z.argmax(1) != y) & z.isfinite().all(1)
    return ~(misclassified & ball.contains(x_adv, x)), margin(z, y)


def classes_by_logit(z: Tensor, y: Tensor) -> Tensor:
    """The classes other than y, sorted by decreasing logit z [B, K]: [B, K - 1]."""
    others = z.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : z.shape[1] - 1]
