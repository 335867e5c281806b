"""bfloat16 layers, the channels_last memory format and the number of threads."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import nuat
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model
from nuat.nn.fingerprint import fingerprint
from nuat.nn.precision import (
    BFloat16Model,
    check_channels_last,
    select_memory_format,
    with_precision,
)
from nuat.nn.weight_perturbation import perturb_weights
from nuat.runtime.threads import configure_threads
from nuat.training.train_step import TrainStep

X, Y = torch.rand(8, 3, 8, 8), torch.arange(8)


class Flat(nn.Module):
    """A network that does not support channels_last: it calls `.view` on activations."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 10)

    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))


class RecordDtype(nn.Module):
    """The identity, which records the dtype of its input."""

    def __init__(self):
        super().__init__()
        self.saw = None

    def forward(self, x):
        self.saw = x.dtype
        return x


@pytest.fixture
def f():
    f = build_model("small-cnn(width=8)", 10, 3)
    f.head = nn.Sequential(RecordDtype(), f.head)
    return f


def test_bfloat16_is_inside_the_layers_and_nowhere_else(f):
    low, x = BFloat16Model(f), X.clone().requires_grad_()
    z = low(x)
    nuat.ce(z, Y).backward()
    assert f.head[0].saw is torch.bfloat16
    everything = [z, x.grad, *f.parameters(), *(p.grad for p in f.parameters())]
    everything += [b for b in f.buffers() if b.is_floating_point()]
    assert {tensor.dtype for tensor in everything} == {torch.float32}


def test_bfloat16_computes_the_same_function_to_its_rounding(f):
    g = copy.deepcopy(f)
    z, low = f(X), BFloat16Model(g)(X)
    assert 0 < (low - z).detach().abs().max() < 0.05 * z.detach().abs().max()
    for mine, theirs in zip(f.buffers(), g.buffers(), strict=True):
        assert torch.allclose(mine.float(), theirs.float(), rtol=0.02, atol=0.02)


def test_fp32_is_the_network_itself_and_other_names_are_refused(f):
    assert with_precision(f, "fp32") is f
    with pytest.raises(nuat.InputError, match=r"'fp16'.*there are: bf16, fp32"):
        with_precision(f, "fp16")
    with pytest.raises(nuat.InputError, match=r"precision 'half'"):
        nuat.get_recipe("nuat", "digits").with_override("precision", "half")


def test_freezing_and_views_reach_through_bfloat16(f):
    low = BFloat16Model(f).train()
    f.head.eval()
    modes = [m.training for m in f.modules()]
    with nuat.frozen_eval(low) as g:
        assert not any(m.training for m in f.modules())
        assert not any(p.requires_grad for p in f.parameters())
        assert g(X).dtype is torch.float32
    assert [m.training for m in f.modules()] == modes
    assert all(p.requires_grad for p in f.parameters())
    nuat.ce(perturb_weights(low, lambda h: nuat.ce(h(X), Y), 0.1)(X), Y).backward()
    assert all(p.grad is not None for p in f.parameters())


@pytest.mark.parametrize("name", ["nuat", "nuat2-wa", "awp", "fbf"])
def test_precision_does_not_change_the_count(name):
    f, method = build_model("small-cnn(width=8)", 10, 3), nuat.get_recipe(name, "cifar10").method
    counts = [forward_equivalents(method, g, X, Y, epoch=20) for g in (f, BFloat16Model(f))]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["nuat-wa", "nuat2-wa", "awp", "atf", "trades-wa"])
def test_a_step_in_bfloat16_keeps_weights_and_averages_in_float32(name):
    recipe = nuat.get_recipe(name, "cifar10").with_override("precision", "bf16")
    f = build_model("small-cnn(width=8)", 10, 3)
    before = [p.clone() for p in f.parameters()]
    train_step = TrainStep(recipe, f, batches=2)
    for batch in range(2):
        for loss in train_step.step((X, Y), train_step.prepare(60, batch)):
            assert loss.dtype is torch.float32 and loss.isfinite()
    assert isinstance(train_step.train_model, BFloat16Model) and not isinstance(
        train_step.eval_model, BFloat16Model
    )
    assert isinstance(train_step.prepare(60, 0).ema(0.99), BFloat16Model)
    kept = (*f.parameters(), *train_step.eval_model.parameters())
    assert {p.dtype for p in kept} == {torch.float32}
    state = train_step.optimizer.state_dict()["state"].values()
    assert {s["momentum_buffer"].dtype for s in state} == {torch.float32}
    assert all(not torch.equal(a, b) for a, b in zip(before, f.parameters(), strict=True))


def test_channels_last_computes_the_same_function(f):
    f.eval()
    z, mark = f(X), fingerprint(f)
    check_channels_last(f, X)
    assert f.features[3].weight.is_contiguous()
    f.to(memory_format=torch.channels_last)
    assert f.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(f(X), z, atol=1e-5)
    assert fingerprint(f) == mark


def test_channels_last_is_refused_by_a_network_that_cannot():
    f = Flat()
    with pytest.raises(nuat.InputError, match=r"channels_last does not suit this model: .*view"):
        check_channels_last(f, torch.rand(2, 1, 8, 8))
    assert f.conv.weight.is_contiguous() and f(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def digits(**changes):
    small = (
        nuat.get_recipe("nuat-wa", "digits")
        .with_epochs(1)
        .with_override("model", "small-cnn(width=4)")
    )
    return replace(small, **changes)


def test_channels_last_is_off_by_default_on_a_cpu(tmp_path):
    f, x = build_model("small-cnn(width=4)", 10, 1), torch.rand(2, 1, 8, 8)
    assert select_memory_format(f, x, None) == (torch.contiguous_format, "")
    assert f.features[3].weight.is_contiguous()
    with pytest.raises(nuat.InputError, match="channels_last does not suit"):
        nuat.fit(digits(channels_last=True), Flat(), out=tmp_path / "asked")


def test_fit_restores_the_memory_format_and_sets_eval_mode(tmp_path):
    f = build_model("small-cnn(width=4)", 10, 1)
    run = nuat.fit(digits(channels_last=True, precision="bf16"), f, out=tmp_path / "run")
    assert all(p.is_contiguous() for p in f.parameters())
    assert run.config["recipe"]["precision"] == "bf16"
    assert run.config["threads"] == 1
    assert not any(module.training for module in f.modules())
    assert all(torch.equal(run.weights()[k], v) for k, v in f.state_dict().items())


def test_fast_options_are_resumed_to_the_same_bits(tmp_path, monkeypatch):
    fast = digits(channels_last=True, precision="bf16").with_epochs(2)
    whole = nuat.fit(fast, out=tmp_path / "whole")
    steps = iter(range(25))
    monkeypatch.setattr(
        "nuat.training.trainer.Trainer.time_is_up",
        property(lambda self: next(steps, None) is None),
    )
    assert not nuat.fit(fast, out=tmp_path / "stopped", max_time=1).finished
    monkeypatch.undo()
    stopped = nuat.fit(fast, out=tmp_path / "stopped")
    states = (torch.load(r.path / "checkpoint.pt", weights_only=True) for r in (whole, stopped))
    one, other = (state["model"] for state in states)
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("threads", [0, -1, True, "many", 1.5])
def test_an_invalid_number_of_threads_is_refused(threads):
    with pytest.raises(nuat.InputError, match="threads is"):
        configure_threads(threads)


def test_configure_threads():
    before = torch.get_num_threads()
    try:
        configure_threads(3)
        assert torch.get_num_threads() == 3
        configure_threads(None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("width", "refused"), [(8, True), (16, False)])
def test_a_network_with_an_unsafe_kernel_is_refused(width, refused):
    """The gradient of an 8 -> 16 convolution, 1x1, stride 2, aborts the process at 64 pixels."""
    f, x = build_model(f"resnet18(width={width})", 10, 3), torch.rand(2, 3, 16, 16)
    if refused:
        with pytest.raises(nuat.InputError, match=r"1x1, stride 2, 8 channels\).*out of bounds"):
            check_channels_last(f, x)
        assert all(weight.is_contiguous() for weight in f.parameters())
    else:
        check_channels_last(f, x)
