"""Square: a random search that needs no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks.base import Attack
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState
from nuat.losses import margin
from nuat.schedules import Schedule, StepDecay
from nuat.threat_models import Linf

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TABLE = 250
"""Queries whose random numbers are drawn at once."""


@dataclass(frozen=True)
class Square(Attack):
    """Change a square at random; keep the change if it brings another class nearer.

    In linf every channel of the square goes to one end of the ball, x + eps or x - eps. In L2 the
    mass of a second window, drawn at random too, goes to the first, in the shape of a bump with two
    sides. `p` is the square's share of the image, halved after query 10, 50, 200, 500, 1000, 2000,
    4000, whatever the number of queries. A change is kept if it enlarges the lead of another class
    or the image is misclassified.

    Source: arXiv:1912.00049, Algorithms 1 to 3, and the published code. That each image has squares
    of its own, where the published code draws one for the whole batch, is ours: so a verdict does
    not depend on the batch. So is what happens where the published code stops: squares are cut to
    the shorter side of a rectangle, and below 5 pixels an L2 start has tiles of one pixel.

    Attributes:
        steps: queries after the first.
        p: the share by query.
        last_offset: also draw the last row and column that a square fits into; the published code
            does not.
    """

    steps: int = 5000
    p: Schedule = StepDecay(0.8, at=tuple(after + 1 for after in HALVINGS), by=0.5)
    success_at: SuccessAt = "any"
    last_offset: bool = False

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run; each point is the best so far."""
        moves = LinfMoves(self) if isinstance(self.ball, Linf) else L2Moves(self)
        b.x_adv = moves.start(b)
        b.z = g(b.x_adv)
        b.best = margin(b.z, b.y)
        yield b.z
        for k in range(self.steps):
            if k % TABLE == 0:
                b.table = b.noise.uniform(b.x.new_empty(len(b), TABLE, moves.numbers(b.x)))
            b.asked = moves.propose(b, b.table[:, k % TABLE], self.side(k, b.x))
            z = g(b.asked)
            lead = margin(z, b.y)
            kept = (lead > b.best) | (lead >= 0)
            b.x_adv = torch.where(kept[:, None, None, None], b.asked, b.x_adv)
            b.z = torch.where(kept[:, None], z, b.z)
            b.best = torch.where(kept, lead, b.best)
            yield b.z

    def side(self, k: int, x: Tensor) -> int:
        """The square's side at query k: sqrt(p * h * w), at least a pixel."""
        height, width = x.shape[2:]
        side = round((self.p(k) * height * width) ** 0.5)
        return min(max(side, 1), height, width)

    def offset(self, u: Tensor, length: int, side: int) -> Tensor:
        """Where along an edge a window begins, from u in [0, 1): [B]."""
        places = length - side + (1 if self.last_offset else 0)
        return (u * places).long().clamp(0, length - side)


class LinfMoves:
    """Stripes at the start, then squares of +-eps."""

    def __init__(self, attack: Square):
        self.attack = attack

    def numbers(self, x: Tensor) -> int:
        """How many uniform numbers a proposal takes: row, column, a colour for each channel."""
        return 2 + x.shape[1]

    def start(self, b: AttackState) -> Tensor:
        """clamp(x +- eps), one sign for each column and channel."""
        signs = b.noise.sign(b.x[:, :, :1, :])
        return (b.x + self.attack.ball.eps * signs).clamp(0, 1)

    def propose(self, b: AttackState, u: Tensor, side: int) -> Tensor:
        """X +- eps in a square, one sign for each channel; the rest as it is."""
        inside = window(self.attack, b.x, u[:, 0], u[:, 1], side)
        signs = torch.where(u[:, 2:] < 0.5, -1.0, 1.0)[:, :, None, None]
        return torch.where(inside, (b.x + self.attack.ball.eps * signs).clamp(0, 1), b.x_adv)


def window(attack: Square, x: Tensor, down: Tensor, across: Tensor, side: int) -> Tensor:
    """Which pixels are in the square of each image, [B, 1, H, W] bool."""
    rows, columns = (torch.arange(length, device=x.device) for length in x.shape[2:])
    top = attack.offset(down, x.shape[2], side)[:, None]
    left = attack.offset(across, x.shape[3], side)[:, None]
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


class L2Moves:
    """Bumps all over at the start, then mass moved from one window to another."""

    def __init__(self, attack: Square):
        self.attack = attack

    def numbers(self, x: Tensor) -> int:
        """Row and column of two windows, which way the bump lies, a sign for each channel."""
        return 5 + x.shape[1]

    def start(self, b: AttackState) -> Tensor:
        """clamp(x + eps * d / |d|), d tiles of bumps with random signs."""
        x = b.x
        side, tops, lefts = tiles(*x.shape[2:])
        d = torch.zeros_like(x)
        u = b.noise.uniform(x.new_empty(len(x), len(tops) * len(lefts), 1 + x.shape[1]))
        for place, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            piece = _signed(self.bumps(side, u[:, place, 0], x), u[:, place, 1:])
            d[:, :, top : top + side, left : left + side] += piece
        return self.at_eps(x, d)

    def propose(self, b: AttackState, u: Tensor, side: int) -> Tensor:
        """Take the mass of the second window, and what is missing to eps, to the first."""
        side = self.odd(side, b.x)
        here, there = (
            (
                self.attack.offset(u[:, i], b.x.shape[2], side),
                self.attack.offset(u[:, i + 1], b.x.shape[3], side),
            )
            for i in (0, 2)
        )
        delta = b.x_adv - b.x
        either = torch.zeros_like(delta[:, :1])
        put(either, here, torch.ones_like(cut(either, here, side)))
        put(either, there, torch.ones_like(cut(either, there, side)))
        mass = (delta * either).square().flatten(1).sum(1)
        missing = (self.attack.ball.eps**2 - delta.square().flatten(1).sum(1)).clamp_min(0)
        old = cut(delta, here, side)
        shape = _signed(self.bumps(side, u[:, 4], b.x), u[:, 5:]) + old / (1e-12 + length(old))
        each = (missing / b.x.shape[1] + mass).sqrt()[:, None, None, None]
        put(delta, there, torch.zeros_like(old))
        put(delta, here, shape / (1e-12 + length(shape)) * each)
        return self.at_eps(b.x, delta)

    def odd(self, side: int, x: Tensor) -> int:
        """An odd side of at least 3, as far as the image has room for it."""
        most = min(x.shape[2:])
        side = min(max(side + (side % 2 == 0), 3), most)
        return side - (side % 2 == 0)

    def bumps(self, side: int, u: Tensor, x: Tensor) -> Tensor:
        """The bump, lying for u >= 1/2 and standing for less: [B, 1, side, side]."""
        one = bump(side, x.device).to(x.dtype)
        return torch.where((u < 0.5)[:, None, None, None], one, one.T)

    def at_eps(self, x: Tensor, d: Tensor) -> Tensor:
        """clamp(x + eps * d / |d|), within the ball to the last bit."""
        far = d / (1e-12 + length(d, all_channels=True)) * self.attack.ball.eps
        return self.attack.ball.project(x + far, x)


def tiles(height: int, width: int) -> tuple[int, list[int], list[int]]:
    """The side of the start's tiles, and where they begin: five in the middle of the height."""
    side = max(1, min(height // 5, width))
    top = max(0, (height - 5 * side) // 2)
    left = min(top, width - side)
    tops, lefts = range(top, height - side + 1, side), range(left, width - side + 1, side)
    return side, list(tops), list(lefts)


@cache
def bump(side: int, device: torch.device) -> Tensor:
    """Two pyramids, one up and one down, side by side; of length 1, [side, side]."""
    half = side // 2
    whole = torch.cat([pyramid(half, side), -pyramid(side - half, side)])
    return (whole / whole.norm()).float().to(device)


def pyramid(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle: sum of 1 / k^2 from the ring inwards; of length 1."""
    rows, columns = torch.arange(height), torch.arange(width)
    ring = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None, :])
    rings = max(height, width) // 2 + 1
    layers = 1 / torch.arange(1, rings + 1, dtype=torch.float64).square()
    found = layers.flip(0).cumsum(0).flip(0)[ring]
    return found / found.norm() if height else found


def length(d: Tensor, all_channels: bool = False) -> Tensor:
    """L2 length of each channel [B, C, 1, 1], or of each image [B, 1, 1, 1]."""
    return torch.linalg.vector_norm(d, dim=(1, 2, 3) if all_channels else (2, 3), keepdim=True)


def _signed(bumps: Tensor, u: Tensor) -> Tensor:
    return bumps * torch.where(u < 0.5, -1.0, 1.0)[:, :, None, None]


def _places(corner: tuple[Tensor, Tensor], side: int) -> tuple[Any, ...]:
    top, left = corner
    run = torch.arange(side, device=top.device)
    image = torch.arange(len(top), device=top.device)[:, None, None]
    return image, slice(None), (top[:, None] + run)[:, :, None], (left[:, None] + run)[:, None, :]


def cut(x: Tensor, corner: tuple[Tensor, Tensor], side: int) -> Tensor:
    """The window of each image that begins at its corner: [B, C, side, side]."""
    return x[_places(corner, side)].permute(0, 3, 1, 2)


def put(x: Tensor, corner: tuple[Tensor, Tensor], values: Tensor) -> None:
    """Write [B, C, side, side] into the windows, in place."""
    x[_places(corner, values.shape[2])] = values.permute(0, 2, 3, 1)
