"""The search model, which attacks run on: a faster copy with logits equal up to rounding."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Literal

import numpy
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nuat.nn.freeze import forward_padded, frozen_eval, unwrap_model
from nuat.rng import PerImageNoise

Precision = Literal["fp32", "bf16"]
COPY_DIFFERS = (
    "a copy returns other logits; does a hook or a function inside the model refer to the model?"
)
PROBE_BATCH = 32
PROBE_NOISE = 0.1
ROUNDING, REPEATED = 1e-3, 1e-5
"""Relative differences allowed between a copy and the model, and between two calls of the model."""
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

    def agrees_with(self, model: nn.Module, x: Tensor) -> bool:
        """Return whether `model`, of which this is a copy, still returns the same logits for x."""
        if self.model is unwrap_model(model):
            return True
        return _logits_agree(model, self.model, [x.contiguous(memory_format=self.memory_format)])


def build_search_model(model: nn.Module, x: Tensor, precision: Precision = "fp32") -> SearchModel:
    """Copy the model and optimize the copy: BatchNorm folded, channels_last where it is faster.

    An optimization is skipped, with a note, if the model cannot be traced or called in
    channels_last (a model that uses `.view` may not), or if its logits change by more than
    rounding, for the images `x` [N, C, H, W] or for noisy ones. The model itself is used, with a
    note, if it cannot be copied, if it draws random numbers or returns other logits in a second
    call, or if the copy returns other logits, as it does where a hook or a closure refers to the
    model itself.
    """
    model = unwrap_model(model)
    batches = probe_batches(x)
    if reason := _why_irreproducible(model, batches):
        return SearchModel(model, precision, notes=(_as_it_is(reason),))
    try:
        copied = copy.deepcopy(model).eval().requires_grad_(False)
    except Exception as error:
        reason = f"it cannot be copied: {_first_line(error)}"
        return SearchModel(model, precision, notes=(_as_it_is(reason),))
    if not _logits_agree(model, copied, batches):
        return SearchModel(model, precision, notes=(_as_it_is(COPY_DIFFERS),))
    copied, fold_note = _try_folding(model, copied, batches)
    memory_format, format_note = _try_channels_last(copied, x, precision)
    return SearchModel(
        copied,
        precision,
        memory_format,
        batchnorm_folded=not fold_note,
        notes=tuple(filter(None, (fold_note, format_note))),
    )


def without_copy(model: nn.Module, precision: Precision) -> SearchModel:
    """Return the model itself as an SearchModel, after its copy has turned out to differ."""
    return SearchModel(unwrap_model(model), precision, notes=(_as_it_is(COPY_DIFFERS),))


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


def _try_folding(
    model: nn.Module, copied: nn.Module, batches: Sequence[Tensor]
) -> tuple[nn.Module, str]:
    """Return the copy with BatchNorm folded, or the copy itself and a note."""
    try:
        folded = fold_batchnorm(copied)
        if _logits_agree(model, folded, batches):
            return folded, ""
    except Exception as error:
        return copied, f"BatchNorm is not folded: {_first_line(error)}"
    return copied, "BatchNorm is not folded: the logits would change"


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


def probe_batches(x: Tensor) -> list[Tensor]:
    """Split images into batches, and add one of noisy images.

    Logits that a model remembers of an earlier batch cannot be right for all of them.
    """
    noise = PerImageNoise(0, torch.arange(len(x)), "probe")
    noisy = (x + PROBE_NOISE * (2 * noise.uniform(x) - 1)).clamp(0, 1)
    return [*x.split(PROBE_BATCH), noisy[: max(1, min(len(x), PROBE_BATCH) // 2)]]


def _why_irreproducible(model: nn.Module, batches: Sequence[Tensor]) -> str:
    """Say why two calls of the model may differ; "" if nothing hints at it."""
    states = _random_states(batches[0].device)
    z = _logits(model, batches)
    if _random_states(batches[0].device) != states:
        return "it draws random numbers"
    again = _logits(model, batches[::-1])[::-1]
    if not all(_close(*pair, REPEATED) for pair in zip(z, again, strict=True)):
        return "its logits change from call to call"
    return ""


def _random_states(device: torch.device) -> list[object]:
    """Return the states of the random generators of Python, numpy and torch."""
    of_numpy = repr(numpy.random.get_state(legacy=False))
    states: list[object] = [random.getstate(), of_numpy, torch.get_rng_state().tolist()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).tolist())
    return states


def _logits_agree(model: nn.Module, other: nn.Module, batches: Sequence[Tensor]) -> bool:
    """Return whether two models return the same logits up to rounding; False if one fails.

    The batches are passed to `other` in reverse, so that it cannot return what `model` has just
    computed.
    """
    try:
        z, z_other = _logits(model, batches), _logits(other, batches[::-1])[::-1]
        return all(_close(*pair, ROUNDING) for pair in zip(z, z_other, strict=True))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return False


@torch.no_grad()
def _logits(model: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    with frozen_eval(model) as frozen_model:
        return [forward_padded(frozen_model, x).float() for x in batches]


def _close(z: Tensor, z_other: Tensor, tolerance: float) -> bool:
    """Return whether logits differ by less than `tolerance` times the largest finite one."""
    if z.shape != z_other.shape:
        return False
    largest = float(z.masked_fill(~z.isfinite(), 0).abs().max())
    return torch.allclose(z, z_other, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


def _as_it_is(reason: str) -> str:
    return f"the attacks search on the model itself, not on an optimized copy: {reason}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
