"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), on a CPU.

A tile d of 6x6 inputs gives 4x4 outputs, for weights g of 3x3, in 36 products instead of 144:

    y = A^T [(G g G^T) * (B^T d B)] A        arXiv:1509.09308, section 4.3

Over channels and tiles that is 36 products of matrices, which torch computes near the peak of a
core. Written as linear maps of flattened tiles the backward pass is the same maps transposed.
Rounding errors are some 30 times those of the direct convolution, 1e-5 of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nuat.errors import InputError, unknown
from nuat.winograd.convolution import convolved
from nuat.winograd.tiles import OUT, scratch

WAYS = ("direct", "winograd")

LEAST_CHANNELS, LEAST_TILES, LEAST_WORK, LEAST_FILL = 96, 32, 1 << 21, 0.7
"""From where on it pays (benchmarks/convolutions.log, convolutions-fill.log).

Work is tiles x channels in x channels out; fill, the share of the tiles' outputs that is wanted: an
image of 5x5 takes four tiles of 4x4.
"""


class Winograd(nn.Conv2d):
    """A convolution of 3x3, stride 1 and padding 1 that is computed this way where it pays."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._pays(x):
            return super()._conv_forward(x, weight, bias)
        y: Tensor = convolved(x, weight)
        return y if bias is None else y + bias.view(-1, 1, 1)

    def _pays(self, x: Tensor) -> bool:
        """Whether there is enough to do to make up for the rest, and x is what this is for."""
        if not (x.is_cpu and x.dim() == 4 and x.dtype in (torch.float32, torch.float64)):
            return False
        tiles = len(x) * math.prod(-(-side // OUT) for side in x.shape[2:])
        work = tiles * self.in_channels * self.out_channels
        if tiles < LEAST_TILES or work < LEAST_WORK or torch.is_autocast_enabled("cpu"):
            return False
        return len(x) * math.prod(x.shape[2:]) >= LEAST_FILL * tiles * OUT**2


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


def computed(f: nn.Module) -> list[nn.Module]:
    """The convolutions of f that are computed this way."""
    return [module for module in f.modules() if type(module) is Winograd]


def to_winograd(f: nn.Module) -> None:
    """Compute the convolutions of f that suit this way.

    The same modules with the same weights, until `to_direct`.
    """
    for module in filter(suits, f.modules()):
        module.__class__ = Winograd


def to_direct(f: nn.Module) -> None:
    """Compute them as torch does, and let go of the memory that was kept for them."""
    for module in computed(f):
        module.__class__ = nn.Conv2d
    scratch.kept.clear()


@contextmanager
def directly(f: nn.Module) -> Iterator[None]:
    """In here every convolution of f is computed as torch does."""
    changed = computed(f)
    try:
        for module in changed:
            module.__class__ = nn.Conv2d
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
        to_direct(f)
        return ""
    if x.device.type != "cpu":
        raise InputError(
            f"convolutions=winograd is for a CPU, but this is {x.device}, where the libraries "
            "choose by themselves: leave it out"
        )
    to_winograd(f)
    if computed(f):
        return ""
    return (
        "convolutions=winograd changes nothing here: no convolution of this network is 3x3, of "
        f"stride 1 and padding 1, and has {LEAST_CHANNELS} channels and more"
    )


def check_way(way: str) -> None:
    """Raise InputError unless there is such a way to compute convolutions."""
    if way not in WAYS:
        raise unknown("way to compute convolutions", way, WAYS)
