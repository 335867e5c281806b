"""Training: `fit` resolves its inputs into a `Plan`, which a `Trainer` carries out."""

from nuat.training.fitting import fit
from nuat.training.plan import Plan, resolve
from nuat.training.trainer import Trainer

__all__ = ["Plan", "Trainer", "fit", "resolve"]
