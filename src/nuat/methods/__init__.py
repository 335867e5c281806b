"""Training methods, each a generator of losses: `for loss in method.step(model, x, y, ctx)`."""

from nuat.methods.at import AT, Standard
from nuat.methods.awp import AWP
from nuat.methods.base import Method, StepContext
from nuat.methods.free import Free
from nuat.methods.gat import GAT
from nuat.methods.gradalign import GradAlign
from nuat.methods.mart import MART
from nuat.methods.nfgsm import NFGSM
from nuat.methods.nuat import NuAT, NuAT2, NuATH
from nuat.methods.pgi import PGI
from nuat.methods.rmgm import RMGM
from nuat.methods.switching import CleanLossDrop, Trigger
from nuat.methods.trades import TRADES

__all__ = [
    "AT",
    "AWP",
    "CleanLossDrop",
    "Free",
    "GAT",
    "GradAlign",
    "MART",
    "Method",
    "NFGSM",
    "NuAT",
    "NuAT2",
    "NuATH",
    "PGI",
    "RMGM",
    "Standard",
    "StepContext",
    "TRADES",
    "Trigger",
]
