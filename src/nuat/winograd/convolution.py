"""The convolution and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nuat.winograd.tiles import IN, WEIGHTS, Grid, mapped, scratch


def of_weights(w: Tensor) -> Tensor:
    """G g G^T of weights [O, I, 3, 3]: [36, O, I], in scratch."""
    flat = scratch("flat", w, 3, 3, *w.shape[:2]).copy_(w.permute(2, 3, 0, 1))
    return mapped("weights", WEIGHTS, flat.view(9, *w.shape[:2]))


def of_weights_back(u: Tensor) -> Tensor:
    """The transpose of `of_weights`, in scratch."""
    return mapped("flat", WEIGHTS.T, u).view(3, 3, *u.shape[1:]).permute(2, 3, 0, 1)


def _products(name: str, one: Tensor, other: Tensor) -> Tensor:
    """36 products of matrices, in scratch."""
    there = scratch(name, one, IN**2, one.shape[1], other.shape[2])
    return torch.bmm(one, other, out=there)


def _channels_last(tensor: Tensor) -> bool:
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


class Convolution(torch.autograd.Function):
    """x [B, I, H, W], w [O, I, 3, 3] -> [B, O, H, W], padded by 1, laid out as torch would.

    It can be differentiated once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        """The convolution."""
        ctx.save_for_backward(x, w)
        last = _channels_last(x) or _channels_last(w)
        layout = torch.channels_last if last else torch.contiguous_format
        y = torch.empty(
            len(x), len(w), *x.shape[2:], dtype=x.dtype, device=x.device, memory_format=layout
        )
        u, grid = of_weights(w), Grid(*x.shape[2:])
        for x_part, y_part in grid.parts(x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)):
            grid.outputs(_products("products", grid.inputs(x_part), u.mT), y_part)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and w, each if it is asked for."""
        x, w = ctx.saved_tensors
        for_x, for_w = ctx.needs_input_grad
        x, g = x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1)
        dx = torch.empty_like(x)
        if for_x:
            u = of_weights(w)
        if for_w:
            du = scratch("du", w, IN**2, *w.shape[:2])
        grid = Grid(*x.shape[1:3])
        for place, (x_part, g_part, dx_part) in enumerate(grid.parts(x, g, dx)):
            m = grid.outputs_back(g_part)
            if for_x:
                dx_part.copy_(grid.inputs_back(_products("inputs", m, u)))
            if for_w:
                du.baddbmm_(m.mT, grid.inputs(x_part), beta=min(place, 1))
        dw = torch.empty_like(w).copy_(of_weights_back(du)) if for_w else None
        return dx.permute(0, 3, 1, 2) if for_x else None, dw


@torch.compiler.disable
def convolved(x: Tensor, w: Tensor) -> Tensor:
    """The convolution of x [B, I, H, W], padded by 1, with w [O, I, 3, 3]: [B, O, H, W]."""
    y: Tensor = Convolution.apply(x, w)
    return y
