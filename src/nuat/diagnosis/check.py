"""The outcome of one check: its numbers, a verdict, what is normal and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "skipped"]
VERDICTS: tuple[Verdict, ...] = ("pass", "skipped", "warn", "fail")
"""From the best to the worst; a check that could not be run says nothing."""


@dataclass(frozen=True)
class Check:
    """One check of a diagnosis.

    Attributes:
        name: the name of the check.
        verdict: pass, warn or fail; skipped if it could not be run.
        measured: what was found, in words, or why the check was skipped.
        normal: what a network whose robust accuracy is real shows.
        advice: what to do next unless the check passes.
        numbers: the figures that the verdict follows from; accuracies and shares are fractions,
            and None is a number that was not finite in a file.
        curves: series of numbers of equal length for a picture, the horizontal axis first.
    """

    name: str
    verdict: Verdict
    measured: str
    normal: str
    advice: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


def grade(value: float, warn: float, fail: float) -> Verdict:
    """Return the verdict on a number that is better the smaller it is.

    `fail` above the second threshold, `warn` above the first, else `pass`. NaN fails.
    """
    if not value <= fail:
        return "fail"
    return "warn" if value > warn else "pass"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of several verdicts; `pass` of none."""
    return max(verdicts, key=VERDICTS.index, default="pass")
