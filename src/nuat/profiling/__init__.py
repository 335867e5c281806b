"""What training costs here: recipes side by side with standard training."""

from nuat.profiling.candidate import Candidate
from nuat.profiling.costs import Cost, benchmark
from nuat.profiling.timers import SECTIONS, Matmul, clock_of

__all__ = ["SECTIONS", "Candidate", "Cost", "Matmul", "benchmark", "clock_of"]
