"""Training methods: generators of losses. `for loss in NuAT().step(f, x, y, t): ...`."""

from nuat.methods.adversarial import AT, RMGM, Free, Standard
from nuat.methods.base import Method, Moment
from nuat.methods.guided import GAT, Guided
from nuat.methods.nuclear import NuAT, NuAT2, NuATH
from nuat.methods.trades import AWP, TRADES
from nuat.methods.triggers import Always, CleanLossDrop, RobustnessDrop, Share, Trigger

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
    "Moment",
    "NuAT",
    "NuAT2",
    "NuATH",
    "RobustnessDrop",
    "Share",
    "Standard",
    "Trigger",
]
