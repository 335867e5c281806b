"""Nuclear norm adversarial training: NuAT, its two-step variant NuAT2, and the hybrid NuAT-H.

Source: "Towards Efficient and Effective Adversarial Training" (NeurIPS 2021) and its published
code. Where the formula of its talk and the code differ, the default follows the code.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks import ascend
from nuat.errors import check_positive_int
from nuat.losses import Distance, ce, nuclear
from nuat.methods.base import Method, StepContext
from nuat.methods.checks import Reference, check_reference, warn_if_stuck_at_zero
from nuat.methods.switching import CleanLossDrop, Trigger
from nuat.nn.batchnorm import record_bn_update
from nuat.nn.freeze import frozen_eval
from nuat.schedules import LinearRamp, Schedule
from nuat.threat_models import Ball, Bernoulli, Linf, Start


@dataclass(frozen=True)
class _NuclearNormMethod(Method):
    """The fields that NuAT and NuAT2 share, and the weight of the nuclear norm."""

    ball: Ball = Linf(8 / 255)
    lam: Schedule = LinearRamp(to=4.5, epochs=90)
    start: Start = Bernoulli(1 / 2)
    distance: Distance = nuclear
    constant_divisor: bool = True
    lam_batch_size: int | None = 64
    lam_classes: int | None = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam_batch_size", "lam_classes"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))

    def loss_weight(self, shape: Sequence[int], ctx: StepContext) -> float:
        """lam / B for logits of the shape [B, K], scaled to the batch size of the run and to K."""
        size, classes = shape
        weight = self.lam(ctx.epoch) / self.divisor(size, ctx) * self.lam_scale(ctx.batch_size)
        return weight * self.class_scale(ctx.batch_size, classes)

    def divisor(self, size: int, ctx: StepContext) -> int:
        """B: the batch size of the run if the divisor is constant, else the size of this batch."""
        return ctx.batch_size if self.constant_divisor and ctx.batch_size else size

    def lam_scale(self, batch_size: int | None) -> float:
        """The factor sqrt(B / lam_batch_size) of lam. Not from the paper, whose code has B = 64."""
        if not batch_size or not self.lam_batch_size:
            return 1.0
        return (batch_size / self.lam_batch_size) ** 0.5

    def class_scale(self, batch_size: int | None, classes: int) -> float:
        """The factor sqrt(lam_classes / min(B, K)) of lam, at most 1. Not from the paper."""
        if not self.lam_classes:
            return 1.0
        return min(1.0, (self.lam_classes / min(batch_size or classes, classes)) ** 0.5)

    def regularizer(self, z_adv: Tensor, z: Tensor, ctx: StepContext) -> Tensor:
        """lam |z_adv - z|_* / B, of the whole batch, of which z_adv and z may be a share."""
        z_adv, z = ctx.share.gather(z_adv), ctx.share.gather(z)
        shape = z.shape
        return ctx.scalar(lambda ctx: self.loss_weight(shape, ctx)) * self.distance(z_adv, z)

    def startup_notes(self, batch_size: int, classes: int) -> list[str]:
        notes = []
        if (scale := self.lam_scale(batch_size)) != 1:
            notes.append(
                f"lam is tuned for batches of {self.lam_batch_size} images. For {batch_size} it is "
                f"multiplied by sqrt({batch_size}/{self.lam_batch_size}) = {scale:.3g}; "
                "lam_batch_size=None keeps it as it is"
            )
        if (scale := self.class_scale(batch_size, classes)) != 1:
            rank = min(batch_size, classes)
            notes.append(
                f"lam is tuned for up to {self.lam_classes} classes. For {classes} in batches of "
                f"{batch_size} it is multiplied by sqrt({self.lam_classes}/{rank}) = {scale:.3g}; "
                "lam_classes=None keeps it as it is"
            )
        return notes


@dataclass(frozen=True)
class NuAT(_NuclearNormMethod):
    """NuAT minimizes  CE(f(x), y) + lam |f(x') - f(x)|_* / B.

    |.|_* is the nuclear norm of the [B, K] matrix of logit differences. x' comes from one gradient
    ascent step of size eps on  CE(f(x'), y) + lam |f(x') - f(x)|_* / B  from Bernoulli noise of
    +- eps / 2. The attack runs the model in eval mode and compares it with the clean logits of the
    train-mode pass, which the loss uses too, so a training step costs 8 forward passes.

    This is the loss of the published code. The formula of the talk,  CE + lam |f(x') - f(x)|_*,
    leaves open or states otherwise what the code does. A field selects the other version:

        published code                                              field
        the norm is divided by B; in the talk it is not             none; lam * B has the effect
        lam ramps up linearly from 0, by epoch, in the attack too   lam (a number is constant)
        the smaller last batch is divided by the full B too         constant_divisor
        the attack uses the norm in every other batch only          alternate
        the initial point at +- eps / 2 is clamped to [0, 1]        start
        the clean batch updates the statistics of BatchNorm twice   double_bn_update
        the attack takes its clean logits in train mode             reference
        the cross-entropy of the loss is of clean images only       not configurable

    The recipes `nuat-slides` and `nuat-wa-slides` use the attack of the talk, with the norm
    divided by B.

    Attributes:
        ball: the threat model.
        lam: weight of the nuclear norm, by epoch; 0 in the first epoch, which is clean training.
        start: initial point of the attack.
        distance: of two logit matrices [B, K], in place of the nuclear norm of their difference.
        constant_divisor: B is the batch size of the run, also for the smaller last batch.
        lam_batch_size: the batch size that lam is tuned for. At another batch size B, lam is
            multiplied by sqrt(B / lam_batch_size), because the norm divided by B shrinks like
            1 / sqrt(B). None: this does not scale lam. Not from the paper.
        lam_classes: the largest number of classes K that lam is tuned for. With more, lam is
            multiplied by sqrt(lam_classes / min(B, K)), because the gradient of the norm in a B x K
            matrix has the Frobenius norm sqrt(min(B, K)), while that of the cross-entropy does not
            grow with K. None: this does not scale lam. Not from the paper.
        alternate: the attack uses the norm in every other batch only, from the second batch of each
            epoch on.
        double_bn_update: apply the clean batch's BatchNorm update a second time, after backward.
            The published code gets this effect from a second clean forward pass.
        reference: the mode in which the attack takes the clean logits f(x). "train": those of the
            train-mode pass of the loss. "eval": those of a separate pass in eval mode, like f(x')
            in the attack. It costs one forward pass in each batch whose attack uses the norm, and
            the loss then runs the adversarial pass before the clean one.

    >>> method = nuat.NuAT(ball=nuat.Linf(0.1), lam=4.0)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.long)
    >>> [loss] = method.step(model, x, y, nuat.StepContext(epoch=1, batch=1, batch_size=8))
    >>> loss.backward()
    """

    default_epochs: ClassVar[int] = 100

    alternate: bool = True
    double_bn_update: bool = True
    reference: Reference = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reference(self.reference)

    def attack_uses_norm(self, ctx: StepContext) -> bool:
        """Whether the attack of this batch uses the nuclear norm."""
        return self.lam(ctx.epoch) != 0 and (not self.alternate or ctx.batch % 2 == 1)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return self.attack_uses_norm(ctx)

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        attack_uses_norm = self.attack_uses_norm(ctx)
        warn_if_stuck_at_zero("lam", self.lam, model, ctx)

        # Clean pass in train mode; its logits z serve the attack and the loss.
        if self.reference == "train":
            with record_bn_update(model) as clean_pass:
                z = model(x)
            z_reference = z.detach()

        # Attack: one ascent step on  CE + lam |f(x') - f(x)|_* / B.
        with frozen_eval(model) as frozen_model:
            if self.reference == "eval" and attack_uses_norm:
                with torch.no_grad():
                    z_reference = frozen_model(x)

            def attack_loss(x_adv: Tensor, k: int) -> Tensor:
                z_adv = frozen_model(x_adv)
                loss = ce(z_adv, y)
                if not attack_uses_norm:
                    return loss
                return loss + self.regularizer(z_adv, z_reference, ctx)

            x_adv = self.start(x, self.ball, ctx.noise)
            x_adv = ascend(attack_loss, x_adv, x, self.ball)

        z_adv = model(x_adv)
        if self.reference == "eval":
            with record_bn_update(model) as clean_pass:
                z = model(x)

        # Loss: the cross-entropy is of the clean images alone.
        clean_loss = ce(z, y)
        ctx.log(clean_loss=clean_loss)
        yield clean_loss + self.regularizer(z_adv, z, ctx)

        if self.double_bn_update:
            clean_pass.apply_again()


@dataclass(frozen=True)
class NuAT2(_NuclearNormMethod):
    """NuAT2 minimizes the loss of NuAT at images from two gradient ascent steps of size eps.

    The first ascent step is on  CE(f(x'), y) + lam |f(x') - f(x)|_* / B,  the second on
    CE(f(x'), y). Both steps and their clean logits run the model in eval mode. In NuAT2-WA the
    first step attacks an EMA of the weights. A training step costs 11 forward passes.

    In the attack of NuAT2, B is the true size of the batch. In the attack of NuAT2-WA it is the
    divisor of the loss, so that the smaller last batch is divided by the full batch size too. The
    published codes differ in this.

    Attributes:
        ball, start, distance, lam_batch_size, lam_classes: as in NuAT.
        lam: weight of the nuclear norm, by epoch.
        constant_divisor: B is the batch size of the run in the loss, and in the attack of NuAT2-WA,
            also for the smaller last batch.
        attack_ema_decay: decay of the EMA that the first step attacks (published for NuAT2-WA:
            0.99). In the first epoch the model itself is attacked. None: always the model itself.
    """

    default_epochs: ClassVar[int] = 55

    lam: Schedule = LinearRamp(to=4.0, epochs=55)
    attack_ema_decay: float | None = None

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return (self.lam(ctx.epoch) == 0, self.attacks_ema(ctx))

    def attack_weight(self, shape: Sequence[int], ctx: StepContext) -> float:
        """The weight of the norm in the attack: NuAT2 divides by the true size of the batch."""
        weight = self.loss_weight(shape, ctx)
        if self.attack_ema_decay is not None:
            return weight
        return weight * self.divisor(shape[0], ctx) / shape[0]

    def attacks_ema(self, ctx: StepContext) -> bool:
        """Whether the first attack step sees the EMA: never in the first epoch."""
        return self.attack_ema_decay is not None and ctx.epoch > 0

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        warn_if_stuck_at_zero("lam", self.lam, model, ctx)
        x_adv = self.start(x, self.ball, ctx.noise)

        # First ascent step: on  CE + lam |f(x') - f(x)|_* / B.
        with frozen_eval(self.attack_model(model, ctx)) as frozen_model:
            with torch.no_grad():
                z = ctx.share.gather(frozen_model(x))
            shape = z.shape
            attack_weight = ctx.scalar(lambda ctx: self.attack_weight(shape, ctx))

            def attack_loss(x_adv: Tensor, k: int) -> Tensor:
                z_adv = frozen_model(x_adv)
                loss = ce(z_adv, y)
                if self.lam(ctx.epoch) == 0:
                    return loss
                return loss + attack_weight * self.distance(ctx.share.gather(z_adv), z)

            x_adv = ascend(attack_loss, x_adv, x, self.ball)

        # Second ascent step: on  CE  of the model itself.
        with frozen_eval(model) as frozen_model:
            x_adv = ascend(lambda x_adv, k: ce(frozen_model(x_adv), y), x_adv, x, self.ball)

        # Loss: two passes in train mode, the adversarial one first, as published.
        z_adv, z = model(x_adv), model(x)
        clean_loss = ce(z, y)
        ctx.log(clean_loss=clean_loss)
        yield clean_loss + self.regularizer(z_adv, z, ctx)

    def attack_model(self, model: nn.Module, ctx: StepContext) -> nn.Module:
        """The model that the first attack step sees: the EMA, or the model itself."""
        # The EMA is requested in epoch 0 too, so that it averages from the first step on.
        ema = None if self.attack_ema_decay is None else ctx.ema(self.attack_ema_decay)
        return ema if ema is not None and self.attacks_ema(ctx) else model


@dataclass(frozen=True)
class NuATH(Method):
    """NuAT-H trains with NuAT, and with NuAT2 for some batches after a sign of gradient masking.

    This is a reconstruction. It is known that NuAT-H switches adaptively between single-step and
    two-step attacks and that a curve of the clean cross-entropy belongs to it; neither code nor a
    text that states its trigger was found. The trigger here is not from the paper. In NuAT-WA-H,
    `two_step` is the method of NuAT2-WA.

    The metrics of an epoch contain the fraction of two-step batches, `two_step`, and the times at
    which the trigger fired, `two_step_began`.

    Attributes:
        single_step: the method of ordinary batches.
        two_step: the method of the batches for which the trigger is active.
        trigger: decides for which batches two attack steps are used.
    """

    single_step: NuAT = NuAT()
    two_step: NuAT2 = NuAT2()
    trigger: Trigger = CleanLossDrop()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        if self.two_step.attack_ema_decay is not None:
            # The EMA averages from the first step of training on, not from the first two-step one.
            ctx.ema(self.two_step.attack_ema_decay)
        use_two_steps = self.trigger.use_two_steps(ctx)
        method = self.two_step if use_two_steps else self.single_step
        yield from method.step(model, x, y, ctx)
        ctx.log(two_step=float(use_two_steps))
        self.trigger.observe(ctx)
