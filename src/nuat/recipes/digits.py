"""Rows for the digits, all ours: 40 epochs of 8x8 images at eps 0.16 on a network of width 32.

Chosen on the validation split alone: see results/digits/README.md.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.attacks import FGSM, PGD
from nuat.methods import AT, Method, NuAT, NuAT2, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import register
from nuat.schedules import Ramp, triangle
from nuat.threat import Linf

BALL = Linf(0.16)
LAM = Ramp(5.0, epochs=40)

NORMAL = Recipe(
    name="normal",
    method=Standard(),
    data="digits",
    model="small-cnn(width=32)",
    epochs=40,
    lr=triangle(0.0, 0.2, up=13, down=27),
    weight_decay=2e-3,
    ball=BALL,
)


def _row(name: str, method: Method, average: float | None = None) -> None:
    register(replace(NORMAL, name=name, method=method, average=average))


register(NORMAL)
_row("fgsm-at", AT(FGSM(BALL)))
_row("pgd-at", AT(PGD(BALL, steps=10)))
_row("nuat", NuAT(BALL, LAM))
_row("nuat-wa", NuAT(BALL, LAM), average=0.98)
_row("nuat2", NuAT2(BALL, LAM))
_row("nuat2-wa", NuAT2(BALL, LAM, teacher=0.9), average=0.98)
