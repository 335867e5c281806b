"""NaN and infinite logits and gradients, anywhere in the data."""

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import is_correct, is_robust, predict
from nuat.training.validation import validate

BALL = nuat.Linf(8 / 255)


def small(classes=4):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, classes),
    ).eval()  # fmt: skip


class Root(nn.Module):
    """NaN for dark images."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return self.net(x) * (x.mean((1, 2, 3)) - 0.2).sqrt()[:, None]


def images(dark=slice(40, 60)):
    x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[dark] *= 0.1
    y = Root()(x).argmax(1)
    assert (y[dark] == 0).all(), "argmax of NaN is 0"
    return x, y


@pytest.mark.parametrize("attack", ["fgsm", "pgd-5", "apgd-ce-10", "fab-5", "square-20"])
@pytest.mark.parametrize("dark", [slice(40, 60), slice(0, 20)])
def test_nan_logits_are_neither_correct_nor_robust(dark, attack):
    result = nuat.evaluate(Root(), images(dark), BALL, [attack])
    assert result.clean_accuracy == pytest.approx(40 / 60)
    assert not any(result.robust[attack][dark])
    assert result.predicted[dark] == [-1] * 20
    assert any("logits of 20 of 60 images are NaN" in note for note in result.notes)
    assert nuat.EvaluationResult.from_dict(result.to_dict()).predicted == result.predicted


def test_nan_logits_count_as_wrong_in_validation():
    x, y = images()
    attack = nuat.parse_attack("pgd-2", BALL)
    found = validate(Root(), nuat.data.as_dataset((x[40:], y[40:])), attack)
    assert set(found.values()) == {0.0}


def test_a_point_with_nan_logits_is_adversarial():
    x, y = images()
    lit = x[:8]
    x_adv = torch.cat([lit[:4], torch.full_like(lit[4:], 0.1)])
    robust = is_robust(Root(), lit, y[:8], x_adv, nuat.Linf(1.0))
    assert robust.tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ([1.0, 0.0], True),
        ([torch.nan, 0.0], False),
        ([1.0, torch.nan], False),
        ([1.0, -torch.inf], True),
        ([torch.inf, torch.inf], False),
        ([-torch.inf, -torch.inf], False),
        ([0.0, 1.0], False),
    ],
)
def test_is_correct(z, expected):
    assert is_correct(torch.tensor([z]), torch.tensor([0])).tolist() == [expected]
    assert (predict(torch.tensor([z])).tolist() == [0]) == expected


class RootOfPixel(nn.Module):
    """The derivative by a pixel of 0 is NaN: infinity times 0."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return self.net(x) + 0 * x.sqrt().flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("norm", [nuat.Linf, nuat.L2])
@pytest.mark.parametrize("attack", ["fgsm", "pgd-5(start=NoStart())", "fab-5"])
def test_nan_entries_of_a_gradient_count_as_0_and_are_noted(attack, norm):
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[40:, 0, 0, 0] = 0
    y = small()(x).argmax(1)
    ball = norm(0.1 if norm is nuat.Linf else 1.0)
    result = nuat.evaluate(RootOfPixel(), (x, y), ball, [attack])
    plain = nuat.evaluate(small(), (x, y), ball, [attack])
    assert any("NaN or infinite entries" in note for note in result.notes), result.notes
    lost = sum(a != b for a, b in zip(result.robust[attack], plain.robust[attack], strict=True))
    assert lost <= 3, "the other pixels are attacked all the same"


def test_an_attack_whose_reference_is_undefined_says_so():
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = 0  # the reference of GAMA is not clamped to [0, 1], so this pixel is negative
    result = nuat.evaluate(RootOfPixel(), (x, small()(x).argmax(1)), nuat.Linf(0.1), ["gama-5"])
    assert any("NaN or infinite entries" in note for note in result.notes), result.notes


class Cast(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.net, self.dtype = small().to(dtype), dtype

    def forward(self, x):
        return self.net(x.to(self.dtype))


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


ATTACKS = ["pgd-3", "apgd-ce-5", "square-20", "mt-pgd-3", "fab-3", "fab-t-3", "gama-mt-3"]


@pytest.mark.parametrize("attack", [*ATTACKS, "nuclear-3"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, None])
def test_logits_of_another_dtype_are_judged_in_float32(attack, dtype):
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Autocast() if dtype is None else Cast(dtype)
    y = model(x).argmax(1)
    result = nuat.evaluate(model.eval(), (x, y), nuat.Linf(0.2), [attack])
    assert result.clean_accuracy == 1.0


@pytest.mark.parametrize("attack", [*ATTACKS, "rfgsm", "gama-fw-3", "frobenius-3"])
@pytest.mark.parametrize("ball", [nuat.Linf(0.1), nuat.L2(0.5)])
def test_the_default_dtype_changes_no_verdict(attack, ball):
    x, model = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), small()
    data = x, model(x).argmax(1)
    plain = nuat.evaluate(model, data, ball, [attack])
    torch.set_default_dtype(torch.float64)
    try:
        assert nuat.evaluate(model, data, ball, [attack]).robust == plain.robust
    finally:
        torch.set_default_dtype(torch.float32)
