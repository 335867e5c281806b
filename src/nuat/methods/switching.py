"""When NuAT-H takes two steps. All of them are ours: the published trigger is unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn

from nuat.attacks import PGD, correct
from nuat.methods.base import StepContext
from nuat.schedules import Constant
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class Trigger:
    """Decides before each batch, and may look at it afterwards. Its state is in `t.memory`."""

    def wants_two(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> bool:
        """Whether this batch is to be trained with the two-step attack."""
        raise NotImplementedError

    def observe(self, t: StepContext) -> None:
        """Look at what the step noted in `t.notes`."""

    def fire(self, t: StepContext, batches: int) -> None:
        """Two steps for so many batches from the next one on; mark the moment."""
        t.memory["two_step_left"] = batches
        t.mark("two_step")

    def holding(self, t: StepContext) -> bool:
        """Whether an earlier firing still holds; counts this batch down."""
        left = t.memory.get("two_step_left", 0)
        t.memory["two_step_left"] = max(0, left - 1)
        return left > 0


@dataclass(frozen=True)
class Always(Trigger):
    """Every batch."""

    def wants_two(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class Share(Trigger):
    """A fixed share of the batches, spread evenly."""

    share: float = 0.1

    def wants_two(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> bool:
        """Whether share * batches, over all of training, passes a whole number at this batch."""
        seen = t.memory["share_seen"] = t.memory.get("share_seen", 0) + 1
        share = Fraction(self.share).limit_denominator(10**6)
        return math.floor(seen * share) > math.floor((seen - 1) * share)


ANEW = {"seen": 0, "short": 0.0, "long": 0.0}


@dataclass(frozen=True)
class CleanLossDrop(Trigger):
    """The clean cross-entropy falls suddenly: short mean < (1 - drop) * long mean.

    Two exponential means of the clean cross-entropy of single-step batches are kept. A sudden fall
    is the sign that the network has learnt to mask its gradients, unless the learning rate has just
    been lowered, which does the same. After `hold` two-step batches, and after a drop of the
    learning rate, the means begin anew.

    Attributes:
        short, long: how many batches the two means remember.
        warm: how many batches the means gather before a fall counts; the ordinary fall at the start
            of training is steep.
        drop: the relative fall that counts.
        hold: for how many batches two steps are taken.
        quiet: for how many batches after a drop of the learning rate by half nothing counts.
    """

    short: int = 20
    long: int = 200
    warm: int = 200
    drop: float = 0.25
    hold: int = 100
    quiet: int = 200

    def wants_two(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> bool:
        """While an earlier firing holds."""
        return self.holding(t)

    def observe(self, t: StepContext) -> None:
        """Take the clean loss into the means; fire if the short one has fallen."""
        state = t.memory.setdefault("clean_loss", {**ANEW, "quiet": 0, "lr": t.lr})
        state["quiet"] = max(0, state["quiet"] - 1)
        if state["lr"] and t.lr <= 0.5 * state["lr"]:
            state |= {**ANEW, "quiet": self.quiet}
        state["lr"] = t.lr
        if t.notes["two_step"]:
            state |= ANEW
            return
        state["seen"] += 1
        loss = float(t.notes["clean_loss"])
        for name, memory in (("short", self.short), ("long", self.long)):
            share = 1 / min(state["seen"], memory)
            state[name] += share * (loss - state[name])
        settled = state["seen"] >= self.warm and not state["quiet"]
        if settled and state["short"] < (1 - self.drop) * state["long"]:
            self.fire(t, self.hold)


@dataclass(frozen=True)
class RobustnessDrop(Trigger):
    """Accuracy under PGD-5 on the batch falls by more than `drop` from its best: the sign itself.

    Costs 11 forwards every `every` batches. The size of the drop, 20 points, is FBF's.
    """

    ball: Ball = Linf(8 / 255)
    drop: float = 0.2
    every: int = 20
    hold: int = 100

    def wants_two(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> bool:
        """While an earlier firing holds, or if this batch falls to PGD-5 as none did before."""
        if self.holding(t):
            return True
        if t.batch % self.every:
            return False
        attack = PGD(self.ball, steps=5, size=Constant(1 / 4))
        robust = float(correct(f, attack(f, x, y, t.noise), y).float().mean())
        best = t.memory["best_robust"] = max(robust, t.memory.get("best_robust", 0.0))
        if robust < best - self.drop:
            self.fire(t, self.hold - 1)
            return True
        return False
