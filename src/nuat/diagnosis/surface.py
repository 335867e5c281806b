"""The loss surface around the images, along the gradient and along a random direction."""

from __future__ import annotations

import torch
from torch import Tensor

from nuat.diagnosis.check import Check, grade, worst
from nuat.diagnosis.subject import Subject
from nuat.losses import ce_per_image, margin
from nuat.threat_models import Uniform

POINTS = 17
"""Points on the way from an image to the surface of the ball, both ends included."""
DISTORTED_WARN, DISTORTED_FAIL = 0.05, 0.15
"""Images that are misclassified on the way of FGSM, and classified correctly at its end."""
ROUGH_WARN, ROUGH_FAIL = 1.5, 3.0
"""Total variation of the margin along a random direction, divided by its range; 1 if monotone."""


def surface(subject: Subject) -> Check:
    """The margin along the gradient and a random direction, and how far the gradient turns.

    - distortion: the share of correctly classified images that are misclassified at
      x + t eps sign(gradient) for some t < 1, but not at t = 1 (arXiv:2010.01799, eq. 5);
    - roughness: sum_k |m_(k+1) - m_k| / (max m - min m), where m_k are the margins on the way to a
      random point of the surface; the median over the images (ours);
    - alignment: the mean cosine of the gradients at x and at a random point of the ball
      (arXiv:2007.02617, eq. 3).
    """
    assert isinstance(subject.gradient, Tensor)
    ball, noise = subject.ball, subject.noise("surface")
    along = _margins(subject, ball.steepest_direction(subject.gradient.nan_to_num()))
    across = _margins(subject, ball.steepest_direction(noise.normal(subject.x)))
    correct = along <= 0
    distorted = correct[:, 0] & correct[:, -1] & ~correct.all(1)
    numbers = {
        "distorted": float(distorted.sum() / correct[:, 0].sum().clamp_min(1)),
        "roughness": _roughness(across),
        "alignment": _alignment(subject, Uniform()(subject.x, ball, noise)),
    }
    eps = torch.linspace(0, ball.eps, POINTS)
    return Check(
        name="surface",
        verdict=worst(
            [
                grade(numbers["distorted"], DISTORTED_WARN, DISTORTED_FAIL),
                grade(numbers["roughness"], ROUGH_WARN, ROUGH_FAIL),
            ]
        ),
        measured="{distorted:.1%} of the images are misclassified on the way of FGSM, but not at "
        "its end; the roughness along a random direction is {roughness:.2f}; the cosine of the "
        "gradients at two points of the ball is {alignment:.2f}".format(**numbers),
        normal=f"at most {DISTORTED_WARN:.0%} of the images, and a roughness below {ROUGH_WARN:g}",
        advice="the surface is bent within the ball, as after catastrophic overfitting: one step "
        "says nothing, so train with more steps or another method, and stop before the collapse",
        numbers=numbers,
        curves={
            "eps": eps.tolist(),
            "margin along the gradient": along.mean(0).tolist(),
            "margin along a random direction": across.mean(0).tolist(),
        },
    )


def _margins(subject: Subject, direction: Tensor) -> Tensor:
    """The margins at clamp(x + t eps direction), for POINTS values of t in [0, 1]: [N, POINTS]."""
    margins = []
    for t in torch.linspace(0, 1, POINTS).tolist():
        subject.check_time()
        x = (subject.x + t * subject.ball.eps * direction).clamp(0, 1)
        margins.append(margin(subject.logits(x), subject.y))
    return torch.stack(margins, dim=1)


def _roughness(margins: Tensor) -> float:
    """The median of the total variation over the range; images without variation are left out."""
    variation = margins.diff(dim=1).abs().sum(1)
    extent = margins.amax(1) - margins.amin(1)
    ratio = (variation / extent)[extent > 0]
    return float(ratio.median()) if len(ratio) else 1.0


def _alignment(subject: Subject, x_other: Tensor) -> float:
    """The mean cosine of the gradients at the images and at other points, [N, C, H, W]."""
    other = subject.input_gradient(x_other, ce_per_image)
    assert isinstance(other, Tensor) and isinstance(subject.gradient, Tensor)
    one, two = (g.nan_to_num().flatten(1).double() for g in (subject.gradient, other))
    return float(torch.cosine_similarity(one, two, dim=1, eps=1e-300).mean())
