"""The projection onto a hyperplane within the box: leaving Newton's loop early changes no bit."""

import itertools

import pytest
import torch

from nuat.attacks import box_projection
from nuat.attacks.box_projection import NEWTON_STEPS, project_to_hyperplane
from nuat.threat_models import L2, Linf

SHAPES = [(1, 1, 1), (1, 2, 3), (3, 5, 7), (1, 28, 28)]
SCALES = [1e-30, 1e-6, 1.0, 1e6, 1e30]
PARTS = [0.0, 1e-7, 0.01, 0.5, 0.999999, 1.0, 1.5]


def project_with_every_step(x, w, b, ball):
    """The same Newton iteration, all steps of it."""
    flat, normal = x.flatten(1), w.flatten(1)
    level = (flat * normal).sum(1) + b
    normal = normal * torch.where(level < 0, -1.0, 1.0)[:, None]
    weight, room, level = normal.abs(), torch.where(normal > 0, flat, 1 - flat), level.abs()
    speed = torch.ones_like(weight) if isinstance(ball, Linf) else weight
    t = torch.zeros_like(level)
    for _ in range(NEWTON_STEPS):
        moving = t[:, None] * speed < room
        decrease = (weight * torch.where(moving, t[:, None] * speed, room)).sum(1)
        rate = (weight * speed * moving).sum(1)
        remaining = (level - decrease).clamp_min(0)
        t = torch.where(remaining > 0, t + remaining / rate, t)
    move = torch.where(t[:, None].isinf(), room * (weight > 0), (t[:, None] * speed).minimum(room))
    return (-normal.sign() * move).reshape(x.shape)


def bits(values):
    """The bits of floating-point numbers, so that a NaN equals itself and 0 differs from -0."""
    return values.view(torch.int64 if values.dtype is torch.float64 else torch.int32)


def problems(shape, dtype, seed):
    """Points, normals and offsets: pixels at 0 and at 1, zeros in w, planes out of reach."""
    g = torch.Generator().manual_seed(seed)
    rows = len(SCALES) * len(PARTS)
    x = (1.6 * torch.rand(rows, *shape, generator=g, dtype=dtype) - 0.3).clamp(0, 1)
    w = torch.randn(rows, *shape, generator=g, dtype=dtype)
    w = w * (torch.rand(w.shape, generator=g) < 0.7)
    scales, parts = zip(*itertools.product(SCALES, PARTS), strict=True)
    w = w * torch.tensor(scales, dtype=dtype).reshape(-1, 1, 1, 1)
    here = (w * x).flatten(1).sum(1)
    farthest = w.clamp_max(0).flatten(1).sum(1)
    return x, w, -(here + torch.tensor(parts, dtype=dtype) * (farthest - here))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_early_exit_changes_no_bit(shape, dtype, ball):
    for seed in range(20):
        x, w, b = problems(shape, dtype, seed)
        for sign in (1, -1):  # the point is above the plane, or below it
            early = project_to_hyperplane(x, sign * w, sign * b, ball)
            full = project_with_every_step(x, sign * w, sign * b, ball)
            assert torch.equal(bits(early), bits(full))
        for row in range(0, len(x), 5):  # alone, a row leaves the loop at a step of its own
            one = x[row : row + 1], w[row : row + 1], b[row : row + 1]
            early, full = project_to_hyperplane(*one, ball), project_with_every_step(*one, ball)
            assert torch.equal(bits(early), bits(full))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_early_exit_changes_no_bit_of_degenerate_problems(dtype, ball):
    values = [0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, torch.inf, -torch.inf, torch.nan]
    w = torch.tensor(list(itertools.product(values, repeat=2)), dtype=dtype)[:, None, None, :]
    for pixels in itertools.product([0.0, 0.3, 1.0, torch.nan], repeat=2):
        x = torch.tensor(pixels, dtype=dtype).expand_as(w).contiguous()
        for offset in values:
            b = torch.full((len(w),), offset, dtype=dtype)
            early, full = (
                project_to_hyperplane(x, w, b, ball),
                project_with_every_step(x, w, b, ball),
            )
            assert torch.equal(bits(early), bits(full))
            for row in range(0, len(w), 20):
                one = x[row : row + 1], w[row : row + 1], b[row : row + 1]
                early, full = project_to_hyperplane(*one, ball), project_with_every_step(*one, ball)
                assert torch.equal(bits(early), bits(full))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
def test_few_newton_steps_suffice(ball, monkeypatch):
    """Otherwise the loop never leaves early, and the test above compares nothing."""
    steps = []
    equal = torch.equal

    def counted(a, b):
        steps.append(equal(a, b))
        return steps[-1]

    monkeypatch.setattr(box_projection.torch, "equal", counted)
    x, w = torch.rand(64, 3, 32, 32), torch.randn(64, 3, 32, 32)
    project_to_hyperplane(x, w, -(w * x).flatten(1).sum(1) + 3 * torch.rand(64), ball)
    assert steps[-1] and len(steps) <= 8


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
def test_an_empty_batch_has_an_empty_projection(ball):
    x = torch.rand(0, 1, 3, 3)
    assert project_to_hyperplane(x, x, torch.rand(0), ball).shape == x.shape
