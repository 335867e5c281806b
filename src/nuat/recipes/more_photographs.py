"""Recipes for CIFAR-100, SVHN and Tiny-ImageNet, linf 8/255. No published ones; all are ours.

Everything but the method is that of NuAT-WA on CIFAR-10, unless it is said here. lam is the one of
CIFAR-10's rows; NuAT, NuAT2 and GAT scale it to the number of classes themselves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nuat.data import Augment
from nuat.methods import GAT, TRADES, NuAT
from nuat.recipes.cifar10 import BALL, EMA_DECAY, STANDARD
from nuat.recipes.table import OURS, register_table, shared_methods
from nuat.schedules import LinearRamp, StepDecay, triangle

METHODS = shared_methods(
    NuAT(BALL, LinearRamp(4.0, epochs=100)),
    GAT(BALL, StepDecay(10.0, at=(86,), by=4.0)),
    TRADES(BALL, rel_step_size=1 / 4),
    replays=8,
    attack_ema_decay=0.99,
)


def register_photographs(data: str, lr: float = 0.1, **changes: Any) -> None:
    """Register a recipe for each method, with this maximum of the learning rate."""
    settings: dict[str, Any] = {
        "data": data,
        "lr": triangle(0.0, lr, up=25, down=75),
        "source": OURS,
        "note": "no published recipe; as nuat-wa on cifar10, lam by the number of classes",
    }
    register_table(
        replace(STANDARD, **settings | changes),
        METHODS,
        EMA_DECAY,
        changes={
            # 13 epochs of 8 replays: about 100 passes, as the other rows
            "atf": {"epochs": 13, "lr": StepDecay(lr, at=(6.5, 9.75))},
            "fbf": {"on_overfitting": "stop"},
        },
    )


register_photographs("cifar100")
# a mirrored digit is another sign; the learning rate is not tuned
register_photographs(
    "svhn",
    lr=0.01,
    augment=Augment(pad=4),
    note="no published recipe; as nuat-wa on cifar10 at a tenth of its learning rate, no flips",
)
register_photographs("tiny-imagenet", model="preact-resnet18")
