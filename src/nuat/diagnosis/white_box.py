"""Attacks that know less against attacks that know more: noise, one step, steps, restarts, loss.

An attack that knows more or tries harder should succeed on more images. Where it does not, the
gradients lead it astray, and the robust accuracy that it measures is too high (arXiv:1802.00420,
arXiv:1902.06705). Thresholds are fractions of all images of the sample. They are ours, chosen on
the networks of results/diagnose.
"""

from __future__ import annotations

from nuat.attacks import FGSM, PGD
from nuat.diagnosis.check import Check, grade, worst
from nuat.diagnosis.noise import RandomNoise
from nuat.diagnosis.subject import MASKED, STRONGER, Subject, pgd, share
from nuat.losses import margin

WEAKER_WARN, WEAKER_FAIL = 0.01, 0.03
"""Images on which a weaker attack succeeds and PGD-20 does not. One or two of 200 happen without
masked gradients, because PGD-20 starts at one random point."""
STEPS_WARN, STEPS_FAIL = 0.03, 0.08
"""Images on which PGD-500 succeeds and PGD-20 does not."""
RESTARTS_WARN, RESTARTS_FAIL = 0.08, 0.16
"""Images on which only ten restarts succeed: more than with steps, up to 6 % of the images of a
normally trained network, of which few are left after PGD-20."""
LOSS_WARN, LOSS_FAIL = 0.06, 0.15
"""Images on which PGD-20 succeeds with the margin alone, and not with the cross-entropy. A few
points are usual: attacks on the margin are stronger on networks without masked gradients too."""
FGSM_WARN, FGSM_FAIL = 0.20, 0.40
"""The accuracy under FGSM minus that under PGD-20."""


def random_noise(subject: Subject) -> Check:
    """Random points of the ball against PGD-20."""
    noise, attack = RandomNoise(subject.ball), pgd(subject.ball)
    only = share(~subject.robust(noise) & subject.robust(attack))
    numbers = {
        "random_noise": subject.accuracy(noise),
        "pgd_20": subject.accuracy(attack),
        "random_noise_alone": only,
    }
    return Check(
        name="random noise",
        verdict=grade(only, WEAKER_WARN, WEAKER_FAIL),
        measured="accuracy {random_noise:.1%} under 100 random points of the ball, {pgd_20:.1%} "
        "under PGD-20; the random points alone succeed on {random_noise_alone:.1%}".format(
            **numbers
        ),
        normal=f"the random points alone succeed on at most {WEAKER_WARN:.0%} of the images",
        advice=MASKED,
        numbers=numbers,
    )


def single_step(subject: Subject) -> Check:
    """FGSM against PGD-20."""
    fgsm, attack = FGSM(subject.ball), pgd(subject.ball)
    numbers = {
        "fgsm": subject.accuracy(fgsm),
        "pgd_20": subject.accuracy(attack),
        "fgsm_alone": share(~subject.robust(fgsm) & subject.robust(attack)),
    }
    gap = numbers["fgsm"] - numbers["pgd_20"]
    alone = grade(numbers["fgsm_alone"], WEAKER_WARN, WEAKER_FAIL)
    return Check(
        name="single step",
        verdict=worst([alone, grade(gap, FGSM_WARN, FGSM_FAIL)]),
        measured="accuracy {fgsm:.1%} under FGSM, {pgd_20:.1%} under PGD-20; FGSM alone succeeds "
        "on {fgsm_alone:.1%}".format(**numbers),
        normal=f"FGSM alone succeeds on at most {WEAKER_WARN:.0%} of the images",
        advice=MASKED,
        numbers=numbers,
    )


def steps(subject: Subject) -> Check:
    """PGD-500 against PGD-20."""
    attack, more = pgd(subject.ball), pgd(subject.ball, steps=500)
    return _harder(subject, attack, more, "steps", "PGD-500", STEPS_WARN, STEPS_FAIL)


def restarts(subject: Subject) -> Check:
    """PGD-20 with ten restarts against one."""
    attack, more = pgd(subject.ball), pgd(subject.ball, restarts=10)
    return _harder(
        subject, attack, more, "restarts", "PGD-20 with 10 restarts", RESTARTS_WARN, RESTARTS_FAIL
    )


def loss(subject: Subject) -> Check:
    """PGD-20 on the margin against PGD-20 on the cross-entropy.

    The margin does not saturate where the logits are large.
    """
    attack, other = pgd(subject.ball), pgd(subject.ball, loss=margin)
    return _harder(subject, attack, other, "loss", "PGD-20 on the margin", LOSS_WARN, LOSS_FAIL)


def _harder(
    subject: Subject,
    attack: PGD,
    harder: PGD,
    name: str,
    title: str,
    warn: float,
    fail: float,
) -> Check:
    """Compare PGD-20 with an attack that should succeed on few images beyond it."""
    more = share(subject.robust(attack) & ~subject.robust(harder))
    accuracy = subject.accuracy(harder)
    return Check(
        name=name,
        verdict=grade(more, warn, fail),
        measured=f"accuracy {subject.accuracy(attack):.1%} under PGD-20, {accuracy:.1%} under "
        f"{title}, which succeeds on {more:.1%} more",
        normal=f"{title} succeeds on at most {warn:.0%} of the images beyond PGD-20",
        advice=STRONGER,
        numbers={"pgd_20": subject.accuracy(attack), name: accuracy, f"{name}_more": more},
    )
