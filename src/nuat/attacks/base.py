"""What an attack is: a frozen value, called with a network, images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.runner import SuccessAt, run_attack
from nuat.attacks.state import AttackState
from nuat.errors import InputError
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.schedules import coerce_schedules
from nuat.threat_models import Ball, Linf, check_ball

NOISE = Noise()


@dataclass(frozen=True)
class Attack:
    """`attack(f, x, y) -> x_adv`: images in the ball that f should misclassify.

    An attack holds its settings and no model. The network is attacked bare, in eval mode, and given
    back exactly as it was. To write one, derive a frozen dataclass and define `points`, or `run` if
    only the last point matters.

    Attributes:
        ball: the threat model.
        restarts: how many runs; each image keeps the first point that counts against it.
        train_mode: attack the network in train mode; BatchNorm's running statistics stay.
        success_at: which points count: the `last` of a run, or `any` of them.
        snapshots: for `last`, iterates that are evaluate_points on the way, each a result of its own.
        targets: for targeted attacks, how many other classes are aimed at in turn, the likeliest by
            the clean logits first; 0 for attacks without a target.
    """

    ball: Ball = Linf(8 / 255)
    restarts: int = 1
    train_mode: bool = False
    success_at: SuccessAt = "last"
    snapshots: tuple[int, ...] = ()

    least_classes: ClassVar[int] = 2
    joint: ClassVar[bool] = False

    def __post_init__(self) -> None:
        coerce_schedules(self)
        check_ball(self.ball)
        for name in ("steps", "restarts"):
            count = getattr(self, name, 1)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"{name} is {count!r}, but must be a whole number from 1 up")
        if not callable(loss := getattr(self, "loss", len)):
            raise InputError(f"loss is {loss!r}, but must be a function of logits and labels")
        if self.success_at not in ("last", "any"):
            raise InputError(f"success_at is {self.success_at!r}, but must be 'last' or 'any'")
        self._check_snapshots()

    def _check_snapshots(self) -> None:
        steps = getattr(self, "steps", 0)
        if self.snapshots and self.success_at == "any":
            raise InputError(
                "snapshots are for success_at='last': with 'any', images leave on the way"
            )
        for k in self.snapshots:
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < steps:
                raise InputError(f"snapshot {k!r} must be a whole number from 1 to {steps - 1}")

    @property
    def targets(self) -> int:
        """How many other classes are aimed at in turn; 0: none."""
        return 0

    def runs(self, classes: int) -> int:
        """How many runs there are for K classes: targets times restarts."""
        return max(1, min(self.targets, classes - 1)) * self.restarts

    def check_classes(self, classes: int) -> None:
        """Raise InputError if the attack is not defined for so few classes."""
        if classes < self.least_classes:
            raise InputError(
                f"{type(self).__name__} needs {self.least_classes} classes; there are {classes}"
            )

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run against a frozen network: at each `yield`, `b.x_adv` is the next point.

        What is yielded are its logits [B, K], or None where they are not known.
        """
        b.x_adv = self.run(g, b.x, b.y, b.noise)
        yield None

    def run(self, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """The last point of one run against a frozen network: x_adv [B, C, H, W]."""
        if type(self).points is Attack.points:
            raise NotImplementedError(f"{type(self).__name__} defines neither points nor run")
        b = AttackState(x, y, noise)
        for _ in self.points(g, b, 0):
            pass
        return b.x_adv.detach()

    def inside(self, b: AttackState) -> Tensor | None:
        """Whether `b.x_adv` is in the ball, [B] bool; None: it always is."""
        return None

    def __call__(self, f: nn.Module, x: Tensor, y: Tensor, noise: Noise = NOISE) -> Tensor:
        """Attack images `x` in [0, 1], [B, C, H, W], with labels `y` [B].

        Each image keeps the first point that counts against it, or else the last.
        """
        with frozen_eval(f, self.train_mode) as g:
            if self.success_at == "last" and self.restarts == 1 and not self.targets:
                return self.run(g, x, y, noise.fork("restart", 0))
            return self._all_runs(f, g, x, y, noise)

    def _all_runs(self, f: nn.Module, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        ranking, runs = None, self.restarts
        if self.targets or self.least_classes > 2:
            with torch.no_grad():
                z = g(x)
            self.check_classes(z.shape[1])
            if self.targets:
                ranking, runs = classes_by_logit(z, y), self.runs(z.shape[1])
        x_adv, standing = x.clone(), torch.arange(len(x), device=x.device)
        for run in range(runs):
            own = None if ranking is None else ranking[standing]
            some = x[standing], y[standing], noise.take(standing)
            done = run_attack(self, f, g, *some, run, own)
            x_adv[standing] = done.x_adv
            standing = standing[~done.fallen]
            if not len(standing):
                break
        return x_adv
