"""Attacks: frozen dataclasses, called as `PGD(Linf(8 / 255), steps=20)(model, x, y)`."""

from nuat.attacks.apgd import APGD, APGDDLR, APGDT
from nuat.attacks.ascent import ascend, check_reach
from nuat.attacks.autoattack import AutoAttack, Ensemble
from nuat.attacks.base import Attack
from nuat.attacks.criteria import (
    classes_by_logit,
    correct,
    is_correct,
    is_robust,
    logits,
    predict,
)
from nuat.attacks.fab import FAB, FABT
from nuat.attacks.gama import GAMA, GAMAFW, GAMAMT
from nuat.attacks.logit_norm import FrobeniusAttack, NuclearAttack
from nuat.attacks.parsing import CONFIG_NAMES, custom, parse_attack
from nuat.attacks.pgd import FGSM, PGD, RFGSM, MultiTargetedPGD, TargetedPGD
from nuat.attacks.quick import APGDMALT, MM
from nuat.attacks.registry import attack_registry, canonical_name, list_attacks, register_attack
from nuat.attacks.result import AttackResult
from nuat.attacks.runner import run_attack
from nuat.attacks.square import Square
from nuat.attacks.state import AttackState, input_gradient, value_and_grad

__all__ = [
    "APGD",
    "APGDDLR",
    "APGDMALT",
    "APGDT",
    "Attack",
    "AttackResult",
    "AttackState",
    "AutoAttack",
    "CONFIG_NAMES",
    "Ensemble",
    "FAB",
    "FABT",
    "FGSM",
    "FrobeniusAttack",
    "GAMA",
    "GAMAFW",
    "GAMAMT",
    "MM",
    "MultiTargetedPGD",
    "NuclearAttack",
    "PGD",
    "RFGSM",
    "Square",
    "TargetedPGD",
    "ascend",
    "attack_registry",
    "canonical_name",
    "check_reach",
    "classes_by_logit",
    "correct",
    "custom",
    "input_gradient",
    "is_correct",
    "is_robust",
    "list_attacks",
    "logits",
    "parse_attack",
    "predict",
    "register_attack",
    "run_attack",
    "value_and_grad",
]
