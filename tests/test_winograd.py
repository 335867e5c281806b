"""3x3 convolutions by Winograd's algorithm: the direct one's numbers, in another arithmetic."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

import nuat
from nuat.cost import forward_equivalents
from nuat.descent import Descent
from nuat.network import fingerprint
from nuat.precision import lay_out
from nuat.winograd import (
    LEAST_CHANNELS,
    Winograd,
    computed,
    convolve,
    directly,
    suits,
    to_direct,
    to_winograd,
)
from nuat.winograd.convolution import Convolution
from nuat.winograd.tiles import scratch

PLAIN, LAST = torch.contiguous_format, torch.channels_last


class Small(nn.Module):
    """Two convolutions that suit, between two that do not."""

    def __init__(self, classes=10, channels=1, width=LEAST_CHANNELS):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def both(convolution, x, w, g):
    """What a convolution gives, and the gradients of x and w for g."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = convolution(x, w)
    return y.detach(), *torch.autograd.grad(y, (x, w), g)


def direct(x, w):
    return conv2d(x, w, padding=1)


@pytest.mark.parametrize("layout", [PLAIN, LAST])
@pytest.mark.parametrize(
    ("images", "size"),
    [
        (1, (4, 4)),
        (5, (8, 8)),
        (2, (1, 1)),
        (3, (7, 5)),
        (2, (9, 3)),
        (300, (12, 16)),
        (2, (6, 13)),
    ],
)
def test_it_is_the_convolution(images, size, layout):
    """In float64 to rounding, for any size, in one part or many, in the layout of torch."""
    torch.manual_seed(0)
    x = torch.randn(images, 6, *size, dtype=torch.float64).to(memory_format=layout)
    w = torch.randn(5, 6, 3, 3, dtype=torch.float64).to(memory_format=layout)
    g = torch.randn(images, 5, *size, dtype=torch.float64)
    found, expected = both(Convolution.apply, x, w, g), both(direct, x, w, g)
    for mine, torchs in zip(found, expected, strict=True):
        assert torch.allclose(mine, torchs, rtol=0, atol=1e-12 * float(torchs.abs().max() + 1))
    assert found[0].stride() == expected[0].stride()


def test_one_gradient_alone_is_the_same():
    x, w = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(4, 3, 3, 3).double()
    g = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    _, dx, dw = both(Convolution.apply, x, w, g)
    live, weights = x.clone().requires_grad_(), w.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(Convolution.apply(live, w), live, g)[0], dx)
    assert torch.equal(torch.autograd.grad(Convolution.apply(x, weights), weights, g)[0], dw)


@pytest.mark.parametrize("channels", [96, 512])
def test_in_float32_errors_are_of_1e_5(channels):
    torch.manual_seed(0)
    x, w = torch.randn(16, channels, 8, 8), torch.randn(channels, channels, 3, 3) / channels
    g = torch.randn(16, channels, 8, 8)
    exact = both(direct, x.double(), w.double(), g.double())
    for mine, true in zip(both(Convolution.apply, x, w, g), exact, strict=True):
        assert (mine - true).abs().max() < 5e-5 * true.abs().max()


def test_what_scratch_held_does_not_matter():
    x, w, g = torch.randn(9, 4, 8, 8), torch.randn(4, 4, 3, 3), torch.randn(9, 4, 8, 8)
    expected = both(Convolution.apply, x, w, g)
    both(
        Convolution.apply,
        torch.randn(40, 7, 12, 12),
        torch.randn(7, 7, 3, 3),
        torch.randn(40, 7, 12, 12),
    )
    for kept in scratch.kept.values():
        kept.fill_(torch.nan)
    assert scratch.kept
    found = both(Convolution.apply, x, w, g)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_threads_do_not_share_scratch():
    torch.manual_seed(0)
    cases = [(torch.randn(8, 8, 8, 8), torch.randn(8, 8, 3, 3)) for _ in range(40)]
    expected = [Convolution.apply(x, w) for x, w in cases]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: Convolution.apply(*case), cases))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_scratch_begun_in_inference_mode_serves_training():
    scratch.kept.clear()
    with torch.inference_mode():
        Convolution.apply(torch.randn(2, 3, 8, 8), torch.randn(3, 3, 3, 3))
    w = torch.randn(3, 3, 3, 3, requires_grad=True)
    Convolution.apply(torch.randn(2, 3, 8, 8), w).sum().backward()
    assert w.grad.isfinite().all()


def test_a_second_derivative_is_refused():
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(3, 3, 3, 3)
    slope = torch.autograd.grad(Convolution.apply(x, w).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice"):
        slope.sum().backward()


def conv(channels=LEAST_CHANNELS, **changes):
    given = {"in_channels": channels, "out_channels": channels, "kernel_size": 3, "padding": 1}
    return nn.Conv2d(**given | changes)


class Own(nn.Conv2d):
    """Somebody's own convolution, which may do anything."""


@pytest.mark.parametrize(
    ("module", "does"),
    [
        (conv(), True),
        (conv(bias=False, padding="same"), True),
        (conv(out_channels=400), True),
        (conv(LEAST_CHANNELS - 1), False),
        (conv(out_channels=10), False),
        (conv(kernel_size=5, padding=2), False),
        (conv(kernel_size=(3, 1)), False),
        (conv(stride=2), False),
        (conv(padding=0), False),
        (conv(dilation=2, padding=2), False),
        (conv(padding_mode="reflect"), False),
        (conv(groups=2), False),
        (Own(96, 96, 3, padding=1), False),
        (nn.Linear(96, 96), False),
    ],
    ids=str,
)
def test_what_suits(module, does):
    assert suits(module) is does


@pytest.fixture
def f():
    torch.manual_seed(0)
    return Small().eval()


X, Y = torch.rand(64, 1, 8, 8), torch.arange(64) % 10


def test_a_network_is_changed_and_changed_back(f):
    z, mark, hooked = f(X), fingerprint(f), []
    f.body[2].register_forward_hook(lambda *_: hooked.append(1))
    to_winograd(f)
    to_winograd(f)
    assert computed(f) == [f.body[2], f.body[5]]
    assert [type(m) is Winograd for m in f.body if isinstance(m, nn.Conv2d)] == [0, 1, 1, 0]
    fast = f(X)
    assert 0 < (fast - z).abs().max() < 1e-4 * z.abs().max()
    assert fingerprint(f) == mark and hooked == [1]
    del f.body[2]._forward_hooks[next(iter(f.body[2]._forward_hooks))]
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin(X), fast)
    with directly(f):
        assert torch.equal(f(X), z)
    assert torch.equal(f(X), fast)
    to_direct(f)
    assert torch.equal(f(X), z) and not scratch.kept


def test_where_it_does_not_pay_the_numbers_are_torchs(f):
    """Few tiles, an image without a batch, other types of number, bfloat16 by autocast."""
    whole = torch.rand(LEAST_CHANNELS, 40, 40)
    few, single = f(X[:32]), f.body[2](whole)
    with torch.autocast("cpu", torch.bfloat16):
        low = f(X)
    half = copy.deepcopy(f).bfloat16()
    halves = half(X.bfloat16())
    to_winograd(f), to_winograd(half)
    assert torch.equal(f(X[:32]), few) and torch.equal(f.body[2](whole), single)
    assert f(X[:0]).shape == (0, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(f(X), low)
    assert torch.equal(half(X.bfloat16()), halves)


@pytest.fixture
def calls(monkeypatch):
    """What was computed this way: for each call, whether the weights were learning."""
    seen, apply = [], Convolution.apply

    def counted(x, w):
        seen.append(w.requires_grad)
        return apply(x, w)

    monkeypatch.setattr(nuat.winograd, "convolved", counted)
    return seen


@pytest.mark.parametrize(
    ("images", "side", "does"),
    [(64, 8, True), (32, 8, False), (64, 5, False), (64, 6, False), (64, 7, True), (256, 4, True)],
)
def test_tiles_that_are_mostly_empty_do_not_pay(images, side, does, calls):
    module = nn.Sequential(conv())
    to_winograd(module)
    module(torch.rand(images, LEAST_CHANNELS, side, side))
    assert bool(calls) is does


@pytest.mark.parametrize("name", ["nuat-wa", "nuat2-wa", "awp", "atf", "trades"])
def test_a_step_of_training_is_the_same(name, f):
    """In float64 the weights after it are equal to rounding."""
    recipe = nuat.recipe(name, "cifar10")
    weights = []
    for way in ("direct", "winograd"):
        g = copy.deepcopy(f).double()
        convolve(g, X, way)
        torch.manual_seed(0)
        descent = Descent(recipe, g, batches=2)
        for _ in descent.step(X.double(), Y, descent.begin(60, 1)):
            pass
        weights.append(torch.cat([p.detach().flatten() for p in g.parameters()]))
    start = torch.cat([p.detach().flatten() for p in f.parameters()])
    assert (weights[1] - weights[0]).norm() < 1e-9 * (weights[0] - start).norm()
    assert not torch.equal(*weights)


def test_the_count_is_that_of_the_direct_convolution(f):
    method = nuat.recipe("nuat-wa", "cifar10").method
    direct = forward_equivalents(method, f, X, Y)
    to_winograd(f)
    assert forward_equivalents(method, f, X, Y) == direct
    assert type(f.body[2]) is Winograd


def test_what_cannot_be_is_refused():
    recipe = nuat.recipe("nuat", "digits")
    with pytest.raises(nuat.InputError, match=r"'fft'.*there are: direct, winograd"):
        recipe.setting("convolutions", "fft")
    with pytest.raises(nuat.InputError, match="does not go with precision=bf16"):
        replace(recipe, convolutions="winograd", precision="bf16")
    f = Small()
    with pytest.raises(nuat.InputError, match="is for a CPU, but this is meta"):
        convolve(f, torch.empty(2, 1, 8, 8, device="meta"), "winograd")
    assert type(f.body[2]) is nn.Conv2d
    assert "changes nothing here" in convolve(Small(width=8), X, "winograd")
    assert convolve(f, X, "winograd") == convolve(f, X, "winograd") == ""
    assert len(computed(f)) == 2
    assert convolve(f, X, "direct") == "" and not computed(f)


def test_it_is_laid_out_as_is_faster_unless_asked_otherwise(f):
    convolve(f, X, "winograd")
    assert lay_out(f, X, False) == "" and f.body[2].weight.is_contiguous()
    assert lay_out(f, X, None) == ""
    assert f.body[2].weight.is_contiguous(memory_format=torch.channels_last)
    g = nn.Sequential(conv(), nn.Conv2d(96, 8, 1), nn.Conv2d(8, 10, 1, stride=2), nn.Flatten())
    convolve(g, torch.rand(2, 96, 1, 1), "winograd")
    assert "going on without" in lay_out(g, torch.rand(2, 96, 1, 1), None)
    assert type(g[0]) is Winograd and g[0].weight.is_contiguous()


def quick(**changes):
    recipe = nuat.recipe("nuat-wa", "digits").lasting(2)
    return replace(recipe, convolutions="winograd", **changes)


@pytest.fixture(scope="module")
def data():
    """A part of the digits."""
    digits = nuat.load("digits")
    return {split: digits[split].batch(torch.arange(100)) for split in ("train", "val", "test")}


def begun(start):
    f = Small()
    f.load_state_dict(start)
    return f


def test_fit_trains_so_resumes_to_the_same_bits_and_gives_the_network_back(
    data, tmp_path, monkeypatch, calls
):
    start = Small().state_dict()
    f = begun(start)
    whole = nuat.fit(quick(), f, data, out=tmp_path / "whole")
    # two epochs, of whose batches of 64 and 36 images the first alone is large enough; two layers;
    # three passes, of which the attack's is frozen; and none in validation
    assert len(calls) == 2 * 2 * 3 and calls.count(False) == len(calls) / 3
    assert not computed(f)
    assert whole.config["recipe"]["convolutions"] == "winograd"
    steps = iter(range(3))
    monkeypatch.setattr(
        "nuat.train.loop.Training.time_is_up", property(lambda self: next(steps, None) is None)
    )
    g = begun(start)
    assert not nuat.fit(quick(), g, data, out=tmp_path / "stopped", max_time=1).finished
    monkeypatch.undo()
    stopped = nuat.fit(quick(), g, data, out=tmp_path / "stopped")
    states = (torch.load(r.path / "checkpoint.pt", weights_only=True) for r in (whole, stopped))
    one, other = (state["network"] for state in states)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_refused_fit_leaves_the_network_as_it_was(data, tmp_path):
    f = Small()
    f.body.append(nn.Conv2d(LEAST_CHANNELS, 8, 1))
    f.body.append(nn.Conv2d(8, LEAST_CHANNELS, 1, stride=2))
    with pytest.raises(nuat.InputError, match="channels_last does not suit"):
        nuat.fit(quick(channels_last=True), f, data, out=tmp_path / "run")
    assert not computed(f) and not (tmp_path / "run").exists()


def test_an_evaluation_is_direct_whatever_the_network_is(f, calls):
    asked = {"images": (X, Y), "ball": nuat.Linf(0.1), "attacks": ["pgd-3"]}
    expected = nuat.evaluate(f, **asked)
    to_winograd(f)
    found = nuat.evaluate(f, **asked)
    assert not calls and len(computed(f)) == 2
    assert (found.standing, found.search) == (expected.standing, expected.search)


def test_it_can_be_compiled(f):
    to_winograd(f)
    compiled = torch.compile(f, backend="eager")
    assert torch.equal(compiled(X), f(X))


def test_a_network_it_does_not_suit_is_trained_and_told(data, tmp_path, capsys):
    nuat.fit(quick(model="small-cnn(width=4)"), data=data, out=tmp_path / "run")
    assert "convolutions=winograd changes nothing here" in capsys.readouterr().out


def test_gradients_reach_every_weight(f):
    g = copy.deepcopy(f.double())
    to_winograd(g)
    for network in (f, g):
        cross_entropy(network(X.double()), Y).backward()
    for mine, torchs in zip(g.parameters(), f.parameters(), strict=True):
        assert torch.allclose(mine.grad, torchs.grad, rtol=0, atol=1e-12 * torchs.grad.abs().max())
    assert not torch.equal(g.body[2].weight.grad, f.body[2].weight.grad)
