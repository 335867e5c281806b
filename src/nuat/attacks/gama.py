"""GAMA, the guided adversarial margin attack: projected gradient, Frank-Wolfe, multi-targeted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import PGDState, ascent_steps, check_reach
from nuat.attacks.base import Attack
from nuat.attacks.limits import MAX_STEP_SIZE, MAX_TARGETS, MAX_WEIGHT, Limits
from nuat.attacks.state import AttackState, value_and_grad
from nuat.errors import InputError
from nuat.losses import margin, targeted_margin
from nuat.rng import Noise
from nuat.schedules import Piecewise, Schedule, StepDecay
from nuat.threat_models import Bernoulli, Start


@dataclass(kw_only=True)
class GAMAState(PGDState):
    """The state of GAMA.

    Attributes:
        p_reference: probabilities at the reference point, [B, K].
    """

    p_reference: Tensor


@dataclass(frozen=True)
class GAMA(Attack):
    """GAMA-PGD: PGD on the margin of the softmax probabilities, guided by a relaxation term.

        loss(x') = max_{j != y} p_j(x') - p_y(x') + lam(k) * |p(x') - p(x_ref)|_2^2
        p = softmax(f)

    `lam` falls from 50 to 0 in the first quarter of the steps; then only the margin is left. The
    step size is 2 eps, divided by 10 after 60% and 85% of the steps. The last iterate counts.

    Source: arXiv:2011.14969 and its published code. Published: x_ref is the noisy start
    x + eps * sign, not clamped to [0, 1]; `reference="clean"` takes the clean image instead.

    Attributes:
        steps: number of steps.
        rel_step_size: step size in units of eps, a schedule over the percentage of the steps done,
            so that it fits any number of steps.
        lam: weight of the relaxation term, a schedule over the percentage of the steps done.
        start: the initial point in the ball.
        reference: x_ref, the `start` (published) or the `clean` image.
    """

    steps: int = 100
    rel_step_size: Schedule = StepDecay(2.0, at=(60, 85))
    lam: Schedule = Piecewise(((0, 50.0), (25, 0.0)))
    start: Start = Bernoulli(1.0, clamp=False)
    reference: Literal["start", "clean"] = "start"

    limits: ClassVar[Limits] = (
        ("rel_step_size", 0, MAX_STEP_SIZE),
        ("lam", 0, MAX_WEIGHT),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference not in ("start", "clean"):
            raise InputError(f"reference is {self.reference!r}, but must be 'start' or 'clean'")

    def describe(self) -> str:
        return f"{self.steps} steps, start={self.start}, {self.iterate_that_counts()}"

    def notes(self) -> list[str]:
        reach = sum(self.rel_step_size(self.percent_done(k)) for k in range(self.steps))
        return check_reach(self.ball, reach, self.start)

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        x_adv = self.start(x, self.ball, noise)
        with torch.no_grad():
            p_reference = model(x_adv if self.reference == "start" else x).softmax(1)
        state = GAMAState(
            x=x, y=y, target=target, noise=noise, x_adv=x_adv, p_reference=p_reference
        )
        yield from self.trajectory(model, state)

    def trajectory(self, model: nn.Module, state: GAMAState) -> Iterator[AttackState]:
        """The iterates from `state.x_adv` on."""
        return ascent_steps(
            model,
            state,
            lambda z, k: self.objective(z, state, k),
            self.ball,
            self.steps,
            lambda k: self.rel_step_size(self.percent_done(k)),
        )

    def objective(self, z: Tensor, state: GAMAState, k: int) -> Tensor:
        """The loss at step k for logits z [B, K], one value per image [B]."""
        p = z.softmax(1)
        relaxation = (p - state.p_reference).square().sum(1)
        return self.margin(p, state) + self.lam(self.percent_done(k)) * relaxation

    def margin(self, p: Tensor, state: GAMAState) -> Tensor:
        """max_{j != y} p_j - p_y, [B]."""
        return margin(p, state.y)

    def percent_done(self, k: float) -> float:
        """The percentage of the steps done before step k."""
        return 100 * k / self.steps


@dataclass(frozen=True)
class GAMAFW(GAMA):
    """GAMA-FW: the loss of GAMA, maximized by the Frank-Wolfe algorithm.

        delta <- (1 - g) delta + g * eps * steepest_direction(gradient)

    The weight g is `rel_step_size`: 1/2, divided by 5 after 60% and 85% of the steps.

    Source: arXiv:2011.14969 and its published code.
    """

    rel_step_size: Schedule = StepDecay(0.5, at=(60, 85), by=0.2)

    def trajectory(self, model: nn.Module, state: GAMAState) -> Iterator[AttackState]:
        for k in range(self.steps):
            state.z, _, state.gradient = value_and_grad(
                model,
                state.x_adv,
                lambda z, k=k: self.objective(z, state, k),  # type: ignore[misc]  # default of k
            )
            yield state
            g = self.rel_step_size(self.percent_done(k))
            vertex = self.ball.eps * self.ball.steepest_direction(state.gradient)
            delta = (1 - g) * (state.x_adv - state.x)
            state.x_adv = self.ball.project(state.x + delta + g * vertex, state.x)
        state.z = None
        yield state


@dataclass(frozen=True)
class GAMAMT(GAMA):
    """GAMA-MT: p_t - p_y in place of the margin, for one target class t after another.

    The targets are the most likely other classes by the clean logits. The attack on an image
    stops once the last iterate for a target is misclassified.

    Source: arXiv:2011.14969 names this attack, but its published code does not contain it; this is
    a reconstruction.

    Attributes:
        targets: number of target classes; with K classes at most K - 1 are used.
    """

    targets: int = 9

    limits = (("targets", 1, MAX_TARGETS),)

    def margin(self, p: Tensor, state: GAMAState) -> Tensor:
        """p_t - p_y, [B]."""
        return targeted_margin(p, state.y, state.target)
