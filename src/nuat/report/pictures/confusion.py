"""Which classes are mistaken for which under the nuclear and the Frobenius attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from nuat.attacks import FrobeniusAttack, NuclearAttack, logits
from nuat.evaluation.confusion import confusion_matrix, error_entropy
from nuat.report.figures import chart, figure_style, make_panels, shorten
from nuat.rng import PerImageNoise
from nuat.runtime.text import escape_unprintable
from nuat.threat_models import Ball

MAX_NAMED = 20
"""With more classes, the axes of a matrix have numbers, and its cells are colors alone."""


def measure_confusion(
    model: nn.Module, x: Tensor, y: Tensor, classes: Sequence[str], ball: Ball, seed: int = 0
) -> dict[str, Any]:
    """Attack images x [B, C, H, W] in batches of 64, without labels; count the predicted classes.

    For each attack: `matrix` [K, K], the images of class i that are predicted as class j;
    `accuracy`; `entropy` of the wrongly predicted classes, in bits, or None without an error.
    """
    found: dict[str, Any] = {"classes": list(classes), "eps": ball.eps, "attacks": {}}
    indices = torch.arange(len(x))
    for name, attack in (("nuclear", NuclearAttack(ball)), ("Frobenius", FrobeniusAttack(ball))):
        points = [
            attack(model, x[part], y[part], PerImageNoise(seed, part, "confusion"))
            for part in indices.split(attack.batch)
        ]
        predicted = logits(model, torch.cat(points)).argmax(1)
        matrix = confusion_matrix(y.cpu(), predicted.cpu(), len(classes))
        correct = int(matrix.diagonal().sum())
        found["attacks"][name] = {
            "matrix": matrix.tolist(),
            "accuracy": correct / len(x),
            "entropy": error_entropy(matrix) if correct < len(x) else None,
        }
    return found


def draw_confusion(data: dict[str, Any]) -> dict[str, str]:
    """Draw a matrix for each attack, with the entropy of its errors."""
    classes, described = data["classes"], []
    images = sum(map(sum, next(iter(data["attacks"].values()))["matrix"]))
    with figure_style():
        figure, panels = make_panels(len(data["attacks"]), 370, 2)
        for axes, (name, each) in zip(panels, data["attacks"].items(), strict=True):
            entropy = "no errors" if each["entropy"] is None else f"{each['entropy']:.2f} bits"
            text = f"{name}: {entropy}, accuracy {each['accuracy']:.1%}"
            axes.set_title(text)
            described.append(text)
            _draw_matrix(axes, each["matrix"], classes)
        alt = f"Confusion matrices of {images} images under two attacks. {'; '.join(described)}."
        caption = (
            "Rows are the true classes, columns the predicted ones, under attacks that maximize "
            "the nuclear or the Frobenius norm of the change of a batch of logits, without labels. "
            "The entropy is that of the wrongly predicted classes: "
            f"{math.log2(len(classes)):.2f} bits if errors spread evenly."
        )
        return chart(figure, alt, caption)


def _draw_matrix(axes: Axes, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    largest = max(map(max, matrix))
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=largest)
    axes.grid(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) > MAX_NAMED:
        return
    places, names = range(len(classes)), [shorten(escape_unprintable(name), 10) for name in classes]
    axes.set_xticks(places, names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(places, names)
    for i in places:
        for j in places:
            color = "white" if matrix[i][j] > 0.6 * largest else "#333333"
            if matrix[i][j]:
                axes.text(
                    j, i, str(matrix[i][j]), ha="center", va="center", color=color, fontsize=9
                )
