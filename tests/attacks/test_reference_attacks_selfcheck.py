"""The transcriptions of APGD, FAB and Square in `reference`, checked against first principles.

Other tests compare our attacks with them; these here keep the yardstick straight: the constraints
hold, the schedules are the published ones, the projections are the nearest points (by linear
programming and by a general solver), and FAB finds the distance of a linear network.
"""

import math
from itertools import pairwise

import pytest
import torch

from tests.reference import apgd, fab, square

SHAPES = [(1, 8, 8), (3, 5, 7), (3, 3, 4)]
EPS = {"linf": 0.1, "l2": 0.8}
CLASSES, LABEL = 6, 2
ROUNDING = 1e-6

shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def randoms(seed):
    return torch.Generator().manual_seed(seed)


def image(shape, low=0.0, high=1.0, seed=0):
    return low + (high - low) * torch.rand(shape, generator=randoms(seed))


def linear(shape, lead=1.0, seed=1):
    """A linear network with LABEL ahead by `lead` at the middle of the box: (network, weights)."""
    weights = torch.randn(CLASSES, math.prod(shape), generator=randoms(seed))
    bias = -(weights @ torch.full((math.prod(shape),), 0.5))
    bias[LABEL] += lead

    def f(x):
        return x.flatten(1) @ weights.T + bias

    return f, weights


def curved(shape, seed=2):
    """A network with one hidden layer, and a label that is right and not by far at `image`."""
    g = randoms(seed)
    n, hidden = math.prod(shape), 32
    first, second = torch.randn(hidden, n, generator=g), torch.randn(CLASSES, hidden, generator=g)

    def f(x):
        return torch.tanh((x.flatten(1) - 0.5) @ first.T / math.sqrt(n) * 3) @ second.T

    return f, f(image(shape)[None])[0].argmax().item()


def noise(shape, norm, seed=3):
    normal = torch.randn(shape, generator=randoms(seed))
    return normal if norm == "l2" else 2 * torch.rand(shape, generator=randoms(seed)) - 1


def size(v, norm):
    return v.abs().max().item() if norm == "linf" else v.norm().item()


def assert_inside(points, x, norm, eps=None):
    for point in points:
        assert point.shape == x.shape
        assert point.isfinite().all() and point.min() >= 0 and point.max() <= 1
        assert eps is None or size(point - x, norm) <= eps + ROUNDING


# APGD


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        (50, [11, 21, 30, 38, 45]),
        (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (1, [1]),
    ],
)
def test_checkpoints(steps, expected):
    assert apgd.checkpoints(steps) == expected


@shapes
@norms
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_apgd_stays_inside_and_climbs(shape, norm, loss):
    f, y = curved(shape)
    x, target = image(shape), (y + 1) % CLASSES
    points, losses = apgd.apgd(
        f, x, y, EPS[norm], norm, loss, noise(shape, norm), steps=40, target=target
    )
    assert len(points) == len(losses) == 41
    assert_inside(points, x, norm, EPS[norm])
    assert max(losses) > losses[0]


@norms
def test_apgd_starts_on_the_surface(norm):
    x = torch.full((3, 5, 7), 0.5)
    point = apgd.start(x, 0.1, norm, noise(x.shape, norm))
    assert size(point - x, norm) == pytest.approx(0.1, abs=ROUNDING)


@norms
def test_apgd_finds_the_best_point_of_two_linear_classes(norm):
    """Their cross-entropy grows with the difference alone, so the farthest point is known."""
    shape, eps = (1, 8, 8), 0.1
    f, weights = linear(shape)
    x = image(shape, 0.4, 0.6)
    w = (weights[4] - weights[LABEL]).reshape(shape)
    farthest = x + eps * (w.sign() if norm == "linf" else w / w.norm())
    points, losses = apgd.apgd(
        lambda x: f(x)[:, [LABEL, 4]], x, 0, eps, norm, "ce", noise(shape, norm)
    )
    best = points[losses.index(max(losses))]
    assert size(best - farthest, norm) < 0.01 * eps


def hilltop(top):
    """Two classes; the loss of class 0 is highest at `top` and falls with the square distance."""

    def f(x):
        away = ((x - top) ** 2).sum(dim=(1, 2, 3))
        return torch.stack([10 * away, 0 * away], dim=1)

    return f


@norms
def test_apgd_halves_the_step_and_goes_back_to_the_best_point(norm):
    """About a hilltop inside the ball the points go to and fro, so the first checkpoint halves."""
    shape, eps = (1, 4, 4), EPS[norm]
    x = image(shape, 0.4, 0.6)
    top = x + 0.3 * apgd.start(x, eps, norm, noise(shape, norm, seed=8)) - 0.3 * x
    f = hilltop(top)
    points, losses = apgd.apgd(f, x, 0, eps, norm, "ce", noise(shape, norm))

    best = points[losses.index(max(losses[:23]))]
    _, gradient = apgd.loss_and_gradient(f, best, 0, "ce", None)
    expected = apgd.advance(best, points[21], x, gradient, eps, 0.75, eps, norm)
    assert torch.equal(points[23], expected)
    assert size(points[-1] - top, norm) < 0.05 * eps


def test_apgd_cannot_be_stuck_at_the_first_checkpoint():
    """The start stays the best point, though the loss rises: halved after 41 steps, not after 22.

    The gradient is always the same, so the points wait in a corner until one is sent back.
    """
    heights = iter([9.0, *(0.01 * k for k in range(1, 101))])

    def f(x):
        rise = 1e-6 * x.sum(dim=(1, 2, 3))
        return torch.stack([0 * rise, rise + next(heights)], dim=1)

    x = image((1, 4, 4), 0.4, 0.6)
    points, _ = apgd.apgd(f, x, 0, 0.1, "linf", "ce", noise(x.shape, "linf"))
    assert torch.equal(points[1], (points[0] + 0.2).min(x + 0.1)), "the first step is a whole one"
    assert torch.equal(points[23], points[22])
    assert torch.equal(points[41], points[22])
    assert not torch.equal(points[42], points[41])


def test_first_window_compares_with_the_row_still_zero():
    positive, negative = [3.0, 2.0, 1.0, 0.0], [-3.0, -4.0, -5.0, 0.0]
    # of 1 rise allowed in 2 rows: the false one counts, then the true one is too many
    assert apgd.rises_too_seldom(positive, last=1, gap=2)
    assert not apgd.rises_too_seldom([3.0, 4.0, 1.0, 0.0], last=1, gap=2)
    assert apgd.rises_too_seldom([-4.0, -3.0, -5.0, 0.0], last=1, gap=2)
    assert apgd.rises_too_seldom(negative, last=1, gap=2)


def test_dlr_of_known_logits():
    z = torch.tensor([1.0, 5.0, 2.0, 3.0])
    assert apgd.dlr(z, 1).item() == pytest.approx(-(5 - 3) / (5 - 2))
    assert apgd.dlr(z, 2).item() == pytest.approx((5 - 2) / (5 - 2))
    assert apgd.targeted_dlr(z, 1, 2).item() == pytest.approx(-(5 - 2) / (5 - (2 + 1) / 2))


# FAB


def plane(shape, seed, zeros):
    """An image with pixels on the sides of the box, and a gradient with zeros."""
    g = randoms(seed)
    x = (1.4 * torch.rand(shape, generator=g) - 0.2).clamp(0, 1)
    w = torch.randn(shape, generator=g)
    w[torch.rand(shape, generator=g) < zeros] = 0
    return x, w


def reachable(x, w, part):
    """The b for which the plane is at `part` of the way from x to the farthest corner."""
    here = (w * x).double().sum().item()
    farthest = w.double().clamp(min=0).sum().item()
    return -(here + part * (farthest - here))


def brute_linf(optimize, x, w, b):
    """The least t with |d| <= t, x + d in the box, on the plane: a linear programme."""
    n = x.numel()
    x, w = x.double().flatten().numpy(), w.double().flatten().numpy()
    rows = [[0.0] * (n + 1) for _ in range(2 * n)]
    for i in range(n):
        rows[i][i], rows[i][n] = 1.0, -1.0
        rows[n + i][i], rows[n + i][n] = -1.0, -1.0
    found = optimize.linprog(
        [0.0] * n + [1.0],
        A_ub=rows,
        b_ub=[0.0] * (2 * n),
        A_eq=[[*w, 0.0]],
        b_eq=[-b - float(w @ x)],
        bounds=[*((-v, 1 - v) for v in x), (0, None)],
    )
    assert found.success
    return found.fun


def brute_l2(optimize, x, w, b):
    x, w = x.double().flatten().numpy(), w.double().flatten().numpy()
    found = optimize.minimize(
        lambda d: d @ d,
        0 * x,
        jac=lambda d: 2 * d,
        bounds=[(-v, 1 - v) for v in x],
        constraints={"type": "eq", "fun": lambda d: w @ (x + d) + b, "jac": lambda d: w},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    return math.sqrt(found.fun)


BRUTE = {"linf": brute_linf, "l2": brute_l2}


@shapes
@norms
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_projection_is_the_nearest_point(shape, norm, part):
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(3):
        x, w = plane(shape, seed, zeros=0.2)
        b = reachable(x, w, part)
        d = fab.PROJECTION[norm](x, w, b)
        assert_inside([x + d], x, norm)
        assert (d[w == 0] == 0).all()
        assert (w.double() * (x + d).double()).sum().item() + b == pytest.approx(0, abs=1e-5)
        assert size(d, norm) == pytest.approx(BRUTE[norm](optimize, x, w, b), abs=1e-5)


@shapes
@norms
def test_projection_out_of_reach_is_the_corner(shape, norm):
    x, w = plane(shape, 5, zeros=0.2)
    for sign, b in ((1, reachable(x, w, 1.5)), (-1, reachable(x, -w, 1.5))):
        d = fab.PROJECTION[norm](x, sign * w, b)
        corner = torch.where(sign * w > 0, torch.ones_like(x), torch.zeros_like(x))
        assert torch.equal(
            (x + d).round(decimals=6), torch.where(w == 0, x, corner).round(decimals=6)
        )


@norms
def test_projection_degenerate(norm):
    x, w = plane((1, 4, 4), 6, zeros=0.0)
    project = fab.PROJECTION[norm]
    assert (project(x, torch.zeros_like(w), 3.0) == 0).all()
    assert (project(x, torch.zeros_like(w), 0.0) == 0).all()
    on_it = -(w.double() * x.double()).sum().item()
    assert project(x, w, on_it).abs().max() < 1e-12
    # a gradient of any scale gives the same displacement
    b = reachable(x, w, 0.3)
    small = project(x, w.double() * 1e-30, b * 1e-30)
    assert torch.allclose(small, project(x, w, b), atol=1e-6)


def closed_form(f, weights, x, norm, target):
    """|z_t - z_y| over the dual norm of the difference of the weights: the box left out."""
    z = f(x[None])[0]
    w = weights[target] - weights[LABEL]
    dual = w.abs().sum() if norm == "linf" else w.norm()
    return ((z[LABEL] - z[target]) / dual).item()


@shapes
@norms
def test_fab_finds_the_distance_of_a_linear_network(shape, norm):
    f, weights = linear(shape, lead=0.5)
    x = torch.full(shape, 0.5) + 0.01 * image(shape)
    assert f(x[None])[0].argmax() == LABEL
    others = [k for k in range(CLASSES) if k != LABEL]
    exact = {t: closed_form(f, weights, x, norm, t) for t in others}
    nearest = min(exact, key=exact.get)

    iterates, point, distance = fab.fab(f, x, LABEL, 0.1, norm, nearest)
    assert_inside([*iterates, point], x, norm)
    assert (point - 0.5).abs().max() < 0.5, "the box is active: the test is void"
    assert len(iterates) == 100
    assert f(point[None])[0].argmax() != LABEL
    assert distance == pytest.approx(size(point - x, norm), rel=1e-6)
    assert exact[nearest] <= distance * (1 + 1e-5) <= 1.01 * exact[nearest]

    _, _, untargeted = fab.fab_untargeted(f, x, LABEL, 0.1, norm)
    assert untargeted == pytest.approx(distance, rel=1e-6)


@norms
def test_fab_stays_inside_on_a_curved_network(norm):
    shape = (3, 5, 7)
    f, y = curved(shape)
    x = image(shape)
    iterates, point, distance = fab.fab_untargeted(f, x, y, 0.1, norm, steps=40)
    assert_inside([*iterates, point], x, norm)
    assert 0 < distance < 1e9


@norms
def test_fab_keeps_the_nearest_point(norm):
    shape = (3, 5, 7)
    f, y = curved(shape)
    found = [fab.fab_untargeted(f, image(shape), y, 0.1, norm, steps=n)[2] for n in range(1, 16)]
    assert all(after <= before for before, after in pairwise(found))


def test_fab_returns_nothing_where_nothing_is_to_be_found():
    constant = torch.tensor([0.0, 1.0, 0.0])
    iterates, point, distance = fab.fab(
        lambda x: constant + 0 * x.sum(dim=(1, 2, 3))[:, None],
        torch.rand(1, 3, 3),
        1,
        0.1,
        "linf",
        0,
        steps=3,
    )
    assert point is None and distance == math.inf and len(iterates) == 3


# Square


def test_fractions():
    ends = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 4999]
    halvings = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert [square.fraction(k, 0.8) for k in ends] == [0.8 / 2**n for n in halvings]


@pytest.mark.parametrize(
    ("norm", "shape", "expected"),
    [
        ("linf", (3, 32, 32), [29, 20, 14, 10, 7, 5, 4, 3]),
        ("linf", (1, 28, 28), [25, 18, 13, 9, 6, 4, 3, 2]),
        ("linf", (3, 5, 7), [5, 4, 3, 2, 1, 1, 1, 1]),
        ("l2", (3, 32, 32), [29, 21, 15, 11, 7, 5, 5, 3]),
        ("l2", (3, 5, 7), [5, 5, 3, 3, 3, 3, 3, 3]),
        ("l2", (3, 2, 9), [1] * 8),
    ],
)
def test_sides(norm, shape, expected):
    queries = [0, 11, 51, 201, 501, 1001, 2001, 4001]
    assert [square.side(k, 0.8, shape, norm) for k in queries] == expected


def test_positions_never_reach_the_last_place():
    draws = square.Draws((1, 32, 32), randoms(0))
    drawn = [draws.position(k, (2, 3)) for k in range(500)]
    assert {row for row, _ in drawn} == {0, 1}
    assert {column for _, column in drawn} == {0, 1, 2}
    assert draws.position(0, (0, 0)) == (0, 0)


@pytest.mark.parametrize(
    ("height", "width", "s", "rows", "columns"),
    [
        (32, 32, 6, [1, 7, 13, 19, 25], [1, 7, 13, 19, 25]),
        (28, 28, 5, [1, 6, 11, 16, 21], [1, 6, 11, 16, 21]),
        (3, 4, 1, [0, 1, 2], [0, 1, 2, 3]),
        (23, 4, 4, [1, 5, 9, 13, 17], [0]),
        (1, 1, 1, [0], [0]),
    ],
)
def test_tiles(height, width, s, rows, columns):
    assert square.tile_grid(height, width) == (s, rows, columns)


@pytest.mark.parametrize("s", [1, 3, 5, 6, 29])
def test_bumps(s):
    upright, lying = square.bump(s, False), square.bump(s, True)
    assert upright.shape == (s, s)
    assert upright.norm().item() == pytest.approx(1)
    assert torch.equal(lying, upright.T)
    assert (upright[: s // 2] > 0).all() and (upright[s // 2 :] < 0).all()


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1), (2, 9, 2)], ids=str)
@norms
def test_square_stays_inside_and_only_improves(shape, norm):
    f, _ = linear(shape, lead=100.0)
    x = image(shape)
    draws = square.Draws(shape, randoms(4))
    points, margins = square.square(f, x, LABEL, EPS[norm], norm, draws, queries=300)
    assert len(points) == len(margins) == 301
    assert_inside(points[:20] + points[-1:], x, norm, EPS[norm])
    assert all(after <= before for before, after in pairwise(margins))
    assert margins[-1] == square.margin(f, points[-1], LABEL)


@shapes
@norms
def test_square_ends_with_the_first_wrong_answer(shape, norm):
    f, _ = linear(shape, lead=1.0)
    x = torch.full(shape, 0.5)
    draws = square.Draws(shape, randoms(5))
    points, margins = square.square(f, x, LABEL, 4 * EPS[norm], norm, draws, 500)
    assert len(points) == len(margins) <= 501
    assert margins[-1] <= 0 and all(m > 0 for m in margins[:-1])


class Fixed(square.Draws):
    """Two windows that do not meet."""

    def position(self, k, high):
        return 0, 0

    def second_position(self, k, high):
        return high


def test_square_empties_the_second_window():
    x = torch.full((2, 8, 8), 0.5)
    draws = Fixed(x.shape, randoms(7))
    best = square.start_l2(x, 0.5, draws)
    new = square.propose_l2(best, x, 0.5, 3, 0, draws) - x
    assert (new[:, 5:, 5:] == 0).all() and ((best - x)[:, 5:, 5:] != 0).any()
    assert size(new, "l2") == pytest.approx(0.5)
    assert not torch.equal(new[:, :3, :3], (best - x)[:, :3, :3])


def test_square_leaves_each_channel_the_norm_of_its_windows():
    """Where nothing is missing to eps, no channel takes norm from another one."""
    x = torch.full((3, 8, 8), 0.5)
    draws = Fixed(x.shape, randoms(7))
    delta = torch.randn(x.shape, generator=randoms(8)) * torch.tensor([1.0, 4, 9])[:, None, None]
    delta = 0.3 * delta / delta.norm()
    new = square.propose_l2(x + delta, x, 0.3, 3, 0, draws) - x
    before, after = (v.flatten(1).norm(dim=1) for v in (delta, new))
    assert after.tolist() == pytest.approx(before.tolist(), rel=1e-5)


@norms
def test_square_never_touches_the_place_out_of_reach(norm):
    """A square smaller than the image cannot cover its last row: the start stays there."""
    shape = (1, 16, 16)
    f, _ = linear(shape, lead=100.0)
    x = torch.full(shape, 0.5)
    draws = square.Draws(shape, randoms(6))
    points, margins = square.square(f, x, LABEL, EPS[norm], norm, draws, queries=200, p_init=0.05)
    assert margins[-1] < margins[0]
    if norm == "linf":
        assert torch.equal(points[-1][:, -1], points[0][:, -1])
        assert not torch.equal(points[-1][:, -2], points[0][:, -2])
    else:
        assert (points[-1][:, -1] == x[:, -1]).all()
