"""Recipes for MNIST on the network published with GAT: Table 3 of the NuAT paper, linf 0.3.

GAT follows its published code. No recipe for this network is known for the other methods: theirs
are ours.
"""

from __future__ import annotations

from nuat.attacks import PGD
from nuat.methods import AT, AWP, GAT, TRADES, NuAT, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import CODE, register_table, shared_methods
from nuat.schedules import Constant, LinearRamp, StartAt, StepDecay
from nuat.threat_models import Bernoulli, Linf, Uniform

BALL = Linf(0.3)
START = Bernoulli(1.0)
TRADES_40 = TRADES(BALL, beta=Constant(1.0), steps=40, rel_step_size=0.01 / 0.3)

STANDARD = Recipe(
    name="normal",
    method=Standard(),
    data="mnist",
    model="mnist-net",
    epochs=50,
    batch_size=64,
    # GAT's code means three drops, but its test for them is true at one epoch only
    lr=StepDecay(0.01, at=(26,), by=0.2),
    ball=BALL,
    validation_attack="pgd-40(rel_step_size=1/40, start=NoStart())",
    note="no recipe is known; everything but the method is GAT's",
)
METHODS = shared_methods(
    NuAT(BALL, LinearRamp(4.0, epochs=50), START),
    GAT(BALL, StepDecay(15.0, at=(26,), by=3.0), START, alternate=False),
    TRADES_40,
    replays=8,
    attack_ema_decay=0.99,
) | {
    "fbf": AT(PGD(BALL, steps=1, rel_step_size=Constant(1.25), start=Uniform())),
    "pgd-at": AT(PGD(BALL, steps=40, rel_step_size=Constant(0.01 / 0.3))),
    "awp": AWP(
        TRADES(BALL, beta=Constant(1.0), steps=40, rel_step_size=0.01 / 0.3, clean_first=False),
        gamma=StartAt(0.005, epoch=5),
    ),
}

register_table(
    STANDARD,
    METHODS,
    ema_decay=0.9998,
    changes={
        "atf": {"epochs": 7, "lr": StepDecay(0.01, at=(4,), by=0.2)},
        "fbf": {"on_overfitting": "stop"},
        "gat": {"source": CODE, "note": "one drop of lr at epoch 26, where the code means three"},
        "trades": {
            "note": "beta and attack of TRADES's published code; network and schedule of GAT"
        },
    },
)
