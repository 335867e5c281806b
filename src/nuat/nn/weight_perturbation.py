"""A network at other weights, and the worst weights nearby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nuat.nn.batchnorm import freeze_bn_stats
from nuat.nn.freeze import unwrap_model


class FunctionalModel(nn.Module):
    """A network with some of its weights replaced; the rest, and its buffers, are its own."""

    def __init__(self, f: nn.Module, weights: dict[str, Tensor]):
        """`weights` by name, as in `f.named_parameters()`."""
        super().__init__()
        self.f, self.weights = f, weights

    def forward(self, *args: Any) -> Any:
        """f(*args) with the replaced weights."""
        return functional_call(self.f, self.weights, args)


def perturb_weights(
    f: nn.Module, objective: Callable[[nn.Module], Tensor], gamma: float
) -> nn.Module:
    """A view of f at  w + v,  v_l = gamma |w_l| g_l / |g_l|,  g the gradient of objective(f) at w.

    Layer by layer, for weights of two or more dimensions; the others stay. The gradient of a loss
    of the view lands on the weights of f. BatchNorm's running statistics do not see the pass that
    finds v.

    Source: arXiv:2004.05884, eq. 10; which weights move, and the norm by layer, from its code.
    """
    g = unwrap_model(f)
    moving = {
        name: weight
        for name, weight in g.named_parameters()
        if weight.ndim > 1 and "weight" in name and weight.requires_grad
    }
    with freeze_bn_stats(g):
        gradients = torch.autograd.grad(objective(g), list(moving.values()))
    nearby = {}
    for (name, weight), gradient in zip(moving.items(), gradients, strict=True):
        length = gamma * weight.detach().norm() / (gradient.norm() + 1e-20)
        nearby[name] = weight + length * gradient
    # through the wrapper, if there is one, so that its gradient is reduced over the ranks
    inside = "" if g is f else "module."
    return FunctionalModel(f, {inside + name: weight for name, weight in nearby.items()})
