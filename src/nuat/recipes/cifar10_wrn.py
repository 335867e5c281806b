"""Recipes for CIFAR-10 on WideResNet-34-10: Table 2 of the NuAT paper, linf 8/255.

NuAT2 and NuAT2-WA follow their published code. TRADES and AWP are the recipes of the public
checkpoints whose figures the table prints. The others are ours: their ResNet-18 recipes with the
schedules rescaled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nuat.methods import GAT, TRADES, NuAT, NuAT2, NuATH
from nuat.recipes import cifar10
from nuat.recipes.cifar10 import BALL, EMA_DECAY, SPLIT_NOTE
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.recipes.table import CODE, OURS, TRIGGER_NOTE
from nuat.schedules import LinearRamp, Piecewise, StepDecay, triangle

NUAT_MODEL, TRADES_MODEL = "wrn-34-10-nuat", "wrn-34-10"
CHECKPOINT_NOTE = f"the recipe of the public checkpoint that the table prints; {SPLIT_NOTE}"

GAT_METHOD = GAT(BALL, StepDecay(10.0, at=(73,), by=4.0))
RAMP_50, RAMP_60 = LinearRamp(4.0, epochs=50), LinearRamp(4.0, epochs=60)
NUAT_H = NuATH(NuAT(BALL, RAMP_50), NuAT2(BALL, RAMP_50))
NUAT_WA_H = NuATH(NuAT(BALL, RAMP_60), NuAT2(BALL, RAMP_60, attack_ema_decay=0.99))


def register_wide(name: str, resnet18: Recipe, epochs: int, **changes: Any) -> None:
    """Register the recipe for ResNet-18, with its schedules rescaled, for WideResNet-34-10."""
    settings: dict[str, Any] = {
        "name": f"{name}-wrn",
        "model": NUAT_MODEL,
        "source": OURS,
        "note": "no published code for this network; the rest is as on ResNet-18",
    }
    register_recipe(replace(resnet18.with_epochs(epochs), **settings | changes))


register_wide("fbf", cifar10.FBF, 30)
register_wide("gat", cifar10.GAT_RECIPE, 85, method=GAT_METHOD)
register_wide("gat-wa", cifar10.GAT_WA, 85, method=GAT_METHOD)
register_wide("nuat", cifar10.NUAT, 55)
register_wide("nuat-wa", cifar10.NUAT_WA, 50)
register_wide("nuat-h", cifar10.NUAT, 50, method=NUAT_H, note=TRIGGER_NOTE)
register_wide("nuat-wa-h", cifar10.NUAT_WA, 60, method=NUAT_WA_H, note=TRIGGER_NOTE)
register_wide(
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
    note="learning rate and momentum are frozen at epoch 35",
)
register_wide(
    "nuat2-wa",
    cifar10.NUAT2,
    80,
    method=NuAT2(BALL, LinearRamp(4.0, epochs=80), attack_ema_decay=0.99),
    ema_decay=EMA_DECAY,
    lr=triangle(0.0, 0.1, up=20, down=60),
    momentum=triangle(0.9, 0.8, up=20, down=60),
    source=CODE,
    note="momentum cycles with the learning rate",
)
register_wide(
    "trades",
    cifar10.TRADES_RECIPE,
    110,
    method=TRADES(BALL, rel_step_size=1 / 4),
    model=TRADES_MODEL,
    lr=StepDecay(0.1, at=(100, 105)),
    weight_decay=5e-4,
    source=CODE,
    note=CHECKPOINT_NOTE,
)
register_wide(
    "pgd-at",
    cifar10.PGD_AT,
    200,
    model=TRADES_MODEL,
    note="the table's row is probably a public checkpoint, which is not identified",
)
register_wide("awp", cifar10.AWP_RECIPE, 200, model=TRADES_MODEL, source=CODE, note=CHECKPOINT_NOTE)
