"""Confidence intervals of an accuracy."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion p = successes / trials = k / n.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), of 95 % by default.
    Source: Wilson, Journal of the American Statistical Association 22, 1927.
    """
    p, z2 = successes / trials, z * z / trials
    center = p + z2 / 2
    half_width = z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))
    low, high = (center - half_width) / (1 + z2), (center + half_width) / (1 + z2)
    return max(0.0, low), min(1.0, high)
