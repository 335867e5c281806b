"""Rows for CIFAR-10 on ResNet-18: Table 1 of the NuAT paper, linf 8/255.

NuAT, NuAT-WA, GAT: as in their published code. Where a row has no published recipe, or one for
another network, its note says so, and the rest is that of NuAT-WA.
"""

from __future__ import annotations

from dataclasses import replace

from nuat.attacks import FGSM, PGD, RFGSM
from nuat.data import Augment
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, Free, NuAT, NuAT2, NuATH, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.schedules import Constant, LinearRamp, Piecewise, StepDecay, triangle
from nuat.threat_models import Linf, Uniform

BALL = Linf(8 / 255)
WA = 0.9998
CODE, OURS = "published code", "ours"

NORMAL = Recipe(
    name="normal",
    method=Standard(),
    data="cifar10",
    model="resnet18-nuat",
    epochs=100,
    batch_size=64,
    lr=triangle(0.0, 0.1, up=25, down=75),
    momentum=triangle(0.9, 0.8, up=25, down=75),
    augment=Augment(pad=4, flip=True),
    ball=BALL,
    source=OURS,
    note="training recipe of the published row unknown",
)
CONSTANT_MOMENTUM = replace(NORMAL, momentum=Constant(0.9))
NUAT = replace(
    NORMAL,
    name="nuat",
    method=NuAT(BALL, LinearRamp(4.5, epochs=90)),
    # a triangle with 50 epochs of descent, whose scheduler is no longer called from epoch 80 on
    lr=Piecewise(((0, 0.0), (40, 0.1), (80, 0.02), (86, 0.02), (86, 2e-3), (91, 2e-3), (91, 2e-4))),
    momentum=Piecewise(((0, 0.9), (40, 0.8), (80, 0.88))),
    source=CODE,
    note="learning rate and momentum frozen at epoch 80",
)
NUAT_WA = replace(
    NORMAL,
    name="nuat-wa",
    method=NuAT(BALL, LinearRamp(4.0, epochs=100)),
    ema_decay=WA,
    source=CODE,
    note="momentum cycles with the learning rate",
)
NUAT2 = replace(
    NUAT_WA,
    name="nuat2",
    method=NuAT2(BALL, LinearRamp(4.0, epochs=100)),
    ema_decay=None,
    source=OURS,
    note="published for WideResNet-34-10 only (nuat2-wrn)",
)
GAT_ROW = replace(
    CONSTANT_MOMENTUM,
    name="gat",
    method=GAT(BALL),
    lr=StepDecay(0.1, at=(71, 86)),
    source=CODE,
    note="lam x 4 from epoch 86",
)
TRADES_ROW = replace(
    CONSTANT_MOMENTUM,
    name="trades",
    method=TRADES(Linf(0.031)),
    epochs=76,
    batch_size=128,
    # counted from 1 in the code: 75, 90, 100
    lr=StepDecay(0.1, at=(74, 89, 99)),
    weight_decay=2e-4,
    source=CODE,
    note="trains at eps 0.031 with steps of 0.007; ResNet-18 instead of WideResNet-34-10",
)

register_recipe(NORMAL)
register_recipe(
    replace(NORMAL, name="fgsm-at", method=AT(FGSM(BALL)), note="collapses, as published")
)
register_recipe(replace(NORMAL, name="rfgsm-at", method=AT(RFGSM(BALL))))
register_recipe(
    replace(
        CONSTANT_MOMENTUM,
        name="atf",
        method=Free(BALL, replays=8),
        epochs=26,
        batch_size=128,
        lr=StepDecay(0.1, at=(13, 19.5)),
        weight_decay=2e-4,
        source=CODE,
        note="80,000 updates are 26 passes of 8 replays; ResNet-18 instead of WideResNet-32-10",
    )
)
register_recipe(
    replace(
        NORMAL,
        name="fbf",
        method=AT(PGD(BALL, steps=1, size=1.25, start=Uniform(), train_mode=True)),
        epochs=30,
        batch_size=128,
        lr=triangle(0.0, 0.2, up=15, down=15),
        momentum=triangle(0.9, 0.8, up=15, down=15),
        on_overfitting="stop",
        source=CODE,
        note="without input normalization; BatchNorm does not count the pass of the attack",
    )
)
register_recipe(
    replace(NORMAL, name="r-mgm", method=RMGM(BALL), note="reconstruction from the abstract alone")
)
register_recipe(GAT_ROW)
register_recipe(
    replace(
        GAT_ROW, name="gat-wa", ema_decay=WA, source=OURS, note="no published code; decay of NuAT"
    )
)
register_recipe(NUAT)
register_recipe(NUAT_WA)
register_recipe(
    replace(
        NUAT,
        name="nuat-h",
        method=NuATH(NuAT(BALL), NuAT2(BALL, LinearRamp(4.5, epochs=90))),
        source=OURS,
        note="reconstruction: the published trigger is unknown",
    )
)
register_recipe(
    replace(
        NUAT_WA,
        name="nuat-wa-h",
        method=NuATH(
            NuAT(BALL, LinearRamp(4.0, epochs=100)),
            NuAT2(BALL, LinearRamp(4.0, epochs=100), attack_ema_decay=0.99),
        ),
        source=OURS,
        note="reconstruction: the published trigger is unknown",
    )
)
register_recipe(NUAT2)
register_recipe(
    replace(
        NUAT2,
        name="nuat2-wa",
        method=NuAT2(BALL, LinearRamp(4.0, epochs=100), attack_ema_decay=0.99),
        ema_decay=WA,
    )
)
register_recipe(
    replace(
        CONSTANT_MOMENTUM,
        name="pgd-at",
        method=AT(PGD(BALL, steps=10)),
        epochs=200,
        batch_size=128,
        lr=StepDecay(0.1, at=(100, 150)),
        source=CODE,
        note="without input normalization; attacks in eval mode",
    )
)
register_recipe(TRADES_ROW)
register_recipe(
    replace(
        TRADES_ROW,
        name="trades-wa",
        ema_decay=WA,
        source=OURS,
        note="no published code; decay of NuAT",
    )
)
register_recipe(
    replace(
        CONSTANT_MOMENTUM,
        name="awp",
        method=AWP(),
        epochs=200,
        batch_size=128,
        # counted from 1 in the code: 100, 150
        lr=StepDecay(0.1, at=(99, 149)),
        source=CODE,
        note="TRADES-AWP; weight decay acts on w, not on w + v",
    )
)
