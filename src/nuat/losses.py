"""Losses of logits z [B, K] and labels y [B], and distances between two batches of logits.

`ce`, `kl` and the distances are scalars. `ce_per_image`, the margins and the DLR losses are [B].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nuat.matrix_norms import nuclear_norm

Distance = Callable[[Tensor, Tensor], Tensor]
"""A scalar distance between two logit matrices [B, K]."""


def ce(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, averaged over the batch: -1/B sum_i log softmax(z_i)[y_i].

    >>> nuat.ce(torch.zeros(5, 10), torch.arange(5))
    tensor(2.3026)
    """
    return F.cross_entropy(z, y)


def ce_per_image(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, [B]: -log softmax(z)[y]."""
    return F.cross_entropy(z, y, reduction="none")


def kl(z: Tensor, z_adv: Tensor) -> Tensor:
    """KL(p || p_adv) = sum_ij p_ij (log p_ij - log p_adv_ij), where p = softmax(z).

    >>> z = torch.tensor([[1.0, 2.0, 3.0]])
    >>> nuat.kl(z, z)
    tensor(0.)
    """
    # The gradient in z_adv has the bits of `F.kl_div(..., target=p)`, which the published TRADES
    # uses. That function itself gives NaN gradients in z where a probability underflows to 0, and
    # with log_target=True another rounding, which turns signs of the gradient near x.
    return (z.softmax(1) * (z.log_softmax(1) - z_adv.log_softmax(1))).sum()


def nuclear(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_*, the sum of the singular values of the difference of two logit matrices.

    The device decides the algorithm: see `nuclear_norm`.

    >>> nuat.nuclear(3 * torch.eye(4), torch.zeros(4, 4))
    tensor(12.)
    """
    return nuclear_norm(z_adv - z)


# Recipes name a distance, so the algorithm that differs from the default of a GPU needs a name too.
def nuclear_svd(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_* by a float64 SVD on every device: exact, but a GPU has to wait for it."""
    return nuclear_norm(z_adv - z, "svd")


def frobenius(z_adv: Tensor, z: Tensor) -> Tensor:
    """|z_adv - z|_F, whose gradient is 0 where the two are equal.

    >>> nuat.frobenius(3 * torch.eye(4), torch.zeros(4, 4))
    tensor(6.)
    """
    return torch.linalg.vector_norm(z_adv - z)


def squared_l2(z_adv: Tensor, z: Tensor) -> Tensor:
    """sum_ij (z_adv_ij - z_ij)^2.

    >>> nuat.squared_l2(3 * torch.eye(4), torch.zeros(4, 4))
    tensor(36.)
    """
    return (z_adv - z).square().sum()


def squared_l2_of_softmax(z_adv: Tensor, z: Tensor) -> Tensor:
    """sum_ij (p_adv_ij - p_ij)^2, where p = softmax(z).

    >>> nuat.squared_l2_of_softmax(torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]]))
    tensor(2.)
    """
    return squared_l2(z_adv.softmax(1), z.softmax(1))


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y, [B]: positive where the image is misclassified.

    z may be logits or probabilities.
    """
    label = y[:, None]
    return z.scatter(1, label, -torch.inf).amax(1) - z.gather(1, label)[:, 0]


def targeted_margin(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y, [B]: positive where the target class t is more likely than the true class."""
    return (z.gather(1, target[:, None]) - z.gather(1, y[:, None]))[:, 0]


def dlr_loss(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, [B]: (max_{j != y} z_j - z_y) / (z_(1) - z_(3) + 1e-12).

    z_(k) is the k-th largest logit, so the loss needs 3 classes. It is invariant to scaling and
    shifting of the logits. Source: arXiv:2003.01690, eq. 6.
    """
    top = z.topk(3, dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr_loss(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR loss, [B]: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12).

    It needs 4 classes. Source: arXiv:2003.01690, eq. 7.
    """
    top = z.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12
    return targeted_margin(z, y, target) / spread
