"""The nuclear norm of a matrix, |D|_* = sum of its singular values, and a subgradient of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nuat.errors import NonFinite


def nuclear_norm(d: Tensor) -> Tensor:
    """|D|_* = sum_i sigma_i(D), with the minimum-norm subgradient U_r V_r^T.

    The r singular values above 16 machine epsilons of the largest count as non-zero (epsilon of
    float32, of float64 for a float64 matrix). Of all
    subgradients U_r V_r^T + W at a rank-deficient matrix the one with W = 0 is returned, so the
    gradient at D = 0 is 0; differentiating through an SVD would pick an arbitrary full-size W.
    The decomposition is computed in float64 whatever the dtype and under autocast, and returned in
    the dtype of D.

    Args:
        d: a matrix [B, K], such as the difference of two batches of logits.

    Returns:
        A scalar.

    Raises:
        NonFinite: an entry of D is NaN or infinite.

    Source: the regulariser of NuAT (NeurIPS 2021); the choice of subgradient is ours.
    """
    value: Tensor = _NuclearNorm.apply(d)
    return value


_CUT = 16 * torch.finfo(torch.float32).eps, 16 * torch.finfo(torch.float64).eps


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        if not torch.isfinite(d).all():
            bad = int((~torch.isfinite(d)).sum())
            raise NonFinite(
                f"the nuclear norm was asked of a {d.shape[0]} x {d.shape[1]} matrix "
                f"with {bad} NaN or infinite entries"
            )
        with torch.autocast(d.device.type, enabled=False):
            u, sigma, vh = torch.linalg.svd(d.double(), full_matrices=False)
            kept = sigma > _CUT[d.dtype == torch.float64] * sigma.amax()
            polar = (u * kept) @ vh
        ctx.save_for_backward(polar.to(d.dtype))
        return sigma.sum().to(d.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (polar,) = ctx.saved_tensors
        return gradient * polar
