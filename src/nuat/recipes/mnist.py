"""Rows for MNIST on the network published with GAT: Table 3 of the NuAT paper, linf 0.3.

GAT: as in its published code. Of the others no recipe for this network is known: they are ours.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.attacks import FGSM, PGD, RFGSM
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, Free, Method, NuAT, NuAT2, NuATH, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.schedules import LinearRamp, StartAt, StepDecay
from nuat.threat_models import Bernoulli, Linf, Uniform

BALL = Linf(0.3)
START = Bernoulli(1.0)
LAM = LinearRamp(4.0, epochs=50)
WA = 0.9998
TWO = NuAT2(BALL, LAM, START)

NORMAL = Recipe(
    name="normal",
    method=Standard(),
    data="mnist",
    model="mnist-net",
    epochs=50,
    batch_size=64,
    # the published test for three drops is true at one epoch only
    lr=StepDecay(0.01, at=(26,), by=0.2),
    ball=BALL,
    note="no recipe is known; the rest is that of GAT",
)


def _row(name: str, method: Method, **changes: object) -> None:
    row: Recipe = replace(NORMAL, name=name, method=method, **changes)
    register_recipe(row)


register_recipe(NORMAL)
_row("fgsm-at", AT(FGSM(BALL)))
_row("rfgsm-at", AT(RFGSM(BALL)))
_row("atf", Free(BALL, replays=8), epochs=7, lr=StepDecay(0.01, at=(4,), by=0.2))
_row("fbf", AT(PGD(BALL, steps=1, size=1.25, start=Uniform())), on_overfitting="stop")
_row("r-mgm", RMGM(BALL), note="reconstruction from the abstract alone")
GUIDED = GAT(BALL, StepDecay(15.0, at=(26,), by=3.0), START, alternate=False)
_row("gat", GUIDED, source="published code", note="one drop at epoch 26 where three were meant")
_row("gat-wa", GUIDED, ema_decay=WA)
_row("nuat", NuAT(BALL, LAM, START))
_row("nuat-wa", NuAT(BALL, LAM, START), ema_decay=WA)
_row("nuat-h", NuATH(NuAT(BALL, LAM, START), TWO), note="reconstruction: trigger unknown")
_row(
    "nuat-wa-h",
    NuATH(NuAT(BALL, LAM, START), replace(TWO, attack_ema_decay=0.99)),
    ema_decay=WA,
    note="reconstruction: trigger unknown",
)
_row("nuat2", TWO)
_row("nuat2-wa", replace(TWO, attack_ema_decay=0.99), ema_decay=WA)
_row("pgd-at", AT(PGD(BALL, steps=40, size=0.01 / 0.3)))
SMOOTH = TRADES(BALL, beta=1.0, steps=40, size=0.01 / 0.3)
_row("trades", SMOOTH, note="beta and attack of the published code, network and schedule of GAT")
_row("trades-wa", SMOOTH, ema_decay=WA)
_row("awp", AWP(replace(SMOOTH, clean_first=False), gamma=StartAt(0.005, epoch=5)))
