"""One run of an attack on one batch, with its outcome and cost for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import evaluate_adversarial
from nuat.attacks.state import AttackState, select_rows
from nuat.losses import margin
from nuat.nn.freeze import forward_padded
from nuat.rng import Noise

if TYPE_CHECKING:
    from nuat.attacks.base import Attack

SuccessAt = Literal["last", "any"]
CHECK_EVERY = 10
"""Iterates between two checks for misclassified images; each check synchronizes the GPU once."""


@dataclass
class AttackResult:
    """The outcome of one run for each of B images.

    Attributes:
        x_adv: the adversarial point, or the last iterate, [B, C, H, W].
        adversarial: whether the network misclassifies `x_adv`, [B] bool; see `is_robust`.
        step: which iterate `x_adv` is, 0 for the start, [B].
        forwards, backwards: passes through the network up to that iterate, [B].
        margin: max_{j != y} z_j - z_y, [B]: at `x_adv` where the image is misclassified, otherwise
            the largest that the search has seen (-inf if it has seen no point in the ball).
        snapshots: for each snapshot, whether the image is robust at that iterate, [B] bool.
        bad_gradients: the number of input gradients with NaN or infinite entries.
    """

    x_adv: Tensor
    adversarial: Tensor
    step: Tensor
    forwards: Tensor
    backwards: Tensor
    margin: Tensor
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    bad_gradients: int = 0

    @staticmethod
    def initial(x: Tensor) -> AttackResult:
        """The result before the first iterate."""
        zeros = torch.zeros(len(x), dtype=torch.long, device=x.device)
        unknown = x.new_full((len(x),), torch.nan)
        return AttackResult(x.clone(), zeros.bool(), zeros, zeros.clone(), zeros.clone(), unknown)

    def set_rows(self, indices: Tensor, adversarial: bool, **values: Tensor) -> None:
        """Store the outcome of the images at these row indices."""
        self.adversarial[indices] = adversarial
        for name, value in values.items():
            getattr(self, name)[indices] = value


class PassCounter(nn.Module):
    """Counts forward and backward passes through a network; pads small batches.

    Attributes:
        forwards, backwards: the number of passes.
        bad_gradients: the number of input gradients, one per image and backward pass, with NaN or
            infinite entries. It is a tensor, so that a GPU need not synchronize.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0
        self.bad_gradients: Tensor | int = 0
        self._last_x: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, in its dtype."""
        self.forwards += 1
        # padding would enter BatchNorm's batch statistics in train mode
        z = self.model(x) if self.model.training else forward_padded(self.model, x)
        if z.requires_grad:
            z.register_hook(self._count_backward)
        if x.requires_grad and x is not self._last_x:  # EOT passes the same x several times
            x.register_hook(self._count_bad_gradients)
            self._last_x = x
        return z.to(x.dtype)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += 1

    def _count_bad_gradients(self, gradient: Tensor | None) -> None:
        if gradient is None:  # no gradient reaches the images; the attack says so
            return
        # the sum of an image is NaN or infinite if one of its entries is; hence one pass
        self.bad_gradients += (~gradient.flatten(1).sum(1).isfinite()).sum()


@torch.no_grad()
def run_attack(
    attack: Attack,
    model: nn.Module,
    search_model: nn.Module,
    x: Tensor,
    y: Tensor,
    noise: Noise,
    run: int = 0,
    ranking: Tensor | None = None,
) -> AttackResult:
    """Run an attack once on one batch.

    Args:
        attack: the attack.
        model: the network that decides whether a point is adversarial.
        search_model: the frozen network that is attacked: `model`, or a faster equivalent of it.
        x: images in [0, 1], [B, C, H, W].
        y: labels [B].
        noise: the source of random numbers for these images and this attack.
        run: the number of the run, from 0: all restarts of the first target, then of the second.
        ranking: for targeted attacks, the other classes of each image, most likely first, [B, T].
    """
    rank, restart = divmod(run, attack.restarts)
    target = y
    if ranking is not None and attack.targets:
        noise, target = noise.fold_in("target", rank), ranking[:, rank]
    counter = PassCounter(search_model)
    iterates = attack.iterates(counter, x, y, target, noise.fold_in("restart", restart), restart)
    if attack.success_at == "any":
        result = _run_until_adversarial(attack, model, counter, x, iterates)
    else:
        result = _run_to_last(attack, model, counter, x, y, iterates)
    result.bad_gradients = int(counter.bad_gradients)
    return result


Passes = Sequence[tuple[int, int]]
"""Forward and backward passes up to each iterate."""


def _run_to_last(
    attack: Attack,
    model: nn.Module,
    counter: PassCounter,
    x: Tensor,
    y: Tensor,
    iterates: Iterator[AttackState],
) -> AttackResult:
    """Evaluate the last iterate, and those at the snapshots."""
    result, x_adv, k = AttackResult.initial(x), x, 0
    for k, state in enumerate(iterates):
        x_adv = state.x_adv
        if k in attack.snapshots:
            result.snapshots[k] = evaluate_adversarial(model, x, y, x_adv, attack.ball)[0]
    robust, result.margin = evaluate_adversarial(model, x, y, x_adv, attack.ball)
    result.x_adv, result.adversarial = x_adv.detach(), ~robust
    result.step += k
    result.forwards += counter.forwards
    result.backwards += counter.backwards
    return result


@dataclass
class Candidates:
    """Iterates that `search_model` misclassifies, not yet verified by `model`; one row per image.

    Attributes:
        index: row of the image in the batch, [B].
        margin: the largest margin so far, [B].
        exists: whether there is a candidate since the last check, [B] bool.
        x_adv: the candidate, the first misclassified iterate since the last check, [B, C, H, W].
        step: its number, [B].
        runner_up: the later misclassified iterate with the largest margin, [B, C, H, W].
        runner_up_margin: its margin, -inf if there is none, [B].
        runner_up_step: its number, [B].
    """

    index: Tensor
    margin: Tensor
    exists: Tensor
    x_adv: Tensor
    step: Tensor
    runner_up: Tensor
    runner_up_margin: Tensor
    runner_up_step: Tensor

    @staticmethod
    def none(x: Tensor) -> Candidates:
        """No candidate for any image of the batch."""
        index = torch.arange(len(x), device=x.device)
        zeros = torch.zeros(len(x), dtype=torch.long, device=x.device)
        lowest = x.new_full((len(x),), -torch.inf)
        return Candidates(index, lowest, zeros.bool(), x, zeros, x, lowest, zeros)


def _run_until_adversarial(
    attack: Attack,
    model: nn.Module,
    counter: PassCounter,
    x: Tensor,
    iterates: Iterator[AttackState],
) -> AttackResult:
    """Keep the first misclassified iterate of each image, which then leaves the run.

    `search_model` only proposes candidates; `model` verifies them every CHECK_EVERY iterates. If
    `model` classifies the first candidate correctly, it gets the runner-up too.
    """
    result, candidates, passes = (
        AttackResult.initial(x),
        Candidates.none(x),
        list[tuple[int, int]](),
    )
    for k, state in enumerate(iterates):
        z = counter(state.x_adv) if state.z is None else state.z
        passes.append((counter.forwards, counter.backwards))
        record_candidates(attack, state, candidates, z, k)
        if k % CHECK_EVERY == 0:
            verify_candidates(attack, model, state, candidates, result, passes)
            if not len(state):
                break
    verify_candidates(attack, model, state, candidates, result, passes)
    last = torch.full_like(candidates.step, len(passes) - 1)
    result.set_rows(
        candidates.index,
        False,
        x_adv=state.x_adv.detach(),
        margin=candidates.margin,
        **passes_at(last, passes),
    )
    return result


def record_candidates(
    attack: Attack, state: AttackState, candidates: Candidates, z: Tensor, k: int
) -> None:
    """Update the candidates with iterate k, whose logits are z [B, K].

    Selects with masks rather than with `if`, so that a GPU need not synchronize at every iterate.
    """
    margins = margin(z, state.y)
    misclassified = (z.argmax(1) != state.y) | margins.isnan()  # the opposite of `is_correct`
    if (in_ball := attack.in_ball(state)) is not None:
        misclassified, margins = misclassified & in_ball, margins.masked_fill(~in_ball, -torch.inf)
    candidates.margin = torch.fmax(candidates.margin, margins)  # ignores NaN
    first = misclassified & ~candidates.exists
    better = misclassified & candidates.exists & (margins > candidates.runner_up_margin)
    if misclassified.is_cpu and not misclassified.any():
        return  # reading a value costs nothing on a CPU
    candidates.x_adv = torch.where(first[:, None, None, None], state.x_adv, candidates.x_adv)
    candidates.step = candidates.step.masked_fill(first, k)
    candidates.exists = candidates.exists | first
    candidates.runner_up = torch.where(
        better[:, None, None, None], state.x_adv, candidates.runner_up
    )
    candidates.runner_up_step = candidates.runner_up_step.masked_fill(better, k)
    candidates.runner_up_margin = torch.where(better, margins, candidates.runner_up_margin)


def verify_candidates(
    attack: Attack,
    model: nn.Module,
    state: AttackState,
    candidates: Candidates,
    result: AttackResult,
    passes: Passes,
) -> None:
    """Store the candidates that `model` misclassifies and drop their images; forget the others."""
    rows = candidates.exists.nonzero()[:, 0]
    if not len(rows):
        return
    done = torch.zeros_like(candidates.exists)
    for points, steps in (
        (candidates.x_adv, candidates.step),
        (candidates.runner_up, candidates.runner_up_step),
    ):
        robust, margins = evaluate_adversarial(
            model, state.x[rows], state.y[rows], points[rows], attack.ball
        )
        fooled = rows[~robust]
        result.set_rows(
            candidates.index[fooled],
            True,
            x_adv=points[fooled],
            margin=margins[~robust],
            **passes_at(steps[fooled], passes),
        )
        done[fooled] = True
        rows = rows[robust & (candidates.runner_up_margin[rows] > -torch.inf)]
        if not len(rows):
            break
    candidates.exists = torch.zeros_like(candidates.exists)
    candidates.runner_up_margin = torch.full_like(candidates.runner_up_margin, -torch.inf)
    remaining = (~done).nonzero()[:, 0]
    state.select(remaining)
    select_rows(candidates, remaining)


def passes_at(steps: Tensor, passes: Passes) -> dict[str, Tensor]:
    """The step numbers with the forward and backward passes up to them."""
    forwards, backwards = torch.tensor(passes, device=steps.device)[steps].unbind(1)
    return {"step": steps, "forwards": forwards, "backwards": backwards}
