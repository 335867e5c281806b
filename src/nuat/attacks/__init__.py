"""Attacks: frozen values that hold no model. `attack("pgd-20", Linf(8 / 255))(f, x, y)`."""

from __future__ import annotations

import re
from typing import Any

from nuat import losses, schedules, threat
from nuat.attacks.ascent import ascend
from nuat.attacks.base import Attack
from nuat.attacks.gama import GAMA
from nuat.attacks.gradient import FGSM, PGD, RFGSM, TargetedPGD
from nuat.attacks.judge import correct, stands
from nuat.errors import InputError
from nuat.notation import split
from nuat.registry import Registry
from nuat.threat import Ball
from nuat.values import check_types

attacks: Registry[type[Attack]] = Registry("attack")
attacks.register("fgsm", FGSM)
attacks.register("rfgsm", RFGSM)
attacks.register("pgd", PGD)
attacks.register("targeted-pgd", TargetedPGD)
attacks.register("gama", GAMA)

NUCLEAR = (losses.nuclear, losses.nuclear_svd, losses.nuclear_polar)
DISTANCES = (*NUCLEAR, losses.frobenius, losses.squared_l2)
WORDS: dict[str, Any] = {
    **{c.__name__: c for c in (threat.Clean, threat.Uniform, threat.Bernoulli, threat.Gaussian)},
    **{c.__name__: c for c in (schedules.Constant, schedules.Drops, schedules.Piecewise)},
    **{c.__name__: c for c in (schedules.Ramp, threat.Linf, threat.L2)},
    **{c.__name__: c for c in (Attack, FGSM, RFGSM, PGD, TargetedPGD, GAMA)},
    **{f.__name__: f for f in (losses.ce_each, losses.margin_each)},
    **{f.__name__: f for f in DISTANCES},
}
"""What may be written where an attack or a method is described in text."""


def attack(text: str, ball: Ball) -> Attack:
    """The attack that `text` names: `fgsm`, `pgd-20`, `gama-100`, `pgd-100(restarts=5)`.

    A number at the end is the number of steps. Raises InputError for an unknown name or setting.
    """
    names = {word: meaning for word, meaning in WORDS.items() if meaning not in DISTANCES}
    try:
        name, settings = split(text, names)
    except InputError as error:
        raise InputError(f"cannot read the attack {text!r}: {error}") from None
    if "ball" in settings:
        raise InputError(f"{text!r}: the ball is given apart, with --eps and --norm")
    if name not in attacks and (numbered := re.fullmatch(r"(.+)-(\d+)", name)):
        name = numbered.group(1)
        if "steps" in settings:
            raise InputError(f"{text!r} says twice how many steps there are")
        settings["steps"] = int(numbered.group(2))
    kind = attacks[name]
    try:
        made = kind(**{"ball": ball, **settings})
        check_types(made)
    except (TypeError, InputError) as error:
        raise InputError(f"cannot read the attack {text!r}: {error}") from None
    return made


__all__ = [
    "FGSM",
    "GAMA",
    "PGD",
    "RFGSM",
    "WORDS",
    "Attack",
    "TargetedPGD",
    "ascend",
    "attack",
    "attacks",
    "correct",
    "stands",
]
