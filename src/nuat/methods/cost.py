"""The cost of a training step in forward passes of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nuat.methods import Method, StepContext
from nuat.nn.ema import EMAs
from nuat.nn.validation import check_loss
from nuat.runtime.flops import flops


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
    averages = EMAs(f)
    memory: dict[str, Any] = {}

    def steps() -> None:
        for batch in (0, 1):
            t = StepContext(epoch, batch, 2, len(x), averages=averages, memory=memory)
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
