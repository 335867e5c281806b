"""The loss around an image, along the gradient and a random direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import logits, value_and_grad
from nuat.losses import ce_per_image
from nuat.nn.freeze import frozen_eval
from nuat.report.figures import chart, figure_style, make_panels
from nuat.rng import PerImageNoise
from nuat.threat_models import Ball

REACH = 1.5
"""How far the surface reaches in each direction, in units of eps."""


def measure_surface(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    lam: float,
    index: int = 0,
    points: int = 25,
    seed: int = 0,
) -> dict[str, Any]:
    """The losses at clamp(x + a g + b r, 0, 1) for a, b on a grid from -1.5 eps to 1.5 eps.

    g is the steepest direction of the cross-entropy at x, r that of random signs, both of length 1
    in the norm of the ball. `ce` is the cross-entropy CE(f(x'), y), and `regularized` is
    CE(f(x'), y) + lam |f(x') - f(x)|_*, the loss of NuAT for a batch of this one image, in which
    the nuclear norm is the length of the difference; [points, points] with one row for each b.

    Args:
        model: the network.
        x: one image in [0, 1], [1, C, H, W].
        y: its label, [1].
        ball: the threat model.
        lam: weight of the nuclear norm.
        index: the image's index, which its random direction depends on.
        points: number of points in each direction; an odd number has the image in the middle.
        seed: seed of the random direction.
    """
    with frozen_eval(model) as frozen_model:
        _, _, gradient = value_and_grad(frozen_model, x, lambda z: ce_per_image(z, y))
    g = ball.steepest_direction(gradient)
    noise = PerImageNoise(seed, torch.tensor([index]), "surface")
    r = ball.steepest_direction(noise.sign(x))
    steps = torch.linspace(-REACH, REACH, points, device=x.device) * ball.eps
    z_clean, ce, regularized = logits(model, x), [], []
    for b in steps:
        line = (x + steps[:, None, None, None] * g + b * r).clamp(0, 1)
        z = logits(model, line)
        losses = ce_per_image(z, y.expand(points))
        ce.append(losses.tolist())
        lengths = torch.linalg.vector_norm(z - z_clean, dim=1)
        regularized.append((losses + lam * lengths).tolist())
    return {
        "index": index, "eps": ball.eps, "lam": lam, "steps": steps.tolist(),
        "ce": ce, "regularized": regularized,
    }  # fmt: skip


def draw_surface(data: dict[str, Any]) -> dict[str, str]:
    """Draw both losses as maps, each with its own scale, and the ball as a square."""
    eps, lam = data["eps"], data["lam"]
    steps = [step / eps for step in data["steps"]]
    kinds = {
        "ce": "cross-entropy",
        "regularized": f"with the nuclear norm, lam = {lam:g}",
    }
    with figure_style():
        figure, panels = make_panels(2, 330, 2)
        for axes, (key, title) in zip(panels, kinds.items(), strict=True):
            shades = axes.contourf(steps, steps, data[key], levels=14, cmap="cividis")
            axes.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color="white", lw=1, ls="--")
            axes.plot([0], [0], marker="o", color="white", markersize=5)
            axes.set_title(title)
            axes.set_xlabel("gradient direction, in eps")
            axes.set_ylabel("random direction, in eps")
            axes.set_aspect("equal")
            axes.grid(False)
            figure.colorbar(shades, ax=axes, shrink=0.8)
        ranges = "; ".join(f"{title}: {_range(data[key])}" for key, title in kinds.items())
        alt = f"Loss around test image {data['index']}. {ranges}."
        caption = (
            f"Loss around test image {data['index']} (the dot) along the direction of the gradient "
            "and a random one. Within the dashed lines neither step is longer than eps. Left: the "
            "cross-entropy. Right: with the regularizer of NuAT, for a batch of this one image."
        )
        return chart(figure, alt, caption)


def _range(rows: list[list[float]]) -> str:
    return f"{min(map(min, rows)):.2g} to {max(map(max, rows)):.2g}"
