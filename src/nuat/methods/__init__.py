"""Training methods: generators of losses. `for loss in NuAT().step(f, x, y, t): ...`."""

from nuat.methods.adversarial import AT, Standard
from nuat.methods.base import Method, Moment
from nuat.methods.nuclear import NuAT, NuAT2

__all__ = ["AT", "Method", "Moment", "NuAT", "NuAT2", "Standard"]
