"""What a training step must compute, counted: forward-equivalents, one forward of the batch = 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nuat.checks import check_loss
from nuat.methods import Method, Moment
from nuat.weights import Averages


class _Counter(TorchDispatchMode):
    flops = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = op(*args, **kwargs)
        if formula := flop_registry.get(op.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and matrix products in a piece of work."""
    with _Counter() as counter:
        work()
    return counter.flops


def forward_equivalents(
    method: Method, f: nn.Module, x: Tensor, y: Tensor, epoch: int = 1
) -> float:
    """Cost of a training step of this method in forward passes of the batch, mean of both parities.

    Counted, not timed: convolutions and matrix products, forward and backward. `f` gets gradients
    but no update; its BatchNorm statistics come back as they were.
    """
    before = {name: value.clone() for name, value in f.state_dict().items()}
    modes = [(module, module.training) for module in f.modules()]
    f.train()
    averages = Averages(f)
    memory: dict[str, Any] = {}

    def steps() -> None:
        for batch in (0, 1):
            t = Moment(epoch, batch, 2, len(x), averages=averages, memory=memory)
            for loss in method.step(f, x, y, t):
                check_loss(loss)
                f.zero_grad()
                loss.backward()

    with torch.random.fork_rng():
        spent = flops(steps) / 2
    with torch.no_grad():
        once = flops(lambda: f(x))
    f.zero_grad()
    f.load_state_dict(before)
    for module, training in modes:
        module.training = training
    return spent / once
