"""Robust accuracy against the radius: PGD at several eps, and the distances that FAB finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import FABT, PGD, is_robust, logits
from nuat.attacks.criteria import is_correct
from nuat.report.figures import FAINT, add_legend, chart, figure_style, line_styles, make_panels
from nuat.rng import PerImageNoise
from nuat.threat_models import Ball, Linf

MULTIPLES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3)
"""The radii of the curve, in units of eps of the threat model."""


def measure_radii(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, seed: int = 0
) -> dict[str, Any]:
    """Robust accuracy on images x [B, C, H, W] at multiples of eps, and distances of FAB.

    `pgd` has the accuracy under PGD-20 at each of the radii `eps`; at 0 it is the clean accuracy.
    An image that falls at a radius counts as fallen at all larger ones. `distances` are those of
    the nearest adversarial images that FAB-T finds (3 target classes, 40 steps each), sorted: 0 for
    an image that is misclassified without an attack, None where none was found.
    """
    noise = PerImageNoise(seed, torch.arange(len(x)), "radii")
    radii = [ball.eps * multiple for multiple in MULTIPLES]
    radii = [eps for eps in radii if not isinstance(ball, Linf) or eps <= 1]
    robust, accuracies = is_correct(logits(model, x), y), []
    for eps in radii:
        if eps > 0 and robust.any():
            rows = robust.nonzero()[:, 0]
            batch, attack = (x[rows], y[rows]), PGD(replace(ball, eps=eps))
            x_adv = attack(model, *batch, noise.fold_in(f"{eps:.6g}").select(rows))
            robust[rows] = is_robust(model, *batch, x_adv, attack.ball)
        accuracies.append(float(robust.double().mean()))
    fab = FABT(ball, steps=40, targets=3)
    _, distances = fab.minimal_perturbation(model, x, y, noise.fold_in("fab"))
    return {
        "ball": repr(ball),
        "eps": radii,
        "pgd": accuracies,
        "distances": [d if math.isfinite(d) else None for d in distances.sort().values.tolist()],
    }


def draw_radii(data: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Draw the curves of one network or of several, by name, in one figure, all in one norm."""
    styles = line_styles(list(data))
    with figure_style():
        figure, (axes,) = make_panels(1, 300, 1)
        for style, each in zip(styles, data.values(), strict=True):
            accuracies = [100 * accuracy for accuracy in each["pgd"]]
            axes.plot(each["eps"], accuracies, color=style.color, marker=style.marker, ms=5)
            within, shares = _remaining(each["distances"], max(each["eps"]))
            axes.step(within, shares, where="post", color=style.color, ls=(0, (4, 2)), lw=1.3)
        for eps in {each["eps"][MULTIPLES.index(1)] for each in data.values()}:
            axes.axvline(eps, color=FAINT, lw=1, ls=":")
        axes.set_ylim(-2, 102)
        axes.set_xlim(0, max(max(each["eps"]) for each in data.values()))
        axes.set_title("robust accuracy, %")
        norm = next(iter(data.values()))["ball"].partition("(")[0]
        axes.set_xlabel(f"eps of {norm}, in pixel units of [0, 1]")
        add_legend(figure, styles)
        listed = "; ".join(f"{name}: {_describe(each)}" for name, each in data.items())
        caption = (
            "Solid: accuracy under PGD-20 at each radius; an image stays fallen at larger ones. "
            "Dashed: images whose nearest adversarial image, as FAB finds it, is farther away. The "
            "dotted line is eps of the threat model. Both are upper bounds. They must fall to 0: a "
            "curve that does not is a sign of masked gradients."
        )
        return chart(figure, f"Robust accuracy against eps. {listed}.", caption)


def _remaining(distances: Sequence[float | None], reach: float) -> tuple[list[float], list[float]]:
    """Radii and the percentage of images whose distance is larger; distances are sorted."""
    found = [distance for distance in distances if distance is not None and distance <= reach]
    count = len(distances)
    shares = [100 * (count - i) / count for i in range(len(found) + 1)]
    return [0.0, *found, reach], [*shares, shares[-1]]


def _describe(data: dict[str, Any]) -> str:
    pairs = zip(data["eps"], data["pgd"], strict=True)
    return ", ".join(f"{accuracy:.1%} at {eps:.4g}" for eps, accuracy in pairs)
