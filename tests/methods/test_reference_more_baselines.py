"""N-FGSM, GradAlign, FGSM-PGI and MART against transcriptions of their published iterations.

As in test_reference_baselines: five batches, some of them short; on a grid of dyadic numbers the
images are equal bit for bit, with the published eps and steps they are equal to rounding.
"""

import pytest
import torch

from nuat.methods import MART, NFGSM, PGI, GradAlign
from nuat.methods.gradalign import cosines
from nuat.threat_models import Gaussian, Linf
from tests.methods.test_reference_baselines import (
    F64,
    GRID,
    LOSS_RTOL,
    NETWORKS,
    STATE_TOLERANCE,
    WITH,
    compare,
    counts,
    statistics,
    training,
    weights,
)
from tests.methods.test_reference_nuat import distance, network
from tests.reference import gradalign, mart, nfgsm, pgi


def their_nfgsm(f, optimizer, b, eps=8 / 255, **switches):
    return [nfgsm.nfgsm_iteration(f, optimizer, b.x, b.y, b.symmetric, eps, **switches)]


def their_gradalign(f, optimizer, b, eps=8 / 255, **switches):
    return [gradalign.gradalign_iteration(f, optimizer, b.x, b.y, b.symmetric, eps, **switches)]


def their_pgi(f, optimizer, b, eps=8 / 255):
    prior = b.memory.setdefault("theirs", torch.zeros(64, *b.x.shape[1:], dtype=b.x.dtype))
    return [pgi.pgi_iteration(f, optimizer, b.x, b.y, prior, eps, eps)]


def their_mart(f, optimizer, b, eps=0.031):
    numbers = {} if eps == 0.031 else GRID
    return [mart.mart_iteration(f, optimizer, b.x, b.y, b.noise.gauss, **numbers)]


MART_ON_GRID = MART(Linf(GRID["eps"]), rel_step_size=1 / 4, start=Gaussian(1 / 1024, clamp=False))
BALL = Linf(GRID["eps"])
# ours, ours on the grid, theirs, the switches as ours
CASES = {
    "n-fgsm": (NFGSM(), NFGSM(BALL), their_nfgsm, {"counting": False}),
    "gradalign": (GradAlign(), GradAlign(BALL), their_gradalign, {"counting": False}),
    "fgsm-pgi": (PGI(), PGI(BALL), their_pgi, {}),
    "mart": (MART(), MART_ON_GRID, their_mart, {}),
}


@NETWORKS
@pytest.mark.parametrize("grid", [False, True], ids=["published-numbers", "grid"])
@pytest.mark.parametrize("case", CASES)
def test_five_updates_with_the_switches_as_ours(case, grid, name):
    ours, ours_on_grid, theirs, switches = CASES[case]
    if grid:
        switches = switches | {"eps": GRID["eps"]}
    start, batches = network(name, 3, F64), training(F64, grid=grid)
    method, pixels = (ours_on_grid, "equal") if grid else (ours, "rounded")
    f, g = compare(theirs, method, start, batches, pixels, LOSS_RTOL[F64], **switches)
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[F64]
    assert distance(weights(start), weights(f)) > 1e-3


@pytest.mark.parametrize("case", ["n-fgsm", "gradalign"])
def test_the_published_attack_updates_the_statistics(case):
    """Nothing else is switched: train mode ignores the statistics, so all else is equal."""
    method, _, theirs, _ = CASES[case]
    start = network(WITH, 3, F64)
    f, g = compare(theirs, method, start, training(), "rounded")
    assert distance(weights(f), weights(g)) < STATE_TOLERANCE[F64]
    assert counts(f, start) - counts(g, start) == 5
    assert distance(statistics(f), statistics(g)) > 1e-3


def test_an_image_without_a_gradient_has_no_cosine():
    a = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[1.0, 0.0]]], requires_grad=True)
    b = torch.tensor([[[6.0, 8.0]], [[1.0, 0.0]], [[0.0, 2.0]]], requires_grad=True)
    cosine, defined = cosines(a, b)
    assert cosine.tolist() == pytest.approx([1, 0, 0]) and defined.tolist() == [1, 0, 1]
    cosine.sum().backward()
    assert a.grad.isfinite().all() and b.grad.isfinite().all()
    zeros = torch.zeros(2, 1, 2, requires_grad=True)
    cosines(zeros, zeros)[0].sum().backward()
    assert torch.equal(zeros.grad, torch.zeros(2, 1, 2))
