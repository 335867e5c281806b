"""What a recipe is: method x weight averaging x optimizer x schedule x data set."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

from nuat import attacks, methods
from nuat.attacks import Attack, parse_attack
from nuat.config.instances import replace_instances
from nuat.config.overrides import set_field
from nuat.data import Augment
from nuat.errors import InputError, check_positive_int, unknown_name
from nuat.methods import Method
from nuat.nn.precision import check_precision
from nuat.numbers import plain
from nuat.schedules import Constant, Schedule, StartAt, coerce_schedules, triangle
from nuat.threat_models import EPS_NAMES, Ball, Linf, check_ball, norms

ON_OVERFITTING = ("warn", "stop", "rollback")
NUCLEAR_NORM = ("gather", "local")
BATCHNORM = ("local", "sync")
ON_NONFINITE = ("stop", "skip", "rollback")
MAX_CHECKED_EPOCHS = 1000
"""Schedules are checked at every epoch, or at this many of them, evenly spread."""

CONFIG_NAMES: dict[str, Any] = {
    **attacks.CONFIG_NAMES,
    **{name: getattr(methods, name) for name in methods.__all__},
    "Augment": Augment,
    "StartAt": StartAt,
    "triangle": triangle,
}
"""The names that the value of `--set` may contain."""


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a training run, except its seed.

    Attributes:
        name: its name, such as "nuat-wa".
        method: the training method.
        data: the data set it is for, by its registered name, such as "digits".
        model: the model, by its registered name and settings, such as "small-cnn(width=16)".
        epochs: number of passes over the training split.
        batch_size: number of images in a batch; on several ranks, of all ranks together.
        lr: learning rate of SGD as a function of the epoch (a float), set before every step.
        momentum: momentum of SGD as a function of the epoch, set before every step.
        weight_decay: weight decay of SGD, on all parameters.
        ema_decay: decay of the EMA of the weights; training then validates and saves the EMA in
            place of the trained weights. None keeps no EMA.
        augment: the augmentation of training images.
        precision: data type of the layers in training, "fp32" or "bf16". Weights, logits, losses,
            perturbations, BatchNorm statistics, EMAs and every evaluation are float32 in both.
        tf32: whether float32 convolutions may compute in TF32 during training, as torch allows by
            default; a GPU that has it rounds their inputs to 10 bits of mantissa. False computes
            them in float32. Evaluation never uses it.
        channels_last: memory format of weights and activations. None uses channels_last on a GPU if
            the model supports it.
        nuclear_norm: in training on several ranks (see docs/many_devices.md), whether the nuclear
            norm is that of the whole batch, "gather", or of the images of each rank, "local".
        batchnorm: on several ranks, whether BatchNorm normalizes with the statistics of the images
            of each rank, "local", or of the whole batch, "sync", which needs GPUs.
        ball: threat model of validation and evaluation. It may differ from the method's: TRADES
            trains at 0.031 and is evaluated at 8/255.
        on_overfitting: what to do after catastrophic overfitting (see nuat.training.overfitting):
            "warn" and continue, "stop" and keep the weights from before it, or "rollback" to those
            weights and continue.
        on_nonfinite: what to do after a loss that is NaN or infinite (see nuat.training.nonfinite):
            "stop" with an error, "skip" the batch, or "rollback" to the checkpoint before the last
            one and halve the learning rate.
        validation_attack: the attack on the validation split that selects the epoch to keep, as
            text such as "pgd-20(restarts=2)"; its threat model is `ball`. The earliest of equally
            robust epochs is kept. By default 7 steps of eps/7 from the clean image, as in the
            published NuAT code.
        source: origin of the settings: "published code", "paper", "talk" or "ours".
        note: how the recipe deviates from its source, or what is unknown about it.

    Raises:
        InputError: a setting is out of its range.

    >>> recipe = nuat.get_recipe("nuat", "digits").with_override("lam.to", "3")
    >>> recipe.with_threat_model(nuat.Linf(0.1)).method
    NuAT(...)
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
    tf32: bool = True
    channels_last: bool | None = None
    nuclear_norm: str = "gather"
    batchnorm: str = "local"
    ball: Ball = Linf(8 / 255)
    on_overfitting: str = "warn"
    on_nonfinite: str = "stop"
    validation_attack: str = "pgd-7(rel_step_size=1/7, start=NoStart())"
    source: str = "ours"
    note: str = ""

    def __post_init__(self) -> None:
        coerce_schedules(self)
        check_ball(self.ball)
        check_positive_int("epochs", self.epochs)
        check_positive_int("batch_size", self.batch_size)
        check_precision(self.precision)
        if not isinstance(self.tf32, bool):
            raise InputError(f"tf32 is {self.tf32!r}, but must be True or False")
        if not (self.channels_last is None or isinstance(self.channels_last, bool)):
            raise InputError(
                f"channels_last is {self.channels_last!r}, but must be True, False or None"
            )
        if self.on_overfitting not in ON_OVERFITTING:
            raise unknown_name("value of on_overfitting", self.on_overfitting, ON_OVERFITTING)
        for name, allowed in (
            ("nuclear_norm", NUCLEAR_NORM),
            ("batchnorm", BATCHNORM),
            ("on_nonfinite", ON_NONFINITE),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise unknown_name(f"value of {name}", value, allowed)
        self.parsed_validation_attack()
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay is {self.weight_decay!r}, but must be at least 0")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay!r}, but must be in [0, 1), or None")
        self._check_schedules()

    def _check_schedules(self) -> None:
        spacing = max(1, self.epochs // MAX_CHECKED_EPOCHS)
        for epoch in range(0, self.epochs + 1, spacing):
            if not 0 <= _value(self.momentum, epoch) < 1:
                raise InputError(
                    f"momentum is {self.momentum}, but must be in [0, 1) at every epoch"
                )
            if not 0 <= _value(self.lr, epoch) < math.inf:
                raise InputError(f"lr is {self.lr}, which is negative or infinite at some epoch")

    def parsed_validation_attack(self) -> Attack:
        """The attack of `validation_attack` in the threat model `ball`."""
        attack = parse_attack(self.validation_attack, self.ball)
        if not isinstance(attack, Attack):
            raise InputError(
                f"validation_attack is {self.validation_attack!r}, but must be a single attack, "
                "such as pgd-20"
            )
        return attack

    def ema_note(self, num_images: int) -> str:
        """A note if the EMA holds much of the first weights after a run on so many images, or "".

        After n steps the first weights have the share ema_decay^n of the average.
        """
        steps = self.epochs * -(-num_images // self.batch_size)
        if self.ema_decay is None or (share := self.ema_decay**steps) < 0.01:
            return ""
        return (
            f"after the {steps} steps of this run, the average of the weights (ema_decay="
            f"{self.ema_decay}) will hold {share:.0%} of the first weights, so that its accuracy "
            f"says little: --set ema_decay={max(0, 1 - 10 / steps):.3g} suits this number of steps"
        )

    def with_threat_model(self, ball: Ball) -> Recipe:
        """The same recipe with `ball` for training, validation and evaluation."""
        changed: Recipe = replace_instances(self, Ball, ball)
        return changed

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe for another number of epochs.

        Every schedule is rescaled to it. So is the window of the EMA, 1 / (1 - ema_decay) steps: it
        keeps its share of the run with ema_decay ** (self.epochs / epochs).
        The EMA that NuAT2-WA attacks (`attack_ema_decay`) keeps its window, published as 100
        steps: it follows the weights closely in a run of any length.
        """
        epochs = plain(epochs)
        check_positive_int("epochs", epochs)
        factor = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            lr=self.lr.rescaled(factor),
            momentum=self.momentum.rescaled(factor),
            ema_decay=self.ema_decay and self.ema_decay ** (1 / factor),
            method=self.method.rescaled(factor),
        )

    def with_override(self, path: str, text: str) -> Recipe:
        """The same recipe with one field set to the value of `text`, as `--set path=text` does.

        `path` is a field of the recipe or else of its method, such as `batch_size` or `lam.to`. An
        attack or a method in `text` gets the threat model of the recipe.

        Raises:
            InputError: there is no such field, it cannot be set, or the value does not fit it.
        """
        if {"ball", *EPS_NAMES} & set(path.split(".")):
            raise InputError("the threat model is set with --eps and --norm, not with --set")
        path = self._absolute_path(path)
        if path in ("name", "data", "source", "note"):
            raise InputError(f"{path} cannot be set: choose a recipe by name, its data with --data")
        if path == "epochs":
            raise InputError("epochs cannot be set: --epochs sets them and rescales the schedules")
        if any(re.search(rf"\b{norm.__name__}\b", text) for norm in norms.values()):
            raise InputError(
                f"{path}: the threat model is set with --eps and --norm, not in {text}"
            )
        # without this, an attack such as PGD(steps=2) would have its own default eps
        ball = self.method.threat_model or self.ball
        changed: Recipe = set_field(
            self, path, text, CONFIG_NAMES, lambda value: replace_instances(value, Ball, ball)
        )
        return changed

    def _absolute_path(self, path: str) -> str:
        """The path from the recipe on: `lam.to` becomes `method.lam.to`."""
        first = path.partition(".")[0]
        recipe_fields = {field.name for field in fields(self)}
        method_fields = {field.name for field in fields(self.method)}
        if first in recipe_fields:
            return path
        if first in method_fields:
            return f"method.{path}"
        kind = f"field of the recipe or of {type(self.method).__name__}"
        raise unknown_name(kind, first, recipe_fields | method_fields)


def _value(schedule: Schedule, epoch: int) -> float:
    try:
        return schedule(epoch)
    except OverflowError:  # such as 1e300 ** 2
        return math.inf
