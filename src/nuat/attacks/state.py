"""The per-image state of a running attack, and gradients of an objective at its iterate."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nuat.attacks.graphs import IterateGraphs
from nuat.errors import InputError
from nuat.rng import Noise
from nuat.runtime.cuda_graphs import Work


@dataclass(kw_only=True)
class AttackState:
    """The images under attack and the current iterate; an attack adds its own fields.

    Every tensor has one row per image. An attack keeps all it needs from one iterate to the next
    here and not in local variables, because between two iterates the caller may drop the images
    that are already misclassified: after a `yield` the state can have fewer rows.

    Attributes:
        x: clean images in [0, 1], [B, C, H, W].
        y: labels [B].
        noise: the source of random numbers for these images.
        x_adv: the current iterate, [B, C, H, W].
        z: logits at `x_adv`, [B, K], or None if the attack has not computed them.
        graphs: the CUDA graphs of the run, or None to run in Python.
    """

    x: Tensor
    y: Tensor
    noise: Noise
    x_adv: Tensor
    z: Tensor | None = None
    graphs: IterateGraphs | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.y)

    def advance(self, key: Hashable, work: Work) -> None:
        """Do `work`, on a GPU as a CUDA graph if the run has graphs.

        The work reads the tensors of this state and assigns new ones to its attributes; it draws
        no noise, and apart from these tensors it depends on nothing that changes but `key`.
        """
        if self.graphs is None:
            work()
        else:
            self.graphs.run(key, work)

    def select(self, indices: Tensor) -> None:
        """Keep only the images at these row indices [M], in place."""
        select_rows(self, indices)
        self.noise = self.noise.select(indices)


@dataclass(kw_only=True)
class TargetedState(AttackState):
    """The state of an attack that needs a target class.

    Attributes:
        target: target classes [B]; the labels themselves for an untargeted attack.
    """

    target: Tensor


def select_rows(state: object, indices: Tensor) -> None:
    """Index every tensor attribute of `state` with `indices` [M], in place."""
    for name, value in vars(state).items():
        if isinstance(value, Tensor):
            setattr(state, name, value[indices])


def value_and_grad(
    model: nn.Module, x_adv: Tensor, objective: Callable[[Tensor], Tensor], eot_samples: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits z [B, K], objective(z) [B], and its gradient at `x_adv` [B, C, H, W].

    For a randomized network, the gradient is the mean over `eot_samples` forward passes
    (expectation over transformation, arXiv:1707.07397); logits and objective are those of the
    last pass. NaN entries of the gradient count as 0.

    Raises:
        InputError: the network does not pass gradients to its input.
    """
    x_adv = x_adv.detach().requires_grad_()
    mean = torch.zeros_like(x_adv)
    for _ in range(eot_samples):
        with torch.enable_grad():
            z = model(x_adv)
            value = objective(z)
            gradient = input_gradient(value.sum(), x_adv)
        mean = gradient if eot_samples == 1 else mean + gradient / eot_samples
    return z.detach(), value.detach(), mean


def input_gradient(value: Tensor, x_adv: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of the scalar `value` at `x_adv`, with 0 for NaN entries.

    The sign of NaN is NaN, so that one undefined entry would end the attack on its image. Infinite
    entries become the largest finite number.

    Raises:
        InputError: the network does not pass gradients to its input.
    """
    try:
        (gradient,) = torch.autograd.grad(value, x_adv, retain_graph=retain_graph)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not value.requires_grad:
            reason = "does its forward use no_grad, detach or numpy?"
        elif "use_reentrant" in str(error):
            reason = "it calls torch.utils.checkpoint with use_reentrant=True; set it to False"
        else:
            reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"the network does not pass gradients to its input: {reason} (only the attack "
            "'square' works without gradients)"
        ) from error
    return gradient.nan_to_num()
