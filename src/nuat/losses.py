"""LossMeter on logits `z [B, K]` and labels `y [B]`, and distances between two batches of logits.

A name that ends in `_each` gives one number for each image [B]; the others give a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nuat.matrix_norms import nuclear_norm

Distance = Callable[[Tensor, Tensor], Tensor]


def ce(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, mean over the batch: -1/B sum_i log softmax(z_i)[y_i]."""
    return F.cross_entropy(z, y)


def ce_per_image(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, [B]: -log softmax(z)[y]."""
    return F.cross_entropy(z, y, reduction="none")


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y, [B]: above 0 where the image is misclassified.

    Works on logits and on probabilities alike.
    """
    truth = y[:, None]
    return z.scatter(1, truth, -torch.inf).amax(1) - z.gather(1, truth)[:, 0]


def nuclear(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_*, the sum of the singular values of the difference of two logit matrices.

    By the algorithm for the device (see `nuclear_norm`); the next two name one.
    """
    return nuclear_norm(z_adv - z)


def nuclear_svd(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_* by a decomposition in float64: exact, and a GPU waits for it."""
    return nuclear_norm(z_adv - z, "svd")


def nuclear_polar(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_* by products of matrices in float32: to 5e-4, and a GPU does not wait."""
    return nuclear_norm(z_adv - z, "polar")


def frobenius(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_F, with gradient 0 where the two are equal."""
    return torch.linalg.vector_norm(z_adv - z)


def squared_l2(z_adv: Tensor, z: Tensor) -> Tensor:
    """sum_ij (z_adv_ij - z_ij)^2."""
    return (z_adv - z).square().sum()


def squared_l2_of_softmax(z_adv: Tensor, z: Tensor) -> Tensor:
    """sum_ij (p_adv_ij - p_ij)^2,  p = softmax(z)."""
    return squared_l2(z_adv.softmax(1), z.softmax(1))


def kl(z: Tensor, z_adv: Tensor) -> Tensor:
    """KL(p || p_adv) = sum_ij p_ij (log p_ij - log p_adv_ij),  p = softmax(z)."""
    return F.kl_div(z_adv.log_softmax(1), z.log_softmax(1), reduction="sum", log_target=True)


def dlr_loss(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, [B]: (max_{j != y} z_j - z_y) / (z_(1) - z_(3) + 1e-12).

    z_(k) is the k-th largest logit; needs 3 classes. Unchanged when logits are scaled or shifted.
    Source: arXiv:2003.01690, eq. 6.
    """
    top = z.topk(3, dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr_loss(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The ratio toward a class, [B]: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12).

    Needs 4 classes. Source: arXiv:2003.01690, eq. 7.
    """
    top = z.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12
    return targeted_margin(z, y, target) / spread


def targeted_margin(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """How far the target class is ahead of the true one, [B]: z_t - z_y."""
    return (z.gather(1, target[:, None]) - z.gather(1, y[:, None]))[:, 0]
