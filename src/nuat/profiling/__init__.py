"""What training costs here: recipes side by side with standard training."""

from nuat.profiling.candidate import Arm
from nuat.profiling.costs import Cost, bench
from nuat.profiling.timers import SECTIONS, Matmul, clock_of

__all__ = ["SECTIONS", "Arm", "Cost", "Matmul", "bench", "clock_of"]
