"""nuat: robust image classifiers at a few times the price of ordinary training."""

from nuat.attacks import FGSM, GAMA, PGD, Attack, TargetedPGD, ascend, attack
from nuat.checkpoints import Trained, trained
from nuat.checkpoints.run import Run
from nuat.data import Augment, Images, Splits, datasets, load
from nuat.errors import InputError, NonFinite
from nuat.evaluation import Scores, evaluate
from nuat.export import from_pretrained, push_to_hub, save_pretrained, to_onnx
from nuat.losses import ce, frobenius, nuclear, squared_l2
from nuat.matrix_norms import nuclear_norm
from nuat.methods import AT, Method, Moment, NuAT, NuAT2, Standard
from nuat.models import models
from nuat.nn.ema import Average, Averages
from nuat.nn.freeze import frozen
from nuat.recipes import Recipe, recipe, recipes, register
from nuat.runtime.versions import VERSION
from nuat.schedules import Constant, Drops, Piecewise, Ramp, triangle
from nuat.threat_models import L2, Bernoulli, Clean, Gaussian, Linf, Uniform
from nuat.training import fit

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
