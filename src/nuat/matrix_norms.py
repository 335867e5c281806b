"""The nuclear norm of a matrix, |D|_* = sum of its singular values, and its subgradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nuat.errors import NonFiniteError, unknown_name
from nuat.runtime.precision import full_precision

ALGORITHMS = ("svd", "polar")


def nuclear_norm(d: Tensor, algorithm: str | None = None) -> Tensor:
    """|D|_* = sum_i sigma_i(D), with the subgradient U_r V_r^T of minimum norm.

    "svd", the default on a CPU, computes an SVD in float64 whatever the dtype of D. r counts the
    singular values above 16 machine epsilons of the largest (of float64 if D is float64, else of
    float32). At a rank-deficient matrix every U_r V_r^T + W with a suitable W is a subgradient, and
    differentiating through an SVD picks an arbitrary W of full size. Here W = 0, so that the
    gradient at D = 0 is 0.

    "polar", the default on a GPU, drives every singular value to 1 by matrix products in float32;
    an SVD would make the GPU wait. The value is accurate to 5e-4. In the gradient, singular values
    below about 1e-3 of the largest weigh less than 1, down to 0 at 0. A matrix that is not finite
    gives NaN.

    Autocast and TF32 affect neither algorithm. The result has the dtype of D.

    Args:
        d: a matrix [B, K], such as the difference of two batches of logits.
        algorithm: "svd", "polar", or None for the default of the device of D.

    Returns:
        A scalar.

    Raises:
        InputError: there is no such algorithm.
        NonFiniteError: an entry of D is NaN or infinite. "polar" does not check this, because the
            check would make the GPU wait.

    Source: the regularizer of NuAT (NeurIPS 2021). The choice of subgradient is not from the paper.
    "polar" is an iteration of minimax polynomials as in Polar Express (arXiv:2505.16932), for
    sigma >= 1e-3.

    >>> nuat.nuclear_norm(torch.diag(torch.tensor([3.0, 4.0])))
    tensor(7.)
    """
    algorithm = algorithm or ("polar" if d.device.type == "cuda" else "svd")
    if algorithm not in ALGORITHMS:
        raise unknown_name("algorithm for the nuclear norm", algorithm, ALGORITHMS)
    function = _SVD if algorithm == "svd" else _Polar
    return function.apply(d)  # type: ignore[no-untyped-call]  # torch does not annotate apply


class _NuclearNorm(torch.autograd.Function):
    """The backward pass; the forward pass of a subclass saves the subgradient."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (subgradient,) = ctx.saved_tensors
        return gradient * subgradient


class _SVD(_NuclearNorm):
    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        if not torch.isfinite(d).all():
            bad = int((~torch.isfinite(d)).sum())
            raise NonFiniteError(
                f"cannot compute the nuclear norm of a {d.shape[0]} x {d.shape[1]} matrix "
                f"with {bad} NaN or infinite entries"
            )
        dtype = d.dtype if d.dtype == torch.float64 else torch.float32
        with full_precision(), torch.autocast(d.device.type, enabled=False):
            u, sigma, vh = torch.linalg.svd(d.double(), full_matrices=False)
            nonzero = sigma > 16 * torch.finfo(dtype).eps * sigma.amax()
            subgradient = (u * nonzero) @ vh
        ctx.save_for_backward(subgradient.to(d.dtype))
        return sigma.sum().to(d.dtype)


class _Polar(_NuclearNorm):
    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        with full_precision(), torch.autocast(d.device.type, enabled=False):
            promoted = d.to(torch.promote_types(d.dtype, torch.float32))
            largest = promoted.abs().amax()
            # Entries of order 1 keep the squares in polar_factor from under- and overflow.
            scaled = (promoted / largest.where(largest > 0, 1)).float()
            subgradient = polar_factor(scaled)
            value = (scaled * subgradient).sum() * largest
        ctx.save_for_backward(subgradient.to(d.dtype))
        return value.to(d.dtype)


QUINTICS = (
    (8.470328803848073, -25.10807470666187, 18.629275599118007),
    (4.182834183293943, -3.108701109889241, 0.580606681350049),
    (3.9618572789615993, -2.9540637463593784, 0.5629761179538963),
    (3.2865862170279603, -2.464720134531282, 0.5073576938614548),
    (2.2737499944340382, -1.6446603679080682, 0.4161909274978861),
    (1.8887161973518276, -1.2651572253385979, 0.37651892555748917),
    (1.875, -1.25, 0.375),
)
"""(a, b, c) of  sigma <- a sigma + b sigma^3 + c sigma^5, which maps [1e-3, 1] to about 1 in six
steps; the last step polishes."""


def polar_factor(d: Tensor) -> Tensor:
    """U V^T of a float32 matrix D = U S V^T, by matrix products alone; 0 at D = 0.

    The entries of D must be of order 1. D is first divided by 1.001 times its Schatten-4 norm,
    |D^T D|_F^(1/2), so that no singular value exceeds 1.
    """
    tall = d if d.shape[0] >= d.shape[1] else d.T
    bound = 1.001 * torch.linalg.vector_norm(tall.T @ tall).sqrt()
    x = tall / bound.where(bound > 0, 1)
    for a, b, c in QUINTICS:
        gram = x.T @ x
        # x <- a x + x (b G + c G^2) by products that add, which launch fewer kernels
        x = torch.addmm(x, x, torch.addmm(gram, gram, gram, beta=b, alpha=c), beta=a)
    return x if d.shape[0] >= d.shape[1] else x.T
