"""Attacks written as text: `pgd-20`, `pgd-100(restarts=5)`, `autoattack`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from nuat import losses, schedules, threat_models
from nuat.attacks.autoattack import Ensemble
from nuat.attacks.base import Attack
from nuat.attacks.pgd import FGSM, RFGSM, both_step_sizes
from nuat.attacks.registry import ATTACK_CLASSES, AttackFactory, attack_registry, canonical_name
from nuat.config.annotations import field_hints
from nuat.config.overrides import check_types
from nuat.config.parsing import parse_call
from nuat.errors import InputError, explain_type_error
from nuat.threat_models import EPS_NAMES, Ball, check_ball

ONE_STEP = (FGSM, RFGSM)
STEP_SIZE_NAMES = ("step", "size", "stepsize", "step_length", "alpha", "eps_iter", "eps_step")
"""What others call the step size; `step` alone would look like a typo of `steps`."""
DISTANCES = (
    losses.nuclear,
    losses.nuclear_svd,
    losses.frobenius,
    losses.squared_l2,
)
SETTING_SYNONYMS = {
    "judge": "success_at",
    "criterion": "success_at",
    "iterations": "steps",
    "n_iter": "steps",
    "nb_iter": "steps",
    "num_steps": "steps",
    "n_queries": "steps",
    "n_restarts": "restarts",
    "nb_restarts": "restarts",
    "num_restarts": "restarts",
    "random_start": "start",
    "rand_init": "start",
}
"""Names of settings in other libraries, and what they are here."""

_ATTACK_VALUES: tuple[Any, ...] = (
    threat_models.NoStart,
    threat_models.Uniform,
    threat_models.Bernoulli,
    threat_models.Gaussian,
    threat_models.Linf,
    threat_models.L2,
    schedules.Constant,
    schedules.StepDecay,
    schedules.Piecewise,
    schedules.LinearRamp,
    Attack,
    *ATTACK_CLASSES.values(),
    losses.ce_per_image,
    losses.margin,
    losses.dlr_loss,
)
_ATTACK_NAMES: dict[str, Any] = {value.__name__: value for value in _ATTACK_VALUES}
CONFIG_NAMES: dict[str, Any] = {
    **_ATTACK_NAMES,
    **{distance.__name__: distance for distance in DISTANCES},
}
"""The classes and functions that the text of an attack or a method may name."""


def parse_attack(text: str, ball: Ball) -> Attack | Ensemble:
    """Build the attack that `text` names: `fgsm`, `pgd-20`, `autoattack`, `pgd-100(restarts=5)`.

    The case of the name does not matter, and `aa` and `standard` stand for `autoattack`.
    A number at the end is the number of steps. Several attacks that run one after another, each on
    the images still robust, are written `custom(parts=("apgd-ce", "square-1000"))`.

    Raises:
        InputError: the name or a setting is unknown, or a value has the wrong type.

    >>> attack = nuat.parse_attack("pgd-100(restarts=5)", nuat.Linf(8 / 255))
    >>> type(attack).__name__, attack.steps, attack.restarts
    ('PGD', 100, 5)
    """
    text = canonical_name(text)
    _check_typos(text)
    check_ball(ball)
    try:
        name, settings = parse_call(text, _ATTACK_NAMES, _setting_hints)
    except InputError as error:
        raise InputError(f"cannot read the attack {text!r}: {error}") from None
    if settings.keys() & {"ball", *EPS_NAMES}:
        raise InputError(f"{text!r}: set the ball with --eps and --norm, not in the attack")
    if name not in attack_registry and (numbered := re.fullmatch(r"(.+)-(\d+)", name)):
        name = numbered.group(1)
        if "steps" in settings:
            raise InputError(f"{text!r} gives the number of steps twice")
        settings["steps"] = int(numbered.group(2))
    make = attack_registry[name]
    _check_step_size(text, settings, make)
    steps = settings.get("steps", 1)
    if make in ONE_STEP and isinstance(steps, int) and steps > 1:
        raise InputError(f"{text!r}: {name} has one step; for {steps} steps use pgd-{steps}")
    try:
        attack = make(**{"ball": ball, **settings})
        check_types(attack)
    except (TypeError, InputError) as error:
        reason = _explain_synonym(name, settings) or explain_type_error(error, name, make)
        raise InputError(f"cannot read the attack {text!r}: {reason}") from None
    return attack


def _check_step_size(text: str, settings: Mapping[str, Any], make: AttackFactory) -> None:
    """Raise InputError for other names of `step_size`, and for two step sizes at once."""
    allowed = signature(make).parameters
    if "step_size" not in allowed:
        return
    if other := next((key for key in settings if key in STEP_SIZE_NAMES), None):
        raise InputError(
            f"{text!r}: {other} is not a setting; write step_size=2/255 for a step in pixel units, "
            "or rel_step_size=1/4 for one in units of eps"
        )
    if {"step_size", "rel_step_size"} <= settings.keys():
        raise InputError(f"{text!r}: {both_step_sizes()}")


def _setting_hints(name: str) -> dict[str, Any]:
    """The annotations of the settings of an attack, such as `pgd` or `pgd-20`."""
    make = attack_registry.get(name) or attack_registry.get(re.sub(r"-\d+$", "", name))
    return field_hints(make)


def _explain_synonym(name: str, settings: Mapping[str, Any]) -> str | None:
    """The message for the first setting that has another name here."""
    hints = _setting_hints(name)
    for key in settings:
        if key not in hints and SETTING_SYNONYMS.get(key) in hints:
            return f"unknown setting of {name} {key!r}; did you mean {SETTING_SYNONYMS[key]!r}?"
    return None


def _check_typos(text: str) -> None:
    """Raise InputError for several attacks in one text, and for `pgd20` instead of `pgd-20`."""
    if re.match(r"\s*[\w-]+(\([^()]*\))?\s*,", text):
        raise InputError(
            f"{text!r} is more than one attack: repeat --attack, once for each; in Python, a list"
        )
    unhyphenated = re.match(r"\s*([\w-]*[a-z])(\d+)\b(?!-)", text)
    if (
        unhyphenated
        and unhyphenated.group(0).strip() not in attack_registry
        and unhyphenated.group(1) in attack_registry
    ):
        suggestion = "-".join(unhyphenated.groups())
        raise InputError(f"unknown attack {text!r}; did you mean '{suggestion}'?")


@attack_registry.register("custom")
def custom(ball: Ball, parts: tuple[str, ...]) -> Ensemble:
    """An ensemble of the named attacks: `custom(parts=("apgd-ce", "square-1000"))`."""
    parts = (parts,) if isinstance(parts, str) else parts
    attacks = []
    for text in parts:
        attack = parse_attack(text, ball)
        if isinstance(attack, Ensemble):
            raise InputError(f"{text} is itself an ensemble and cannot be a part of another one")
        attacks.append((canonical_name(text), attack))
    return Ensemble(ball, tuple(attacks), "custom")
