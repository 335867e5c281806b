"""Attacks: frozen values that hold no model. `attack("pgd-20", Linf(8 / 255))(f, x, y)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nuat import losses, schedules, threat_models
from nuat.attacks.apgd import APGD, APGDDLR, APGDT
from nuat.attacks.ascent import ascend
from nuat.attacks.autoattack import VERSIONS, Ensemble, autoattack, named, versioned
from nuat.attacks.base import Attack
from nuat.attacks.criteria import classes_by_logit, correct, is_robust, logits
from nuat.attacks.fab import FAB, FABT
from nuat.attacks.gama import GAMA, GAMAFW, GAMAMT
from nuat.attacks.logit_norm import FrobeniusAttack, NuclearAttack
from nuat.attacks.pgd import FGSM, PGD, RFGSM, MultiTargetedPGD, TargetedPGD
from nuat.attacks.runner import AttackResult, run_attack
from nuat.attacks.square import Square
from nuat.attacks.state import AttackState, value_and_grad
from nuat.config.overrides import check_types
from nuat.config.parsing import parse_call
from nuat.config.registry import Registry
from nuat.errors import InputError, explain_type_error
from nuat.threat_models import Ball

KINDS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "rfgsm": RFGSM,
    "pgd": PGD,
    "targeted-pgd": TargetedPGD,
    "mt-pgd": MultiTargetedPGD,
    "gama": GAMA,
    "gama-fw": GAMAFW,
    "gama-mt": GAMAMT,
    "apgd-ce": APGD,
    "apgd-dlr": APGDDLR,
    "apgd-t": APGDT,
    "fab": FAB,
    "fab-t": FABT,
    "square": Square,
    "nuclear": NuclearAttack,
    "frobenius": FrobeniusAttack,
}
attack_registry: Registry[Callable[..., Attack | Ensemble]] = Registry("attack")
for _name, _kind in KINDS.items():
    attack_registry.add(_name, _kind)
for _version in VERSIONS:
    attack_registry.add(named(_version), versioned(_version))

DISTANCES = (losses.nuclear, losses.nuclear_svd, losses.frobenius, losses.squared_l2)
ONE_STEP = (FGSM, RFGSM)
WORDS: dict[str, Any] = {
    **{
        c.__name__: c
        for c in (
            threat_models.NoStart,
            threat_models.Uniform,
            threat_models.Bernoulli,
            threat_models.Gaussian,
        )
    },
    **{c.__name__: c for c in (schedules.Constant, schedules.StepDecay, schedules.Piecewise)},
    **{c.__name__: c for c in (schedules.LinearRamp, threat_models.Linf, threat_models.L2)},
    **{c.__name__: c for c in (Attack, *KINDS.values())},
    **{f.__name__: f for f in (losses.ce_per_image, losses.margin, losses.dlr_loss)},
    **{f.__name__: f for f in DISTANCES},
}
"""What may be written where an attack or a method is described in text."""


def list_attacks() -> list[str]:
    """The names of all attacks, in the order of registration."""
    return list(attack_registry)


def register_attack(
    name: str,
) -> Callable[[Callable[..., Attack | Ensemble]], Callable[..., Attack | Ensemble]]:
    """Register what is decorated as an attack of this name: `@nuat.register_attack("mine")`.

    Raises:
        InputError: the name is taken.
    """
    return attack_registry.register(name)


def parse_attack(text: str, ball: Ball) -> Attack | Ensemble:
    """The attack that `text` names: `fgsm`, `pgd-20`, `autoattack`, `pgd-100(restarts=5)`.

    A number at the end is the number of steps. Several attacks one after another, each on what is
    left standing, are `custom(parts=("apgd-ce", "square-1000"))`. Raises InputError for an unknown
    name or setting.
    """
    _check_slips(text)
    names = {word: meaning for word, meaning in WORDS.items() if meaning not in DISTANCES}
    try:
        name, settings = parse_call(text, names)
    except InputError as error:
        raise InputError(f"cannot read the attack {text!r}: {error}") from None
    if "ball" in settings:
        raise InputError(f"{text!r}: the ball is given apart, with --eps and --norm")
    if name not in attack_registry and (numbered := re.fullmatch(r"(.+)-(\d+)", name)):
        name = numbered.group(1)
        if "steps" in settings:
            raise InputError(f"{text!r} says twice how many steps there are")
        settings["steps"] = int(numbered.group(2))
    kind = attack_registry[name]
    steps = settings.get("steps", 1)
    if kind in ONE_STEP and isinstance(steps, int) and steps > 1:
        raise InputError(f"{text!r}: {name} is one step; {steps} of them are pgd-{steps}")
    try:
        made = kind(**{"ball": ball, **settings})
        check_types(made)
    except (TypeError, InputError) as error:
        why = explain_type_error(error, name, kind)
        raise InputError(f"cannot read the attack {text!r}: {why}") from None
    return made


def _check_slips(text: str) -> None:
    """Raise InputError for several attacks in one text, and for a number without its hyphen."""
    if re.match(r"\s*[\w-]+(\([^()]*\))?\s*,", text):
        raise InputError(
            f"{text!r} is more than one attack: repeat --attack, once for each; in Python, a list"
        )
    run_on = re.match(r"\s*([\w-]*[a-z])(\d+)\b(?!-)", text)
    if (
        run_on
        and run_on.group(0).strip() not in attack_registry
        and run_on.group(1) in attack_registry
    ):
        raise InputError(f"unknown attack {text!r}; did you mean '{'-'.join(run_on.groups())}'?")


@attack_registry.register("custom")
def custom(ball: Ball, parts: tuple[str, ...]) -> Ensemble:
    """Attacks of your own choice: `custom(parts=("apgd-ce", "square-1000"))`."""
    parts = (parts,) if isinstance(parts, str) else parts
    found = tuple((text, parse_attack(text, ball)) for text in parts)
    for text, part in found:
        if isinstance(part, Ensemble):
            raise InputError(f"{text} is an ensemble itself")
    return Ensemble(ball, found, "custom")  # type: ignore[arg-type]


__all__ = [
    "APGD",
    "APGDDLR",
    "APGDT",
    "Attack",
    "AttackState",
    "Ensemble",
    "FAB",
    "FABT",
    "FGSM",
    "FrobeniusAttack",
    "GAMA",
    "GAMAFW",
    "GAMAMT",
    "MultiTargetedPGD",
    "NuclearAttack",
    "PGD",
    "RFGSM",
    "Square",
    "TargetedPGD",
    "AttackResult",
    "WORDS",
    "ascend",
    "parse_attack",
    "attack_registry",
    "list_attacks",
    "register_attack",
    "autoattack",
    "correct",
    "custom",
    "logits",
    "classes_by_logit",
    "value_and_grad",
    "is_robust",
    "run_attack",
]
