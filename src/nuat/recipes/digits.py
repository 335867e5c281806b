"""Rows for the digits, all ours: 40 epochs of 8x8 images at eps 0.15 on a network of width 32.

Chosen on the validation split alone: see results/digits/README.md.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.attacks import FGSM, PGD, RFGSM
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, Free, Method, NuAT, NuAT2, NuATH, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.schedules import LinearRamp, StartAt, StepDecay, triangle
from nuat.threat_models import Linf, Uniform

BALL = Linf(0.15)
LAM = LinearRamp(5.0, epochs=40)
WA = 0.98
TRIGGER = "reconstruction: the published trigger is unknown"

NORMAL = Recipe(
    name="normal",
    method=Standard(),
    data="digits",
    model="small-cnn(width=32)",
    epochs=40,
    lr=triangle(0.0, 0.2, up=13, down=27),
    weight_decay=2e-3,
    ball=BALL,
    # the layout in which the logged results were computed, so that they come out to the last bit
    channels_last=False,
)


TWO = NuAT2(BALL, LAM)


def _row(name: str, method: Method, ema_decay: float | None = None, note: str = "") -> None:
    register_recipe(replace(NORMAL, name=name, method=method, ema_decay=ema_decay, note=note))


register_recipe(NORMAL)
_row("fgsm-at", AT(FGSM(BALL)))
_row("rfgsm-at", AT(RFGSM(BALL)))
register_recipe(replace(NORMAL, name="atf", method=Free(BALL, replays=4)).with_epochs(20))
_row("fbf", AT(PGD(BALL, steps=1, size=1.25, start=Uniform(), train_mode=True)))
_row("r-mgm", RMGM(BALL), note="reconstruction from the abstract alone")
_row("gat", GAT(BALL, StepDecay(10.0, at=(34,), by=4.0)))
_row("gat-wa", GAT(BALL, StepDecay(10.0, at=(34,), by=4.0)), WA)
_row("nuat", NuAT(BALL, LAM))
_row("nuat-wa", NuAT(BALL, LAM), WA)
_row("nuat-h", NuATH(NuAT(BALL, LAM), TWO), note=TRIGGER)
_row("nuat-wa-h", NuATH(NuAT(BALL, LAM), replace(TWO, attack_ema_decay=0.9)), WA, TRIGGER)
_row("nuat2", TWO)
_row("nuat2-wa", replace(TWO, attack_ema_decay=0.9), WA)
_row("pgd-at", AT(PGD(BALL, steps=10)))
_row("trades", TRADES(BALL, size=1 / 4))
_row("trades-wa", TRADES(BALL, size=1 / 4), WA)
_row("awp", AWP(TRADES(BALL, size=1 / 4, clean_first=False), gamma=StartAt(0.005, epoch=4)))
