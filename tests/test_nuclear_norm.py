"""The nuclear norm and its minimum-norm subgradient, against LAPACK in float64 through numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nuat import NonFinite, nuclear_norm

SHAPES = [(64, 10), (64, 100), (128, 10), (5, 10), (10, 10), (1, 10)]


def gaussian(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64)


def conditioned(number: float, rows: int, columns: int) -> Tensor:
    u, _, vh = torch.linalg.svd(gaussian(rows, columns), full_matrices=False)
    sigma = torch.logspace(0, -np.log10(number), min(rows, columns), dtype=torch.float64)
    return (u * sigma) @ vh


def low_rank(rank: int, rows: int, columns: int) -> Tensor:
    return gaussian(rows, rank) @ gaussian(rank, columns)


FAMILIES = {
    "gaussian": gaussian,
    "condition 1e2": lambda b, k: conditioned(1e2, b, k),
    "condition 1e4": lambda b, k: conditioned(1e4, b, k),
    "rank 1": lambda b, k: low_rank(1, b, k),
    "rank 3": lambda b, k: low_rank(3, b, k),
    "row sums zero": lambda b, k: (d := gaussian(b, k)) - d.mean(1, keepdim=True),
    "identical rows": lambda b, k: gaussian(1, k).expand(b, k),
    "zero": lambda b, k: torch.zeros(b, k, dtype=torch.float64),
    "times 1e-6": lambda b, k: gaussian(b, k) * 1e-6,
    "times 1e-25": lambda b, k: gaussian(b, k) * 1e-25,
    "rank 3 times 1e-25": lambda b, k: low_rank(3, b, k) * 1e-25,
}


def reference(d: Tensor, cut: float = 1e-6) -> tuple[float, Tensor]:
    """sum_i sigma_i and U_r V_r^T, r the singular values above `cut` of the largest."""
    u, sigma, vh = np.linalg.svd(d.detach().double().numpy(), full_matrices=False)
    kept = sigma > cut * sigma[0]
    return float(sigma.sum()), torch.from_numpy(u[:, kept] @ vh[kept])


def value_and_gradient(d: Tensor) -> tuple[Tensor, Tensor]:
    d = d.detach().clone().requires_grad_()
    value = nuclear_norm(d)
    (gradient,) = torch.autograd.grad(value, d)
    return value.detach(), gradient


def relative(error: Tensor, size: Tensor) -> float:
    return float(error.double().norm() / size.double().norm().clamp_min(1e-300))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_svd_in_float64(family: str, shape: tuple[int, int]) -> None:
    d = FAMILIES[family](*shape).float()
    value, gradient = value_and_gradient(d)
    expected, subgradient = reference(d)
    assert value.dtype == gradient.dtype == torch.float32 and value.ndim == 0
    assert float(value) == pytest.approx(expected, rel=1e-6, abs=0)
    assert relative(gradient - subgradient, subgradient) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_a_subgradient(family: str, shape: tuple[int, int]) -> None:
    d = FAMILIES[family](*shape).float()
    value, gradient = value_and_gradient(d)
    assert float(torch.linalg.matrix_norm(gradient.double(), 2)) <= 1 + 1e-4
    product = float((gradient.double() * d.double()).sum())
    assert product == pytest.approx(float(value), rel=5e-4, abs=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_at_zero_is_exactly_zero(shape: tuple[int, int]) -> None:
    value, gradient = value_and_gradient(torch.zeros(shape))
    assert float(value) == 0
    assert torch.equal(gradient, torch.zeros(shape))


def test_known_value() -> None:
    value, gradient = value_and_gradient(torch.tensor([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]]))
    assert float(value) == pytest.approx(7)
    assert torch.allclose(gradient, torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]), atol=1e-7)


def test_finite_differences_at_a_point_of_full_rank() -> None:
    d = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: 3 * nuclear_norm(d), (d,), eps=1e-6, atol=1e-7)


def test_what_comes_from_above_scales_the_gradient() -> None:
    d = torch.randn(8, 5, requires_grad=True)
    (alone,) = torch.autograd.grad(nuclear_norm(d), d)
    (scaled,) = torch.autograd.grad(nuclear_norm(d).square(), d)
    assert torch.allclose(scaled, 2 * nuclear_norm(d).detach() * alone)


def test_a_transposed_view_has_the_same_norm_and_the_transposed_gradient() -> None:
    d = torch.randn(8, 5)
    value, gradient = value_and_gradient(d)
    across, gradient_across = value_and_gradient(d.T)
    assert float(across) == pytest.approx(float(value), rel=1e-6)
    assert torch.allclose(gradient_across, gradient.T, atol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_refuses_what_is_not_finite(bad: float, count: int) -> None:
    d = torch.randn(64, 10)
    d[:count, 4] = bad
    with pytest.raises(NonFinite, match=rf"64 x 10 matrix with {count} NaN or infinite"):
        nuclear_norm(d)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_under_autocast_is_what_it_is_without(family: str) -> None:
    d = FAMILIES[family](64, 10).float()
    plain = value_and_gradient(d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(d)
    assert cast[0].dtype == cast[1].dtype == torch.float32
    assert torch.equal(cast[0], plain[0]) and torch.equal(cast[1], plain[1])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "family", ["gaussian", "condition 1e2", "rank 1", "identical rows", "zero"]
)
def test_bfloat16_is_right_to_its_rounding(family: str, autocast: bool) -> None:
    d = FAMILIES[family](64, 10).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, gradient = value_and_gradient(d)
    expected, _ = reference(d)
    assert value.dtype == gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()
    assert float(value) == pytest.approx(expected, rel=2**-8)
    product = float((gradient.double() * d.double()).sum())
    assert product == pytest.approx(expected, rel=2e-2)
    assert float(torch.linalg.matrix_norm(gradient.double(), 2)) <= 1 + 2**-7
