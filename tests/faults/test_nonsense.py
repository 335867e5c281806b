"""Settings that would attack nothing, run for ever or fail without a word."""

import dataclasses
import math

import pytest
import torch

import nuat
from nuat.attacks import parse_attack
from nuat.attacks.registry import ATTACK_CLASSES
from nuat.errors import InputError, NonFiniteError
from nuat.runtime.device import get_device
from nuat.schedules import Schedule
from nuat.threat_models import Bernoulli, Gaussian, parse_eps

BALL = nuat.Linf(0.1)
NUMBERS = [0, -1, -5, 0.5, 10**20, -(10**20), 1e308, math.nan, math.inf, True, "x", None, 10**400]


def numeric_fields():
    return [
        (name, field.name)
        for name, kind in ATTACK_CLASSES.items()
        for field in dataclasses.fields(kind)
        if isinstance(field.default, float | Schedule)
        or (isinstance(field.default, int) and not isinstance(field.default, bool))
    ]


@pytest.mark.parametrize(("name", "field"), numeric_fields())
def test_each_number_is_refused_or_makes_an_attack_that_works(name, field):
    """Of every attack and numeric field; what is accepted returns finite images in the ball."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    x, y = torch.rand(3, 1, 4, 4), torch.arange(3)
    kind, accepted = ATTACK_CLASSES[name], 0
    for number in NUMBERS:
        few = {"steps": 2} if any(f.name == "steps" for f in dataclasses.fields(kind)) else {}
        try:
            attack = kind(BALL, **(few | {field: number}))
            x_adv = attack(model, x, y)
        except InputError as error:
            assert str(error).count("\n") == 0
            continue
        accepted += 1
        assert x_adv.isfinite().all() and (x_adv - x).abs().max() > 0, (field, number)
    assert accepted < len(NUMBERS)


@pytest.mark.parametrize(
    "text",
    [
        "nuclear-3(batch=-5)",
        "nuclear-3(batch=0)",
        "pgd-3(rel_step_size=0)",
        "pgd-3(rel_step_size=-1)",
        "pgd-3(rel_step_size=Piecewise(((0, 1), (1, -1))))",
        "gama-10(rel_step_size=StepDecay(1, at=(50,), by=-1))",
        "pgd-99999999999",
        "mt-pgd(targets=0)",
        "fab-t(targets=0)",
        "apgd-ce-5(eot_samples=0)",
        "square-5(p=1.5)",
        "pgd-3(start=Bernoulli(-1))",
        "pgd-3(start=Gaussian(1e9))",
    ],
)
def test_an_attack_that_attacks_nothing_is_refused(text):
    with pytest.raises(InputError, match=r"cannot read|must be|would not move"):
        parse_attack(text, BALL)


@pytest.mark.parametrize("start", [Bernoulli, Gaussian])
@pytest.mark.parametrize("number", [-0.1, 1.1, math.nan, math.inf, True, None, 10**400])
def test_a_start_outside_of_the_ball_is_refused(start, number):
    with pytest.raises(InputError, match="must be a number from 0 to 1"):
        start(number)


@pytest.mark.parametrize("eps", [0.0, 1e-300, 1e-9])
def test_a_radius_that_changes_nothing_is_noted(linear, eps):
    images = torch.rand(8, 1, 2, 2), torch.arange(8) % 3
    for ball in (nuat.Linf(eps), nuat.L2(eps)):
        result = nuat.evaluate(linear(), images, ball, ["pgd-2"])
        assert any("no attack can change an image" in note for note in result.notes)


@pytest.mark.parametrize("eps", ["9" * 400, "-" + "9" * 400, 10**400, "1e999", "nan", "8/0"])
def test_an_eps_that_is_no_radius_is_one_line(eps):
    with pytest.raises(InputError, match="eps"):
        nuat.Linf(parse_eps(eps))


@pytest.mark.parametrize(
    "name", ["meta", "hpu", "xla", "xpu", "mps", "vulkan", "lazy", "privateuseone", "fpga", "ve"]
)
def test_a_device_that_computes_nothing_here_is_one_line(name):
    with pytest.raises(InputError, match="there is no device"):
        get_device(name)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "attack", ["pgd-3", "apgd-t-3", "fab-3", "square-9", "gama-3", "nuclear-3"]
)
def test_logits_of_every_precision_are_attacked(linear, kind, attack):
    class Cast(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear(5)

        def forward(self, x):
            return self.inner(x).to(kind)

    images = torch.rand(12, 1, 2, 2), torch.arange(12) % 5
    result = nuat.evaluate(Cast(), images, nuat.Linf(0.3), [attack])
    assert 0 <= result.worst_case_accuracy <= result.clean_accuracy


@pytest.mark.parametrize("attack", [*sorted(ATTACK_CLASSES), "autoattack"])
def test_logits_that_are_nan_off_the_clean_images_do_not_stand(linear, attack):
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear(5)

        def forward(self, x):
            off = ((x * 16).round() != x * 16).flatten(1).any(1)
            return self.inner(x).masked_fill(off[:, None], math.nan)

    model = Masked()
    x = torch.randint(17, (12, 1, 2, 2)) / 16
    y = model(x).argmax(1)
    short = f"{attack}-3" if attack not in ("autoattack", "fgsm", "rfgsm") else attack
    if attack in ("fab", "fab-t"):  # which goes far off first, and then steps back to the ball
        short = f"{attack}-60"
    try:
        result = nuat.evaluate(model, (x, y), nuat.Linf(0.1), [short])
    except NonFiniteError:
        assert attack == "nuclear"  # the norm of a batch with NaN is not defined
        return
    assert result.clean_accuracy == 1
    assert result.worst_case_accuracy == 0 or any("NaN" in note for note in result.notes)
