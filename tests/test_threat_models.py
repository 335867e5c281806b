"""The balls, where an attack starts in them, and how their eps is written."""

import math

import pytest
import torch
from torch import Tensor

from nuat import L2, Bernoulli, Gaussian, InputError, Linf, NoStart, Uniform
from nuat.config.parsing import parse_value
from nuat.rng import Noise, PerImageNoise
from nuat.threat_models import Ball, Start, norms, parse_eps

BALLS = [Linf(8 / 255), Linf(0.2), Linf(1), Linf(0), L2(0.5), L2(3.0), L2(0)]
NOISES = {"torch": lambda x: Noise(), "keyed": lambda x: PerImageNoise(7, torch.arange(len(x)))}
balls = pytest.mark.parametrize("ball", BALLS, ids=repr)
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())


def images(count: int = 6, shape: tuple[int, ...] = (3, 4, 4)) -> Tensor:
    """Images with pixels at 0, at 1 and between."""
    return (torch.rand(count, *shape) * 1.6 - 0.3).clamp(0, 1)


def size(ball: Ball, v: Tensor) -> Tensor:
    """The norm of the ball, of each image, in float64."""
    return v.double().flatten(1).norm(p=math.inf if isinstance(ball, Linf) else 2, dim=1)


# ---- project


@balls
@pytest.mark.parametrize("far", [1e-3, 0.3, 10.0, 1e6])
def test_project_lands_in_the_ball_and_the_box(ball: Ball, far: float) -> None:
    x = images()
    x_adv = ball.project(x + far * torch.randn_like(x), x)
    assert float(x_adv.min()) >= 0 and float(x_adv.max()) <= 1
    assert (size(ball, x_adv - x) <= ball.eps + 1e-6).all()
    assert ball.contains(x_adv, x).all()


@balls
@pytest.mark.parametrize("far", [1e-3, 0.3, 10.0])
def test_project_twice_is_project(ball: Ball, far: float) -> None:
    x = images()
    once = ball.project(x + far * torch.randn_like(x), x)
    assert torch.allclose(ball.project(once, x), once, rtol=0, atol=1.2e-7)


@balls
def test_project_leaves_points_inside_alone(ball: Ball) -> None:
    x = images()
    v = torch.randn_like(x)
    v *= (0.9 * ball.eps / size(ball, v))[:, None, None, None].float()
    inside = (x + v).clamp(0, 1)
    assert torch.allclose(ball.project(inside, x), inside, rtol=0, atol=6e-8)


@balls
def test_project_reaches_the_sphere_from_outside(ball: Ball) -> None:
    """Otherwise a projection onto x alone would pass."""
    x = torch.full((4, 3, 40, 40), 0.5)
    x_adv = ball.project(x + 100 * torch.randn_like(x).sign(), x)
    reach = min(ball.eps, 0.5 if isinstance(ball, Linf) else 0.5 * math.sqrt(4800))
    assert size(ball, x_adv - x).tolist() == pytest.approx([reach] * 4, rel=1e-5)


def grid(across: int = 401) -> Tensor:
    """Images of two pixels, all over [0, 1]^2."""
    line = torch.linspace(0, 1, across, dtype=torch.float64)
    return torch.cartesian_prod(line, line).reshape(-1, 1, 1, 2)


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.2)], ids=repr)
@pytest.mark.parametrize("outside", [(0.9, 0.55), (0.5, 0.99), (0.1, 0.1), (0.75, 0.25)])
def test_no_point_of_the_ball_is_closer_than_the_projection(
    ball: Ball, outside: tuple[float, float]
) -> None:
    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    target = torch.tensor(outside, dtype=torch.float64).reshape(1, 1, 1, 2)
    projected = ball.project(target, x)
    candidates = grid()
    candidates = candidates[size(ball, candidates - x) <= ball.eps]
    best = float((candidates - target).flatten(1).norm(dim=1).min())
    assert float((projected - target).norm()) <= best + 1e-9
    assert best <= float((projected - target).norm()) + 0.005  # the grid is fine enough to tell


def test_linf_projection_is_the_closest_point_of_ball_and_box_at_a_corner() -> None:
    x = torch.tensor([0.95, 0.5]).reshape(1, 1, 1, 2)
    x_adv = Linf(0.1).project(torch.tensor([1.5, 0.0]).reshape(1, 1, 1, 2), x)
    assert x_adv.flatten().tolist() == pytest.approx([1.0, 0.4])


@pytest.mark.parametrize(
    ("delta", "expected"),
    [((3.0, 4.0), (0.3, 0.4)), ((0.3, 0.0), (0.3, 0.0)), ((0.0, -9.0), (0.0, -0.5))],
)
def test_l2_projection_of_known_points(
    delta: tuple[float, float], expected: tuple[float, float]
) -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    x_adv = L2(0.5).project(x + torch.tensor(delta).reshape(1, 1, 1, 2), x)
    assert (x_adv - x).flatten().tolist() == pytest.approx(expected, abs=1e-7)


@balls
def test_project_carries_not_a_number_and_does_not_hide_it(ball: Ball) -> None:
    x = images(2)
    broken = x.clone()
    broken[1, 0, 0, 0] = torch.nan
    assert ball.contains(ball.project(broken, x), x).tolist() == [True, False]


# ---- steepest_direction


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1)], ids=repr)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-25, 1e-35, 1e15])
def test_steepest_beats_everything_else_of_norm_one(ball: Ball, scale: float) -> None:
    gradient = torch.randn(5, 3, 4, 4) * scale
    v = ball.steepest_direction(gradient)
    assert size(ball, v).tolist() == pytest.approx([1.0] * 5, rel=1e-5)
    gain = (gradient.double() * v.double()).flatten(1).sum(1)
    for rival in (torch.randn(300, 3, 4, 4), torch.randn(300, 3, 4, 4).sign()):
        rival = rival.double() / size(ball, rival)[:, None, None, None]
        gains = torch.einsum("bchw,rchw->br", gradient.double(), rival)
        assert (gains <= gain[:, None] * (1 + 1e-5)).all()


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1)], ids=repr)
def test_steepest_of_no_gradient_is_nowhere_for_that_image_alone(ball: Ball) -> None:
    gradient = torch.randn(3, 1, 2, 2)
    gradient[1] = 0
    v = ball.steepest_direction(gradient)
    assert torch.equal(v[1], torch.zeros(1, 2, 2))
    assert size(ball, v)[[0, 2]].tolist() == pytest.approx([1, 1], rel=1e-6)


# ---- sample and starts


def quantiles(values: Tensor) -> list[float]:
    return values.double().quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]).double()).tolist()


@noises
def test_linf_sample_is_uniform(noise) -> None:
    x = torch.full((500, 1, 8, 8), 0.5)
    u = ((Linf(0.1).sample(x, noise(x)) - x) / 0.1).flatten()
    assert float(u.abs().max()) <= 1 + 1e-6
    assert float(u.mean()) == pytest.approx(0, abs=0.02)
    assert float(u.std()) == pytest.approx(1 / math.sqrt(3), abs=0.01)
    assert quantiles(u) == pytest.approx([-0.8, -0.5, 0, 0.5, 0.8], abs=0.03)


@noises
@pytest.mark.parametrize("pixels", [1, 2, 12])
def test_l2_sample_is_uniform(noise, pixels: int) -> None:
    x = torch.full((20_000, 1, 1, pixels), 0.5)
    v = (L2(0.4).sample(x, noise(x)) - x).flatten(1).double() / 0.4
    radius = v.norm(dim=1)
    assert float(radius.max()) <= 1 + 1e-6
    assert quantiles(radius**pixels) == pytest.approx([0.1, 0.25, 0.5, 0.75, 0.9], abs=0.02)
    direction = v / radius[:, None].clamp_min(1e-9)
    assert direction.mean(0).tolist() == pytest.approx([0] * pixels, abs=0.03)
    spread = direction.T @ direction / len(v) * pixels
    assert torch.allclose(spread, torch.eye(pixels).double(), atol=0.05)


STARTS = [NoStart(), Uniform(), Bernoulli(), Bernoulli(1.0), Gaussian(0.001)]


@noises
@pytest.mark.parametrize("start", STARTS, ids=repr)
@pytest.mark.parametrize("ball", [Linf(8 / 255), Linf(0.3), L2(0.5)], ids=repr)
def test_starts_lie_in_the_ball_and_the_box(ball: Ball, start: Start, noise) -> None:
    x = images(20, (3, 8, 8))
    x_adv = start(x, ball, noise(x))
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert float(x_adv.min()) >= 0 and float(x_adv.max()) <= 1
    assert (size(ball, x_adv - x) <= ball.eps + 1e-6).all()
    assert torch.equal(x_adv, x) == (start == NoStart())


@noises
def test_an_unclamped_start_leaves_the_box_but_not_the_ball(noise) -> None:
    x, ball = images(20), Linf(8 / 255)
    x_adv = Bernoulli(1.0, clamp=False)(x, ball, noise(x))
    assert float(x_adv.min()) < 0 and float(x_adv.max()) > 1
    assert (size(ball, x_adv - x) <= ball.eps + 1e-6).all()


@noises
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("eps", [8 / 255, 0.2])
def test_bernoulli_takes_one_of_two_values_with_even_odds(noise, eps: float, share: float) -> None:
    x = torch.full((50, 3, 8, 8), 0.5)
    x_adv = Bernoulli(share)(x, Linf(eps), noise(x))
    values, counts = x_adv.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0.5 - share * eps, 0.5 + share * eps], abs=6e-8)
    assert float(counts[0] / counts.sum()) == pytest.approx(0.5, abs=0.02)


@noises
def test_gaussian_start_has_the_deviation_it_says(noise) -> None:
    x = torch.full((50, 3, 8, 8), 0.5)
    away = Gaussian(0.01)(x, Linf(0.3), noise(x)) - x
    assert float(away.std()) == pytest.approx(0.01, rel=0.03)
    assert float(away.mean()) == pytest.approx(0, abs=3e-4)


# ---- contains


@pytest.mark.parametrize(
    ("pixel", "inside"),
    [
        (0.5, True),
        (0.6, True),
        (0.4, True),
        (0.6 + 5e-7, True),
        (0.6 + 5e-6, False),
        (0.4 - 5e-6, False),
        (math.nan, False),
        (math.inf, False),
        (-math.inf, False),
    ],
)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1)], ids=repr)
def test_contains_what_is_within_eps(ball: Ball, pixel: float, inside: bool) -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[1, 0, 1, 0] = pixel
    assert ball.contains(x_adv, x).tolist() == [True, inside, True]


@pytest.mark.parametrize("ball", [Linf(0.5), L2(5.0)], ids=repr)
@pytest.mark.parametrize(("at", "pixel"), [(0.0, -1e-4), (1.0, 1.0001)])
def test_contains_refuses_what_is_out_of_the_box(ball: Ball, at: float, pixel: float) -> None:
    x = torch.full((2, 1, 2, 2), at)
    x_adv = x.clone()
    x_adv[1, 0, 0, 0] = pixel
    assert ball.contains(x_adv, x).tolist() == [True, False]


@pytest.mark.parametrize("ball", [Linf(4 / 255), L2(0.5), L2(3.0), L2(30.0)], ids=repr)
@pytest.mark.parametrize("size_", [32, 224])
@pytest.mark.parametrize("kind", ["normal", "sign"])
def test_contains_what_project_returns_for_large_images(ball: Ball, kind: str, size_: int) -> None:
    """A point refused for float32 rounding alone would be counted as withstood."""
    x = torch.rand(4, 3, size_, size_) * 0.4 + 0.3
    x_adv = ball.project(x + 2 * ball.eps * getattr(Noise(), kind)(x), x)
    assert ball.contains(x_adv, x).tolist() == [True] * 4


@pytest.mark.parametrize("ball", [Linf(0.3), L2(0.5)], ids=repr)
def test_distance_is_the_norm_of_the_ball(ball: Ball) -> None:
    x, x_adv = images(), images()
    assert ball.distance(x_adv, x).tolist() == pytest.approx(size(ball, x_adv - x).tolist())


# ---- eps in words


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, -1, True, False, "8/255", None, (0.1,)])
def test_an_eps_that_is_not_a_number_from_zero_up_is_refused(kind: type[Ball], eps) -> None:
    with pytest.raises(InputError, match=r"eps is .*must be a number from 0 up, such as 8/255"):
        kind(eps)


@pytest.mark.parametrize("eps", [8, 8.0, 1.5, 255])
def test_an_linf_eps_in_255ths_is_recognised(eps: float) -> None:
    with pytest.raises(InputError, match=rf"did you mean {eps:g}/255\?"):
        Linf(eps)


def test_l2_may_be_larger_than_one() -> None:
    assert L2(3.0).eps == 3.0


@pytest.mark.parametrize(
    ("ball", "text"),
    [
        (Linf(8 / 255), "Linf(8/255)"),
        (Linf(4 / 255), "Linf(4/255)"),
        (Linf(0.5 / 255), "Linf(0.5/255)"),
        (Linf(0.2), "Linf(0.2)"),
        (Linf(0.3), "Linf(0.3)"),
        (Linf(1), "Linf(1)"),
        (Linf(0.0), "Linf(0.0)"),
        (L2(0.5), "L2(0.5)"),
        (L2(128 / 255), "L2(128/255)"),
    ],
)
def test_repr(ball: Ball, text: str) -> None:
    assert repr(ball) == text


EPS = [0, 1, 0.031, 1e-9, 0.1 + 0.2, 1 / 3, 8 / 255 / 3, 8.015625 / 255, 1 / 3 / 255, 2.5 / 255]


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("eps", EPS)
def test_repr_can_be_read_back(kind: type[Ball], eps: float) -> None:
    assert parse_value(repr(kind(eps)), {"Linf": Linf, "L2": L2}) == kind(eps)


def test_repr_of_every_255th_and_of_any_float_can_be_read_back() -> None:
    every = [Linf(k / 255) for k in range(256)] + [Linf(e) for e in torch.rand(200).tolist()]
    unread = [ball.eps for ball in every if parse_value(repr(ball), {"Linf": Linf}) != ball]
    assert unread == []


@pytest.mark.parametrize(
    ("text", "eps"),
    [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.03", 0.03), (0.03, 0.03), (0, 0.0), ("1", 1)],
)
def test_read_eps(text: str | float, eps: float) -> None:
    read = parse_eps(text)
    assert read == eps and isinstance(read, float)


@pytest.mark.parametrize("text", [True, "True", None, "", "eight", "'8/255'", "(8, 255)", "8/0"])
def test_read_eps_refuses_what_is_not_a_number(text) -> None:
    with pytest.raises(InputError):
        parse_eps(text)


@pytest.mark.parametrize(("name", "kind"), [("linf", Linf), ("l2", L2)])
def test_norms_by_name(name: str, kind: type[Ball]) -> None:
    assert norms[name] is kind


def test_balls_compare_and_hash_by_value() -> None:
    assert Linf(0.1) == Linf(0.1) != Linf(0.2)
    assert Linf(0.1) != L2(0.1)
    assert len({Linf(0.1), Linf(0.1), L2(0.1)}) == 2
