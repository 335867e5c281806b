"""Exponential moving averages of the weights."""

from __future__ import annotations

import copy
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nuat.errors import InputError
from nuat.nn.freeze import unwrap_model


class EMA:
    """w_avg <- decay * w_avg + (1 - decay) * w after every step, from the first step's weights on.

    The average is of the parameters and of the floating-point buffers, BatchNorm's running
    statistics among them; integer buffers are copied. No warm-up and no bias correction, as in the
    published NuAT code. Until the first update the average is a copy of the network.
    """

    def __init__(self, f: nn.Module, decay: float):
        """`decay` in [0, 1): the share that the average keeps at each step."""
        if not 0 <= decay < 1:
            raise InputError(f"an average's decay must be in [0, 1), but is {decay!r}")
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(unwrap_model(f)).requires_grad_(False).eval()
        self._blend = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, f: nn.Module) -> None:
        """Take the network's present weights into the average."""
        mine, theirs = _tensors(self.network), _tensors(unwrap_model(f))
        floats = [tensor.is_floating_point() for tensor in mine]
        if self.updates:
            self._blend(*(list(compress(tensors, floats)) for tensors in (mine, theirs)), None)
        copied = [not self.updates or not is_float for is_float in floats]
        if any(copied):
            torch._foreach_copy_(*(list(compress(tensors, copied)) for tensors in (mine, theirs)))
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]


class EMAs:
    """The averages of one network, by decay; each begins when it is first asked for."""

    def __init__(self, f: nn.Module):
        """EMAs of `f`."""
        self.f = f
        self._by_decay: dict[float, EMA] = {}

    def __call__(self, decay: float) -> nn.Module:
        """The network averaged with this decay."""
        if decay not in self._by_decay:
            self._by_decay[decay] = EMA(self.f, decay)
        return self._by_decay[decay].network

    def update(self) -> None:
        """Take the present weights into every average."""
        for average in self._by_decay.values():
            average.update(self.f)

    def state_dict(self) -> dict[float, Any]:
        """The state of each average."""
        return {decay: average.state_dict() for decay, average in self._by_decay.items()}

    def load_state_dict(self, state: dict[float, Any]) -> None:
        """Go on from a saved state: an average that is not in it has not begun."""
        for decay in self._by_decay.keys() - state.keys():
            del self._by_decay[decay]
        for decay, average_state in state.items():
            self(decay)
            self._by_decay[decay].load_state_dict(average_state)


def _tensors(f: nn.Module) -> list[Tensor]:
    return [*f.parameters(), *f.buffers()]
