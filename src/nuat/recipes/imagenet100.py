"""Rows for ImageNet-100 on ResNet-18: Table 3 of the NuAT paper, linf 8/255.

GAT: as in its published code. Of the others no recipe is known: they are ours.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.attacks import FGSM, PGD, RFGSM
from nuat.data import Augment
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, Free, Method, NuAT, NuAT2, NuATH, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.schedules import LinearRamp, StepDecay
from nuat.threat_models import Linf, Uniform

BALL = Linf(8 / 255)
LAM = LinearRamp(4.0, epochs=120)
WA = 0.9998
TWO = NuAT2(BALL, LAM)

NORMAL = Recipe(
    name="normal",
    method=Standard(),
    data="imagenet100",
    model="resnet18-imagenet",
    epochs=120,
    batch_size=64,
    lr=StepDecay(0.1, at=(60, 90)),
    weight_decay=1e-4,
    augment=Augment(flip=True, scale=(0.08, 1.0)),
    ball=BALL,
    note="no recipe is known; the rest is that of GAT",
)


def _row(name: str, method: Method, **changes: object) -> None:
    row: Recipe = replace(NORMAL, name=name, method=method, **changes)
    register_recipe(row)


register_recipe(NORMAL)
_row("fgsm-at", AT(FGSM(BALL)))
_row("rfgsm-at", AT(RFGSM(BALL)))
_row("atf", Free(BALL, replays=4), epochs=30, lr=StepDecay(0.1, at=(15, 22.5)))
_row(
    "fbf",
    AT(PGD(BALL, steps=1, size=1.25, start=Uniform(), train_mode=True)),
    on_overfitting="stop",
)
_row("r-mgm", RMGM(BALL), note="reconstruction from the abstract alone")
GUIDED = GAT(BALL, StepDecay(20.0, at=(90,), by=7.0))
_row(
    "gat",
    GUIDED,
    source="published code",
    note="published with clean logits of eval mode in the attack, and no train-mode pass before it",
)
_row("gat-wa", GUIDED, ema_decay=WA)
_row("nuat", NuAT(BALL, LAM), note="lam unknown; with 100 classes it is not comparable to CIFAR's")
_row("nuat-wa", NuAT(BALL, LAM), ema_decay=WA, note="lam unknown; as nuat")
_row("nuat-h", NuATH(NuAT(BALL, LAM), TWO), note="reconstruction: trigger unknown")
_row(
    "nuat-wa-h",
    NuATH(NuAT(BALL, LAM), replace(TWO, attack_ema_decay=0.99)),
    ema_decay=WA,
    note="reconstruction: trigger unknown",
)
_row("nuat2", TWO)
_row("nuat2-wa", replace(TWO, attack_ema_decay=0.99), ema_decay=WA)
_row("pgd-at", AT(PGD(BALL, steps=10)))
_row("trades", TRADES(BALL, size=1 / 4))
_row("trades-wa", TRADES(BALL, size=1 / 4), ema_decay=WA)
_row("awp", AWP(TRADES(BALL, size=1 / 4, clean_first=False)))
