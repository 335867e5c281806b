"""The attacks that can be named in text."""

from __future__ import annotations

import re
from collections.abc import Callable

from nuat.attacks.apgd import APGD, APGDDLR, APGDT
from nuat.attacks.autoattack import VERSIONS, AutoAttack, Ensemble, version_name
from nuat.attacks.base import Attack
from nuat.attacks.fab import FAB, FABT
from nuat.attacks.gama import GAMA, GAMAFW, GAMAMT
from nuat.attacks.logit_norm import FrobeniusAttack, NuclearAttack
from nuat.attacks.pgd import FGSM, PGD, RFGSM, MultiTargetedPGD, TargetedPGD
from nuat.attacks.quick import APGDMALT, MM
from nuat.attacks.square import Square
from nuat.config.registry import Registry
from nuat.threat_models import Ball

ALIASES = {"aa": "autoattack", "standard": "autoattack"}
"""Other names of registered attacks, as papers and the AutoAttack package use them."""

AttackFactory = Callable[..., Attack | Ensemble]

ATTACK_CLASSES: dict[str, type[Attack]] = {
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
    "apgd-t-malt": APGDMALT,
    "mm5": MM,
    "fab": FAB,
    "fab-t": FABT,
    "square": Square,
    "nuclear": NuclearAttack,
    "frobenius": FrobeniusAttack,
}
attack_registry: Registry[AttackFactory] = Registry("attack")
for _name, _class in ATTACK_CLASSES.items():
    attack_registry.add(_name, _class)


def _autoattack_factory(version: str) -> Callable[[Ball], Ensemble]:
    def make(ball: Ball) -> Ensemble:
        return AutoAttack(ball, version)

    make.__doc__ = f"AutoAttack, version {version}: {', '.join(VERSIONS[version])}."
    return make


for _version in VERSIONS:
    attack_registry.add(version_name(_version), _autoattack_factory(_version))


def canonical_name(text: str) -> str:
    """The text of an attack with its registered name: `AA` -> `autoattack`, `PGD-20` -> `pgd-20`.

    Results are stored and noise is drawn under this name, so that one attack has one name.
    """
    name, bracket, settings = text.strip().partition("(")
    name = name.strip()
    base = re.sub(r"-\d+$", "", name)
    if name in attack_registry or base in attack_registry:
        return text
    registered = ALIASES.get(base.lower(), base.lower())
    if registered not in attack_registry and name.lower() not in attack_registry:
        return text
    if registered in attack_registry:
        name = registered + name[len(base) :]
    return name.lower() + bracket + settings


def list_attacks() -> list[str]:
    """The names of all attacks, in the order of registration.

    >>> nuat.list_attacks()[:3]
    ['fgsm', 'rfgsm', 'pgd']
    """
    return list(attack_registry)


def register_attack(name: str) -> Callable[[AttackFactory], AttackFactory]:
    """Register an attack class, or a function of a ball, under a name.

    Use it as a decorator, `@nuat.register_attack("my-attack")`.

    Raises:
        InputError: the name is taken.

    >>> @nuat.register_attack("pgd-from-x")
    ... def pgd_from_x(ball, steps=10):
    ...     return nuat.PGD(ball, steps=steps, start=nuat.NoStart())
    >>> nuat.parse_attack("pgd-from-x-5", nuat.Linf(8 / 255)).steps
    5
    """
    return attack_registry.register(name)
