"""One run of an attack on one batch, with its outcome and cost for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import evaluate_adversarial
from nuat.attacks.graphs import GraphCapture, GraphMismatch, IterateGraphs, padded_rows
from nuat.attacks.state import AttackState, select_rows
from nuat.losses import margin
from nuat.nn.freeze import forward_padded
from nuat.rng import Noise

if TYPE_CHECKING:
    from nuat.attacks.base import Attack

SuccessAt = Literal["last", "any"]
CHECK_EVERY = 10
"""Iterates between two checks for misclassified images, at which alone the host waits for a GPU."""


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
        self.adversarial.index_fill_(0, indices, adversarial)  # a GPU waits for `[indices] = ...`
        for name, value in values.items():
            getattr(self, name)[indices] = value


class PassCounter(nn.Module):
    """Counts forward and backward passes through a network; pads small batches.

    Attributes:
        forwards, backwards: the number of passes.
        bad_gradients: the number of input gradients, one per image and backward pass, with NaN or
            infinite entries. It is a tensor, so that a GPU need not synchronize.
        candidates: those of the run; the gradients of broken images do not count.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0
        self.bad_gradients = torch.zeros((), dtype=torch.long, device=device)
        self.candidates: Candidates | None = None
        self._last_x: Tensor | None = None

    def forget(self) -> None:
        """Keep no tensor of the last pass."""
        self._last_x = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, in its dtype."""
        self.forwards += 1
        z = self.uncounted(x)
        if z.requires_grad:
            z.register_hook(self._count_backward)
        if x.requires_grad and x is not self._last_x:  # EOT passes the same x several times
            x.register_hook(self._count_bad_gradients)
            self._last_x = x
        return z.to(x.dtype)

    def uncounted(self, x: Tensor) -> Tensor:
        """The network's output for `x`, which does not count as a pass."""
        # padding would enter BatchNorm's batch statistics in train mode
        z: Tensor = self.model(x) if self.model.training else forward_padded(self.model, x)
        return z

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += 1

    def _count_bad_gradients(self, gradient: Tensor | None) -> None:
        if gradient is None:  # no gradient reaches the images; the attack says so
            return
        # the sum of an image is NaN or infinite if one of its entries is; hence one pass
        bad = ~gradient.flatten(1).sum(1).isfinite()
        self.bad_gradients += (bad & self.candidates.active if self.candidates else bad).sum()


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
    graphs: GraphCapture | None = None,
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
        ranking: for targeted attacks, the first T classes of its `rank_targets`, [B, T].
        graphs: on a GPU, capture the iterates as CUDA graphs; without, they run in Python.
    """
    capturable = x.is_cuda and attack.capturable and not attack.train_mode
    if graphs is not None and capturable and graphs.accepts(attack, search_model):
        try:
            return _run_once(attack, model, search_model, x, y, noise, run, ranking, graphs)
        except GraphMismatch:  # which the notes of `graphs` tell
            pass
    return _run_once(attack, model, search_model, x, y, noise, run, ranking, None)


def _run_once(
    attack: Attack,
    model: nn.Module,
    search_model: nn.Module,
    x: Tensor,
    y: Tensor,
    noise: Noise,
    run: int,
    ranking: Tensor | None,
    graphs: GraphCapture | None,
) -> AttackResult:
    rank, restart = divmod(run, attack.restarts)
    target = y
    if ranking is not None and attack.targets:
        noise, target = noise.fold_in("target", rank), ranking[:, rank]
    noise, counter = noise.fold_in("restart", restart), PassCounter(search_model, x.device)
    if attack.success_at == "last":
        iterates = attack.iterates(counter, x, y, target, noise, restart)
        result = _run_to_last(attack, model, counter, x, y, iterates)
    elif graphs is None:
        iterates = attack.iterates(counter, x, y, target, noise, restart)
        candidates = Candidates.none(x, len(x))
        result = _run_until_adversarial(attack, model, counter, x, iterates, candidates)
    else:
        rows = torch.arange(padded_rows(len(x)), device=x.device) % len(x)
        inputs = x[rows], y[rows], target[rows], noise.select(rows)
        counter.candidates = candidates = Candidates.none(inputs[0], len(x))
        iterates = attack.iterates(counter, *inputs, restart)
        result = _run_until_adversarial(attack, model, counter, x, iterates, candidates, graphs)
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


def _run_until_adversarial(
    attack: Attack,
    model: nn.Module,
    counter: PassCounter,
    x: Tensor,
    iterates: Iterator[AttackState],
    candidates: Candidates,
    graphs: GraphCapture | None = None,
) -> AttackResult:
    """Keep the first misclassified iterate of each image, which then leaves the run.

    `search_model` only proposes candidates; `model` verifies them every CHECK_EVERY iterates. If
    `model` classifies the first candidate correctly, it gets the runner-up too. With graphs, the
    rows of `iterates` beyond the images `x` are padding, as are those of broken images.
    """
    result, passes, first = AttackResult.initial(x), list[tuple[int, int]](), next(iterates)
    with _capturing(graphs, counter, first, candidates):
        for k, state in enumerate(chain([first], iterates)):
            z = counter(state.x_adv) if state.z is None else state.z
            passes.append((counter.forwards, counter.backwards))
            if state.graphs is None:
                record_next(attack, state, candidates, z)
            else:
                state.advance("record", partial(record_next, attack, state, candidates))
            if k % CHECK_EVERY == 0:
                if state.graphs is not None:
                    state.graphs.compare(state.z, partial(counter.uncounted, state.x_adv))
                verify_candidates(attack, model, state, candidates, result, passes)
                if not len(state):
                    break
    verify_candidates(attack, model, state, candidates, result, passes)
    if graphs is not None:
        _drop_inactive(state, candidates)
    last = torch.full_like(candidates.step, len(passes) - 1)
    result.set_rows(
        candidates.index,
        False,
        x_adv=state.x_adv.detach(),
        margin=candidates.margin,
        **passes_at(last, passes),
    )
    return result


@contextmanager
def _capturing(
    graphs: GraphCapture | None, counter: PassCounter, state: AttackState, candidates: Candidates
) -> Iterator[None]:
    """Capture the iterates within the block as CUDA graphs."""
    if graphs is None:
        yield
        return
    state.graphs = IterateGraphs(graphs, counter, (state, candidates, counter))
    try:
        yield
    finally:
        state.graphs = None


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
    _drop_inactive(state, candidates, padded=state.graphs is not None)


def _drop_inactive(state: AttackState, candidates: Candidates, padded: bool = False) -> None:
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


def passes_at(steps: Tensor, passes: Passes) -> dict[str, Tensor]:
    """The step numbers with the forward and backward passes up to them."""
    forwards, backwards = torch.tensor(passes, device=steps.device)[steps].unbind(1)
    return {"step": steps, "forwards": forwards, "backwards": backwards}
