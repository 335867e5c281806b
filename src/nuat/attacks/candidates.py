"""The misclassified iterates of a run, and their verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import evaluate_adversarial
from nuat.attacks.graphs import padded_rows
from nuat.attacks.result import AttackResult, Passes, passes_at
from nuat.attacks.state import AttackState, select_rows
from nuat.losses import margin

if TYPE_CHECKING:
    from nuat.attacks.base import Attack


@dataclass
class Candidates:
    """Iterates that `search_model` misclassifies, not yet verified by `model`; one row per image.

    Attributes:
        index: row of the image in the batch, [B].
        active: whether the image is still robust, [B] bool.
        now: the number of the current iterate, [B].
        margin: the largest margin so far, [B].
        exists: whether there is a candidate since the last check, [B] bool.
        x_adv: the candidate, the first misclassified iterate since the last check, [B, C, H, W].
        step: its number, [B].
        runner_up: the later misclassified iterate with the largest margin, [B, C, H, W].
        runner_up_margin: its margin, -inf if there is none, [B].
        runner_up_step: its number, [B].
    """

    index: Tensor
    active: Tensor
    now: Tensor
    margin: Tensor
    exists: Tensor
    x_adv: Tensor
    step: Tensor
    runner_up: Tensor
    runner_up_margin: Tensor
    runner_up_step: Tensor

    @staticmethod
    def none(x: Tensor, images: int) -> Candidates:
        """No candidate for any image of the batch, whose rows after the `images` are padding."""
        index = torch.arange(len(x), device=x.device)
        zeros = torch.zeros(len(x), dtype=torch.long, device=x.device)
        lowest = x.new_full((len(x),), -torch.inf)
        return Candidates(
            index, index < images, zeros - 1, lowest, zeros.bool(), x, zeros, x, lowest, zeros
        )


def record_next(
    attack: Attack, state: AttackState, candidates: Candidates, z: Tensor | None = None
) -> None:
    """Count the iterate, and update the candidates with it; z are its logits, if not `state.z`."""
    z = state.z if z is None else z
    assert z is not None  # a capturable attack has computed them
    candidates.now = candidates.now + 1
    record_candidates(attack, state, candidates, z, candidates.now)


def record_candidates(
    attack: Attack, state: AttackState, candidates: Candidates, z: Tensor, k: Tensor
) -> None:
    """Update the candidates with the iterate of number k [B], whose logits are z [B, K].

    Selects with masks rather than with `if`, so that a GPU need not synchronize at every iterate.
    """
    margins = margin(z, state.y)
    misclassified = (z.argmax(1) != state.y) | margins.isnan()  # the opposite of `is_correct`
    misclassified = misclassified & candidates.active
    if (in_ball := attack.in_ball(state)) is not None:
        misclassified, margins = misclassified & in_ball, margins.masked_fill(~in_ball, -torch.inf)
    candidates.margin = torch.fmax(candidates.margin, margins)  # ignores NaN
    first = misclassified & ~candidates.exists
    better = misclassified & candidates.exists & (margins > candidates.runner_up_margin)
    if misclassified.is_cpu and not misclassified.any():
        return  # reading a value costs nothing on a CPU
    candidates.x_adv = torch.where(first[:, None, None, None], state.x_adv, candidates.x_adv)
    candidates.step = torch.where(first, k, candidates.step)
    candidates.exists = candidates.exists | first
    candidates.runner_up = torch.where(
        better[:, None, None, None], state.x_adv, candidates.runner_up
    )
    candidates.runner_up_step = torch.where(better, k, candidates.runner_up_step)
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
        done.index_fill_(0, fooled, True)
        rows = rows[robust & (candidates.runner_up_margin[rows] > -torch.inf)]
        if not len(rows):
            break
    candidates.exists = torch.zeros_like(candidates.exists)
    candidates.runner_up_margin = torch.full_like(candidates.runner_up_margin, -torch.inf)
    candidates.active = candidates.active & ~done
    drop_inactive(state, candidates, padded=state.graphs is not None)


def drop_inactive(state: AttackState, candidates: Candidates, padded: bool = False) -> None:
    """Drop the images that are done; if `padded`, keep a number of rows that has graphs."""
    rows = candidates.active.nonzero()[:, 0]
    active = len(rows)
    if padded and active:
        if padded_rows(active) >= len(state):
            return
        rows = torch.cat([rows, rows[:1].expand(padded_rows(active) - active)])
    state.select(rows)
    select_rows(candidates, rows)
    candidates.active = torch.arange(len(rows), device=rows.device) < active
