"""The base class of attacks: a frozen dataclass, called with a model, images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.limits import MAX_RESTARTS, MAX_STEPS, Limits, check_limits
from nuat.attacks.runner import SuccessAt, run_attack
from nuat.attacks.state import AttackState
from nuat.errors import InputError
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.schedules import coerce_schedules
from nuat.threat_models import Ball, Linf, check_ball, refuse_eps

TORCH_NOISE = Noise()


@dataclass(frozen=True)
class Attack:
    """`attack(model, x, y) -> x_adv`: points in the ball that the model should misclassify.

    An attack holds its settings and no model. It runs on the unwrapped model in eval mode with
    frozen weights, and restores the model's state afterwards. To write an attack, derive a
    frozen dataclass and define `run` if only the last iterate matters, otherwise `iterates`.

    Attributes:
        ball: the threat model.
        restarts: number of runs; each image keeps the first adversarial point.
        train_mode: attack the model in train mode; BatchNorm's running statistics do not change.
        success_at: which iterates count: the `last` of a run, or `any` of them.
        snapshots: step numbers, for `last`: iterates that are evaluated too, each as a separate
            result.
        targets: for targeted attacks, the number of target classes that are tried one after
            another, in the order of `rank_targets`; 0 for untargeted attacks.
    """

    ball: Ball = Linf(8 / 255)
    restarts: int = 1
    train_mode: bool = False
    success_at: SuccessAt = "last"
    snapshots: tuple[int, ...] = ()

    limits: ClassVar[Limits] = (
        ("steps", 1, MAX_STEPS),
        ("restarts", 1, MAX_RESTARTS),
    )
    """The ranges of the fields; a class adds those of its own fields."""
    min_classes: ClassVar[int] = 2
    """The fewest classes for which the attack's loss is defined."""
    batchwise: ClassVar[bool] = False
    """Whether the result for an image depends on the other images of its batch."""
    capturable: ClassVar[bool] = False
    """Whether `iterates` computes them with `AttackState.advance`, with logits, as CUDA graphs."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        refuse_eps(cls, kwargs)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        coerce_schedules(self)
        check_ball(self.ball)
        check_limits(self)
        if hasattr(self, "loss") and not callable(self.loss):
            raise InputError(f"loss is {self.loss!r}, but must be a function of logits and labels")
        if self.success_at not in ("last", "any"):
            raise InputError(f"success_at is {self.success_at!r}, but must be 'last' or 'any'")
        self._check_snapshots()

    def _check_snapshots(self) -> None:
        steps = getattr(self, "steps", 0)
        if self.snapshots and self.success_at == "any":
            raise InputError(
                "snapshots need success_at='last': with 'any', misclassified images leave the run"
            )
        for k in self.snapshots:
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < steps:
                raise InputError(f"snapshot {k!r} must be a whole number from 1 to {steps - 1}")

    @property
    def targets(self) -> int:
        """Number of target classes; 0 for an untargeted attack."""
        return 0

    def describe(self) -> str:
        """The steps and the initial point in words; "" for an attack without such settings."""
        return ""

    def iterate_that_counts(self) -> str:
        """`success_at` in words."""
        return "the last iterate counts" if self.success_at == "last" else "any iterate counts"

    def notes(self) -> list[str]:
        """Warnings of settings that are probably a mistake."""
        return []

    def rank_targets(self, model: nn.Module, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The target classes in the order in which they are tried, [B, K - 1].

        By default the most likely class by the clean logits comes first.

        Args:
            model: the frozen model.
            x: clean images in [0, 1], [B, C, H, W].
            y: labels [B].
            z: logits of the clean images, [B, K].
        """
        return classes_by_logit(z, y)

    def num_runs(self, classes: int) -> int:
        """Number of runs on a model with K classes: targets times restarts."""
        return max(1, min(self.targets, classes - 1)) * self.restarts

    def check_classes(self, classes: int) -> None:
        """Raise InputError if the attack is not defined for this number of classes."""
        if classes < self.min_classes:
            raise InputError(
                f"{type(self).__name__} needs {self.min_classes} classes; there are {classes}"
            )

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        """Run the attack once on a frozen model and yield its state at every iterate.

        All yields are of the same AttackState, updated in place. The caller may drop rows from it
        between two iterates, so the attack reads `state.x` and `state.y`, not `x` and `y`.

        Args:
            model: the frozen model.
            x: clean images in [0, 1], [B, C, H, W].
            y: labels [B].
            target: target classes [B]; the labels for untargeted attacks.
            noise: the source of random numbers.
            restart: the number of the restart, from 0.
        """
        yield AttackState(x=x, y=y, noise=noise, x_adv=self.run(model, x, y, noise))

    def run(self, model: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """The last iterate of one untargeted run on a frozen model: x_adv [B, C, H, W]."""
        if type(self).iterates is Attack.iterates:
            raise NotImplementedError(f"{type(self).__name__} defines neither iterates nor run")
        x_adv = x
        for state in self.iterates(model, x, y, y, noise, 0):
            x_adv = state.x_adv
        return x_adv.detach()

    def in_ball(self, state: AttackState) -> Tensor | None:
        """Whether `state.x_adv` is in the ball, [B] bool; None means that it always is."""
        return None

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, noise: Noise = TORCH_NOISE
    ) -> Tensor:
        """Attack images `x` in [0, 1], [B, C, H, W], with labels `y` [B].

        Each image keeps the first adversarial point, or else the last iterate.

        Raises:
            InputError: the attack is not defined for this number of classes.
        """
        with frozen_eval(model, self.train_mode) as frozen_model:
            if self.success_at == "last" and self.restarts == 1 and not self.targets:
                return self.run(frozen_model, x, y, noise.fold_in("restart", 0))
            return self._run_all(model, frozen_model, x, y, noise)

    def _run_all(
        self, model: nn.Module, frozen_model: nn.Module, x: Tensor, y: Tensor, noise: Noise
    ) -> Tensor:
        """Run every target and restart, each on the images that are still robust."""
        ranking, num_runs = None, self.restarts
        if self.targets or self.min_classes > 2:
            with torch.no_grad():
                z = frozen_model(x)
            self.check_classes(z.shape[1])
            if self.targets:
                ranking = self.rank_targets(frozen_model, x, y, z)
                num_runs = self.num_runs(z.shape[1])
        x_adv, remaining = x.clone(), torch.arange(len(x), device=x.device)
        for run in range(num_runs):
            targets = None if ranking is None else ranking[remaining]
            batch = x[remaining], y[remaining], noise.select(remaining)
            result = run_attack(self, model, frozen_model, *batch, run, targets)
            x_adv[remaining] = result.x_adv
            remaining = remaining[~result.adversarial]
            if not len(remaining):
                break
        return x_adv
