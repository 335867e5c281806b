"""Attacks without the gradients of the network against those with them."""

from __future__ import annotations

from nuat.attacks import Square, is_correct
from nuat.diagnosis.check import Check, grade
from nuat.diagnosis.subject import MASKED, Subject, pgd, share
from nuat.losses import margin

SQUARE_QUERIES = 1000
BLACK_BOX_WARN, BLACK_BOX_FAIL = 0.01, 0.03
"""Images on which an attack without gradients succeeds and no PGD attack does. The flag
of AutoAttack is 0.2 %, after attacks that are stronger than those of a diagnosis."""


def square(subject: Subject) -> Check:
    """Square against all PGD attacks of the diagnosis."""
    attack = Square(subject.ball, steps=SQUARE_QUERIES)
    white_box = subject.robust_to_pgd
    numbers = {
        "square": subject.accuracy(attack),
        "pgd": share(white_box),
        "square_alone": share(white_box & ~subject.robust(attack)),
    }
    return Check(
        name="square",
        verdict=grade(numbers["square_alone"], BLACK_BOX_WARN, BLACK_BOX_FAIL),
        measured="accuracy {square:.1%} under Square with 1000 queries, "
        "{pgd:.1%} under all PGD attacks; Square alone succeeds on "
        "{square_alone:.1%}".format(**numbers),
        normal=f"Square alone succeeds on at most {BLACK_BOX_WARN:.0%} of the images",
        advice=MASKED,
        numbers=numbers,
    )


def transfer(subject: Subject) -> Check:
    """Adversarial images of another network against the PGD attacks on this one.

    They are those of PGD-100 on the margin of the other network.
    """
    assert subject.source is not None
    x_adv = subject.perturb(pgd(subject.ball, steps=100, loss=margin), subject.source)
    in_ball = subject.ball.contains(x_adv, subject.x)
    transferred = is_correct(subject.logits(x_adv), subject.y) | ~in_ball
    white_box = subject.robust_to_pgd
    numbers = {
        "transfer": share(transferred),
        "pgd": share(white_box),
        "transfer_alone": share(white_box & ~transferred),
    }
    return Check(
        name="transfer",
        verdict=grade(numbers["transfer_alone"], BLACK_BOX_WARN, BLACK_BOX_FAIL),
        measured="accuracy {transfer:.1%} under adversarial images of the other network, "
        "{pgd:.1%} under all PGD attacks; the former alone succeed on "
        "{transfer_alone:.1%}".format(**numbers),
        normal=f"the former alone succeed on at most {BLACK_BOX_WARN:.0%} of the images",
        advice=MASKED,
        numbers=numbers,
    )
