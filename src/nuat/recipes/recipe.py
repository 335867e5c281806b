"""What a recipe is: method x averaging x optimizer x schedule x data set."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from nuat import methods
from nuat.attacks import WORDS
from nuat.config.instances import replace_instances
from nuat.config.overrides import set_field
from nuat.data import Augment
from nuat.errors import InputError, unknown_name
from nuat.methods import Method
from nuat.nn.precision import check_precision
from nuat.schedules import Constant, Schedule, StartAt, coerce_schedules, triangle
from nuat.threat_models import Ball, Linf, norms

ON_OVERFITTING = ("warn", "stop", "rollback")

CONFIG_NAMES: dict[str, Any] = {
    **WORDS,
    **{name: getattr(methods, name) for name in methods.__all__},
    "Augment": Augment,
    "StartAt": StartAt,
    "triangle": triangle,
}
"""What may be written in `--set`."""


@dataclass(frozen=True)
class Recipe:
    """All that a training run is made of, except its seed. A value: change it with `replace`.

    Attributes:
        name: what people type, such as "nuat-wa".
        method: the training method.
        data, model: names out of their tables, such as "digits" and "small-cnn(width=16)".
        epochs: passes over the training split.
        batch_size: images in a batch.
        lr, momentum: of SGD, by epoch (a float; set before every step).
        weight_decay: of SGD, on all parameters.
        ema_decay: decay of the weights' EMA, which is then evaluated and saved; None: no EMA.
        augment: what is done to training images.
        precision: what the layers compute in during training, "fp32" or "bf16"; weights, logits,
            losses, perturbations, statistics and averages are float32, and so is all evaluation.
        channels_last: the memory layout of weights and activations; None: on a GPU, if the network
            supports it.
        ball: the threat model that validation and evaluation use, the method's own if it has one.
        on_overfitting: what to do when a catastrophic overfitting is seen (see nuat.training.overfitting): "warn",
            "stop" with the weights from before, or "rollback" to them and go on.
        source: "published code", "paper" or "ours".
        note: what to know about this row.
    """

    name: str
    method: Method
    data: str
    model: str
    epochs: int
    batch_size: int = 64
    lr: Schedule = Constant(0.1)
    momentum: Schedule = Constant(0.9)
    weight_decay: float = 5e-4
    ema_decay: float | None = None
    augment: Augment = Augment()
    precision: str = "fp32"
    channels_last: bool | None = None
    ball: Ball = Linf(8 / 255)
    on_overfitting: str = "warn"
    source: str = "ours"
    note: str = ""

    def __post_init__(self) -> None:
        coerce_schedules(self)
        if isinstance(self.epochs, bool) or not (isinstance(self.epochs, int) and self.epochs > 0):
            raise InputError(f"epochs is {self.epochs!r}, but must be a whole number from 1 up")
        check_precision(self.precision)
        if not (self.channels_last is None or isinstance(self.channels_last, bool)):
            raise InputError(
                f"channels_last is {self.channels_last!r}, but must be True, False or None"
            )
        if self.on_overfitting not in ON_OVERFITTING:
            raise unknown_name("answer to a collapse", self.on_overfitting, ON_OVERFITTING)
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay is {self.weight_decay!r}, but must be from 0 up")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay!r}, but must be a decay in [0, 1)")
        if min(self.lr(epoch) for epoch in range(self.epochs + 1)) < 0:
            raise InputError(f"lr falls below 0: {self.lr}")
        if not (isinstance(self.batch_size, int) and self.batch_size > 0):
            raise InputError(
                f"batch_size is {self.batch_size!r}, but must be a whole number from 1"
            )

    def with_threat_model(self, ball: Ball) -> Recipe:
        """The same recipe against another ball, wherever one stands."""
        changed: Recipe = replace_instances(self, Ball, ball)
        return changed

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe over another number of epochs, every schedule stretched to fit."""
        replace(self, epochs=epochs)  # refuses what cannot be
        factor = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            lr=self.lr.rescaled(factor),
            momentum=self.momentum.rescaled(factor),
            method=self.method.rescaled(factor),
        )

    def with_override(self, path: str, text: str) -> Recipe:
        """The same recipe with one field set from text.

        `path` is a field of the recipe or, failing that, of its method: `batch_size`, `lam.to`. An
        attack or method written in `text` is against the ball of the recipe.
        """
        own = {f.name for f in fields(self)}
        head = path.split(".")[0]
        full = path if head in own else f"method.{path}"
        if head not in own | (theirs := {f.name for f in fields(self.method)}):
            raise unknown_name(
                f"field of the recipe or of {type(self.method).__name__}", head, own | theirs
            )
        if "ball" in full.split("."):
            raise InputError("the threat model is one for the whole recipe: use --eps and --norm")
        if full in ("name", "data", "source", "note"):
            raise InputError(f"{full} cannot be set: name the recipe, and its data with --data")
        if full == "epochs":
            raise InputError("epochs stretch every schedule with them: use --epochs")
        if any(re.search(rf"\b{norm.__name__}\b", text) for norm in norms.values()):
            raise InputError(
                f"{path}: the threat model is given with --eps and --norm, not in {text}"
            )
        ball = self.method.threat_model or self.ball
        changed: Recipe = set_field(
            self, full, text, CONFIG_NAMES, lambda new: replace_instances(new, Ball, ball)
        )
        return changed
