"""Rows for CIFAR-10 on WideResNet-34-10: Table 2 of the NuAT paper, linf 8/255.

NuAT2 and NuAT2-WA: as in their published code. TRADES and AWP: the recipes of the public
checkpoints whose figures the table prints.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.methods import GAT, TRADES, NuAT, NuAT2, NuATH
from nuat.recipes import cifar10
from nuat.recipes.cifar10 import BALL, CODE, OURS, WA
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import get_recipe, register_recipe
from nuat.schedules import LinearRamp, Piecewise, StepDecay, triangle

NUAT_MODEL, TRADES_MODEL = "wrn-34-10-nuat", "wrn-34-10"
TRIGGER = "reconstruction: the published trigger is unknown"
UNKNOWN = "no published code for this network; the rest as on ResNet-18"


def _wide(name: str, row: Recipe, epochs: int, **changes: object) -> Recipe:
    row = replace(row.with_epochs(epochs), name=f"{name}-wrn", model=NUAT_MODEL, source=OURS)
    changed: Recipe = replace(row, **{"note": UNKNOWN, **changes})
    return register_recipe(changed)


def _hybrid(epochs: int, attack_ema_decay: float | None) -> NuATH:
    lam = LinearRamp(4.0, epochs)
    return NuATH(NuAT(BALL, lam), NuAT2(BALL, lam, attack_ema_decay=attack_ema_decay))


_wide("fbf", get_recipe("fbf", "cifar10"), 30)
_wide("gat", get_recipe("gat", "cifar10"), 85, method=GAT(BALL, StepDecay(10.0, at=(73,), by=4.0)))
_wide(
    "gat-wa",
    get_recipe("gat-wa", "cifar10"),
    85,
    method=GAT(BALL, StepDecay(10.0, at=(73,), by=4.0)),
)
_wide("nuat", cifar10.NUAT, 55)
_wide("nuat-wa", cifar10.NUAT_WA, 50)
_wide("nuat-h", cifar10.NUAT, 50, method=_hybrid(50, None), note=TRIGGER)
_wide("nuat-wa-h", cifar10.NUAT_WA, 60, method=_hybrid(60, 0.99), note=TRIGGER)
_wide(
    "nuat2",
    cifar10.NUAT2,
    55,
    method=NuAT2(BALL, LinearRamp(4.0, epochs=55)),
    # a triangle with 20 epochs of descent, whose scheduler is no longer called from epoch 35 on
    lr=Piecewise(
        ((0, 0.0), (20, 0.1), (35, 0.025), (41, 0.025), (41, 2.5e-3), (46, 2.5e-3), (46, 2.5e-4))
    ),
    momentum=Piecewise(((0, 0.9), (20, 0.8), (35, 0.875))),
    source=CODE,
    note="learning rate and momentum frozen at epoch 35",
)
_wide(
    "nuat2-wa",
    cifar10.NUAT2,
    80,
    method=NuAT2(BALL, LinearRamp(4.0, epochs=80), attack_ema_decay=0.99),
    ema_decay=WA,
    lr=triangle(0.0, 0.1, up=20, down=60),
    momentum=triangle(0.9, 0.8, up=20, down=60),
    source=CODE,
    note="momentum cycles with the learning rate",
)
_wide(
    "trades",
    cifar10.TRADES_ROW,
    110,
    method=TRADES(BALL, size=1 / 4),
    model=TRADES_MODEL,
    lr=StepDecay(0.1, at=(100, 105)),
    weight_decay=5e-4,
    source=CODE,
    note="the recipe of the public checkpoint that the table prints",
)
_wide(
    "pgd-at",
    get_recipe("pgd-at", "cifar10"),
    200,
    model=TRADES_MODEL,
    note="the table's row is probably a public checkpoint, not identified",
)
_wide(
    "awp",
    get_recipe("awp", "cifar10"),
    200,
    model=TRADES_MODEL,
    source=CODE,
    note="the recipe of the public checkpoint that the table prints",
)
