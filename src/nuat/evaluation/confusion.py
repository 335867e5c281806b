"""Which classes are mistaken for which, and how evenly the mistakes spread."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count the images of class i that are predicted as class j: [K, K] from labels [B]."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, -1)


def error_entropy(matrix: Tensor) -> float:
    """Return the entropy, in bits, of the wrongly predicted classes of a confusion matrix [K, K].

    -sum_j q_j log2 q_j, where q_j is the fraction of class j in the entries off the diagonal:
    log2(K) if the mistakes spread evenly over the classes, 0 if all predict the same class. Not
    from the paper.
    """
    wrong = (matrix - torch.diag(matrix.diagonal())).sum(0).double()
    q = wrong[wrong > 0] / wrong.sum()
    return float(-(q * q.log2()).sum())
