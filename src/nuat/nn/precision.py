"""How a network computes while it is trained: the numbers inside its layers, and their layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.errors import InputError, unknown_name
from nuat.nn.validation import check_logits

PRECISIONS = ("fp32", "bf16")


class BFloat16(nn.Module):
    """A network whose layers compute in bfloat16: float32 images in, float32 logits out.

    Autocast inside the forward pass and nowhere else: weights, their gradients, BatchNorm
    statistics, images, losses and perturbations stay float32. The weights are those of `f` itself,
    so what is trained through here is `f`.
    """

    def __init__(self, f: nn.Module):
        """Stand before `f`."""
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K] in float32."""
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            z: Tensor = self.f(x)
        return z.float()


def with_precision(precision: str, f: nn.Module) -> nn.Module:
    """The network as a method is to see it in training: `f` itself for fp32."""
    check_precision(precision)
    return f if precision == "fp32" else BFloat16(f)


def check_precision(precision: str) -> None:
    """Raise InputError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)


def to_channels_last(f: nn.Module, x: Tensor) -> None:
    """Lay the weights of convolutions out as channels_last, so that what they compute is, too.

    The function stays what it was, to rounding. Raises InputError, and leaves `f` as it was, if the
    network cannot be called on images `x` that way: one with a `.view` in it may not; nor, on a
    CPU, one with a narrow strided 1x1 convolution: the gradient of its weights is written outside
    its memory there (torch 2.13).
    """
    if x.device.type == "cpu" and (narrow := _narrow(f)):
        raise InputError(
            "channels_last does not suit this network: torch's CPU kernel for the weights of "
            f"{narrow} writes outside its memory"
        )
    f.to(memory_format=torch.channels_last)
    try:
        check_logits(f, x)
    except InputError as error:
        to_contiguous(f)
        raise InputError(f"channels_last does not suit this network: {error}") from error


def _narrow(f: nn.Module) -> str:
    """The first strided 1x1 convolution of less than 16 channels, in words; "" without one."""
    for name, module in f.named_modules():
        strided = isinstance(module, nn.Conv2d) and max(module.stride) > 1
        if strided and module.kernel_size == (1, 1) and module.in_channels < 16:
            return f"{name} (1x1, stride {max(module.stride)}, {module.in_channels} channels)"
    return ""


def to_contiguous(f: nn.Module) -> None:
    """Lay the weights out as usual."""
    f.to(memory_format=torch.contiguous_format)


def set_memory_format(f: nn.Module, x: Tensor, channels_last: bool | None) -> str:
    """Lay the network out as asked, or for None as suits the device; what there is to say about it.

    That is channels_last on a GPU, if the network supports it, and the usual layout on a CPU.
    """
    if channels_last is False or (channels_last is None and x.device.type == "cpu"):
        return ""
    try:
        to_channels_last(f, x)
    except InputError as error:
        if channels_last:
            raise
        return f"{error}: going on without"
    return ""
