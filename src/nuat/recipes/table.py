"""The recipes that digits, MNIST and ImageNet-100 have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nuat.attacks import FGSM, PGD, RFGSM
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
from nuat.schedules import Constant
from nuat.threat_models import Bernoulli, Uniform

CODE, TALK, OURS = "published code", "talk", "ours"
TRIGGER_NOTE = "reconstruction: the published trigger is unknown"
RMGM_NOTE = "reconstruction from the abstract alone"
SLIDES_NOTE = "the attack of the talk's formula; lam and the rest as in nuat"
SLIDES_WA_NOTE = SLIDES_NOTE + "-wa"

SHARED_NOTES = {
    "r-mgm": RMGM_NOTE,
    "nuat-h": TRIGGER_NOTE,
    "nuat-wa-h": TRIGGER_NOTE,
    "nuat-slides": SLIDES_NOTE,
    "nuat-wa-slides": SLIDES_WA_NOTE,
}


AVERAGED = ("gat-wa", "nuat-wa", "nuat-wa-h", "nuat-wa-slides", "nuat2-wa", "trades-wa")
"""The recipes that average the weights."""


def follow_slides(nuat: NuAT) -> NuAT:
    """NuAT by the formula of the talk, where the published code differs from it.

    The attack uses the nuclear norm in every batch, its initial point is not clamped to [0, 1]
    before the gradient, and both of its logits are those of the model in eval mode.
    """
    assert isinstance(nuat.start, Bernoulli)
    return replace(
        nuat,
        start=replace(nuat.start, clamp=False),
        alternate=False,
        double_bn_update=False,
        reference="eval",
    )


def shared_methods(
    nuat: NuAT, gat: GAT, trades: TRADES, *, replays: int, attack_ema_decay: float
) -> dict[str, Method]:
    """The method of each recipe, by name.

    NuAT2 has the settings of `nuat`; every baseline is trained in its ball.
    """
    ball = nuat.ball
    nuat2 = NuAT2(ball, nuat.lam, nuat.start)
    nuat2_wa = replace(nuat2, attack_ema_decay=attack_ema_decay)
    return {
        "normal": Standard(),
        "fgsm-at": AT(FGSM(ball)),
        "rfgsm-at": AT(RFGSM(ball)),
        "atf": Free(ball, replays=replays),
        "fbf": AT(
            PGD(ball, steps=1, rel_step_size=Constant(1.25), start=Uniform(), train_mode=True)
        ),
        "n-fgsm": NFGSM(ball),
        "gradalign": GradAlign(ball),
        "fgsm-pgi": PGI(ball),
        "r-mgm": RMGM(ball),
        "gat": gat,
        "gat-wa": gat,
        "nuat": nuat,
        "nuat-wa": nuat,
        "nuat-slides": follow_slides(nuat),
        "nuat-wa-slides": follow_slides(nuat),
        "nuat-h": NuATH(nuat, nuat2),
        "nuat-wa-h": NuATH(nuat, nuat2_wa),
        "nuat2": nuat2,
        "nuat2-wa": nuat2_wa,
        "pgd-at": AT(PGD(ball, steps=10)),
        "trades": trades,
        "trades-wa": trades,
        "mart": MART(ball, steps=trades.steps, rel_step_size=trades.rel_step_size),
        "awp": AWP(replace(trades, clean_first=False)),
    }


def register_table(
    base: Recipe,
    methods: Mapping[str, Method],
    ema_decay: float,
    changes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Register one recipe for each method: `base` with this method and the changes of its name.

    The recipes in AVERAGED average the weights with `ema_decay`.
    """
    for name, method in methods.items():
        settings: dict[str, Any] = {"name": name, "method": method}
        if name in AVERAGED:
            settings["ema_decay"] = ema_decay
        if name in SHARED_NOTES:
            settings["note"] = SHARED_NOTES[name]
        register_recipe(replace(base, **settings | dict(changes.get(name, {}))))
