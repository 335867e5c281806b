"""The nuclear norm and its minimum-norm subgradient, against LAPACK in float64 through numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nuat import InputError, NonFiniteError, nuclear_norm
from nuat.losses import nuclear, nuclear_svd

SHAPES = [(64, 10), (64, 100), (128, 10), (8, 10), (5, 10), (10, 10), (1, 10)]


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


def value_and_gradient(d: Tensor, algorithm: str | None = None) -> tuple[Tensor, Tensor]:
    d = d.detach().clone().requires_grad_()
    value = nuclear_norm(d, algorithm)
    (gradient,) = torch.autograd.grad(value, d)
    return value.detach(), gradient


def relative(error: Tensor, size: Tensor) -> float:
    return float(error.double().norm() / size.double().norm().clamp_min(1e-300))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_svd_in_float64(family: str, shape: tuple[int, int]) -> None:
    d = FAMILIES[family](*shape).float()
    value, gradient = value_and_gradient(d, "svd")
    expected, subgradient = reference(d)
    assert value.dtype == gradient.dtype == torch.float32 and value.ndim == 0
    assert float(value) == pytest.approx(expected, rel=1e-6, abs=0)
    assert relative(gradient - subgradient, subgradient) <= 1e-6


@pytest.mark.parametrize("shape", [*SHAPES, (256, 1000)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_polar_is_close(family: str, shape: tuple[int, int]) -> None:
    """5e-4 in the value; 1e-3 in the gradient along singular values above 1e-2 of the largest."""
    d = FAMILIES[family](*shape).float()
    value, gradient = value_and_gradient(d, "polar")
    assert value.dtype == gradient.dtype == torch.float32 and value.ndim == 0
    assert float(value) == pytest.approx(reference(d)[0], rel=5e-4, abs=0)
    u, sigma, vh = np.linalg.svd(d.double().numpy(), full_matrices=False)
    large = sigma > 1e-2 * sigma[0]
    along = u[:, large].T @ gradient.double().numpy() @ vh[large].T
    assert np.linalg.norm(along - np.eye(len(along))) <= 1e-3 * len(along) ** 0.5


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
@pytest.mark.parametrize("shape", [*SHAPES, (256, 1000)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_a_subgradient(family: str, shape: tuple[int, int], algorithm: str) -> None:
    d = FAMILIES[family](*shape).float()
    value, gradient = value_and_gradient(d, algorithm)
    assert torch.isfinite(gradient).all()
    assert float(torch.linalg.matrix_norm(gradient.double(), 2)) <= 1 + 1e-4
    product = float((gradient.double() * d.double()).sum())
    assert product == pytest.approx(float(value), rel=5e-4, abs=0)


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_at_zero_is_exactly_zero(shape: tuple[int, int], algorithm: str) -> None:
    value, gradient = value_and_gradient(torch.zeros(shape), algorithm)
    assert float(value) == 0
    assert torch.equal(gradient, torch.zeros(shape))


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
def test_known_value(algorithm: str) -> None:
    d = torch.tensor([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
    value, gradient = value_and_gradient(d, algorithm)
    assert float(value) == pytest.approx(7)
    assert torch.allclose(gradient, torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]), atol=1e-6)


def test_the_algorithm_defaults_to_that_of_the_device() -> None:
    d, zero = torch.randn(64, 10), torch.zeros(64, 10)
    svd, polar = (value_and_gradient(d, name) for name in ("svd", "polar"))
    assert not torch.equal(svd[1], polar[1])
    assert torch.equal(value_and_gradient(d)[1], svd[1])
    assert nuclear(d, zero) == nuclear_svd(d, zero) == svd[0]
    with pytest.raises(InputError, match=r"'eigh'.*there are: polar, svd"):
        nuclear_norm(d, "eigh")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_polar_returns_nan_for_a_matrix_that_is_not_finite(bad: float) -> None:
    d = torch.randn(64, 10)
    d[3, 4] = bad
    assert nuclear_norm(d, "polar").isnan()


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
def test_the_precision_of_float32_products_outside_has_no_effect(algorithm: str) -> None:
    d = torch.randn(256, 256)
    plain, product = value_and_gradient(d, algorithm), d @ d
    torch.set_float32_matmul_precision("medium")
    try:
        if torch.equal(d @ d, product):
            pytest.skip("this processor computes no float32 product in bf16")
        again = value_and_gradient(d, algorithm)
        assert not torch.equal(d @ d, product)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_finite_differences_at_a_point_of_full_rank() -> None:
    d = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: 3 * nuclear_norm(d), (d,), eps=1e-6, atol=1e-7)


def test_the_incoming_gradient_scales_the_subgradient() -> None:
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
def test_svd_refuses_a_matrix_that_is_not_finite(bad: float, count: int) -> None:
    d = torch.randn(64, 10)
    d[:count, 4] = bad
    with pytest.raises(NonFiniteError, match=rf"64 x 10 matrix with {count} NaN or infinite"):
        nuclear_norm(d)


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_does_not_change_float32_results(family: str, algorithm: str) -> None:
    d = FAMILIES[family](64, 10).float()
    plain = value_and_gradient(d, algorithm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(d, algorithm)
    assert cast[0].dtype == cast[1].dtype == torch.float32
    assert torch.equal(cast[0], plain[0]) and torch.equal(cast[1], plain[1])


@pytest.mark.parametrize("algorithm", ["svd", "polar"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "family", ["gaussian", "condition 1e2", "rank 1", "identical rows", "zero"]
)
def test_bfloat16_is_accurate_to_its_rounding(family: str, autocast: bool, algorithm: str) -> None:
    d = FAMILIES[family](64, 10).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, gradient = value_and_gradient(d, algorithm)
    expected, _ = reference(d)
    assert value.dtype == gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()
    assert float(value) == pytest.approx(expected, rel=2**-8)
    product = float((gradient.double() * d.double()).sum())
    assert product == pytest.approx(expected, rel=2e-2)
    assert float(torch.linalg.matrix_norm(gradient.double(), 2)) <= 1 + 2**-7
