"""Exponential moving averages (EMAs) of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nuat.errors import InputError
from nuat.nn.freeze import frozen_eval, unwrap_model
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict
from nuat.rng import seeded


class EMA:
    """w_ema <- decay * w_ema + (1 - decay) * w after every optimizer step.

    The first update copies the weights. The average covers the parameters and the floating-point
    buffers, such as BatchNorm's running statistics; integer buffers are copied. There is no warm-up
    and no bias correction, as in the published NuAT code.

    Attributes:
        model: the averaged network, in eval mode; a copy of the given one until the first update.
        decay: the weight of the old average in each update, in [0, 1).
        started: whether there was an update.
    """

    def __init__(self, model: nn.Module, decay: float):
        """Raise InputError unless `decay` is in [0, 1) and the network can be copied."""
        if not 0 <= decay < 1:
            raise InputError(f"the decay of an EMA must be in [0, 1), but is {decay!r}")
        self.decay, self.started = decay, False
        self.model = _copy(unwrap_model(model))
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the current weights of `model`."""
        averaged, current = _tensors(self.model), _tensors(unwrap_model(model))
        is_averaged = [self.started and tensor.is_floating_point() for tensor in averaged]
        is_copied = [not each for each in is_averaged]
        if any(is_averaged):
            selected = (list(compress(tensors, is_averaged)) for tensors in (averaged, current))
            self._average(*selected, None)
        if any(is_copied):
            targets, sources = (list(compress(ts, is_copied)) for ts in (averaged, current))
            torch._foreach_copy_(targets, sources)
        self.started = True

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights, and whether there was an update."""
        return {"model": plain_state_dict(self.model), "started": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        load_plain_state_dict(self.model, state["model"])
        self.started = state["started"]


class EMAs:
    """The EMAs of one network, by decay. Each starts when it is first requested."""

    def __init__(self, model: nn.Module):
        """Prepare EMAs of `model`; none is kept yet."""
        self.model = model
        self._by_decay: dict[float, EMA] = {}

    def __call__(self, decay: float) -> nn.Module:
        """Return the averaged network for this decay."""
        if decay not in self._by_decay:
            self._by_decay[decay] = EMA(self.model, decay)
        return self._by_decay[decay].model

    def __len__(self) -> int:
        return len(self._by_decay)

    def update(self) -> None:
        """Update every EMA with the current weights. Call it after each optimizer step."""
        for ema in self._by_decay.values():
            ema.update(self.model)

    def state_dict(self) -> dict[float, Any]:
        """Return the state of every EMA, by decay."""
        return {decay: ema.state_dict() for decay, ema in self._by_decay.items()}

    def load_state_dict(self, state: dict[float, Any]) -> None:
        """Restore the state that `state_dict` returned; drop the EMAs that are not in it."""
        for decay in self._by_decay.keys() - state.keys():
            del self._by_decay[decay]
        for decay, ema_state in state.items():
            self(decay)
            self._by_decay[decay].load_state_dict(ema_state)


PERTURBATION, TOLERANCE = 0.05, 1e-4
"""Relative change of the weights, and relative difference of logits, in `check_copy`."""


def check_copy(model: nn.Module, x: Tensor) -> None:
    """Raise InputError unless a deep copy of the network computes from the copy's own weights.

    An EMA is a deep copy. Where a hook or a closure refers to the network itself, the copy uses the
    network's weights, or activations that it has left behind. All weights are changed for a moment,
    in the network and in the copy, and both must return the same logits for the images x
    [B, C, H, W] and for their negatives. A network that returns other logits in a second call with
    the same random seed cannot be checked.
    """
    model = unwrap_model(model)
    copied = _copy(model)
    batches, weights = [x, 1 - x[:1]], _tensors(model)
    stored = [weight.detach().clone() for weight in weights]
    try:
        for tensors in (weights, _tensors(copied)):
            _perturb(tensors)
        z, again = (_logits(model, batches) for _ in range(2))
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, stored, strict=True):
                weight.copy_(value)
    if not torch.allclose(z, again, TOLERANCE / 10, TOLERANCE / 10 * float(z.abs().max())):
        return
    try:
        z_copy = _logits(copied, batches[::-1], reverse=True)
        agree = torch.allclose(z, z_copy, TOLERANCE, TOLERANCE * float(z.abs().max()), True)
    except RuntimeError:  # such as shapes of another batch
        agree = False
    if not agree:
        raise InputError(
            "a deep copy of the network does not compute from its own weights, which an average "
            "(EMA) of the weights needs; does a hook, a lambda or a bound method that the network "
            "stores refer to the network itself? Write it as a method that uses its own `self`, or "
            "train without an EMA"
        )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).requires_grad_(False).eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a module may hold anything: a lock, a generator, activations
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the network cannot be copied, which an EMA of its weights needs: {reason}"
        ) from error


@torch.no_grad()
def _perturb(tensors: Iterable[Tensor]) -> None:
    """Change every weight and every floating-point buffer; those that are 0 too."""
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(torch.where(tensor == 0, 1e-3, tensor * (1 + PERTURBATION)))


@torch.no_grad()
def _logits(model: nn.Module, batches: Sequence[Tensor], reverse: bool = False) -> Tensor:
    """Return logits [N, K] of all batches in eval mode; with `reverse`, restore their order."""
    logits = []
    with frozen_eval(model) as frozen_model:
        for x in batches:
            with seeded(0, x.device):  # of each batch, whatever comes before it
                logits.append(frozen_model(x))
    return torch.cat(logits[::-1] if reverse else logits)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
