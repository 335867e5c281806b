"""Recipes for the digits, all ours: 8x8 images, linf 0.15, 40 epochs, a network of width 32.

The settings were chosen on the validation split alone: see results/digits/README.md.
"""

from __future__ import annotations

from nuat.methods import AWP, GAT, TRADES, NuAT, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import register_table, shared_methods
from nuat.schedules import LinearRamp, StartAt, StepDecay, triangle
from nuat.threat_models import Linf

BALL = Linf(0.15)

STANDARD = Recipe(
    name="normal",
    method=Standard(),
    data="digits",
    model="small-cnn(width=32)",
    epochs=40,
    lr=triangle(0.0, 0.2, up=13, down=27),
    weight_decay=2e-3,
    ball=BALL,
    # the layout of the logged results, which are reproduced to the last bit
    channels_last=False,
)
METHODS = shared_methods(
    NuAT(BALL, LinearRamp(5.0, epochs=40)),
    GAT(BALL, StepDecay(10.0, at=(34,), by=4.0)),
    TRADES(BALL, rel_step_size=1 / 4),
    replays=4,
    attack_ema_decay=0.9,
) | {
    "awp": AWP(TRADES(BALL, rel_step_size=1 / 4, clean_first=False), gamma=StartAt(0.005, epoch=4))
}

register_table(
    STANDARD,
    METHODS,
    ema_decay=0.98,
    changes={"atf": {"epochs": 20, "lr": triangle(0.0, 0.2, up=6.5, down=13.5)}},
)
