"""Recipes for ImageNet-100 on ResNet-18: Table 3 of the NuAT paper, linf 8/255.

GAT follows its published code. No recipe is known for the other methods: theirs are ours.
"""

from __future__ import annotations

from nuat.data import Augment
from nuat.methods import GAT, TRADES, NuAT, Standard
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import CODE, register_table, shared_methods
from nuat.schedules import LinearRamp, StepDecay
from nuat.threat_models import Linf

BALL = Linf(8 / 255)

STANDARD = Recipe(
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
    validation_attack="pgd-20(rel_step_size=1/8)",
    note="no recipe is known; everything but the method is GAT's",
)
METHODS = shared_methods(
    NuAT(BALL, LinearRamp(4.0, epochs=120)),
    GAT(BALL, StepDecay(20.0, at=(90,), by=7.0), double_bn_update=False, reference="eval"),
    TRADES(BALL, rel_step_size=1 / 4),
    replays=4,
    attack_ema_decay=0.99,
)

register_table(
    STANDARD,
    METHODS,
    ema_decay=0.9998,
    changes={
        "atf": {"epochs": 30, "lr": StepDecay(0.1, at=(15, 22.5))},
        "fbf": {"on_overfitting": "stop"},
        "gat": {"source": CODE, "note": "as published: the attack's clean logits in eval mode"},
        "nuat": {"note": "lam is unknown: it is CIFAR-10's, by the number of classes"},
        "nuat-wa": {"note": "lam is unknown, as for nuat"},
    },
)
