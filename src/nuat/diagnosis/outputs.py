"""The outputs: constant, tied, random, probabilities, dependent on the batch, or of no class.

Such outputs decide verdicts without being robust, or hide from attacks (arXiv:2003.01690, section 5
of its published code; arXiv:2603.29182 for outputs that abstain).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nuat.attacks import Attack
from nuat.diagnosis.check import Check, Verdict, grade, worst
from nuat.diagnosis.noise import RandomNoise
from nuat.diagnosis.subject import Subject, pgd, share
from nuat.evaluation.sanity_checks import count_batch_dependent, logits_differ
from nuat.nn.freeze import frozen_eval
from nuat.nn.validation import looks_like_probabilities

DUMMY_WARN, DUMMY_FAIL = 0.01, 0.05
"""Images whose outputs are those of another image, tied, not finite, or those of no class. Two
images of a sample may be copies of each other."""
CHANGED_WARN, CHANGED_FAIL = 0.0, 0.01
"""Images whose prediction changes from call to call."""

ADVICE = (
    "a verdict is about these outputs, not about robustness: attack the network with "
    "autoattack-rand if it is randomized, image by image if the batch matters, and otherwise "
    "without the layer that abstains, ties or normalizes"
)


def outputs(subject: Subject) -> Check:
    """The logits of images, of noisy images and of adversarial images."""
    again = subject.logits(subject.x)
    adversarial = torch.cat([subject.logits(x) for x in _perturbed(subject)])
    everything = torch.cat([subject.z, adversarial])
    unlabeled = ~torch.isin(torch.arange(subject.classes), subject.images.y.cpu())
    numbers = {
        "random": share(logits_differ(subject.z, again)),
        "changed": share(subject.z.argmax(1) != again.argmax(1)),
        "dependent_on_batch": _dependent_on_batch(subject),
        "probabilities": float(looks_like_probabilities(subject.z)),
        "not_finite": share(~everything.isfinite().all(1)),
        "equal": _equal(everything),
        "tied": _tied(everything),
        "of_no_class": share(unlabeled.to(everything.device)[adversarial.argmax(1)]),
    }
    findings = {
        text: verdict
        for name, text in TEXTS.items()
        if (verdict := _verdict(name, numbers)) != "pass"
    }
    return Check(
        name="outputs",
        verdict=worst(list(findings.values())),
        measured="; ".join(text.format(**numbers) for text in findings) or NORMAL,
        normal=NORMAL,
        advice=ADVICE,
        numbers=numbers,
    )


NORMAL = "the logits are finite, the same in every call, and those of each image are its own"
TEXTS = {
    "random": "the logits of {random:.1%} of the images differ from call to call, the predictions "
    "of {changed:.1%}",
    "dependent_on_batch": "the logits of {dependent_on_batch:.1%} depend on the rest of the batch",
    "probabilities": "the outputs look like probabilities, but attacks need logits",
    "not_finite": "logits are NaN or infinite on {not_finite:.1%}",
    "equal": "{equal:.1%} of the images have the very same logits",
    "tied": "two classes share the largest logit on {tied:.1%}",
    "of_no_class": "{of_no_class:.1%} of the perturbed images are assigned to an output that is no "
    "class of the data",
}


def _verdict(name: str, numbers: dict[str, float]) -> Verdict:
    match name:
        case "random":
            drawn: Verdict = "warn" if numbers["random"] else "pass"
            return worst([drawn, grade(numbers["changed"], CHANGED_WARN, CHANGED_FAIL)])
        case "probabilities":
            return "warn" if numbers["probabilities"] else "pass"
        case "dependent_on_batch":
            # what is random differs in any batch
            return "fail" if numbers[name] and not numbers["random"] else "pass"
        case _:
            return grade(numbers[name], DUMMY_WARN, DUMMY_FAIL)


def _perturbed(subject: Subject) -> list[Tensor]:
    """The images under a random point of the ball and, where there are gradients, PGD-20."""
    attacks: list[Attack] = [RandomNoise(subject.ball, steps=1)]
    if subject.has_gradients:
        attacks.append(pgd(subject.ball))
    return [subject.perturb(attack) for attack in attacks]


def _dependent_on_batch(subject: Subject) -> float:
    x, z = subject.x[:16], subject.z[:16]
    with frozen_eval(subject.model) as frozen_model, torch.no_grad():
        return count_batch_dependent(frozen_model, x, z) / max(1, len(x) // 2)


def _equal(z: Tensor) -> float:
    """The share of rows that the most frequent row of logits has, 0 if no two rows are equal."""
    counts = torch.unique(z, dim=0, return_counts=True)[1]
    most = int(counts.max())
    return most / len(z) if most > 1 else 0.0


def _tied(z: Tensor) -> float:
    """The share of rows whose two largest logits are equal."""
    top = z.topk(2, dim=1).values
    return share(top[:, 0] == top[:, 1])
