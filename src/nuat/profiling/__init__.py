"""Timing of training steps: recipes side by side with standard training (`nuat bench`)."""

from nuat.profiling.candidate import Candidate
from nuat.profiling.costs import StepCost, benchmark
from nuat.profiling.timers import SECTIONS, MatmulBaseline, get_clock

__all__ = ["SECTIONS", "Candidate", "MatmulBaseline", "StepCost", "benchmark", "get_clock"]
