"""Is a robust accuracy real? Checks for masked gradients, collapsed training and odd outputs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nuat.data import as_dataset
from nuat.data.classes import match_classes
from nuat.data.validation import check_images
from nuat.diagnosis import black_box, gradients, outputs, radius, surface, white_box
from nuat.diagnosis.check import Check
from nuat.diagnosis.result import OUT_OF_TIME_REASON, Diagnosis
from nuat.diagnosis.subject import Subject, share
from nuat.errors import InputError, check_seed
from nuat.evaluation.request import select_indices
from nuat.models.class_names import class_names
from nuat.nn.fingerprint import fingerprint
from nuat.nn.validation import check_logits, check_network
from nuat.numbers import plain
from nuat.runtime.device import device_of
from nuat.runtime.grad_mode import gradients_enabled
from nuat.runtime.precision import full_precision
from nuat.runtime.progress import Progress
from nuat.runtime.signals import OUT_OF_TIME, Stopped
from nuat.runtime.versions import versions
from nuat.threat_models import Ball, check_ball

SAMPLES = 200
"""Images of a diagnosis: one is half a point, and the checks take minutes on small networks."""

WITHOUT_GRADIENTS = {"outputs": outputs.outputs, "gradients": gradients.gradients}
WITH_GRADIENTS = {
    "surface": surface.surface,
    "single step": white_box.single_step,
    "random noise": white_box.random_noise,
    "loss": white_box.loss,
    "radius": radius.radius,
    "restarts": white_box.restarts,
    "steps": white_box.steps,
}
BLACK_BOX = {"transfer": black_box.transfer, "square": black_box.square}
CHECKS = {**WITHOUT_GRADIENTS, **WITH_GRADIENTS, **BLACK_BOX}
"""The checks by name, in the order in which they run: the cheap ones first."""


@gradients_enabled()
@full_precision()
def diagnose(
    model: nn.Module,
    images: Any,
    ball: Ball,
    *,
    classes: int | None = None,
    samples: int = SAMPLES,
    transfer_from: nn.Module | None = None,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    max_time: float | None = None,
    quiet: bool = True,
) -> Diagnosis:
    """Check whether the robust accuracy of a model is real; see docs/diagnose.md for each check.

    A model fails if attacks that know less or try less hard succeed where PGD does not, if its
    gradients vanish, or if its outputs are no logits of the images. A model that is not robust,
    and does not pretend to be, passes.

    Args:
        model: maps images in [0, 1] [B, C, H, W] to logits [B, K].
        images: as in `nuat.evaluate`.
        ball: the threat model.
        classes: K; by default, the number of logits.
        samples: the number of images, balanced over the classes and drawn by `seed`.
        transfer_from: another model of the same classes, whose adversarial images are tried on this
            one.
        seed: the seed of the attacks' noise and of `samples`.
        metadata: stored with the result, such as the names of the data, the split and the model.
        max_time: begin no further check, nor batch of an attack, after this many seconds; checks
            that are not finished by then are skipped.
        quiet: hide the progress bar.

    Raises:
        InputError: an argument is invalid.
        NonFiniteError: the logits of every image are NaN or infinite.
    """
    started = time.monotonic()
    subject = _resolve(model, images, ball, classes, samples, transfer_from, seed)
    max_time = plain(max_time)
    subject.ends = None if max_time is None else started + max_time
    checks = []
    with Progress("diagnosis", len(CHECKS), hidden=quiet) as progress:
        for name in CHECKS:
            checks.append(_run(name, subject))
            progress.advance(1, check=name)
    return Diagnosis(
        checks=checks,
        clean_accuracy=share(subject.z.argmax(1) == subject.y),
        robust_accuracy=share(subject.robust_to_all),
        classes=subject.classes,
        indices=subject.indices,
        ball=repr(ball),
        seed=subject.seed,
        seconds=time.monotonic() - started,
        model_fingerprint=fingerprint(model),
        versions=versions(),
        metadata=dict(metadata or {}),
    )


def _resolve(
    model: nn.Module,
    images: Any,
    ball: Ball,
    classes: int | None,
    samples: int,
    transfer_from: nn.Module | None,
    seed: int,
) -> Subject:
    """Check the arguments of `diagnose`, and pass the images through the model."""
    for each in (model, transfer_from):
        if not isinstance(each, nn.Module) and each is not None:
            raise InputError(f"the model is {each!r}, not a torch.nn.Module")
    check_network(model)
    check_ball(ball)
    classes, samples, seed = map(plain, (classes, samples, seed))
    check_seed(seed)
    device = device_of(model)
    dataset, _ = match_classes(as_dataset(images), class_names(model) or ())
    dataset = dataset.to(device)
    dataset.check()
    indices = select_indices(dataset, samples, None, seed)
    x, _ = dataset.batch(torch.tensor(indices[:1]))
    check_images(x)
    classes = check_logits(model, x, classes, warn_of_softmax=False, some_finite=True)
    dataset.check(classes)
    if transfer_from is not None:
        check_logits(transfer_from, x, classes)
    return Subject(model, dataset, indices, ball, classes, seed, transfer_from)


def _run(name: str, subject: Subject) -> Check:
    """Run a check, unless the time is over or it needs something that is missing."""
    if name in WITH_GRADIENTS and not subject.has_gradients:
        return _skipped(name, "no gradient reaches the images")
    if name == "transfer" and subject.source is None:
        return _skipped(name, "no other network is given (--transfer-from)")
    try:
        subject.check_time()
        return CHECKS[name](subject)
    except Stopped as stopped:
        if stopped.status != OUT_OF_TIME:
            raise
        return _skipped(name, OUT_OF_TIME_REASON)


def _skipped(name: str, reason: str) -> Check:
    return Check(name, "skipped", reason, "", "")


__all__ = ["CHECKS", "Check", "Diagnosis", "diagnose"]
