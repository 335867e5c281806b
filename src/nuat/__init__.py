"""nuat: robust image classifiers at a few times the price of ordinary training."""

from nuat.attacks import FGSM, GAMA, PGD, Attack, TargetedPGD, ascend, attack
from nuat.data import Augment, Images, Splits, datasets, load
from nuat.errors import InputError, NonFinite
from nuat.evaluate import Scores, evaluate
from nuat.export import from_pretrained, push_to_hub, save_pretrained, to_onnx
from nuat.loading import Trained, trained
from nuat.losses import ce, frobenius, nuclear, squared_l2
from nuat.methods import AT, Method, Moment, NuAT, NuAT2, Standard
from nuat.models import models
from nuat.network import frozen
from nuat.nuclear_norm import nuclear_norm
from nuat.recipes import Recipe, recipe, recipes, register
from nuat.runs import Run
from nuat.schedules import Constant, Drops, Piecewise, Ramp, triangle
from nuat.threat import L2, Bernoulli, Clean, Gaussian, Linf, Uniform
from nuat.train import fit
from nuat.versions import VERSION
from nuat.weights import Average, Averages

__version__ = VERSION
__all__ = [
    "AT",
    "FGSM",
    "GAMA",
    "L2",
    "PGD",
    "Attack",
    "Augment",
    "Average",
    "Averages",
    "Bernoulli",
    "Clean",
    "Constant",
    "Drops",
    "Gaussian",
    "Images",
    "InputError",
    "Linf",
    "Method",
    "Moment",
    "NonFinite",
    "NuAT",
    "NuAT2",
    "Piecewise",
    "Ramp",
    "Recipe",
    "Run",
    "Scores",
    "Splits",
    "Standard",
    "TargetedPGD",
    "Trained",
    "Uniform",
    "ascend",
    "attack",
    "ce",
    "datasets",
    "evaluate",
    "fit",
    "frobenius",
    "from_pretrained",
    "frozen",
    "load",
    "models",
    "nuclear",
    "nuclear_norm",
    "push_to_hub",
    "recipe",
    "recipes",
    "register",
    "save_pretrained",
    "squared_l2",
    "to_onnx",
    "trained",
    "triangle",
]
