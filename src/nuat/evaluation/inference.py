"""The network that an evaluation searches: a faster equal of the one whose verdict counts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nuat.nn.freeze import forward_padded, frozen_eval, unwrap_model

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
Precision = Literal["fp32", "bf16"]
PLAIN = torch.contiguous_format


@dataclass(frozen=True)
class InferenceModel:
    """A network to search, and what was done to it.

    Attributes:
        g: images in [0, 1] [B, C, H, W] to float32 logits [B, K]; frozen, a copy.
        notes: in words, what could not be done to it.
        folded: whether BatchNorm is folded into the convolutions before it.
        precision: of the passes, `bf16` under autocast; every claim is verified in float32.
    """

    g: nn.Module
    notes: tuple[str, ...]
    folded: bool
    precision: Precision


class InferenceNet(nn.Module):
    """Passes through a network in one layout and, if asked, under bfloat16 autocast."""

    def __init__(self, g: nn.Module, precision: Precision, layout: torch.memory_format):
        super().__init__()
        self.g, self.precision, self.layout = g, precision, layout

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits."""
        x = x.contiguous(memory_format=self.layout)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            z: Tensor = self.g(x)
        return z.float()


def build_inference_model(f: nn.Module, x: Tensor, precision: Precision = "fp32") -> InferenceModel:
    """A frozen copy of f for the search: BatchNorm folded, channels_last where that is faster.

    Its logits equal those of f up to rounding, which is checked on the images `x` [B, C, H, W]. A
    network that cannot be copied, traced or called in channels_last (one with a `.view` in it may
    not), or whose copy differs, is build_inference_model without that.
    """
    try:
        twin = copy.deepcopy(unwrap_model(f)).eval().requires_grad_(False)
    except Exception as error:
        note = f"the network cannot be copied and is build_inference_model as it is: {_first_line(error)}"
        return InferenceModel(
            InferenceNet(unwrap_model(f), precision, PLAIN), (note,), False, precision
        )
    twin, not_folded = _folded(twin, x)
    g, plain = _laid_out(twin, x, precision)
    notes = tuple(note for note in (not_folded, plain) if note)
    return InferenceModel(g.eval(), notes, not not_folded, precision)


def _folded(twin: nn.Module, x: Tensor) -> tuple[nn.Module, str]:
    """The network with BatchNorm folded, or as it is and in words why."""
    try:
        smaller = folded(twin)
        if _equal(twin, smaller, x):
            return smaller, ""
    except Exception as error:
        return twin, f"BatchNorm is not folded: {_first_line(error)}"
    return twin, "BatchNorm is not folded: the logits would differ"


def _laid_out(twin: nn.Module, x: Tensor, precision: Precision) -> tuple[InferenceNet, str]:
    """The network in channels_last, or in the usual layout and in words why.

    In float32 on a CPU the usual layout is faster (benchmarks/attacks.md).
    """
    if x.device.type == "cpu" and precision == "fp32":
        return InferenceNet(twin, precision, PLAIN), ""
    g = InferenceNet(twin.to(memory_format=torch.channels_last), precision, torch.channels_last)
    try:
        with torch.no_grad():
            forward_padded(g, x)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        twin = twin.to(memory_format=PLAIN)
        return InferenceNet(
            twin, precision, PLAIN
        ), f"channels_last is not used: {_first_line(error)}"
    return g, ""


def folded(f: nn.Module) -> nn.Module:
    """A traced network in eval mode in which a convolution has taken in the BatchNorm after it.

    w' = w * gamma / sqrt(var + epsilon), b' likewise. Raises whatever tracing raises.
    """
    traced = torch.fx.symbolic_trace(f)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.args else None
        norm, conv = modules.get(node.target), modules.get(getattr(before, "target", None))
        pair = isinstance(norm, BatchNorm) and isinstance(conv, CONVOLUTIONS)
        if pair and norm.track_running_stats and len(before.users) == 1:
            traced.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced.eval().requires_grad_(False)


@torch.no_grad()
def _equal(one: nn.Module, other: nn.Module, x: Tensor) -> bool:
    with frozen_eval(one) as f, frozen_eval(other) as g:
        z, z_other = forward_padded(f, x), forward_padded(g, x)
    return torch.allclose(z, z_other, rtol=1e-3, atol=1e-3 * float(z.abs().max()))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
