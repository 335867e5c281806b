"""How sure a share is that was counted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    With `z` as it is, of 95%. Source: Wilson, EvaluationLog of the American Statistical Association 22,
    1927.
    """
    p, spread = successes / trials, z * z / trials
    middle = p + spread / 2
    half = z * math.sqrt(p * (1 - p) / trials + spread / (4 * trials))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))
