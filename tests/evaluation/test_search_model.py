"""Attacks search on the model itself where a copy of it is another function."""

import copy
import random

import numpy
import pytest
import torch
from torch import nn

import nuat

BALL = nuat.Linf(0.15)


def body():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    )


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = body(), nn.Linear(32, 4)
        with torch.no_grad():
            self.head.weight.mul_(5)
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Hooked(Base):
    """Reads the features that a hook has stored; a copy reads those of an earlier batch."""

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.body[3].register_forward_hook(lambda *given: self.kept.__setitem__("z", given[2]))

    def forward(self, x):
        self.body(x)
        return self.head(self.kept["z"].flatten(1))


class HookedOnly(Hooked):
    """The hook belongs to the model itself."""

    def __init__(self):
        super().__init__()
        self.kept["z"] = torch.zeros(1, 8, 2, 2)


class PythonNoise(Base):
    def forward(self, x):
        return super().forward(x) * (1 + random.random())


class NumpyNoise(Base):
    def forward(self, x):
        return super().forward(x) + float(numpy.random.rand())


class OwnGenerator(Base):
    def __init__(self):
        super().__init__()
        self.generator = random.Random(0)

    def forward(self, x):
        return super().forward(x) * (1 + self.generator.random())


class Counting(Base):
    """Other logits in every second call, of which a trace knows only one."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 if self.calls % 2 else -1)


def images(count=40):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("attack", ["pgd-10", "apgd-ce-10", "gama-10", "square-100"])
@pytest.mark.parametrize("kind", [Hooked, HookedOnly])
def test_hooks_that_refer_to_the_model(kind, attack):
    model, x = kind().eval(), images()
    y = model(x).argmax(1)
    result = nuat.evaluate(model, (x, y), BALL, [attack])
    plain = nuat.evaluate(Base().eval(), (x, y), BALL, [attack])
    assert result.robust_accuracy(attack) == plain.robust_accuracy(attack) < 0.7
    assert any("search on the model itself" in note for note in result.notes)


@pytest.mark.parametrize("kind", [PythonNoise, NumpyNoise, OwnGenerator, Counting])
def test_a_model_that_changes_from_call_to_call_is_searched_as_it_is(kind):
    model, x = kind().eval(), images()
    result = nuat.evaluate(model, (x, Base().eval()(x).argmax(1)), BALL, ["pgd-5"])
    assert any("search on the model itself" in note for note in result.notes), result.notes


class Waking(Base):
    """Another function as soon as the model, but not its copy, has been called often."""

    def __init__(self):
        super().__init__()
        self.calls = [0]

    def __deepcopy__(self, memo):
        other = Base()
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, x):
        self.calls[0] += 1
        z = super().forward(x)
        return z if self.calls[0] < 40 else z.flip(1)


def test_a_copy_that_differs_after_an_attack_is_given_up():
    model, x = Waking().eval(), images()
    y = Base().eval()(x).argmax(1)
    data, notes = (x, y), []
    for _ in range(6):
        result = nuat.evaluate(model, data, BALL, ["pgd-3", "fgsm"], batch_size=8)
        notes += result.notes
    assert any("search on the model itself" in note for note in notes)


def test_the_verdicts_of_an_ordinary_model_come_from_the_copy():
    model, x = Base().eval(), images()
    state = copy.deepcopy(model.state_dict())
    result = nuat.evaluate(model, (x, model(x).argmax(1)), BALL, ["pgd-10"])
    assert result.notes == []
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
