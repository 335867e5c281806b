"""Numbers of numpy and torch are settings like Python's own: checked, printed and written alike."""

import json

import numpy
import pytest
import torch

import nuat
from nuat.config.serialization import to_dict
from nuat.numbers import plain
from nuat.schedules import Constant, LinearRamp, Piecewise, StartAt, StepDecay
from nuat.threat_models import Bernoulli, Gaussian, parse_eps

X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3

FLOATS = [numpy.float16, numpy.float32, numpy.float64, numpy.array, torch.tensor]
INTS = [numpy.int8, numpy.uint16, numpy.int64, numpy.array, torch.tensor]


@pytest.mark.parametrize("kind", FLOATS)
def test_fractions(kind):
    number = kind(0.25)
    for wrapped, expected in (
        (nuat.Linf(number), nuat.Linf(0.25)),
        (nuat.L2(number), nuat.L2(0.25)),
        (Constant(number), Constant(0.25)),
        (LinearRamp(number, epochs=number), LinearRamp(0.25, epochs=0.25)),
        (Piecewise(((kind(0.0), number),)), Piecewise(((0.0, 0.25),))),
        (StepDecay(number, at=(number,)), StepDecay(0.25, at=(0.25,))),
        (StartAt(number, number), StartAt(0.25, 0.25)),
        (Bernoulli(number), Bernoulli(0.25)),
        (Gaussian(number), Gaussian(0.25)),
        (nuat.Augment(scale=(number, kind(1.0))), nuat.Augment(scale=(0.25, 1.0))),
        (nuat.APGD(rho=number), nuat.APGD(rho=0.25)),
        (nuat.NuAT(lam=number), nuat.NuAT(lam=0.25)),
    ):
        assert wrapped == expected and repr(wrapped) == repr(expected)
        assert json.dumps(to_dict(wrapped)) == json.dumps(to_dict(expected))
    assert parse_eps(number) == 0.25
    assert json.loads(json.dumps(to_dict({"a": [number]}))) == {"a": [0.25]}


@pytest.mark.parametrize("kind", INTS)
def test_whole_numbers(kind, tmp_path):
    recipe = nuat.Recipe(
        "r", nuat.Standard(), "digits", "small-cnn(width=2)", epochs=kind(2), batch_size=kind(4)
    )
    assert nuat.Linf(kind(1)) == nuat.Linf(1) and nuat.PGD(steps=kind(3)) == nuat.PGD(steps=3)
    assert recipe.with_epochs(kind(1)) == recipe.with_epochs(1)
    net = nuat.build_model(recipe.model, classes=kind(3), channels=kind(1))
    fit = {
        "recipe": recipe.with_epochs(kind(1)),
        "data": dict.fromkeys(("train", "val", "test"), (X, Y)),
    }
    run = nuat.fit(model=net, **fit, seed=kind(1), out=tmp_path / "run", threads=kind(1))
    again = nuat.fit(model=net, **fit, seed=1, out=tmp_path / "run", threads=1)
    assert run.finished and again.config == run.config and type(run.config["seed"]) is int
    settings = {"samples": 4, "batch_size": 2, "seed": 3, "classes": 3}
    results = [
        nuat.evaluate(net, (X, Y), nuat.Linf(0.1), "pgd-2", **given, out=tmp_path / "scores")
        for given in ({name: kind(value) for name, value in settings.items()}, settings)
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("wrong", [torch.rand(2), numpy.zeros(1), "8", None, True, numpy.bool_(1)])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(nuat.InputError, match=r"eps is .*must be a number from 0 up"):
        nuat.Linf(wrong)
    with pytest.raises(nuat.InputError, match=r"steps is .*must be a whole number from 1 up"):
        nuat.PGD(steps=wrong)


@pytest.mark.parametrize(
    "given", [{"samples": 2.5}, {"samples": "4"}, {"indices": [0, 1.5]}, {"indices": ["0"]}]
)
def test_fractions_of_images_are_refused(given):
    net = nuat.build_model("small-cnn(width=2)", classes=3, channels=1)
    with pytest.raises(nuat.InputError, match="whole number"):
        nuat.evaluate(net, (X, Y), nuat.Linf(0.1), "fgsm", **given)


@pytest.mark.parametrize("indices", [numpy.array([3, 0]), torch.tensor([3, 0]), (3, 0), range(2)])
def test_indices_of_any_kind(indices):
    net = nuat.build_model("small-cnn(width=2)", classes=3, channels=1)
    result = nuat.evaluate(net, (X, Y), nuat.Linf(0.1), "fgsm", indices=indices)
    assert sorted(result.indices) == sorted(int(index) for index in indices)


def test_other_values_stay_as_they_are():
    values = ["a", numpy.str_("a"), None, (1, "b"), numpy.zeros(2), torch.zeros(1), nuat.Linf(0.1)]
    assert all(plain(value) is value or plain(value) == value for value in values[:4])
    assert all(plain(value) is value for value in values[4:])
    assert type(plain(numpy.float64(1))) is float and plain((numpy.int8(1), 2)) == (1, 2)
