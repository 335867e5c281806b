"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), on a CPU.

A tile d of 6x6 inputs gives 4x4 outputs, for weights g of 3x3, in 36 products instead of 144:

    y = A^T [(G g G^T) * (B^T d B)] A        arXiv:1509.09308, section 4.3

Over channels and tiles that is 36 products of matrices, which torch computes near the peak of a
core. Written as linear maps of flattened tiles the backward pass is the same maps transposed.
Rounding errors are some 20 times those of the direct convolution, 1e-5 of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nuat.errors import InputError, unknown
from nuat.winograd.convolution import Convolution
from nuat.winograd.tiles import OUT

WAYS = ("direct", "winograd")

LEAST_CHANNELS, LEAST_TILES = 96, 64
"""From where on it pays, as measured (benchmarks/convolutions.log)."""


class Winograd(nn.Conv2d):
    """A convolution of 3x3, stride 1 and padding 1 that is computed this way where it pays."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not pays(x):
            return super()._conv_forward(x, weight, bias)
        y: Tensor = Convolution.apply(x, weight)
        return y if bias is None else y + bias.view(-1, 1, 1)


def pays(x: Tensor) -> bool:
    """Whether x is float32 or float64 and has tiles enough to make up for those of the weights."""
    if x.dim() != 4 or torch.is_autocast_enabled(x.device.type):
        return False
    tiles = len(x) * math.prod(-(-side // OUT) for side in x.shape[2:])
    return tiles >= LEAST_TILES and x.dtype in (torch.float32, torch.float64)


def suits(module: nn.Module) -> bool:
    """Whether this is a convolution that gains: 3x3, stride 1, padding 1, many channels."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.padding_mode == "zeros"
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
    )


def to_winograd(f: nn.Module) -> int:
    """Compute the convolutions of f that suit this way; how many they are.

    The same modules with the same weights, until `to_direct`.
    """
    suited = [module for module in f.modules() if suits(module)]
    for module in suited:
        module.__class__ = Winograd
    return len(suited)


def to_direct(f: nn.Module) -> list[nn.Module]:
    """Compute them as torch does; those that this changed."""
    changed = [module for module in f.modules() if isinstance(module, Winograd)]
    for module in changed:
        module.__class__ = nn.Conv2d
    return changed


@contextmanager
def directly(f: nn.Module) -> Iterator[None]:
    """In here every convolution of f is computed as torch does."""
    changed = to_direct(f)
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = Winograd


def convolve(f: nn.Module, x: Tensor, way: str) -> str:
    """Have f, which takes images x, computed in one of the WAYS; what there is to say about it.

    Raises InputError on a device other than a CPU: cuDNN chooses its algorithms itself.
    """
    check_way(way)
    if way == "direct":
        return ""
    if x.device.type != "cpu":
        raise InputError(
            f"convolutions=winograd is for a CPU, but this is {x.device}, where the libraries "
            "choose by themselves: leave it out"
        )
    if to_winograd(f):
        return ""
    return (
        "convolutions=winograd changes nothing here: no convolution of this network is 3x3, of "
        f"stride 1 and padding 1, and has {LEAST_CHANNELS} channels and more"
    )


def check_way(way: str) -> None:
    """Raise InputError unless there is such a way to compute convolutions."""
    if way not in WAYS:
        raise unknown("way to compute convolutions", way, WAYS)
