"""Square (arXiv:1912.00049, Algorithms 1 to 3) for one image, query by query.

Written from the description of the published algorithms and of what their program does, ours; no
code copied. It knows torch alone. All that is random comes from `draws`, an object that is asked in
this order, and for nothing else (k counts the queries from 0; the start is not one of them):

linf    start       stripes()                      [C, 1, W] of +-1
        query k     position(k, (h - s, w - s))    (row, column) of the square
                    colours(k)                     [C, 1, 1] of +-1
l2      start       for each tile, row by row, tile (i, j) being the j-th of the i-th row:
                    tile_flip(i, j)                bool: is this bump transposed?
                    tile_signs(i, j)               [C, 1, 1] of +-1
        query k     position(k, (h - s, w - s))    (row, column) of the window which gets the mass
                    second_position(k, (h - s, w - s))   of the window which loses it
                    flip(k)                        bool: is the bump transposed?
                    colours(k)                     [C, 1, 1] of +-1

A position is floor(U (h - s)), floor(U (w - s)) with U uniform in [0, 1), the row first: the last
place, h - s, is never drawn, unless it is 0. `Draws` below is such an object.

Our own decisions, where the program stops or does not say:

* rectangles: the square stays a square; its side is cut to the shorter side of the image, for l2 to
  the largest odd number within it (1 below 3 pixels).
* the tiles of the l2 start have side s = max(1, min(h // 5, w)); the program divides by 0 if h < 5.
  They begin max(0, (h - 5 s) // 2) from the top and as much from the left, or w - s from the left
  if that is less, and only whole tiles are laid. Where the program runs this is what it does.
"""

import math
from functools import cache

import torch

TINY = 1e-12
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Draws:
    """Draws from a generator, each in the order in which it is asked for."""

    def __init__(self, shape, generator):
        self.c, self.h, self.w = shape
        self.generator = generator

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def signs(self, *shape):
        return torch.where(self.uniform(*shape) < 0.5, -1.0, 1.0)

    def stripes(self):
        return self.signs(self.c, 1, self.w)

    def position(self, k, high):
        row = math.floor(self.uniform().item() * high[0])
        column = math.floor(self.uniform().item() * high[1])
        return row, column

    def second_position(self, k, high):
        return self.position(k, high)

    def colours(self, k):
        return self.signs(self.c, 1, 1)

    def flip(self, k):
        return self.uniform().item() > 0.5

    def tile_signs(self, i, j):
        return self.signs(self.c, 1, 1)

    def tile_flip(self, i, j):
        return self.uniform().item() > 0.5


def fraction(k, p_init):
    """The part of the image that the square of query k covers."""
    return p_init / 2 ** sum(k > bound for bound in HALVED_AFTER)


def side(k, p_init, shape, norm):
    """The side of the square of query k, in pixels."""
    c, h, w = shape
    s = round(math.sqrt(fraction(k, p_init) * (c * h * w) / c))
    if norm == "linf":
        return min(max(s, 1), h, w)
    s = max(s, 3)
    s = s if s % 2 == 1 else s + 1
    while s > min(h, w) and s > 1:
        s = s - 2
    return s


def margin(f, x, y):
    """z_y - max of the others."""
    with torch.no_grad():
        z = f(x[None])[0].clone()
    own = z[y].item()
    z[y] = -math.inf
    return own - z.max().item()


def length(v):
    return (v**2).sum().sqrt()


def per_channel(v):
    return (v**2).sum(dim=(1, 2), keepdim=True).sqrt()


def hill(rows, columns):
    """Nested rectangles about the middle: the k-th adds 1 / (k + 1)^2. Of length 1."""
    centre = rows // 2, columns // 2
    rings = max(centre) + 1
    height = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            ring = max(abs(i - centre[0]), abs(j - centre[1]))
            height[i, j] = sum(1 / (k + 1) ** 2 for k in range(ring, rings))
    return height / length(height)


@cache
def bump(s, transposed):
    """A hill in the upper half, a pit in the lower one (which has the middle row). Of length 1."""
    shape = torch.cat([hill(s // 2, s), -hill(s - s // 2, s)])
    shape = shape / length(shape)
    return shape.T if transposed else shape


def tile_grid(h, w):
    """The side of the tiles, and their rows and columns in pixels."""
    s = max(1, min(h // 5, w))
    top = max(0, (h - 5 * s) // 2)
    left = min(top, w - s)
    return s, list(range(top, h - s + 1, s)), list(range(left, w - s + 1, s))


def start_linf(x, eps, draws):
    return (x + eps * draws.stripes()).clamp(0, 1)


def start_l2(x, eps, draws):
    s, rows, columns = tile_grid(*x.shape[1:])
    delta = torch.zeros_like(x)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            tile = bump(s, draws.tile_flip(i, j)).to(x.dtype) * draws.tile_signs(i, j)
            delta[:, row : row + s, column : column + s] = tile
    return (x + eps * delta / (length(delta) + TINY)).clamp(0, 1)


def propose_linf(best, x, eps, s, k, draws):
    """A square of one colour: 2 eps up or down in each channel, cut off at the ball and the box."""
    high = x.shape[1] - s, x.shape[2] - s
    row, column = draws.position(k, high)
    new = best.clone()
    new[:, row : row + s, column : column + s] += 2 * eps * draws.colours(k)
    return torch.min(torch.max(new, x - eps), x + eps).clamp(0, 1)


def propose_l2(best, x, eps, s, k, draws):
    """What the second window has moves to the first one, which gets a bump on top of its own.

    Each channel by itself: it keeps the length of its own two windows, and what is missing to eps
    is shared equally among the channels.
    """
    high = x.shape[1] - s, x.shape[2] - s
    row, column = draws.position(k, high)
    row2, column2 = draws.second_position(k, high)
    first = slice(None), slice(row, row + s), slice(column, column + s)
    second = slice(None), slice(row2, row2 + s), slice(column2, column2 + s)

    delta = best - x
    mask = torch.zeros_like(x)
    mask[first] = 1
    mask[second] = 1
    held = per_channel(delta * mask)
    unused = (eps**2 - length(delta) ** 2).clamp(min=0)
    available = (held**2 + unused / len(x)).sqrt()

    old = delta[first] / (per_channel(delta[first]) + TINY)
    new = bump(s, draws.flip(k)).to(x.dtype) * draws.colours(k) + old
    new = available * new / (per_channel(new) + TINY)
    delta[second] = 0
    delta[first] = new
    return (x + eps * delta / (length(delta) + TINY)).clamp(0, 1)


def square(f, x, y, eps, norm, draws, queries=5000, p_init=0.8):
    """The best point and its margin after each query; entry 0 is the start, which is not counted.

    `x` is one image [C, H, W] in [0, 1]. The lists end with the first point of margin <= 0, or have
    1 + `queries` entries.
    """
    best = start_linf(x, eps, draws) if norm == "linf" else start_l2(x, eps, draws)
    lowest = margin(f, best, y)
    points, margins = [best], [lowest]
    for k in range(queries):
        if lowest <= 0:
            break
        s = side(k, p_init, x.shape, norm)
        if norm == "linf":
            new = propose_linf(best, x, eps, s, k, draws)
        else:
            new = propose_l2(best, x, eps, s, k, draws)
        value = margin(f, new, y)
        if value < lowest or value <= 0:
            best, lowest = new, value
        points.append(best)
        margins.append(lowest)
    return points, margins
