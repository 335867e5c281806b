"""EMAs of weights, compared with a plain loop over the state dict."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nuat import EMA, EMAs, InputError


class Net(nn.Module):
    """Parameters, BatchNorm buffers, an integer buffer and a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        self.tied = self.body[0]
        self.register_buffer("shift", torch.randn(3))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shift


def training(f: nn.Module, steps: int) -> Iterator[int]:
    """Move every weight and every buffer, `steps` times."""
    for step in range(steps):
        f(torch.randn(16, 4) * 2 + step)
        with torch.no_grad():
            for weight in f.parameters():
                weight.add_(torch.randn_like(weight))
            f.shift.add_(torch.randn(3))
            f.seen.add_(torch.tensor([1, 10]))
        yield step


class PlainLoop:
    """a <- decay a + (1 - decay) w over the state dict, entry by entry, in float64."""

    def __init__(self, decay: float) -> None:
        self.decay, self.average = decay, {}

    def update(self, f: nn.Module) -> None:
        for name, w in f.state_dict().items():
            if name in self.average and w.is_floating_point():
                self.average[name] = self.decay * self.average[name] + (1 - self.decay) * w.double()
            else:
                self.average[name] = w.double() if w.is_floating_point() else w.clone()


def agree(state: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return state.keys() == expected.keys() and all(
        torch.allclose(state[name].double(), expected[name].double(), rtol=1e-6, atol=1e-6)
        for name in expected
    )


@pytest.mark.parametrize("steps", [1, 2, 12])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 0.9998])
def test_average_equals_a_plain_loop(decay: float, steps: int) -> None:
    f, loop = Net(), PlainLoop(decay)
    average = EMA(f, decay)
    for _ in training(f, steps):
        average.update(f)
        loop.update(f)
    assert average.started
    assert agree(average.model.state_dict(), loop.average)
    assert average.model.seen.tolist() == [steps, 10 * steps]
    assert int(average.model.body[1].num_batches_tracked) == steps


def test_until_the_first_update_it_is_a_copy_and_the_first_update_copies() -> None:
    f = Net()
    average = EMA(f, 0.9)
    start = copy.deepcopy(f.state_dict())
    for _ in training(f, 1):
        assert all(torch.equal(v, start[k]) for k, v in average.model.state_dict().items())
        average.update(f)
    for name, value in f.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], value), name


def test_an_average_shares_nothing_with_the_network() -> None:
    f = Net()
    average = EMA(f, 0.9)
    average.update(f)
    before = copy.deepcopy(average.model.state_dict())
    moved = copy.deepcopy(f.state_dict())
    list(training(f, 1))
    assert all(torch.equal(v, before[k]) for k, v in average.model.state_dict().items())
    f.load_state_dict(moved)
    average.model.shift.add_(1)
    assert all(torch.equal(v, moved[k]) for k, v in f.state_dict().items())
    assert average.model.tied is average.model.body[0]


def test_the_averaged_network_is_in_eval_mode_and_asks_for_no_gradient() -> None:
    f = Net().train()
    network = EMA(f, 0.9).model
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())
    assert f.training and all(weight.requires_grad for weight in f.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1, 1.0, 1.5, float("nan")])
def test_decay_must_be_below_one(decay: float) -> None:
    with pytest.raises(InputError, match=r"decay of an EMA must be in \[0, 1\), but is"):
        EMA(nn.Linear(1, 1), decay)


def saved_and_loaded(state: Any, path: Path) -> Any:
    torch.save(state, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_restored_average_is_bit_equal(before: int, tmp_path: Path) -> None:
    f = Net()
    whole = EMA(f, 0.9)
    for _ in training(f, before):
        whole.update(f)
    resumed = EMA(Net(), 0.9)
    resumed.load_state_dict(saved_and_loaded(whole.state_dict(), tmp_path / "average.pt"))
    for _ in training(f, 3):
        whole.update(f)
        resumed.update(f)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


# ---- EMAs


def test_each_average_starts_when_it_is_first_requested() -> None:
    f = Net()
    averages, early, late = EMAs(f), PlainLoop(0.5), PlainLoop(0.9)
    assert averages.state_dict() == {}
    averages(0.5)
    for step in training(f, 6):
        if step == 3:
            averages(0.9)
        averages.update()
        early.update(f)
        if step >= 3:
            late.update(f)
    assert agree(averages(0.5).state_dict(), early.average)
    assert agree(averages(0.9).state_dict(), late.average)
    assert set(averages.state_dict()) == {0.5, 0.9}


def test_the_same_decay_returns_the_same_network() -> None:
    averages = EMAs(Net())
    assert averages(0.9) is averages(0.9)
    assert averages(0.9) is not averages(0.5)


def test_loading_drops_an_average_that_had_not_started() -> None:
    f = Net()
    averages = EMAs(f)
    averages(0.5)
    good = copy.deepcopy((f.state_dict(), averages.state_dict()))
    averages(0.9)
    for _ in training(f, 3):
        averages.update()
    f.load_state_dict(good[0])
    averages.load_state_dict(good[1])
    assert set(averages.state_dict()) == {0.5}
    assert agree(averages(0.9).state_dict(), f.state_dict())


def test_restored_averages_are_bit_equal(tmp_path: Path) -> None:
    f = Net()
    whole = EMAs(f)
    whole(0.5)
    for step in training(f, 4):
        if step == 2:
            whole(0.99)
        whole.update()
    resumed = EMAs(f)
    resumed.load_state_dict(saved_and_loaded(whole.state_dict(), tmp_path / "averages.pt"))
    for _ in training(f, 3):
        whole.update()
        resumed.update()
    for decay in (0.5, 0.99):
        for name, value in whole(decay).state_dict().items():
            assert torch.equal(resumed(decay).state_dict()[name], value), (decay, name)
