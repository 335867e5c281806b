"""Stochastic gradient descent that a CUDA graph can record once for all learning rates."""

from __future__ import annotations

import torch
from torch import Tensor


class CapturableSGD(torch.optim.SGD):
    """torch's SGD with momentum and weight decay, in a few launches for all weights together.

        b <- momentum * b + gradient + weight_decay * w;   w <- w - lr * b

    The groups' lr and momentum are numbers, or scalar tensors on the device. torch's own SGD reads
    a tensor on the host, or takes its momentum as a number only, which a CUDA graph would keep.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # torch's takes a closure, which none here is
        """Update all weights that have a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            buffers = [self._buffer(weight) for weight in weights]
            gradients = torch._foreach_add(
                [weight.grad for weight in weights], weights, alpha=group["weight_decay"]
            )
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_add_(weights, torch._foreach_mul(buffers, -group["lr"]))

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
