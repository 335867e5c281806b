"""A model with replaced weights, and adversarial weight perturbation (AWP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nuat.nn.batchnorm import freeze_bn_stats
from nuat.nn.freeze import unwrap_model


class FunctionalModel(nn.Module):
    """A model with some weights replaced; it shares all others, and its buffers, with `model`."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]):
        """`weights` are named as in `model.named_parameters()`."""
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, *args: Any) -> Any:
        """Return model(*args), computed with the replaced weights."""
        return functional_call(self.model, self.weights, args)


def perturb_weights(
    model: nn.Module,
    objective: Callable[[nn.Module], Tensor],
    gamma: float | Tensor,
    average: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda gradients: gradients,
) -> nn.Module:
    """Return the model at  w + v,  v_l = gamma |w_l| g_l / |g_l|,  for each layer l.

    g is the gradient of objective(model) at w. Weights of two or more dimensions are perturbed;
    biases and BatchNorm parameters are not. The gradient of a loss of the returned model
    accumulates in the weights of `model`. The pass that computes g does not update BatchNorm's
    running statistics.

    Args:
        model: the model.
        objective: maps a model to the scalar that the perturbation increases.
        gamma: the norm of v_l relative to that of w_l, a number or a scalar tensor.
        average: averages gradients over ranks, if the objective is of a share of the batch.

    Source: arXiv:2004.05884, eq. 10; which weights are perturbed, and the norm per layer, are taken
    from its code.
    """
    unwrapped = unwrap_model(model)
    perturbed = {
        name: weight
        for name, weight in unwrapped.named_parameters()
        if weight.ndim > 1 and "weight" in name and weight.requires_grad
    }
    with freeze_bn_stats(unwrapped):
        gradients = average(torch.autograd.grad(objective(unwrapped), list(perturbed.values())))
    weights = {}
    for (name, weight), gradient in zip(perturbed.items(), gradients, strict=True):
        scale = gamma * weight.detach().norm() / (gradient.norm() + 1e-20)
        weights[name] = weight + scale * gradient
    # the loss goes through the wrapper, if there is one, so that ranks average its gradient
    prefix = "" if unwrapped is model else "module."
    return FunctionalModel(model, {prefix + name: weight for name, weight in weights.items()})
