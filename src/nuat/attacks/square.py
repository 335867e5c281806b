"""Square: a random search without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks.base import Attack
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState
from nuat.losses import margin
from nuat.rng import Noise
from nuat.schedules import Schedule, StepDecay
from nuat.threat_models import Linf

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
QUERIES_PER_DRAW = 250
"""Queries whose random numbers are drawn together."""


@dataclass(kw_only=True)
class SquareState(AttackState):
    """The state of Square: `x_adv` is the best point so far, `z` its logits.

    Attributes:
        z: logits at `x_adv`, [B, K].
        margin_best: margin at `x_adv`, [B].
        randoms: uniform numbers of the next queries, [B, QUERIES_PER_DRAW, num_randoms].
        u: those of this query, [B, num_randoms].
    """

    z: Tensor
    margin_best: Tensor
    randoms: Tensor = field(init=False)
    u: Tensor = field(init=False)


@dataclass(frozen=True)
class Square(Attack):
    """Square attack: random search over square-shaped changes, with logits only.

    A query proposes a change of one random square of the image. It is accepted if the margin
    max_{j != y} z_j - z_y grows or the image is misclassified.

    - Linf: every channel of the square is set to x + eps or x - eps. The start has vertical
      stripes of +-eps.
    - L2: in each channel, the squared norm of a second random window, and an equal share of the
      unused norm budget, moves into the square, in the shape of two bumps of opposite sign. The
      start tiles the image with bumps.

    The square covers the fraction p of the image. p starts at 0.8 and is halved after queries 10,
    50, 200, 500, 1000, 2000, 4000, 6000 and 8000, whatever the number of queries.

    Source: arXiv:1912.00049, Algorithms 1 to 3, and the published code. Ours: each image has its
    own squares, where the published code draws one square for the whole batch, so that a result
    does not depend on the batch; squares fit into the shorter side of a rectangular image; and the
    L2 start works below 5 pixels, with tiles of one pixel.

    Attributes:
        steps: number of queries after the start.
        p: the fraction of the image that the square covers, a schedule over the queries.
        last_offset: also draw the last row and column at which a square fits. Published: these are
            never drawn.
    """

    steps: int = 5000
    p: Schedule = StepDecay(0.8, at=tuple(after + 1 for after in HALVINGS), by=0.5)
    success_at: SuccessAt = "any"
    last_offset: bool = False

    limits = (("p", 0, 1),)

    capturable = True

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[AttackState]:
        proposals = LinfProposals(self) if isinstance(self.ball, Linf) else L2Proposals(self)
        x_adv = proposals.start(x, noise)
        z = model(x_adv)
        state = SquareState(x=x, y=y, noise=noise, x_adv=x_adv, z=z, margin_best=_margin(z, y))
        yield state
        for k in range(self.steps):
            if k % QUERIES_PER_DRAW == 0:
                shape = len(state), QUERIES_PER_DRAW, proposals.num_randoms(state.x)
                state.randoms = state.noise.uniform(state.x.new_empty(shape))
            state.u = state.randoms[:, k % QUERIES_PER_DRAW]
            side = self.side(k, state.x)
            state.advance(("query", side), partial(self.query, model, state, proposals, side))
            yield state

    def query(self, model: nn.Module, state: SquareState, proposals: Proposals, side: int) -> None:
        """Propose a change of a square, and accept it if the margin grows."""
        proposal = proposals.propose(state, state.u, side)
        z = model(proposal)
        proposed_margin = _margin(z, state.y)
        accepted = (proposed_margin > state.margin_best) | (proposed_margin >= 0)
        state.x_adv = torch.where(accepted[:, None, None, None], proposal, state.x_adv)
        state.z = torch.where(accepted[:, None], z, state.z)
        state.margin_best = torch.where(accepted, proposed_margin, state.margin_best)

    def side(self, k: int, x: Tensor) -> int:
        """The side of the square at query k in pixels: sqrt(p(k) * H * W), at least 1."""
        height, width = x.shape[2:]
        side = round(math.sqrt(self.p(k) * height * width))
        return min(max(side, 1), height, width)

    def offset(self, u: Tensor, length: int, side: int) -> Tensor:
        """The first pixel of the window along an edge, from u in [0, 1): [B]."""
        num_offsets = length - side + (1 if self.last_offset else 0)
        return (u * num_offsets).long().clamp(0, length - side)


class LinfProposals:
    """Vertical stripes of +-eps at the start, then squares of +-eps."""

    def __init__(self, attack: Square):
        self.attack = attack

    def num_randoms(self, x: Tensor) -> int:
        """Uniform numbers per proposal: row, column, and a sign for each channel."""
        return 2 + x.shape[1]

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """clamp(x +- eps, 0, 1), with one sign for each column and channel."""
        signs = noise.sign(x[:, :, :1, :])
        return (x + self.attack.ball.eps * signs).clamp(0, 1)

    def propose(self, state: SquareState, u: Tensor, side: int) -> Tensor:
        """The best point with x +- eps in a square, with one sign for each channel."""
        mask = square_mask(self.attack, state.x, u[:, 0], u[:, 1], side)
        signs = _signs(u[:, 2:])
        changed = (state.x + self.attack.ball.eps * signs).clamp(0, 1)
        return torch.where(mask, changed, state.x_adv)


def square_mask(attack: Square, x: Tensor, u_row: Tensor, u_column: Tensor, side: int) -> Tensor:
    """Which pixels are in the square of each image, [B, 1, H, W] bool."""
    rows, columns = (torch.arange(length, device=x.device) for length in x.shape[2:])
    top = attack.offset(u_row, x.shape[2], side)[:, None]
    left = attack.offset(u_column, x.shape[3], side)[:, None]
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


class L2Proposals:
    """Bumps all over the image at the start, then norm moved from one window to another."""

    def __init__(self, attack: Square):
        self.attack = attack

    def num_randoms(self, x: Tensor) -> int:
        """Uniform numbers per proposal: two corners, the orientation, a sign for each channel."""
        return 5 + x.shape[1]

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """clamp(x + eps * d / |d|, 0, 1), where d is tiled with eta patterns of random signs."""
        side, tops, lefts = tiles(*x.shape[2:])
        d = torch.zeros_like(x)
        u = noise.uniform(x.new_empty(len(x), len(tops) * len(lefts), 1 + x.shape[1]))
        for tile, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            eta = _with_signs(self.eta(side, u[:, tile, 0], x), u[:, tile, 1:])
            d[:, :, top : top + side, left : left + side] += eta
        return self.scale_to_eps(x, d)

    def propose(self, state: SquareState, u: Tensor, side: int) -> Tensor:
        """Move the norm of the second window, and the unused norm budget, into the first.

        Each channel keeps the norm of its own two windows, and all get the same share of the rest.
        """
        x = state.x
        side = self.odd_side(side, x)
        first, second = (
            (
                self.attack.offset(u[:, i], x.shape[2], side),
                self.attack.offset(u[:, i + 1], x.shape[3], side),
            )
            for i in (0, 2)
        )
        delta = state.x_adv - x
        in_windows = torch.zeros_like(delta[:, :1])
        ones = torch.ones_like(gather_window(in_windows, first, side))
        scatter_window(in_windows, first, ones)
        scatter_window(in_windows, second, ones)
        squared_norm = (delta * in_windows).square().sum((2, 3))
        missing = (self.attack.ball.eps**2 - delta.square().flatten(1).sum(1)).clamp_min(0)
        old = gather_window(delta, first, side)
        eta = _with_signs(self.eta(side, u[:, 4], x), u[:, 5:]) + old / (1e-12 + l2_norm(old))
        norm = (missing[:, None] / x.shape[1] + squared_norm).sqrt()[:, :, None, None]
        scatter_window(delta, second, torch.zeros_like(old))
        scatter_window(delta, first, eta / (1e-12 + l2_norm(eta)) * norm)
        return self.scale_to_eps(x, delta)

    def odd_side(self, side: int, x: Tensor) -> int:
        """An odd side of at least 3, as far as the image is large enough."""
        longest = min(x.shape[2:])
        side = min(max(side + (side % 2 == 0), 3), longest)
        return side - (side % 2 == 0)

    def eta(self, side: int, u: Tensor, x: Tensor) -> Tensor:
        """The eta pattern, transposed for u >= 1/2: [B, 1, side, side]."""
        pattern = eta_pattern(side, x.device).to(x.dtype)
        return torch.where((u < 0.5)[:, None, None, None], pattern, pattern.T)

    def scale_to_eps(self, x: Tensor, d: Tensor) -> Tensor:
        """clamp(x + eps * d / |d|, 0, 1), projected so that rounding cannot leave the ball."""
        delta = d / (1e-12 + l2_norm(d, all_channels=True)) * self.attack.ball.eps
        return self.attack.ball.project(x + delta, x)


Proposals = LinfProposals | L2Proposals


def tiles(height: int, width: int) -> tuple[int, list[int], list[int]]:
    """Side, first rows and first columns of the tiles of the L2 start: five along the height."""
    side = max(1, min(height // 5, width))
    top = max(0, (height - 5 * side) // 2)
    left = min(top, width - side)
    tops, lefts = range(top, height - side + 1, side), range(left, width - side + 1, side)
    return side, list(tops), list(lefts)


@cache
def eta_pattern(side: int, device: torch.device) -> Tensor:
    """The eta of the paper: a positive and a negative pyramid side by side, norm 1, [side, side].

    Source: arXiv:1912.00049, Algorithm 3, and the published code.
    """
    half = side // 2
    pattern = torch.cat([pyramid(half, side), -pyramid(side - half, side)])
    norm: Tensor = torch.linalg.vector_norm(pattern)
    return (pattern / norm).float().to(device)


def pyramid(height: int, width: int) -> Tensor:
    """Nested rectangles around the center: each pixel sums 1 / k^2 from its ring on; norm 1."""
    rows, columns = torch.arange(height), torch.arange(width)
    ring = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None, :])
    rings = max(height, width) // 2 + 1
    layers = 1 / torch.arange(1, rings + 1, dtype=torch.float64).square()
    values = layers.flip(0).cumsum(0).flip(0)[ring]
    return values / torch.linalg.vector_norm(values) if height else values


def l2_norm(d: Tensor, all_channels: bool = False) -> Tensor:
    """The L2 norm of each channel [B, C, 1, 1], or of each image [B, 1, 1, 1]."""
    dim = (1, 2, 3) if all_channels else (2, 3)
    norms: Tensor = torch.linalg.vector_norm(d, dim=dim, keepdim=True)
    return norms


def _with_signs(eta: Tensor, u: Tensor) -> Tensor:
    return eta * _signs(u)


def _signs(u: Tensor) -> Tensor:
    """-1 where u [B, C] is below 1/2, else 1, of the dtype of u: [B, C, 1, 1]."""
    signs = torch.where(u < 0.5, -u.new_ones(()), 1)
    return signs[:, :, None, None]


def _margin(z: Tensor, y: Tensor) -> Tensor:
    """The margin, which is infinite where it is undefined: NaN counts as misclassified."""
    margins = margin(z, y)
    return margins.masked_fill(margins.isnan(), torch.inf)


def _window_indices(corner: tuple[Tensor, Tensor], side: int) -> tuple[Any, ...]:
    top, left = corner
    window = torch.arange(side, device=top.device)
    rows = torch.arange(len(top), device=top.device)[:, None, None]
    return (
        rows,
        slice(None),
        (top[:, None] + window)[:, :, None],
        (left[:, None] + window)[:, None, :],
    )


def gather_window(x: Tensor, corner: tuple[Tensor, Tensor], side: int) -> Tensor:
    """The window of each image whose top left pixel is `corner`: [B, C, side, side]."""
    return x[_window_indices(corner, side)].permute(0, 3, 1, 2)


def scatter_window(x: Tensor, corner: tuple[Tensor, Tensor], values: Tensor) -> None:
    """Write values [B, C, side, side] into the windows, in place."""
    x[_window_indices(corner, values.shape[2])] = values.permute(0, 2, 3, 1)
