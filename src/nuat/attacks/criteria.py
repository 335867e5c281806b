"""The success criterion of an attack: float32 predictions on points inside the threat model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.losses import margin
from nuat.nn.freeze import forward_padded, frozen_eval
from nuat.threat_models import Ball


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [B, K] of images [B, C, H, W] in eval mode, independent of the batch.

    They have the dtype of the images, float32 in an evaluation, whatever the network returns.
    """
    with frozen_eval(model) as frozen_model, torch.autocast(x.device.type, enabled=False):
        z: Tensor = forward_padded(frozen_model, x.contiguous())
    return z.to(x.dtype)


def is_correct(z: Tensor, y: Tensor) -> Tensor:
    """Whether logits z [B, K] have their maximum at the label, [B] bool.

    Logits with NaN are never correct, nor are those whose margin is inf - inf: `argmax` alone would
    return the first NaN, and so classify such images of class 0 correctly.
    """
    return (z.argmax(1) == y) & ~margin(z, y).isnan()


def predict(z: Tensor) -> Tensor:
    """The class with the largest logit z [B, K], or -1 where `is_correct` holds for no class."""
    classes = z.argmax(1)
    return torch.where(is_correct(z, classes), classes, -1)


def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the network classifies each image correctly in eval mode, [B] bool."""
    return is_correct(logits(model, x), y)


def is_robust(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball) -> Tensor:
    """Whether the network withstands `x_adv` at each image, [B] bool.

    A point is adversarial if it is finite, in [0, 1], within eps + 1e-6 of the image, and not
    classified correctly. A network does not withstand a point at which its logits are NaN.
    """
    return evaluate_adversarial(model, x, y, x_adv, ball)[0]


def evaluate_adversarial(
    model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball
) -> tuple[Tensor, Tensor]:
    """`is_robust`, [B] bool, and the margin max_{j != y} z_j - z_y at `x_adv`, [B]."""
    z = logits(model, x_adv)
    return is_correct(z, y) | ~ball.contains(x_adv, x), margin(z, y)


def classes_by_logit(z: Tensor, y: Tensor) -> Tensor:
    """The classes other than y, sorted by decreasing logit z [B, K]: [B, K - 1]."""
    others = z.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : z.shape[1] - 1]
