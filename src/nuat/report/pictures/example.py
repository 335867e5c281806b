"""An image, a perturbation from 50 targeted steps, and what the network makes of their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from nuat.attacks import TargetedPGD, logits, predict
from nuat.report.figures import chart, figure_style, make_panels, shorten
from nuat.rng import PerImageNoise
from nuat.runtime.text import escape_unprintable
from nuat.threat_models import Ball

MAGNIFIED = 50
"""By what the perturbation is multiplied to be seen."""


def measure_example(
    model: nn.Module, x: Tensor, y: Tensor, classes: Sequence[str], ball: Ball, seed: int = 0
) -> dict[str, Any]:
    """Drive images x [B, C, H, W] toward their second most likely class by 50 steps of PGD.

    Of the images that are classified correctly, the one whose target class has the largest
    probability afterwards is kept, with its perturbation [C, H, W].

    Raises:
        InputError: the model has too few classes.
    """
    attack, indices = TargetedPGD(ball, steps=50), torch.arange(len(x))
    target = attack.target_classes(model, x, y)
    x_adv = attack.run_targeted(model, x, target, PerImageNoise(seed, indices, "example"))
    z, z_adv = logits(model, x), logits(model, x_adv)
    p, p_adv = z.softmax(1), z_adv.softmax(1)
    reached = p_adv.gather(1, target[:, None])[:, 0]
    best = int(torch.where(predict(z) == y, reached, reached - 2).argmax())
    before, after = int(p[best].argmax()), int(p_adv[best].argmax())
    return {
        "index": best,
        "eps": ball.eps,
        "image": x[best].tolist(),
        "perturbation": (x_adv - x)[best].tolist(),
        "target": classes[int(target[best])],
        "predicted": classes[before],
        "confidence": float(p[best, before]),
        "predicted_adv": classes[after],
        "confidence_adv": float(p_adv[best, after]),
    }


def draw_example(data: dict[str, Any]) -> dict[str, str]:
    """Draw the image, the magnified perturbation and their sum, with the predictions."""
    image, perturbation = torch.tensor(data["image"]), torch.tensor(data["perturbation"])
    before = f"{escape_unprintable(data['predicted'])}, {data['confidence']:.1%}"
    after = f"{escape_unprintable(data['predicted_adv'])}, {data['confidence_adv']:.1%}"
    pictures = {
        shorten(before): image,
        f"perturbation x {MAGNIFIED}": 0.5 + MAGNIFIED * perturbation,
        shorten(after) + " ": image + perturbation,  # the space keeps equal titles apart
    }
    with figure_style():
        figure, panels = make_panels(3, 250, 3)
        for axes, (title, pixels) in zip(panels, pictures.items(), strict=True):
            axes.set_title(title.rstrip())
            _show(axes, pixels)
        for axes, sign in zip(panels[1:], "+=", strict=True):
            axes.text(
                -0.1, 0.5, sign, transform=axes.transAxes, fontsize=22, ha="center", va="center"
            )
        alt = f"An image, predicted as {before}, plus a perturbation is predicted as {after}."
        caption = (
            f"50 steps of PGD toward {data['target']!r}: test image {data['index']}, the "
            f"perturbation {MAGNIFIED} times enlarged (gray is 0), and their sum, with the "
            "predicted classes and their probabilities. Of the images tried, it is the one whose "
            "target class becomes most likely."
        )
        return chart(figure, alt, caption)


def _show(axes: Axes, pixels: Tensor) -> None:
    """Show an image [C, H, W], in color if it has three channels and else the mean in gray."""
    pixels = pixels.clamp(0, 1)
    array = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)
    axes.imshow(array.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
