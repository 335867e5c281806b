"""The gradients at the images: their size, exact zeros, and numbers that are not finite."""

from __future__ import annotations

from nuat.diagnosis.check import Check, grade
from nuat.diagnosis.subject import MASKED, Subject, share

BAD_WARN, BAD_FAIL = 0.0, 0.05
"""Images whose gradient is exactly zero or not finite: none on a network that can be attacked by
gradients. A single one may be an image far from all others, hence a warning."""
NORMAL = "neither zero nor infinite on any image"
NO_GRADIENT = (
    "let the forward pass of the network be differentiable, without detach, no_grad or numpy; "
    "until then only attacks such as square say anything"
)


def gradients(subject: Subject) -> Check:
    """The gradient of the cross-entropy at the images, on which PGD relies.

    Its size is max <gradient, v> over the ball, the change of the loss in first order: eps times
    the L1 norm in Linf, eps times the L2 norm in L2.
    """
    gradient = subject.gradient
    if isinstance(gradient, str):
        return Check(
            "gradients", "fail", f"no gradient reaches the images: {gradient}", NORMAL, NO_GRADIENT
        )
    largest = gradient.flatten(1).abs().amax(1)
    finite = gradient.nan_to_num()
    sizes = (finite * subject.ball.steepest_direction(finite)).flatten(1).sum(1) * subject.ball.eps
    numbers = {
        "zero": share(largest == 0),
        "not_finite": share(~largest.isfinite()),
        "zero_entries": share((gradient == 0).flatten()),
        "first_order_change": float(sizes.median()),
    }
    return Check(
        name="gradients",
        verdict=grade(numbers["zero"] + numbers["not_finite"], BAD_WARN, BAD_FAIL),
        measured="exactly zero on {zero:.1%} of the images and not finite on {not_finite:.1%}; "
        "{zero_entries:.1%} of all entries are zero; the first-order change of the loss in the "
        "ball is {first_order_change:.3g} (median)".format(**numbers),
        normal=NORMAL,
        advice=MASKED,
        numbers=numbers,
    )
