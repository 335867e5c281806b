"""The cost of a training step in forward passes of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nuat.methods import Method, StepContext
from nuat.nn.ema import EMAs
from nuat.nn.validation import check_loss
from nuat.runtime.flops import count_flops

STANDARD_STEP = 3
"""The cost of a step of standard training, in forward passes: one forward and one backward."""


def forward_equivalents(
    method: Method, model: nn.Module, x: Tensor, y: Tensor, epoch: int = 1
) -> float:
    """The cost of a training step in forward passes, averaged over an even and an odd batch.

    The cost is counted, not timed: floating-point operations of convolutions and matrix products,
    forward and backward, divided by those of one forward pass of the batch. The model is left as it
    was: no optimizer step is taken, and modes and buffers are restored.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    emas = EMAs(model)
    memory: dict[str, Any] = {}

    def two_steps() -> None:
        for batch in (0, 1):
            ctx = StepContext(epoch, batch, 2, len(x), emas=emas, memory=memory)
            for loss in method.step(model, x, y, ctx):
                check_loss(loss)
                model.zero_grad()
                loss.backward()

    with torch.random.fork_rng():
        step_flops = count_flops(two_steps) / 2
    with torch.no_grad():
        forward_flops = count_flops(lambda: model(x))
    model.zero_grad()
    model.load_state_dict(before)
    for module, training in modes:
        module.training = training
    return step_flops / forward_flops
