"""GAT, FBF, ATF, TRADES, TRADES-AWP and AT-AWP against transcriptions of the published iterations.

Five batches in two short epochs, the second of them short, with momentum and weight decay. What
ours does otherwise is a switch of the transcription: it is set as ours where whole trainings are
compared, and each switch has a test of its own that says how far it leads from what is published.

FBF, TRADES and AWP add and clamp the perturbation where ours adds and clamps the image, so that
rounding parts them. On a grid of dyadic numbers nothing rounds and the images must be equal bit for
bit; with the published eps and steps they must be equal to rounding, which no other step is. There
TRADES and AWP are compared in float64 alone: their gradient begins where the divergence is nearly
0, and in float32 rounding decides the sign of one pixel in a hundred.
"""

import copy
from dataclasses import dataclass, field, replace

import pytest
import torch

import nuat
from nuat.attacks import PGD
from nuat.methods import AT, AWP, GAT, TRADES, Free
from nuat.recipes import get_recipe
from nuat.rng import Noise
from nuat.threat_models import Gaussian, Linf, Uniform
from tests.methods.test_reference_nuat import distance, images, network, sgd
from tests.reference import awp, fbf, free, gat, trades

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
    """Noise that returns the given tensors."""

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
    """Images, labels, noise, epoch and index of a batch."""

    x: torch.Tensor
    y: torch.Tensor
    noise: Given
    epoch: int
    batch: int
    memory: dict = field(default_factory=dict)

    @property
    def symmetric(self):
        """The uniform noise in [-1, 1]."""
        return 2 * self.noise.unit - 1


def training(dtype=F64, epochs=(0, 90), grid=False, inner=False, seed=0):
    """Five batches; with `inner` no pixel is at or near 0 or 1."""
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


def our_updates(method, f, optimizer, b):
    """One batch of a user's loop: (x_adv, loss) per update; x_adv is the last input of f but x."""
    seen = []
    hook = f.register_forward_pre_hook(
        lambda module, given: seen.append(given[0]) if module.training else None
    )
    ctx = nuat.StepContext(b.epoch, b.batch, batch_size=64, noise=b.noise, memory=b.memory)
    found = []
    for loss in method.step(f, b.x, b.y, ctx):
        x_adv = [given for given in seen if given is not b.x][-1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((x_adv.detach(), loss.detach()))
        seen.clear()
    hook.remove()
    return found


def their_gat(f, optimizer, b, kind="cifar10"):
    lam = {"cifar10": gat.lam_cifar10, "mnist": gat.lam_mnist}[kind](b.epoch)
    return [gat.gat_iteration(f, optimizer, b.x, b.y, b.noise.signs, lam, b.batch, kind)]


def their_fbf(f, optimizer, b, grid=None, **switches):
    if grid:
        switches |= {"eps": grid["eps"], "alpha": 1.25 * grid["eps"]}
    return [fbf.fbf_iteration(f, optimizer, b.x, b.y, b.symmetric, **switches)]


def their_free(f, optimizer, b, m=REPLAYS, **switches):
    if "theirs" not in b.memory:
        b.memory["theirs"] = free.begin(64, b.x.shape[1:], b.x.dtype)
    return free.free_batch(f, optimizer, b.x, b.y, b.memory["theirs"], m, **switches)


def their_trades(f, optimizer, b, grid=None, **switches):
    switches |= grid or {}
    return [trades.trades_iteration(f, optimizer, b.x, b.y, b.noise.gauss, **switches)]


def their_trades_awp(f, optimizer, b, grid=None, gamma=awp.gamma_trades, **switches):
    switches |= grid or {}
    x_adv, loss, _ = awp.trades_awp_iteration(
        f, optimizer, b.x, b.y, b.noise.gauss, gamma(b.epoch), **switches
    )
    return [(x_adv, loss)]


def their_at_awp(f, optimizer, b, grid=None, **switches):
    if grid:
        switches |= {"eps": grid["eps"], "step": grid["step"]}
    x_adv, loss, _ = awp.at_awp_iteration(
        f, optimizer, b.x, b.y, b.symmetric, awp.gamma_at(b.epoch), **switches
    )
    return [(x_adv, loss)]


def our_fbf(eps=8 / 255):
    return AT(PGD(Linf(eps), steps=1, rel_step_size=1.25, start=Uniform(), train_mode=True))


def our_at_awp(train_mode, eps=8 / 255):
    ball = Linf(eps)
    return AWP(
        AT(PGD(ball, steps=10, rel_step_size=1 / 4, start=Uniform(), train_mode=train_mode)), 0.01
    )


ON_GRID = TRADES(Linf(GRID["eps"]), rel_step_size=1 / 4, start=Gaussian(GRID["std"], clamp=False))

# name: ours, ours on the grid, theirs, the switches as ours
CASES = {
    "fbf": (our_fbf(), our_fbf(GRID["eps"]), their_fbf, {"counting": False}),
    "trades": (TRADES(), ON_GRID, their_trades, {}),
    "trades-awp": (
        AWP(),
        AWP(replace(ON_GRID, clean_first=False)),
        their_trades_awp,
        {"decay": "w"},
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
    """Train two copies of f, compare images and losses in each update, and return both."""
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


def weights(f):
    return {key: weight.detach() for key, weight in f.named_parameters()}


def statistics(f):
    return {key: buffer for key, buffer in f.named_buffers() if "num_batches" not in key}


def counts(f, since):
    """The number of passes that BatchNorm has counted since, which must agree in all layers."""
    now, before = dict(f.named_buffers()), dict(since.named_buffers())
    (count,) = {int(now[key] - before[key]) for key in now if "num_batches" in key}
    return count


DTYPES = pytest.mark.parametrize("dtype", [F32, F64], ids=["f32", "f64"])


@DTYPES
@NETWORKS
@pytest.mark.parametrize("kind", ["cifar10", "mnist"])
def test_gat_for_five_updates(kind, name, dtype):
    """GAT does not differ: images are bit-equal, and the statistics count the same passes."""
    method = GAT() if kind == "cifar10" else get_recipe("gat", "mnist").method

    def theirs(f, optimizer, b):
        return their_gat(f, optimizer, b, kind)

    start = network(name, 3, dtype)
    f, g = compare(theirs, method, start, training(dtype), loss_rtol=LOSS_RTOL[dtype])
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[dtype]
    assert distance(weights(start), weights(f)) > 1e-3


@DTYPES
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
@pytest.mark.parametrize("grid", [None, GRID], ids=["published-numbers", "grid"])
@pytest.mark.parametrize(("case", "dtype"), [("fbf", F32), *((case, F64) for case in CASES)])
def test_five_updates_with_the_switches_as_ours(case, dtype, grid, name):
    ours, ours_on_grid, theirs, switches = CASES[case]
    method, pixels = (ours_on_grid, "equal") if grid else (ours, "rounded")
    start, batches = network(name, 3, dtype), training(dtype, grid=grid is not None)
    f, g = compare(theirs, method, start, batches, pixels, LOSS_RTOL[dtype], grid=grid, **switches)
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[dtype]
    assert distance(weights(start), weights(f)) > 1e-3


@NETWORKS
@pytest.mark.parametrize("case", ["trades", "trades-awp"])
def test_attacks_on_the_divergence_are_bit_equal_in_float32(case, name):
    """The first image batch of the grid: near x the signs depend on how the KL is rounded."""
    _, method, theirs, switches = CASES[case]
    attack = (method.base if case == "trades-awp" else method).attack
    start = network(name, 3, F32)
    for seed in range(4):
        for b in training(F32, grid=True, seed=seed):
            published = theirs(copy.deepcopy(start), sgd(start), b, grid=GRID, **switches)[0][0]
            ours = attack(copy.deepcopy(start), b.x, b.y, nuat.StepContext(noise=b.noise))
            assert torch.equal(ours, published)


def test_the_gradient_of_the_divergence_is_finite_where_a_probability_underflows():
    z = torch.tensor([[200.0, 0.0, 1.0], [0.0, 150.0, 300.0]], requires_grad=True)
    z_adv = torch.tensor([[0.5, 0.0, 1.0], [0.5, 400.0, 1.0]], requires_grad=True)
    gradients = torch.autograd.grad(nuat.losses.kl(z, z_adv), (z, z_adv))
    assert all(gradient.isfinite().all() for gradient in gradients)
    published = torch.autograd.grad(trades.divergence(z_adv, z.detach()), z_adv)[0]
    assert torch.equal(gradients[1], published)


@pytest.mark.parametrize(
    ("theirs", "switches", "method", "counted"),
    [
        (their_fbf, {}, our_fbf(), 2),
        (their_at_awp, {"decay": "w"}, our_at_awp(True), 10 + 1 + 1 + 1),
    ],
    ids=["fbf", "at-awp"],
)
def test_published_attacks_in_train_mode_update_the_statistics(theirs, switches, method, counted):
    """Nothing else is switched: train mode ignores the statistics, so all else is equal."""
    start = network(WITH, 3, F64)
    f, g = compare(theirs, method, start, training(), "rounded", **switches)
    assert distance(weights(f), weights(g)) < STATE_TOLERANCE[F64]
    assert (counts(f, start), counts(g, start)) == (5 * counted, 5)
    assert distance(statistics(f), statistics(g)) > 1e-3


def test_the_clean_logging_pass_of_published_at_awp_updates_the_statistics():
    """It follows the first update and changes the statistics that a later eval attack uses."""
    start, method = network(WITH, 3, F64), our_at_awp(False)
    first, *later = training()
    f, g = compare(their_at_awp, method, start, [first], "rounded", decay="w", mode="eval")
    assert distance(weights(f), weights(g)) < STATE_TOLERANCE[F64]
    assert (counts(f, start), counts(g, start)) == (2, 1)
    with pytest.raises(AssertionError, match="images"):
        compare(their_at_awp, method, start, [first, *later], "rounded", decay="w", mode="eval")


@NETWORKS
@pytest.mark.parametrize("kind", ["trades", "at"])
def test_published_awp_decays_the_perturbed_weights(kind, name):
    """An update leaves perturbed weights  lr * decay * v  apart, and the others equal."""
    (b, *_), start = training(inner=True), network(name, 3, F64)
    f, g = copy.deepcopy(start), copy.deepcopy(start)
    if kind == "trades":
        method = AWP(gamma=0.005)
        *_, v = awp.trades_awp_iteration(f, sgd(f), b.x, b.y, b.noise.gauss, 0.005)
    else:
        method = our_at_awp(True)
        *_, v = awp.at_awp_iteration(f, sgd(f), b.x, b.y, b.symmetric, 0.01)
    optimizer = sgd(g)
    our_updates(method, g, optimizer, b)
    lr, decay = (optimizer.defaults[key] for key in ("lr", "weight_decay"))

    perturbed = {key for key, weight in weights(f).items() if weight.ndim > 1}
    assert v.keys() == perturbed
    for key, weight in weights(f).items():
        apart = weights(g)[key] - weight
        expected = lr * decay * v[key] if key in v else torch.zeros_like(weight)
        torch.testing.assert_close(apart, expected, rtol=0, atol=5e-16)
        if key in v:
            gamma = 0.005 if kind == "trades" else 0.01
            torch.testing.assert_close(v[key].norm(), gamma * start.state_dict()[key].norm())
            assert expected.abs().max() > 1e-9


@NETWORKS
def test_decay_of_the_perturbed_weights_stays_small_over_five_updates(name):
    """The distance of each layer is bounded by the sum of its perturbations under momentum."""
    start = network(name, 3, F64)
    f, g = compare(
        their_at_awp, our_at_awp(True), start, training(), "rounded", 1e-5, counting=False
    )
    carried = sum(sum(0.9**j for j in range(t)) for t in range(1, 6))
    for key, weight in weights(start).items():
        apart = (weights(g)[key] - weights(f)[key]).norm()
        assert 0 < apart < 1.5 * carried * 0.05 * 5e-4 * 0.01 * max(1, weight.norm())


@pytest.mark.parametrize("kind", ["trades", "trades-awp"])
def test_trades_without_switches_without_batchnorm(kind):
    """Five published updates of images whose noise stays in [0, 1]; AWP decays w."""
    theirs, switches = their_trades, {}
    if kind == "trades-awp":
        theirs, switches = their_trades_awp, {"decay": "w"}
    method, start = CASES[kind][0], network(WITHOUT, 3, F64)
    f, g = compare(theirs, method, start, training(inner=True), "rounded", **switches)
    assert distance(weights(f), weights(g)) < STATE_TOLERANCE[F64]


@pytest.mark.parametrize("kind", ["trades", "trades-awp"])
def test_published_trades_counts_the_clean_images_twice(kind):
    """Without the double update, or in the other order, the next attack differs."""
    theirs, switches = their_trades, {}
    base = TRADES()
    if kind == "trades-awp":
        theirs, switches = their_trades_awp, {"decay": "w", "gamma": lambda epoch: 0.005}
        base = AWP().base
    start = network(WITH, 3, F64)
    first, second, *_ = training(inner=True)
    for change in ({}, {"double_bn_update": False}, {"clean_first": not base.clean_first}):
        changed = replace(base, **change)
        method = changed if kind == "trades" else AWP(changed, gamma=0.005)
        f, g = compare(theirs, method, start, [first], "rounded", **switches)
        assert distance(weights(f), weights(g)) < STATE_TOLERANCE[F64]
        assert (counts(f, start), counts(g, start)) == (3, 2 if "double_bn_update" in change else 3)
        apart = distance(statistics(f), statistics(g))
        assert apart > 1e-5 if change else apart < STATE_TOLERANCE[F64]
        if change:
            with pytest.raises(AssertionError, match="images"):
                compare(theirs, method, start, [first, second], "rounded", **switches)


def share_of_pixels(a, b):
    return float(((a - b).abs() > 1e-6).float().mean())


def test_published_trades_does_not_clamp_its_start():
    """At pixels of 0 or 1, a clamp would remove half of the noise."""
    f = network(WITH, 3, F64)
    for inner in (False, True):
        b, *_ = training(inner=inner)
        with nuat.frozen_eval(f):
            theirs = trades.attack(f, b.x, b.noise.gauss)
            boxed = trades.attack(f, b.x, b.noise.gauss, boxed=True)
        apart = share_of_pixels(theirs, boxed)
        assert apart == 0 if inner else apart > 0.05
        ctx = nuat.StepContext(noise=b.noise)
        assert share_of_pixels(TRADES().attack(f, b.x, b.y, ctx), theirs) == 0
        clamped = TRADES(start=Gaussian(0.001)).attack(f, b.x, b.y, ctx)
        assert share_of_pixels(clamped, boxed) == 0


@DTYPES
@NETWORKS
def test_gat_on_imagenet100_for_five_updates(name, dtype):
    """Its attack uses eval-mode clean probabilities; the statistics count two passes a step."""
    method = get_recipe("gat", "imagenet100").method

    def theirs(f, optimizer, b):
        lam = gat.lam_imagenet100(b.epoch)
        kind = "imagenet100"
        return [gat.gat_iteration(f, optimizer, b.x, b.y, b.noise.signs, lam, b.batch, kind)]

    start = network(name, 3, dtype)
    f, g = compare(theirs, method, start, training(dtype), loss_rtol=LOSS_RTOL[dtype])
    assert distance(g.state_dict(), f.state_dict()) < STATE_TOLERANCE[dtype]
    if name == WITH:
        assert counts(g, start) == 5 * 2
        for change in ({"reference": "train"}, {"double_bn_update": True}):
            with pytest.raises(AssertionError, match="images"):
                compare(theirs, replace(method, **change), start, training(dtype))


def test_the_cases_above_distinguish_the_published_arithmetic_from_variants():
    f = network(WITH, 3, F64)
    first, odd, *_ = training()

    def pixels(theirs, b=first, **switches):
        g = copy.deepcopy(f)
        b = Batch(b.x, b.y, b.noise, b.epoch, b.batch)
        return theirs(g, sgd(g), b, **switches)[-1][0]

    fast, kl, at = pixels(their_fbf), pixels(their_trades), pixels(their_at_awp)
    neighbours = [
        (fast, pixels(their_fbf, mode="eval")),
        (fast, pixels(their_fbf, alpha=fbf.EPS)),
        (kl, pixels(their_trades, mode="train")),
        (kl, pixels(their_trades, eps=8 / 255)),
        (kl, pixels(their_trades, steps=9)),
        (at, pixels(their_at_awp, mode="eval")),
        (pixels(their_gat, odd), pixels(their_gat, first)),
        (pixels(their_gat, odd), pixels(their_gat, odd, kind="mnist")),
        (pixels(their_free, m=8), pixels(their_free, m=8, through_the_clip=False)),
        (pixels(their_free, m=8), pixels(their_free, m=7)),
    ]
    for k, (a, b) in enumerate(neighbours):
        assert a.shape != b.shape or share_of_pixels(a, b) > 0.005, f"pair {k}"


def test_lambda_and_gamma_over_training():
    for data, published in (
        ("cifar10", gat.lam_cifar10),
        ("mnist", gat.lam_mnist),
        ("imagenet100", gat.lam_imagenet100),
    ):
        row = get_recipe("gat", data)
        for epoch in range(row.epochs):
            assert row.method.lam(epoch) == pytest.approx(published(epoch), rel=1e-12)
    for epoch in range(200):
        assert AWP().gamma(epoch) == awp.gamma_trades(epoch)
