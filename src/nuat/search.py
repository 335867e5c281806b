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

from nuat.network import at_least, bare, frozen

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Searched:
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


class Faster(nn.Module):
    """Passes through a network in channels_last and, if asked, under bfloat16 autocast."""

    def __init__(self, g: nn.Module, precision: Precision):
        super().__init__()
        self.g, self.precision = g, precision

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            z: Tensor = self.g(x)
        return z.float()


def searched(f: nn.Module, x: Tensor, precision: Precision = "fp32") -> Searched:
    """A frozen copy of f for the search: BatchNorm folded, channels_last.

    Its logits equal those of f up to rounding, which is checked on the images `x` [B, C, H, W]; a
    network that cannot be copied or traced, or whose copy differs, is searched as it is.
    """
    try:
        twin = copy.deepcopy(bare(f)).eval().requires_grad_(False)
    except Exception as error:
        note = f"the network cannot be copied and is searched as it is: {_first_line(error)}"
        return Searched(Faster(bare(f), precision).eval(), (note,), False, precision)
    try:
        smaller, note = folded(twin), "BatchNorm is not folded: the logits would differ"
        if _equal(twin, smaller, x):
            twin, note = smaller, ""
    except Exception as error:
        note = f"BatchNorm is not folded: {_first_line(error)}"
    g = Faster(twin.to(memory_format=torch.channels_last), precision).eval()
    return Searched(g, (note,) if note else (), not note, precision)


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
    with frozen(one) as f, frozen(other) as g:
        z, z_other = at_least(f, x), at_least(g, x)
    return torch.allclose(z, z_other, rtol=1e-3, atol=1e-3 * float(z.abs().max()))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
