"""Guided adversarial training: a squared distance of probabilities guides attack and loss."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks import ascend
from nuat.losses import ce, squared_l2_of_softmax
from nuat.methods.base import Method, StepContext
from nuat.methods.checks import Reference, check_reference
from nuat.nn.batchnorm import record_bn_update
from nuat.nn.freeze import frozen_eval
from nuat.schedules import Schedule, StepDecay
from nuat.threat_models import Ball, Bernoulli, Linf, Start


@dataclass(frozen=True)
class GAT(Method):
    """GAT minimizes  CE(f(x), y) + lam |p(x') - p(x)|^2 / B,  p = softmax(f).

    x' comes from one gradient ascent step of size eps on  CE(f(x'), y) + lam |p(x') - p(x)|^2 / B
    from Bernoulli noise. The attack runs the model in eval mode and compares it with the clean
    logits of the train-mode pass, which the loss uses too, so a training step costs 8 forward
    passes.

    Attributes:
        ball: the threat model.
        lam: weight of the squared distance, by epoch; published: 10, and 40 from epoch 86 of 100.
        start: initial point of the attack.
        alternate: the attack uses the distance in every other batch only, from the second batch of
            each epoch on, as published for CIFAR-10 and ImageNet-100. The published MNIST code
            always uses it, and starts at a distance of eps.
        double_bn_update: apply the clean batch's BatchNorm update a second time, after backward.
            The published code gets this effect from a second clean forward pass.
        reference: the mode in which the attack takes the clean probabilities p(x). "train": those
            of the train-mode pass of the loss, as published for CIFAR-10 and MNIST. "eval": those
            of a separate pass in eval mode, as published for ImageNet-100, where no train-mode
            pass precedes the attack (double_bn_update=False). It costs one forward pass in each
            batch whose attack uses the distance, and the loss then runs the adversarial pass first.

    Source: arXiv:2011.14969 and its published code.
    """

    default_epochs: ClassVar[int] = 100

    ball: Ball = Linf(8 / 255)
    lam: Schedule = StepDecay(10.0, at=(86,), by=4.0)
    start: Start = Bernoulli(1 / 2)
    alternate: bool = True
    double_bn_update: bool = True
    reference: Reference = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reference(self.reference)

    def guides_attack(self, ctx: StepContext) -> bool:
        """Whether the attack of this batch uses the distance."""
        return self.lam(ctx.epoch) != 0 and (not self.alternate or ctx.batch % 2 == 1)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return self.guides_attack(ctx)

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        weight = ctx.scalar(lambda ctx: self.lam(ctx.epoch) / len(x))
        guides_attack = self.guides_attack(ctx)

        # Clean pass in train mode; its logits z serve the attack and the loss.
        if self.reference == "train":
            with record_bn_update(model) as clean_pass:
                z = model(x)
            z_reference = z.detach()

        # Attack: one ascent step on the guided loss.
        with frozen_eval(model) as frozen_model:
            if self.reference == "eval" and guides_attack:
                with torch.no_grad():
                    z_reference = frozen_model(x)

            def attack_loss(x_adv: Tensor, k: int) -> Tensor:
                z_adv = frozen_model(x_adv)
                loss = ce(z_adv, y)
                if not guides_attack:
                    return loss
                return loss + weight * squared_l2_of_softmax(z_adv, z_reference)

            x_adv = self.start(x, self.ball, ctx.noise)
            x_adv = ascend(attack_loss, x_adv, x, self.ball)

        z_adv = model(x_adv)
        if self.reference == "eval":
            with record_bn_update(model) as clean_pass:
                z = model(x)

        # Loss: the cross-entropy is of the clean images alone.
        clean_loss = ce(z, y)
        ctx.log(clean_loss=clean_loss)
        yield clean_loss + weight * squared_l2_of_softmax(z_adv, z)

        if self.double_bn_update:
            clean_pass.apply_again()
