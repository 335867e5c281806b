"""Precision and memory format of a model during training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuat.errors import InputError, unknown_name
from nuat.nn.validation import check_logits

PRECISIONS = ("fp32", "bf16")


class BFloat16Model(nn.Module):
    """A model whose layers compute in bfloat16, from float32 images to float32 logits.

    Autocast covers the forward pass alone: weights, gradients, BatchNorm statistics, images, losses
    and perturbations stay float32. The weights are shared with `model`.
    """

    def __init__(self, model: nn.Module):
        """Wrap `model`."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] in float32."""
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            z: Tensor = self.model(x)
        return z.float()


def with_precision(model: nn.Module, precision: str) -> nn.Module:
    """Return a model that computes `model` in this precision; for fp32, `model` itself."""
    check_precision(precision)
    return model if precision == "fp32" else BFloat16Model(model)


def check_precision(precision: str) -> None:
    """Raise InputError unless `precision` is fp32 or bf16."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)


def select_memory_format(
    model: nn.Module, x: Tensor, channels_last: bool | None
) -> tuple[torch.memory_format, str]:
    """Return the memory format to train in, and a note if channels_last had to be given up.

    None selects channels_last on a GPU if the model supports it, and the default format on a CPU.
    The weights are in the default format afterwards. Raises InputError if channels_last is required
    but not supported.
    """
    if channels_last is False or (channels_last is None and x.device.type == "cpu"):
        return torch.contiguous_format, ""
    try:
        check_channels_last(model, x)
    except InputError as error:
        if channels_last:
            raise
        return torch.contiguous_format, f"{error}: training uses the default memory format"
    return torch.channels_last, ""


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Convert the weights of the model to this memory format, in place."""
    model.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch omits this overload


def check_channels_last(model: nn.Module, x: Tensor) -> None:
    """Raise InputError if the model does not support channels_last weights and activations.

    A model that calls `.view` on activations does not. On a CPU, neither does one with a narrow
    strided 1x1 convolution: torch 2.13 writes the gradient of its weights out of bounds. The
    weights are in the default format afterwards.
    """
    if x.device.type == "cpu" and (layer := _unsafe_convolution(model)):
        raise InputError(
            "channels_last does not suit this model: torch's CPU kernel for the weights of "
            f"{layer} writes out of bounds"
        )
    try:
        set_memory_format(model, torch.channels_last)
        check_logits(model, x)
    except InputError as error:
        raise InputError(f"channels_last does not suit this model: {error}") from error
    finally:
        set_memory_format(model, torch.contiguous_format)


def _unsafe_convolution(model: nn.Module) -> str:
    """Describe the first strided 1x1 convolution with fewer than 16 channels; "" if none."""
    for name, module in model.named_modules():
        strided = isinstance(module, nn.Conv2d) and max(module.stride) > 1
        if strided and module.kernel_size == (1, 1) and module.in_channels < 16:
            return f"{name} (1x1, stride {max(module.stride)}, {module.in_channels} channels)"
    return ""
