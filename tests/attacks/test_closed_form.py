"""Attacks on a linear network, whose distance to the decision boundary is known."""

import math

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import FAB, FABT, Square
from nuat.rng import PerImageNoise
from nuat.threat_models import L2, Linf
from tests.reference.fab import project_l2, project_linf

CLASSES = 5
SHAPES = [(1, 8, 8), (3, 5, 7)]
PROJECT = {Linf: project_linf, L2: project_l2}


def network(shape):
    """W x + b, small enough not to saturate a softmax."""
    torch.manual_seed(sum(shape))
    f = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), CLASSES))
    with torch.no_grad():
        f[1].weight.normal_().mul_(0.3)
    return f


def distances(f, x, y, kind):
    """The distance of each image to the nearest misclassified point of [0, 1]^n."""
    weight, bias = f[1].weight.detach().double(), f[1].bias.detach().double()
    nearest = []
    for image, label in zip(x.double(), y.tolist(), strict=True):
        found = []
        for other in set(range(CLASSES)) - {label}:
            w, b = weight[other] - weight[label], bias[other] - bias[label]
            step = PROJECT[kind](image, w.reshape(image.shape), b)
            reached = (w * (image + step).flatten()).sum() + b
            length = step.abs().max() if kind is Linf else step.norm()
            found.append(float(length) if abs(reached) < 1e-9 else math.inf)
        nearest.append(min(found))
    return torch.tensor(nearest)


@pytest.fixture(params=[(shape, kind) for shape in SHAPES for kind in (Linf, L2)], ids=str)
def case(request):
    """A network, images whose distances at least double from one to the next, and these."""
    shape, kind = request.param
    f = network(shape)
    pool = torch.rand(400, *shape)
    labels = f(pool).argmax(1)
    far = distances(f, pool, labels, kind)
    chosen, last = [], 0.004 if kind is Linf else 0.02
    for place in far.argsort().tolist():
        if far[place] >= 2 * last:
            chosen.append(place)
            last = float(far[place])
    chosen = chosen[-5:]
    assert len(chosen) >= 4
    return f, pool[chosen], labels[chosen], far[chosen], kind


@pytest.mark.parametrize("attacker", [FAB, FABT], ids=["fab", "fab-t"])
def test_fab_finds_the_minimal_distance(case, attacker):
    f, x, y, far, kind = case
    points, found = attacker(kind(0.1)).minimal_perturbation(
        f, x, y, PerImageNoise(0, torch.arange(len(x)))
    )
    assert (found <= 1.05 * far).all() and (found >= 0.999 * far).all()
    assert (f(points).argmax(1) != y).all()


ATTACKS = (
    "pgd-100",
    "pgd-50(success_at='any')",
    "mt-pgd-100",
    "gama-100",
    "gama-fw-100",
    "gama-mt-100",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "fab",
    "fab-t",
    "targeted-pgd-50",
)


@pytest.mark.parametrize(("batch_size", "grid"), [(1, (-2,)), (3, (1,)), (8, (0, 2))])
def test_robust_accuracy_is_exact(case, batch_size, grid):
    f, x, y, far, kind = case
    middles = (far[1:] * far[:-1]).sqrt().tolist()
    for eps in (middles[place] for place in grid):
        ball, expected = kind(eps), (far > eps).tolist()
        scores = nuat.evaluate(f, (x, y), ball, ATTACKS, classes=CLASSES, batch_size=batch_size)
        # an attack on one class, the runner-up, says nothing of the others
        runner_up = scores.robust.pop("targeted-pgd-50")
        assert all(stood or not exact for stood, exact in zip(expected, runner_up, strict=True))
        for name, standing in scores.robust.items():
            assert standing == expected, (name, eps)


def test_square_is_exact_in_linf_and_never_overclaims_in_l2(case):
    f, x, y, far, kind = case
    eps = float((far[-1] * far[-2]).sqrt())
    square = Square(kind(eps), last_offset=True)
    scores = nuat.evaluate(f, (x, y), kind(eps), {"square": square}, classes=CLASSES)
    exact, stood = (far > eps).tolist(), scores.robust["square"]
    assert all(found for found, true in zip(stood, exact, strict=True) if true)
    assert stood == exact if kind is Linf else sum(stood) < len(x)


def test_autoattack_is_exact_and_reports_which_part_broke_an_image(case, tmp_path):
    f, x, y, far, kind = case
    ball = kind(float((far[-1] * far[-2]).sqrt()))
    scores = nuat.evaluate(f, (x, y), ball, "autoattack", classes=CLASSES, out=tmp_path / "out")
    assert scores.robust["autoattack"] == (far > ball.eps).tolist()
    parts = scores.parts["autoattack"]
    assert sum(part["broken"] for part in parts.values()) == int((far <= ball.eps).sum())
    assert parts["square"]["images"] == int((far > ball.eps).sum())


def test_a_robust_image_costs_the_minimal_number_of_passes():
    """The published code: 103 + 101 passes in APGD-CE, 7,856 + 1,910 in all, for 10 classes."""
    torch.manual_seed(0)
    f = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    x = torch.rand(8, 3, 2, 2)
    scores = nuat.evaluate(f, (x, f(x).argmax(1)), Linf(1e-6), "autoattack")
    assert all(scores.robust["autoattack"])
    parts = scores.parts["autoattack"]
    counts = {name: (part["forwards"], part["backwards"]) for name, part in parts.items()}
    assert counts == {
        "apgd-ce": (101, 101),
        "apgd-t": (909, 909),
        "fab-t": (1800, 900),
        "square": (5001, 0),
    }
