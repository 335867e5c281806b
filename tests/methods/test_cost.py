"""The cost of a step of each method, in forward passes of the batch."""

import pytest
import torch
from torch import nn

import nuat
from nuat.losses import nuclear_svd
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, NuAT, NuAT2, Standard
from nuat.methods.cost import forward_equivalents
from nuat.runtime.flops import count_flops


class Deep(nn.Module):
    """A network whose first layer is a negligible part, as in the networks of the field."""

    def __init__(self):
        super().__init__()
        body = [layer for _ in range(6) for layer in (conv(48, 48), nn.BatchNorm2d(48), nn.ReLU())]
        self.layers = nn.Sequential(conv(1, 48), nn.ReLU(), *body)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Standard(), 3),
        (AT(nuat.FGSM()), 5),
        (AT(nuat.PGD(steps=10)), 23),
        (RMGM(), 13),
        (GAT(), 8),
        (NuAT(), 8),
        (NuAT(distance=nuclear_svd), 8),
        (NuAT2(), 11),
        (NuAT2(attack_ema_decay=0.99), 11),
        (TRADES(), 27),
        (AWP(), 33),
        (AWP(AT(nuat.PGD(steps=10))), 26),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nuat.Method) else str(value),
)
def test_forward_equivalents_of_a_step(method, expected):
    model = Deep()
    x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    assert forward_equivalents(method, model, x, y, epoch=20) == pytest.approx(expected, abs=0.05)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_flops_of_a_convolution_and_a_product():
    weight, x = torch.rand(5, 3, 3, 3), torch.rand(2, 3, 8, 8)
    assert count_flops(lambda: nn.functional.conv2d(x, weight, padding=1)) == 2 * 2 * 5 * 64 * 27
    assert count_flops(lambda: torch.rand(4, 6) @ torch.rand(6, 7)) == 2 * 4 * 6 * 7
