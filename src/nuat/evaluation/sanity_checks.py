"""Is the robustness real? What a network does that would make an evaluation misleading."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.losses import margin
from nuat.nn.freeze import MIN_BATCH, forward_padded, frozen_eval, unwrap_model


def check_model(f: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """What is odd about a network, each thing in a sentence; empty for an ordinary one.

    Looks at a few images: a network left in train mode; logits that differ between two calls;
    outputs that seem to be probabilities; logits that depend on the other images of a batch; input
    gradients that are exactly zero, or not finite.

    Args:
        f: the network.
        x: images in [0, 1], [B, C, H, W]; a few dozen are enough.
        y: labels [B].
    """
    found = []
    if any(module.training for module in unwrap_model(f).modules()):
        found.append(
            "the network was given in train mode; it is attacked and evaluate_points in eval mode"
        )
    with frozen_eval(f) as g, torch.no_grad():
        z, again = forward_padded(g, x), forward_padded(g, x)
        if randomized := bool(_differ(z, again).any()):
            found.append(
                "the network is randomized: its logits differ between two calls on the same "
                "images. A verdict of one call is not reliable; use autoattack-rand"
            )
        if bool((z >= 0).all()) and torch.allclose(z.sum(1), torch.ones_like(z[:, 0]), atol=1e-5):
            found.append(
                "the outputs are non-negative and sum to 1, as of a softmax: attacks want logits, "
                "and robustness is overstated"
            )
        if not randomized and (far := _neighbours(g, x, z)):
            found.append(
                f"the logits of {far} of {len(x)} images depend on the others in their batch: a "
                "verdict then depends on how images are batched"
            )
    with frozen_eval(f) as g:
        at = x.detach().requires_grad_()
        lead = margin(forward_padded(g, at), y)
        if not lead.requires_grad:
            return [*found, "no gradient gets through the network to its images"]
        (gradient,) = torch.autograd.grad(lead.sum(), at)
    steepest_direction = gradient.flatten(1).abs().amax(1)
    for words, blind in (
        ("exactly zero", steepest_direction == 0),
        ("NaN or infinite", ~steepest_direction.isfinite()),
    ):
        if count := int(blind.sum()):
            found.append(
                f"the input gradient of {count} of {len(x)} images is {words}: gradients are "
                "masked, and attacks that follow them are blind there"
            )
    return found


def _differ(z: Tensor, other: Tensor) -> Tensor:
    """Whether two logits of an image differ by more than rounding does, [B]."""
    size = torch.linalg.vector_norm(z, dim=1).clamp_min(1e-12)
    return torch.linalg.vector_norm(z - other, dim=1) > 1e-4 * size


def _neighbours(g: nn.Module, x: Tensor, z: Tensor) -> int:
    """How many images get other logits in other company."""
    some = x[: max(1, min(len(x) // 2, MIN_BATCH))]
    company = torch.cat([some, (1 - some).clamp(0, 1)])
    return int(_differ(forward_padded(g, company)[: len(some)], z[: len(some)]).sum())


SQUARE_MARGIN = 0.002
"""Share of images by which Square may be ahead of the gradient attacks before it is said."""


def check_outcome(images: int, fallen: dict[str, int], to_restarts: int) -> list[str]:
    """What the outcome of an attack gives away about a network.

    Args:
        images: how many were attacked.
        fallen: how many fell to each part of the attack.
        to_restarts: how many fell to a second or later run from another start.
    """
    found = []
    black_box = sum(count for part, count in fallen.items() if part.startswith("square"))
    if len(fallen) > 1 and black_box > SQUARE_MARGIN * images:
        found.append(
            f"{black_box} of {images} images fell to Square, which needs no gradient, after "
            "withstanding the attacks with gradients: it can be a sign of masked gradients"
        )
    if to_restarts:
        found.append(
            f"{to_restarts} of {images} images fell only to restarts: more of them may still fall"
        )
    return found


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many images of class i are taken for class j, [K, K]; rows are the true classes."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, -1)


def diversity(matrix: Tensor) -> float:
    """Over how many classes errors spread: the entropy, in bits, of the classes wrongly given.

    -sum_j q_j log2 q_j, q the share of class j among the entries [K, K] off the diagonal: log2(K)
    if errors spread evenly, 0 if all go to one class. Ours.
    """
    wrong = (matrix - torch.diag(matrix.diagonal())).sum(0).double()
    q = wrong[wrong > 0] / wrong.sum()
    return float(-(q * q.log2()).sum())
