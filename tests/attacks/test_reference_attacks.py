"""APGD, FAB and Square, step for step, against plain transcriptions of their definitions."""

import itertools
import math

import pytest
import torch
from torch import nn

from nuat.attacks import APGD, APGDDLR, APGDT, FAB, FABT, MM, Square
from nuat.attacks.apgd import ascent_direction
from nuat.attacks.square import QUERIES_PER_DRAW, tiles
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.threat_models import L2, Linf
from tests.reference.apgd import apgd
from tests.reference.fab import fab, fab_untargeted
from tests.reference.square import square

SHAPES = [(1, 8, 8), (3, 5, 7)]
BALLS = [Linf(0.08), L2(0.6)]
CASES = [(shape, ball) for shape in SHAPES for ball in BALLS]
IMAGES = 4


@pytest.fixture(params=CASES, ids=str)
def case(request):
    """A small network with kinks in float64, a few images of it, and a ball."""
    shape, ball = request.param
    torch.manual_seed(math.prod(shape))
    f = nn.Sequential(
        nn.Conv2d(shape[0], 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * shape[1] * shape[2], 5),
    ).double()
    x = torch.rand(IMAGES, *shape, dtype=torch.float64)
    with torch.no_grad():
        y = f(x).argmax(1)
    return f, x, y, ball


def iterates_of(attack, f, x, y, target=None, restart=0):
    """The iterates of a run, [B, steps, C, H, W]."""
    points = []
    target, noise = y if target is None else target, PerImageNoise(3, torch.arange(IMAGES), "test")
    with frozen_eval(f) as model, torch.no_grad():
        for state in attack.iterates(model, x, y, target, noise, restart):
            points.append(state.x_adv.clone())
    return torch.stack(points, 1)


def norm_of(ball):
    return "linf" if isinstance(ball, Linf) else "l2"


def far_from(x, points):
    """The largest change of a pixel, so that an attack that does nothing fails."""
    return float((points - x[:, None]).abs().amax())


def settled(losses):
    """How many steps it takes until rounding decides: the loss has stopped changing, or a ratio is
    1 (the true class is third, and its gradient is 0 but for rounding)."""
    pairs = enumerate(itertools.pairwise(losses))
    still = (k for k, (a, b) in pairs if abs(a - b) < 1e-12 or abs(a - 1) < 1e-9)
    return next(still, len(losses) - 1)


@pytest.mark.parametrize("steps", [100, 23])
@pytest.mark.parametrize(
    ("kind", "loss"),
    [(APGD, "ce"), (APGDDLR, "dlr"), (APGDT, "targeted"), (MM, "margin")],
    ids=lambda v: str(v),
)
def test_apgd(case, kind, loss, steps):
    f, x, y, ball = case
    noise = PerImageNoise(3, torch.arange(IMAGES), "test")
    start = 2 * noise.uniform(x) - 1 if isinstance(ball, Linf) else noise.normal(x)
    target = (y + 2) % 5
    ours = iterates_of(kind(ball, steps=steps), f, x, y, target=target)
    assert far_from(x, ours) > 0.05
    compared = 0
    for i in range(IMAGES):
        aim = int(target[i]) if loss in ("targeted", "margin") else None
        args = (f, x[i], int(y[i]), ball.eps, norm_of(ball), loss, start[i])
        points, losses = apgd(*args, steps=steps, target=aim)
        assert len(points) == ours.shape[1] == steps + 1
        n = 1 + settled(losses)
        compared += n
        torch.testing.assert_close(ours[i, :n], torch.stack(points)[:n], rtol=0, atol=1e-7)
    assert compared > IMAGES * steps / 4


def test_apgd_in_l2_steps_as_published_where_the_loss_is_constant(case):
    """The DLR of a class in third place is 1 but for the 1e-12 in its divisor."""
    f, x, _, ball = case
    with torch.no_grad():
        third = f(x).argsort(1, descending=True)[:, 2]
    noise = PerImageNoise(3, torch.arange(IMAGES), "test")
    start = 2 * noise.uniform(x) - 1 if isinstance(ball, Linf) else noise.normal(x)
    small = type(ball)(ball.eps / 20)
    ours = iterates_of(APGDDLR(small, steps=1), f, x, third)
    for i in range(IMAGES):
        points, losses = apgd(
            f, x[i], int(third[i]), small.eps, norm_of(small), "dlr", start[i], steps=1
        )
        assert abs(losses[0] - 1) < 1e-9
        if isinstance(ball, L2):
            torch.testing.assert_close(ours[i], torch.stack(points), rtol=0, atol=1e-5 * small.eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_apgd_shortens_its_l2_step_by_the_published_divisor(dtype):
    gradient = torch.randn(6, 3, 4, 5, dtype=dtype)
    scales = torch.tensor([1e3, 1.0, 1e-3, 1e-12, 1e-15, 0.0], dtype=dtype)[:, None, None, None]
    unit = L2(1.0).steepest_direction(gradient)
    ours = ascent_direction(scales * unit, L2(1.0))
    expected = scales * unit / (scales + 1e-12)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    # gradients of an ordinary size keep the last bit of the direction that PGD takes
    if dtype is torch.float32:
        assert torch.equal(ours[:3], L2(1.0).steepest_direction(scales[:3] * unit[:3]))
    assert torch.equal(ascent_direction(scales * unit, Linf(1.0)), (scales * unit).sign())


def pulled(x, points, f, y, beta):
    """The points after the pull, as the transcription gives them."""
    with torch.no_grad():
        wrong = f(points.flatten(0, 1)).argmax(1).reshape(points.shape[:2]) != y[:, None]
    back = x[:, None] + beta * (points - x[:, None])
    return torch.where(wrong[:, :, None, None, None], back, points)


@pytest.mark.parametrize("targeted", [True, False])
def test_fab(case, targeted):
    f, x, y, ball = case
    target = (y + 1) % 5
    attack = FABT(ball) if targeted else FAB(ball)
    ours = pulled(x, iterates_of(attack, f, x, y, target=target), f, y, attack.beta)
    assert far_from(x, ours) > 0.01
    for i in range(IMAGES):
        args = (f, x[i], int(y[i]), ball.eps, norm_of(ball))
        points, *_ = fab(*args, int(target[i])) if targeted else fab_untargeted(*args)
        torch.testing.assert_close(ours[i], torch.stack(points), rtol=0, atol=1e-8)


class Dealt:
    """The random numbers of one image, in the interface of the transcription."""

    def __init__(self, ball, x, place, queries):
        channels, *size = x.shape[1:]
        noise = PerImageNoise(3, torch.arange(IMAGES), "test")
        self.linf = isinstance(ball, Linf)
        if self.linf:
            self.first = noise.sign(x[:, :, :1, :])[place]
        else:
            _, tops, self.lefts = tiles(*size)
            count = len(tops) * len(self.lefts)
            self.first = noise.uniform(x.new_empty(len(x), count, 1 + channels))[place]
        numbers = channels + (2 if self.linf else 5)
        blocks = range(-(-queries // QUERIES_PER_DRAW))
        tables = [
            noise.uniform(x.new_empty(len(x), QUERIES_PER_DRAW, numbers))[place] for _ in blocks
        ]
        self.table = torch.cat(tables)

    def stripes(self):
        return self.first

    def position(self, k, high):
        return tuple(math.floor(float(self.table[k, i]) * high[i]) for i in (0, 1))

    def second_position(self, k, high):
        return tuple(math.floor(float(self.table[k, 2 + i]) * high[i]) for i in (0, 1))

    def flip(self, k):
        return bool(self.table[k, 4] >= 0.5)

    def colours(self, k):
        return self._signs(self.table[k, 2:] if self.linf else self.table[k, 5:])

    def tile_flip(self, i, j):
        return bool(self.first[i * len(self.lefts) + j, 0] >= 0.5)

    def tile_signs(self, i, j):
        return self._signs(self.first[i * len(self.lefts) + j, 1:])

    @staticmethod
    def _signs(u):
        return torch.where(u < 0.5, -1.0, 1.0).double()[:, None, None]


def test_square(case):
    f, x, y, ball = case
    smaller = type(ball)(ball.eps / 3)
    queries = 600
    ours = iterates_of(Square(smaller, steps=queries), f, x, y)
    assert ours.shape[1] == queries + 1
    compared = 0
    for i in range(IMAGES):
        draws = Dealt(smaller, x, i, queries)
        args = (f, x[i], int(y[i]), smaller.eps, norm_of(ball), draws)
        points, _ = square(*args, queries=queries)
        torch.testing.assert_close(ours[i, : len(points)], torch.stack(points), rtol=0, atol=1e-8)
        compared += len(points)
        changes = sum(not torch.equal(a, b) for a, b in itertools.pairwise(points))
        assert changes > 3 or len(points) < 20
    assert compared > queries, "the images did not all fall at once"
