"""One run of an attack on one batch, with its outcome and cost for each image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nuat.attacks.candidates import (
    Candidates,
    drop_inactive,
    record_next,
    verify_candidates,
)
from nuat.attacks.criteria import evaluate_adversarial
from nuat.attacks.graphs import GraphCapture, GraphMismatch, IterateGraphs, padded_rows
from nuat.attacks.result import AttackResult, passes_at
from nuat.attacks.state import AttackState
from nuat.nn.freeze import forward_padded
from nuat.rng import Noise

if TYPE_CHECKING:
    from nuat.attacks.base import Attack

SuccessAt = Literal["last", "any"]
CHECK_EVERY = 10
"""Iterates between two checks for misclassified images, at which alone the host waits for a GPU."""


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
    rank, restart = divmod(run, attack.restarts)
    target = y
    if ranking is not None and attack.targets:
        noise, target = noise.fold_in("target", rank), ranking[:, rank]
    inputs = x, y, target, noise.fold_in("restart", restart)
    capturable = x.is_cuda and attack.capturable and attack.success_at == "any"
    capturable = capturable and not attack.train_mode
    if graphs is not None and capturable and graphs.accepts(attack, search_model):
        try:
            return _run_once(attack, model, search_model, inputs, restart, graphs)
        except GraphMismatch:  # which the notes of `graphs` tell
            pass
    return _run_once(attack, model, search_model, inputs, restart)


def _run_once(
    attack: Attack,
    model: nn.Module,
    search_model: nn.Module,
    inputs: tuple[Tensor, Tensor, Tensor, Noise],
    restart: int,
    graphs: GraphCapture | None = None,
) -> AttackResult:
    """Run the attack on images, labels, targets and their noise."""
    x, y, target, noise = inputs
    counter = PassCounter(search_model, x.device)
    if graphs is not None:
        rows = torch.arange(padded_rows(len(x)), device=x.device) % len(x)
        inputs = x[rows], y[rows], target[rows], noise.select(rows)
    iterates = attack.iterates(counter, *inputs, restart)
    if attack.success_at == "last":
        result = _run_to_last(attack, model, counter, x, y, iterates)
    else:
        candidates = Candidates.none(inputs[0], len(x))
        if graphs is not None:
            counter.candidates = candidates
        result = _run_until_adversarial(attack, model, counter, x, iterates, candidates, graphs)
    result.bad_gradients = int(counter.bad_gradients)
    return result


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
        drop_inactive(state, candidates)
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
