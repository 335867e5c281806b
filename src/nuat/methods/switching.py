"""When NuAT-H uses two attack steps. The published trigger is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from nuat.methods.base import StepContext


@dataclass(frozen=True)
class Trigger:
    """Decides before each batch whether to use two attack steps. Its state is in `ctx.memory`."""

    def use_two_steps(self, ctx: StepContext) -> bool:
        """Whether this batch uses the two-step attack."""
        raise NotImplementedError

    def observe(self, ctx: StepContext) -> None:
        """Read what the finished step logged in `ctx.logs`."""

    def activate(self, ctx: StepContext, batches: int) -> None:
        """Use two steps for this many batches, from the next one on, and log the event."""
        ctx.memory["two_step_left"] = batches
        ctx.log_event("two_step")

    def consume_batch(self, ctx: StepContext) -> bool:
        """Count this batch; return whether an earlier activation covers it."""
        left: int = ctx.memory.get("two_step_left", 0)
        ctx.memory["two_step_left"] = max(0, left - 1)
        return left > 0


INITIAL = {"seen": 0, "short": 0.0, "long": 0.0}
"""The two running means before their first batch, and the number of batches they have seen."""


@dataclass(frozen=True)
class CleanLossDrop(Trigger):
    """Activates when the clean loss falls suddenly: short mean < (1 - drop) * long mean.

    The trigger keeps two exponential running means of the clean cross-entropy of single-step
    batches. A sudden fall signals gradient masking, unless the learning rate has just been lowered,
    which makes the loss fall too. The means restart after the two-step batches and after the
    learning rate has fallen by half or more in one step.

    Attributes:
        short: window of the short mean, in batches.
        long: window of the long mean, in batches.
        warmup: number of batches, from the start or restart of the means, in which drops are
            ignored; the loss falls steeply at the start of training.
        drop: the relative fall that activates the trigger.
        hold: number of two-step batches after an activation.
        cooldown: number of batches after a fall of the learning rate in which drops are ignored.
    """

    short: int = 20
    long: int = 200
    warmup: int = 200
    drop: float = 0.25
    hold: int = 100
    cooldown: int = 200

    def use_two_steps(self, ctx: StepContext) -> bool:
        return self.consume_batch(ctx)

    def observe(self, ctx: StepContext) -> None:
        state = ctx.memory.setdefault("clean_loss", {**INITIAL, "cooldown": 0, "lr": ctx.lr})
        state["cooldown"] = max(0, state["cooldown"] - 1)
        if state["lr"] and ctx.lr <= 0.5 * state["lr"]:
            state |= {**INITIAL, "cooldown": self.cooldown}
        state["lr"] = ctx.lr
        if ctx.logs["two_step"]:
            state |= INITIAL
            return
        state["seen"] += 1
        loss = float(ctx.logs["clean_loss"])
        for name, window in (("short", self.short), ("long", self.long)):
            state[name] += (loss - state[name]) * (1 / min(state["seen"], window))
        ready = state["seen"] >= self.warmup and not state["cooldown"]
        if ready and state["short"] < (1 - self.drop) * state["long"]:
            self.activate(ctx, self.hold)
