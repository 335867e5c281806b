"""What training costs here: recipes side by side with standard training."""

from nuat.bench.arms import Arm
from nuat.bench.costs import Cost, bench
from nuat.bench.watch import SECTIONS, Matmul, clock_of

__all__ = ["SECTIONS", "Arm", "Cost", "Matmul", "bench", "clock_of"]
