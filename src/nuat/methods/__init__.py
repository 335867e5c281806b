"""Training methods: generators of losses. `for loss in NuAT().step(f, x, y, t): ...`."""

from nuat.methods.at import AT, RMGM, Free, Standard
from nuat.methods.base import Method, StepContext
from nuat.methods.gat import GAT, Guided
from nuat.methods.nuat import NuAT, NuAT2, NuATH
from nuat.methods.switching import Always, CleanLossDrop, RobustnessDrop, Share, Trigger
from nuat.methods.trades import AWP, TRADES

__all__ = [
    "AT",
    "AWP",
    "GAT",
    "RMGM",
    "TRADES",
    "Always",
    "CleanLossDrop",
    "Free",
    "Guided",
    "Method",
    "StepContext",
    "NuAT",
    "NuAT2",
    "NuATH",
    "RobustnessDrop",
    "Share",
    "Standard",
    "Trigger",
]
