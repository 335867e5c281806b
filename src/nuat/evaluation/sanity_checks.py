"""Signs that a robust accuracy is misleading: gradient masking, randomness, softmax outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nuat.losses import margin
from nuat.nn.freeze import MIN_BATCH, forward_padded, frozen_eval, unwrap_model
from nuat.nn.validation import looks_like_probabilities


def check_model(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """Return a note on each property of a model that makes an evaluation misleading.

    These are: train mode; logits that differ between two calls; outputs that look like
    probabilities; logits that depend on the other images of the batch; input gradients that are
    zero or not finite.

    Args:
        model: the model.
        x: images in [0, 1], [B, C, H, W]; a few dozen suffice.
        y: labels [B].
    """
    notes = []
    if any(module.training for module in unwrap_model(model).modules()):
        notes.append("the model is in train mode; it is attacked and evaluated in eval mode")
    with frozen_eval(model) as frozen_model:
        return notes + _check_logits(frozen_model, x) + _check_gradients(frozen_model, x, y)


@torch.no_grad()
def _check_logits(model: nn.Module, x: Tensor) -> list[str]:
    notes = []
    z, z_again = forward_padded(model, x), forward_padded(model, x)
    randomized = bool(logits_differ(z, z_again).any())
    if randomized:
        notes.append(
            "the model is randomized: its logits differ between two calls on the same images, so a "
            "verdict from one call is not reliable; use autoattack-rand"
        )
    if looks_like_probabilities(z):
        notes.append(
            "the outputs are non-negative and sum to 1, like those of a softmax: attacks need "
            "logits, and robust accuracy is overstated"
        )
    if not randomized and (count := count_batch_dependent(model, x, z)):
        notes.append(
            f"the logits of {count} of {len(x)} images depend on the other images of the batch, so "
            "the verdicts depend on how images are batched"
        )
    return notes


def _check_gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    gradient = unchanged_gradient(model, x, y, margin)
    if isinstance(gradient, str):
        return [f"no gradient reaches the images: {gradient}"]
    largest = gradient.flatten(1).abs().amax(1)
    problems = {"exactly zero": largest == 0, "NaN or infinite": ~largest.isfinite()}
    return [
        f"the input gradient of {int(images.sum())} of {len(x)} images is {problem}: gradients are "
        "masked, and gradient-based attacks fail on these images"
        for problem, images in problems.items()
        if images.any()
    ]


def unchanged_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | str:
    """Return the gradient of a loss [B] at the images [B, C, H, W], NaN and infinities included.

    If no gradient reaches the images, return the reason.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(forward_padded(model, x), y).sum()
        try:
            (gradient,) = torch.autograd.grad(value, x)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return str(error).strip().splitlines()[0]
    return gradient


def logits_differ(z: Tensor, z_other: Tensor) -> Tensor:
    """Return whether two logits [B, K] of an image differ by more than rounding, [B]."""
    norm = torch.linalg.vector_norm(z, dim=1).clamp_min(1e-12)
    differ: Tensor = torch.linalg.vector_norm(z - z_other, dim=1) > 1e-4 * norm
    return differ


def count_batch_dependent(model: nn.Module, x: Tensor, z: Tensor) -> int:
    """Count the images whose logits change when the rest of their batch does."""
    x = x[: max(1, min(len(x) // 2, MIN_BATCH))]
    batch = torch.cat([x, (1 - x).clamp(0, 1)])
    return int(logits_differ(forward_padded(model, batch)[: len(x)], z[: len(x)]).sum())


SQUARE_THRESHOLD = 0.002
"""Fraction of images on which Square alone must succeed to be noted."""


def check_outcome(num_images: int, successes: dict[str, int], by_restarts: int) -> list[str]:
    """Return signs of gradient masking or of a weak attack in the outcome of an attack.

    Args:
        num_images: the number of images attacked.
        successes: the number of images on which each part of the attack succeeds first.
        by_restarts: the number of images on which only a second or later restart succeeds.
    """
    notes = []
    by_square = sum(count for part, count in successes.items() if part.startswith("square"))
    if len(successes) > 1 and by_square > SQUARE_THRESHOLD * num_images:
        notes.append(
            f"Square, which needs no gradients, succeeds on {by_square} of {num_images} images "
            "on which the gradient-based attacks fail: this can be a sign of masked gradients"
        )
    if by_restarts:
        notes.append(
            f"only restarts succeed on {by_restarts} of {num_images} images: more restarts may "
            "succeed on more images"
        )
    return notes
