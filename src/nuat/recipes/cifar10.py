"""Recipes for CIFAR-10 on ResNet-18: Table 1 of the NuAT paper, linf 8/255.

NuAT, NuAT-WA and GAT follow their published code. The other rows with a published code follow its
schedules and attacks; their notes say what differs. Where a method has no published recipe, or one
for another network, the note says so, and everything but the method is NuAT-WA's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nuat.attacks import FGSM, PGD, RFGSM
from nuat.data import Augment
from nuat.methods import (
    AT,
    AWP,
    GAT,
    MART,
    NFGSM,
    PGI,
    RMGM,
    TRADES,
    Free,
    GradAlign,
    Method,
    NuAT,
    NuAT2,
    NuATH,
    Standard,
)
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import register_recipe
from nuat.recipes.table import (
    CODE,
    OURS,
    RMGM_NOTE,
    SLIDES_NOTE,
    SLIDES_WA_NOTE,
    TALK,
    TRIGGER_NOTE,
    follow_slides,
)
from nuat.schedules import Constant, LinearRamp, Piecewise, StepDecay, triangle
from nuat.threat_models import Linf, Uniform

BALL = Linf(8 / 255)
EMA_DECAY = 0.9998
WA_NOTE = "no published code; EMA decay of NuAT"
# what the rows of other authors' codes share with NuAT's instead: data, selection and network
SPLIT_NOTE = "trains on 49,000 images, selects the epoch on 1,000"
NETWORK_NOTE = f"{SPLIT_NOTE}; NuAT's ResNet-18 for"


def register_variant(
    name: str, base: Recipe, method: Method | None = None, **changes: Any
) -> Recipe:
    """Register the base recipe under another name, with another method and other settings."""
    return register_recipe(replace(base, name=name, method=method or base.method, **changes))


STANDARD = register_recipe(
    Recipe(
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
        note="the training recipe of the published row is unknown",
    )
)
# the base of the recipes whose published code leaves the momentum alone
CONSTANT_MOMENTUM = replace(STANDARD, momentum=Constant(0.9))

FGSM_AT = register_variant(
    "fgsm-at", STANDARD, AT(FGSM(BALL)), note="shows catastrophic overfitting, as published"
)
RFGSM_AT = register_variant("rfgsm-at", STANDARD, AT(RFGSM(BALL)))
FREE = register_variant(
    "atf",
    CONSTANT_MOMENTUM,
    Free(BALL, replays=8),
    epochs=26,
    batch_size=128,
    lr=StepDecay(0.1, at=(13, 19.5)),
    weight_decay=2e-4,
    source=CODE,
    note=f"{NETWORK_NOTE} WideResNet-32-10; 80,000 updates are 26 epochs of 8 replays",
)
FBF = register_variant(
    "fbf",
    STANDARD,
    AT(PGD(BALL, steps=1, rel_step_size=Constant(1.25), start=Uniform(), train_mode=True)),
    epochs=30,
    batch_size=128,
    lr=triangle(0.0, 0.2, up=15, down=15),
    momentum=triangle(0.9, 0.8, up=15, down=15),
    on_overfitting="stop",
    source=CODE,
    note=f"{NETWORK_NOTE} PreActResNet-18; no input normalization; fp32 for fp16; BatchNorm "
    "statistics without the attack's pass; overfitting is judged on validation",
)
N_FGSM = register_variant(
    "n-fgsm", FBF, NFGSM(BALL), on_overfitting="warn", source=OURS, note="schedule and batch of fbf"
)
GRADALIGN = register_variant(
    "gradalign",
    N_FGSM,
    GradAlign(BALL),
    lr=triangle(0.0, 0.3, up=15, down=15),
    note="schedule and batch of fbf, with the published maximum of the learning rate",
)
FGSM_PGI = register_variant(
    "fgsm-pgi", STANDARD, PGI(BALL), source=OURS, note="the prior from the previous batch alone"
)
R_MGM = register_variant("r-mgm", STANDARD, RMGM(BALL), note=RMGM_NOTE)
GAT_RECIPE = register_variant(
    "gat",
    CONSTANT_MOMENTUM,
    GAT(BALL),
    lr=StepDecay(0.1, at=(71, 86)),
    source=CODE,
    note="lam x 4 from epoch 86",
)
GAT_WA = register_variant("gat-wa", GAT_RECIPE, ema_decay=EMA_DECAY, source=OURS, note=WA_NOTE)
NUAT = register_variant(
    "nuat",
    STANDARD,
    NuAT(BALL, LinearRamp(4.5, epochs=90)),
    # a triangle with 50 epochs of descent, whose scheduler is no longer called from epoch 80 on
    lr=Piecewise(((0, 0.0), (40, 0.1), (80, 0.02), (86, 0.02), (86, 2e-3), (91, 2e-3), (91, 2e-4))),
    momentum=Piecewise(((0, 0.9), (40, 0.8), (80, 0.88))),
    source=CODE,
    note="learning rate and momentum are frozen at epoch 80",
)
NUAT_WA = register_variant(
    "nuat-wa",
    STANDARD,
    NuAT(BALL, LinearRamp(4.0, epochs=100)),
    ema_decay=EMA_DECAY,
    source=CODE,
    note="momentum cycles with the learning rate",
)
SLIDES_METHOD = follow_slides(NuAT(BALL, LinearRamp(4.5, epochs=90)))
NUAT_SLIDES = register_variant("nuat-slides", NUAT, SLIDES_METHOD, source=TALK, note=SLIDES_NOTE)
NUAT_WA_SLIDES = register_variant(
    "nuat-wa-slides",
    NUAT_WA,
    replace(SLIDES_METHOD, lam=LinearRamp(4.0, epochs=100)),
    source=TALK,
    note=SLIDES_WA_NOTE,
)
NUAT_H = register_variant(
    "nuat-h",
    NUAT,
    NuATH(NuAT(BALL), NuAT2(BALL, LinearRamp(4.5, epochs=90))),
    source=OURS,
    note=TRIGGER_NOTE,
)
NUAT_WA_H = register_variant(
    "nuat-wa-h",
    NUAT_WA,
    NuATH(
        NuAT(BALL, LinearRamp(4.0, epochs=100)),
        NuAT2(BALL, LinearRamp(4.0, epochs=100), attack_ema_decay=0.99),
    ),
    source=OURS,
    note=TRIGGER_NOTE,
)
NUAT2 = register_variant(
    "nuat2",
    NUAT_WA,
    NuAT2(BALL, LinearRamp(4.0, epochs=100)),
    ema_decay=None,
    source=OURS,
    note="published for WideResNet-34-10 only (nuat2-wrn)",
)
NUAT2_WA = register_variant(
    "nuat2-wa",
    NUAT2,
    NuAT2(BALL, LinearRamp(4.0, epochs=100), attack_ema_decay=0.99),
    ema_decay=EMA_DECAY,
)
PGD_AT = register_variant(
    "pgd-at",
    CONSTANT_MOMENTUM,
    AT(PGD(BALL, steps=10)),
    epochs=200,
    batch_size=128,
    # The code reads its schedule at the end of each batch, so that the last of the 383 batches of
    # an epoch already has the next learning rate.
    lr=StepDecay(0.1, at=(100 - 1.5 / 383, 150 - 1.5 / 383)),
    augment=Augment(pad=4, flip=True, pad_mode="reflect"),
    source=CODE,
    note=f"{NETWORK_NOTE} PreActResNet-18; no input normalization; attacks in eval mode",
)
TRADES_RECIPE = register_variant(
    "trades",
    CONSTANT_MOMENTUM,
    TRADES(Linf(0.031)),
    epochs=76,
    batch_size=128,
    # the code counts epochs from 1: 75, 90, 100
    lr=StepDecay(0.1, at=(74, 89, 99)),
    weight_decay=2e-4,
    source=CODE,
    note=f"{NETWORK_NOTE} WideResNet-34-10; trains at eps 0.031 with steps of 0.007",
)
TRADES_WA = register_variant(
    "trades-wa", TRADES_RECIPE, ema_decay=EMA_DECAY, source=OURS, note=WA_NOTE
)
MART_RECIPE = register_variant(
    "mart",
    TRADES_RECIPE,
    MART(Linf(0.031)),
    epochs=120,
    lr=StepDecay(0.01, at=(74, 89, 99)),
    weight_decay=3.5e-3,
    note=f"{SPLIT_NOTE}; trains at eps 0.031 with steps of 0.007; the drops of the learning rate "
    "are those of trades",
)
AWP_RECIPE = register_variant(
    "awp",
    CONSTANT_MOMENTUM,
    AWP(),
    epochs=200,
    batch_size=128,
    # the code counts epochs from 1: 100, 150
    lr=StepDecay(0.1, at=(99, 149)),
    source=CODE,
    note=f"{NETWORK_NOTE} WideResNet-34-10; TRADES-AWP; weight decay acts on w, not on w + v",
)
