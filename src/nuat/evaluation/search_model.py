"""The search model, which attacks run on: a faster copy with logits equal up to rounding."""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nuat.nn.freeze import forward_padded, frozen_eval, unwrap_model

Precision = Literal["fp32", "bf16"]
CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d


class SearchModel(nn.Module):
    """A frozen model that maps images in [0, 1] [B, C, H, W] to float32 logits [B, K].

    Attributes:
        model: the model, in `memory_format`.
        precision: `bf16` computes under bfloat16 autocast.
        memory_format: of the images and the convolutions.
        batchnorm_folded: whether BatchNorm is folded into the convolutions before it.
        notes: why an optimization does not apply.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision = "fp32",
        memory_format: torch.memory_format = torch.contiguous_format,
        batchnorm_folded: bool = False,
        notes: tuple[str, ...] = (),
    ):
        super().__init__()
        self.model, self.precision, self.memory_format = model, precision, memory_format
        self.batchnorm_folded, self.notes = batchnorm_folded, notes
        self.training = False  # of this wrapper alone: `model` may be the user's own

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits [B, K]."""
        x = x.contiguous(memory_format=self.memory_format)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            z: Tensor = self.model(x)
        return z.float()


def build_search_model(model: nn.Module, x: Tensor, precision: Precision = "fp32") -> SearchModel:
    """Copy the model and optimize the copy: BatchNorm folded, channels_last where it is faster.

    An optimization is skipped, with a note, if the model cannot be traced or called in
    channels_last (a model that uses `.view` may not), or if its logits for the images `x`
    [B, C, H, W] change by more than rounding. A model that cannot be copied is used unchanged.
    """
    model = unwrap_model(model)
    try:
        copied = copy.deepcopy(model).eval().requires_grad_(False)
    except Exception as error:
        note = f"the model cannot be copied and is used as it is: {_first_line(error)}"
        return SearchModel(model, precision, notes=(note,))
    copied, fold_note = _try_folding(copied, x)
    memory_format, format_note = _try_channels_last(copied, x, precision)
    return SearchModel(
        copied,
        precision,
        memory_format,
        batchnorm_folded=not fold_note,
        notes=tuple(filter(None, (fold_note, format_note))),
    )


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Trace a model and fold each BatchNorm into the convolution before it.

    w' = w gamma / sqrt(var + epsilon), and the bias likewise. Raises whatever tracing raises.
    """
    traced = torch.fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        previous = node.args[0] if node.args else None
        if not isinstance(previous, torch.fx.Node):
            continue
        norm, conv = modules.get(str(node.target)), modules.get(str(previous.target))
        if not (isinstance(norm, BatchNorm) and isinstance(conv, CONVOLUTIONS)):
            continue
        if norm.track_running_stats and len(previous.users) == 1:
            traced.set_submodule(str(previous.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(previous)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced.eval().requires_grad_(False)


def _try_folding(model: nn.Module, x: Tensor) -> tuple[nn.Module, str]:
    """Return the model with BatchNorm folded, or the model itself and a note."""
    try:
        folded = fold_batchnorm(model)
        if _logits_agree(model, folded, x):
            return folded, ""
    except Exception as error:
        return model, f"BatchNorm is not folded: {_first_line(error)}"
    return model, "BatchNorm is not folded: the logits would change"


def _try_channels_last(
    model: nn.Module, x: Tensor, precision: Precision
) -> tuple[torch.memory_format, str]:
    """Convert the model to channels_last where it is faster; return its format and a note."""
    # In float32 on a CPU the contiguous format is faster (benchmarks/attacks.md).
    if x.device.type == "cpu" and precision == "fp32":
        return torch.contiguous_format, ""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs
    try:
        with torch.no_grad():
            forward_padded(SearchModel(model, precision, torch.channels_last), x)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # stubs
        return torch.contiguous_format, f"channels_last is not used: {_first_line(error)}"
    return torch.channels_last, ""


@torch.no_grad()
def _logits_agree(model: nn.Module, other: nn.Module, x: Tensor) -> bool:
    with frozen_eval(model) as model, frozen_eval(other) as other:
        z, z_other = forward_padded(model, x), forward_padded(other, x)
    return torch.allclose(z, z_other, rtol=1e-3, atol=1e-3 * float(z.abs().max()))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
