"""The robust accuracy against the radius of the ball: it falls to 0, and never rises."""

from __future__ import annotations

import math

from nuat.diagnosis.check import Check, grade, worst
from nuat.diagnosis.subject import MASKED, Subject, pgd
from nuat.threat_models import Ball, Linf

RISE_WARN, RISE_FAIL = 0.01, 0.03
"""How far the accuracy may rise with eps: a larger ball contains every point of a smaller one."""
END_WARN, END_FAIL = 0.0, 0.02
"""The accuracy that may be left at the largest eps, where every image can be reached."""


def radius(subject: Subject) -> Check:
    """PGD-20 on balls of growing eps, up to one that contains every image.

    Source: arXiv:1902.06705, sections 4.2 and 5.6.
    """
    balls = _balls(subject.ball, subject.x[0].numel())
    eps = [ball.eps for ball in balls]
    accuracy = [subject.accuracy(pgd(ball)) for ball in balls]
    lowest, rise = accuracy[0], 0.0
    for value in accuracy:
        lowest, rise = min(lowest, value), max(rise, value - lowest)
    left = accuracy[-1]
    return Check(
        name="radius",
        verdict=worst([grade(rise, RISE_WARN, RISE_FAIL), grade(left, END_WARN, END_FAIL)]),
        measured=f"accuracy {left:.1%} at eps {eps[-1]:.3g}, where every image can be reached; it "
        f"rises with eps by up to {rise:.1%}",
        normal="it falls to 0.0%, and never rises",
        advice=MASKED,
        numbers={"largest_eps": left, "rise": rise},
        curves={"eps": eps, "accuracy": accuracy},
    )


def _balls(ball: Ball, pixels: int) -> list[Ball]:
    """Balls of eps / 4, eps / 2, eps, 2 eps, ..., and one that contains all of [0, 1]."""
    largest = 1.0 if isinstance(ball, Linf) else math.sqrt(pixels)
    eps = [ball.eps / 4, ball.eps / 2, ball.eps]
    while eps[-1] * 2 < largest:
        eps.append(eps[-1] * 2)
    return [type(ball)(each) for each in [*eps, largest] if each <= largest]
