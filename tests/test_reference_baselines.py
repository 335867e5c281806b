"""GAT, FBF, ATF, TRADES, TRADES-AWP and AT-AWP against transcriptions of the published iterations.

Five batches in two short epochs, the second of them short, with momentum and weight decay. What
ours does otherwise is a switch of the transcription: it is set as ours where whole trainings are
compared, and each switch has a test of its own that says how far it leads from what is published.

FBF, TRADES and AWP add and clamp the perturbation where ours adds and clamps the image, so that
rounding parts them. On a grid of dyadic numbers nothing rounds and the images must be equal bit for
bit; with the published eps and steps they must be equal to rounding, which no other step is.
"""

import copy
from dataclasses import dataclass, field

import pytest
import torch

import nuat
from nuat.attacks import PGD
from nuat.methods import AT, AWP, GAT, TRADES, Free
from nuat.noise import Noise
from nuat.recipes import recipe
from nuat.threat import Gaussian, Linf, Uniform
from reference import awp, fbf, free, gat, trades
from test_reference_nuat import distance, images, network, sgd, without_counters

F32, F64 = torch.float32, torch.float64
ULPS = {F32: 3e-7, F64: 5e-16}
LOSS_RTOL = {F32: 2e-6, F64: 1e-12}
STATE_TOLERANCE = {F32: 2e-6, F64: 1e-13}

WITH, WITHOUT = "small-cnn(width=4)", "without BatchNorm"
NETWORKS = pytest.mark.parametrize("name", [WITH, WITHOUT], ids=["bn", "no-bn"])

REPLAYS = 3
GRID = {"eps": 1 / 32, "step": 1 / 128, "std": 1 / 1024}
"""In place of eps, step and noise: multiples of 2**-12 below 1 add exactly, in float32 too."""


class Given(Noise):
    """The noise it was made with."""

    def __init__(self, signs, uniform, normal):
        self.signs, self.unit, self.gauss = signs, uniform, normal

    def sign(self, x):
        return self.signs

    def uniform(self, x):
        return self.unit

    def normal(self, x):
        return self.gauss


@dataclass
class Batch:
    """Images, labels, noise and the place in training; as ours and as the transcriptions want it."""

    x: torch.Tensor
    y: torch.Tensor
    noise: Given
    epoch: int
    batch: int
    memory: dict = field(default_factory=dict)

    @property
    def symmetric(self):
        return 2 * self.noise.unit - 1


def training(dtype=F64, epochs=(0, 90), grid=False, inner=False, seed=0):
    """Five batches; `inner` leaves out images at and near 0 and 1."""
    memory = {}
    places = [(0, 0, 64), (0, 1, 64), (0, 2, 40), (1, 0, 64), (1, 1, 40)]
    for k, (turn, batch, size) in enumerate(places):
        x, y, signs = images(7000 + 10 * seed + k, size, dtype)
        g = torch.Generator().manual_seed(8000 + 10 * seed + k)
        unit = torch.rand(x.shape, generator=g, dtype=F64)
        normal = torch.randn(x.shape, generator=g, dtype=F64)
        if inner:
            x = 0.05 + 0.9 * x
        if grid:
            x, unit, normal = (x * 256).round() / 256, (unit * 16).floor() / 16, normal.round()
        noise = Given(signs, unit.to(dtype), normal.to(dtype))
        yield Batch(x, y, noise, epochs[turn], batch, memory)


def our_updates(method, f, optimiser, b):
    """One batch as a user writes it: [(x_adv, loss)], x_adv what f last saw in train mode but x."""
    seen = []
    hook = f.register_forward_pre_hook(
        lambda module, given: seen.append(given[0]) if module.training else None
    )
    t = nuat.Moment(b.epoch, b.batch, batch_size=64, noise=b.noise, memory=b.memory)
    found = []
    for loss in method.step(f, b.x, b.y, t):
        x_adv = [given for given in seen if given is not b.x][-1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append((x_adv.detach(), loss.detach()))
        seen.clear()
    hook.remove()
    return found


def their_gat(f, optimiser, b, kind="cifar10"):
    lam = {"cifar10": gat.lam_cifar10, "mnist": gat.lam_mnist}[kind](b.epoch)
    return [gat.gat_iteration(f, optimiser, b.x, b.y, b.noise.signs, lam, b.batch, kind)]


def their_fbf(f, optimiser, b, grid=None, **switches):
    if grid:
        switches |= {"eps": grid["eps"], "alpha": 1.25 * grid["eps"]}
    return [fbf.fbf_iteration(f, optimiser, b.x, b.y, b.symmetric, **switches)]


def their_free(f, optimiser, b, m=REPLAYS, **switches):
    if "theirs" not in b.memory:
        b.memory["theirs"] = free.begin(64, b.x.shape[1:], b.x.dtype)
    return free.free_batch(f, optimiser, b.x, b.y, b.memory["theirs"], m, **switches)


def their_trades(f, optimiser, b, grid=None, **switches):
    switches |= grid or {}
    return [trades.trades_iteration(f, optimiser, b.x, b.y, b.noise.gauss, **switches)]


def their_trades_awp(f, optimiser, b, grid=None, gamma=awp.gamma_trades, **switches):
    switches |= grid or {}
    x_adv, loss, _ = awp.trades_awp_iteration(
        f, optimiser, b.x, b.y, b.noise.gauss, gamma(b.epoch), **switches
    )
    return [(x_adv, loss)]


def their_at_awp(f, optimiser, b, grid=None, **switches):
    if grid:
        switches |= {"eps": grid["eps"], "step": grid["step"]}
    x_adv, loss, _ = awp.at_awp_iteration(
        f, optimiser, b.x, b.y, b.symmetric, awp.gamma_at(b.epoch), **switches
    )
    return [(x_adv, loss)]


def our_fbf(eps=8 / 255):
    return AT(PGD(Linf(eps), steps=1, size=1.25, start=Uniform(), train_mode=True))


def our_at_awp(train_mode, eps=8 / 255):
    ball = Linf(eps)
    return AWP(AT(PGD(ball, steps=10, size=1 / 4, start=Uniform(), train_mode=train_mode)), 0.01)


ON_GRID = TRADES(Linf(GRID["eps"]), size=1 / 4, start=Gaussian(GRID["std"]))
TRADES_AS_OURS = {"merged": True, "boxed": True}

# name: ours, ours on the grid, theirs, the switches as ours
CASES = {
    "fbf": (our_fbf(), our_fbf(GRID["eps"]), their_fbf, {"counting": False}),
    "trades": (TRADES(), ON_GRID, their_trades, TRADES_AS_OURS),
    "trades-awp": (
        AWP(),
        AWP(ON_GRID),
        their_trades_awp,
        {"decay": "w", **TRADES_AS_OURS},
    ),
    "at-awp, train mode": (
        our_at_awp(True),
        our_at_awp(True, GRID["eps"]),
        their_at_awp,
        {"decay": "w", "counting": False, "mode": "train"},
    ),
    "at-awp, eval mode": (
        our_at_awp(False),
        our_at_awp(False, GRID["eps"]),
        their_at_awp,
        {"decay": "w", "counting": False, "mode": "eval"},
    ),
}


def compare(theirs, method, f, batches, pixels="equal", loss_rtol=1e-12, **switches):
    """Both trainings from f on; images and losses compared on the way. The two networks."""
    f, g = copy.deepcopy(f), copy.deepcopy(f)
    f_optimiser, g_optimiser = sgd(f), sgd(g)
    for b in batches:
        published = theirs(f, f_optimiser, b, **switches)
        ours = our_updates(method, g, g_optimiser, b)
        assert len(ours) == len(published)
        for (x_theirs, loss_theirs), (x_ours, loss_ours) in zip(published, ours, strict=True):
            apart = (x_theirs - x_ours).abs().max()
            limit = 0 if pixels == "equal" else ULPS[b.x.dtype]
            assert apart <= limit, f"epoch {b.epoch}, batch {b.batch}: images {apart:.2g} apart"
            torch.testing.assert_close(loss_ours, loss_theirs, rtol=loss_rtol, atol=0)
    return f, g


def moved(f, g):
    """How far apart two networks are: weights, and running statistics with their counters."""
    weights = {name for name, _ in f.named_parameters()}
    both = [{}, {}]
    for split, wanted in zip(both, (True, False), strict=True):
        for side, net in (("f", f), ("g", g)):
            state = net.state_dict()
            split[side] = {key: state[key] for key in state if (key in weights) == wanted}
    return [distance(split["f"], split["g"]) if split["f"] else 0.0 for split in both]


SINGLE = pytest.mark.parametrize("dtype", [F32, F64], ids=["f32", "f64"])


@SINGLE
@NETWORKS
@pytest.mark.parametrize("kind", ["cifar10", "mnist"])
def test_gat_for_five_updates(kind, name, dtype):
    """Nothing is otherwise: the images are equal bit for bit, the statistics count the same passes."""
    method = GAT() if kind == "cifar10" else recipe("gat", "mnist").method

    def theirs(f, optimiser, b):
        return their_gat(f, optimiser, b, kind)

    start = network(name, 3, dtype)
    f, g = compare(theirs, method, start, training(dtype), loss_rtol=LOSS_RTOL[dtype])
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[dtype]
    assert moved(start, f)[0] > 1e-3


@SINGLE
@NETWORKS
def test_free_for_five_batches_of_replays_with_one_perturbation(name, dtype):
    start = network(name, 3, dtype)
    batches = list(training(dtype))
    method = Free(replays=REPLAYS)
    f, g = compare(their_free, method, start, batches, loss_rtol=LOSS_RTOL[dtype])
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[dtype]
    memory = batches[0].memory
    assert torch.equal(memory["delta"], memory["theirs"])
    assert (memory["delta"] != 0).any(1).any(1).any(1).all()


@NETWORKS
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grid", [None, GRID], ids=["published-numbers", "grid"])
def test_five_updates_with_the_switches_as_ours(case, grid, name):
    """In float64; on the grid the images are equal bit for bit."""
    ours, ours_on_grid, theirs, switches = CASES[case]
    method = ours_on_grid if grid else ours
    start = network(name, 3, F64)
    f, g = compare(
        theirs,
        method,
        start,
        training(grid=grid is not None),
        "equal" if grid else "rounded",
        grid=grid,
        **switches,
    )
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[F64]
    assert moved(start, f)[0] > 1e-3
