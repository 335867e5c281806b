"""nuat: robust image classifiers at a few times the price of ordinary training.

Every public name is loaded when it is first used, so that `import nuat` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuat.attacks import (
        APGD,
        APGDDLR,
        APGDT,
        FAB,
        FABT,
        FGSM,
        GAMA,
        GAMAFW,
        GAMAMT,
        PGD,
        RFGSM,
        Attack,
        AutoAttack,
        Ensemble,
        FrobeniusAttack,
        MultiTargetedPGD,
        NuclearAttack,
        Square,
        TargetedPGD,
        ascend,
        list_attacks,
        parse_attack,
        register_attack,
    )
    from nuat.checkpoints import LoadedModel, Run, load_model
    from nuat.data import (
        Augment,
        InMemoryDataset,
        Splits,
        list_datasets,
        load_dataset,
        register_dataset,
    )
    from nuat.errors import InputError, NonFiniteError
    from nuat.evaluation import EvaluationResult, evaluate
    from nuat.export import from_pretrained, push_to_hub, save_pretrained, to_onnx
    from nuat.losses import ce, frobenius, kl, nuclear, squared_l2, squared_l2_of_softmax
    from nuat.matrix_norms import nuclear_norm
    from nuat.methods import (
        AT,
        AWP,
        GAT,
        RMGM,
        TRADES,
        Free,
        Method,
        NuAT,
        NuAT2,
        NuATH,
        Standard,
        StepContext,
    )
    from nuat.models import build_model, list_models, register_model
    from nuat.nn.ema import EMA, EMAs
    from nuat.nn.freeze import frozen_eval
    from nuat.recipes import Recipe, get_recipe, list_recipes, register_recipe
    from nuat.runtime.versions import VERSION as __version__
    from nuat.schedules import Constant, LinearRamp, Piecewise, StartAt, StepDecay, triangle
    from nuat.threat_models import L2, Bernoulli, Gaussian, Linf, NoStart, Uniform
    from nuat.training import fit

_HOMES = {
    "nuat.attacks": "APGD APGDDLR APGDT FAB FABT FGSM GAMA GAMAFW GAMAMT PGD RFGSM Attack AutoAttack "
    "Ensemble FrobeniusAttack MultiTargetedPGD NuclearAttack Square TargetedPGD ascend "
    "list_attacks parse_attack register_attack",
    "nuat.checkpoints": "LoadedModel Run load_model",
    "nuat.data": "Augment InMemoryDataset Splits list_datasets load_dataset register_dataset",
    "nuat.errors": "InputError NonFiniteError",
    "nuat.evaluation": "EvaluationResult evaluate",
    "nuat.export": "from_pretrained push_to_hub save_pretrained to_onnx",
    "nuat.losses": "ce frobenius kl nuclear squared_l2 squared_l2_of_softmax",
    "nuat.matrix_norms": "nuclear_norm",
    "nuat.methods": "AT AWP GAT RMGM TRADES Free Method NuAT NuAT2 NuATH Standard StepContext",
    "nuat.models": "build_model list_models register_model",
    "nuat.nn.ema": "EMA EMAs",
    "nuat.nn.freeze": "frozen_eval",
    "nuat.recipes": "Recipe get_recipe list_recipes register_recipe",
    "nuat.schedules": "Constant LinearRamp Piecewise StartAt StepDecay triangle",
    "nuat.threat_models": "L2 Bernoulli Gaussian Linf NoStart Uniform",
    "nuat.training": "fit",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
_MODULES = frozenset(
    [
        "attacks",
        "checkpoints",
        "cli",
        "config",
        "data",
        "errors",
        "evaluation",
        "export",
        "losses",
        "matrix_norms",
        "methods",
        "models",
        "nn",
        "profiling",
        "recipes",
        "report",
        "reproduce",
        "rng",
        "runtime",
        "schedules",
        "threat_models",
        "training",
    ]
)

__all__ = [
    "APGD",
    "APGDDLR",
    "APGDT",
    "AT",
    "AWP",
    "Attack",
    "Augment",
    "AutoAttack",
    "Bernoulli",
    "Constant",
    "EMA",
    "EMAs",
    "Ensemble",
    "EvaluationResult",
    "FAB",
    "FABT",
    "FGSM",
    "Free",
    "FrobeniusAttack",
    "GAMA",
    "GAMAFW",
    "GAMAMT",
    "GAT",
    "Gaussian",
    "InMemoryDataset",
    "InputError",
    "L2",
    "LinearRamp",
    "Linf",
    "LoadedModel",
    "Method",
    "MultiTargetedPGD",
    "NoStart",
    "NonFiniteError",
    "NuAT",
    "NuAT2",
    "NuATH",
    "NuclearAttack",
    "PGD",
    "Piecewise",
    "RFGSM",
    "RMGM",
    "Recipe",
    "Run",
    "Splits",
    "Square",
    "Standard",
    "StartAt",
    "StepContext",
    "StepDecay",
    "TRADES",
    "TargetedPGD",
    "Uniform",
    "ascend",
    "build_model",
    "ce",
    "evaluate",
    "fit",
    "frobenius",
    "from_pretrained",
    "frozen_eval",
    "get_recipe",
    "kl",
    "list_attacks",
    "list_datasets",
    "list_models",
    "list_recipes",
    "load_dataset",
    "load_model",
    "nuclear",
    "nuclear_norm",
    "parse_attack",
    "push_to_hub",
    "register_attack",
    "register_dataset",
    "register_model",
    "register_recipe",
    "save_pretrained",
    "squared_l2",
    "squared_l2_of_softmax",
    "to_onnx",
    "triangle",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of nuat, at its first use (PEP 562)."""
    if name == "__version__":
        return import_module("nuat.runtime.versions").VERSION
    if name in _MODULES:
        return import_module(f"nuat.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'nuat' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
