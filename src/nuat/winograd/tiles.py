"""The tiles of an image, and the linear maps between them and what is multiplied."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

OUT, IN = 4, 6
"""Outputs of a tile along a side, and inputs."""

_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_sides(rows: list[list[int]], divisor: int = 1) -> Tensor:
    one = torch.tensor(rows, dtype=torch.float64) / divisor
    return torch.kron(one, one)


INPUTS, WEIGHTS, OUTPUTS = _both_sides(_B), _both_sides(_G, 24), _both_sides(_A)
"""B^T d B, G g G^T and A^T m A of flattened tiles: [36, 36], [36, 9], [16, 36]."""

WORKING = 1 << 20
"""Numbers in an array of tiles that is worked on at once: as many as stay in a core's cache."""


class Scratch(threading.local):
    """Arrays that are written anew at each use: to get fresh memory costs more than to fill it."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """An array of this shape and the type of `like`; what it holds is left over."""
        size, key = math.prod(shape), (name, like.dtype)
        if key not in self.kept or self.kept[key].numel() < size:
            with torch.inference_mode(False):
                self.kept[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return self.kept[key][:size].view(shape)


scratch = Scratch()


def mapped(name: str, matrix: Tensor, tiles: Tensor) -> Tensor:
    """The product of a matrix [M, N] and tiles [N, ...]: [M, ...], in scratch of this name."""
    flat = tiles.view(len(tiles), -1)
    there = scratch(name, tiles, len(matrix), flat.shape[1])
    torch.mm(matrix.to(tiles.dtype), flat, out=there)
    return there.view(len(matrix), *tiles.shape[1:])


class Grid:
    """The tiles of images [B, H, W, C]: 6x6 inputs that overlap, 4x4 outputs that do not.

    What the methods return lies in scratch, to be used before the next call.
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.rows, self.columns = -(-height // OUT), -(-width // OUT)
        self.shape = self.rows, self.columns
        self.covers = (OUT * self.rows, OUT * self.columns) == (height, width)

    def inputs(self, x: Tensor) -> Tensor:
        """B^T d B of the tiles of x, which is padded by 1: [36, tiles, C]."""
        padded = self._padded(x, len(x), x.shape[3])
        self._inside(padded).copy_(x)
        windows = self._windows(padded)
        tiles = scratch("tiles", x, *windows.shape).copy_(windows)
        return mapped("inputs", INPUTS, tiles.view(IN**2, -1, x.shape[3]))

    def inputs_back(self, v: Tensor) -> Tensor:
        """The transpose of `inputs`: what tiles share is added up."""
        tiles = mapped("tiles", INPUTS.T, v).view(IN, IN, -1, *self.shape, v.shape[2])
        padded = self._padded(v, tiles.shape[2], v.shape[2])
        windows = self._windows(padded)
        for row in (0, 1):
            for column in (0, 1):  # every other tile: these do not overlap
                windows[:, :, :, row::2, column::2] += tiles[:, :, :, row::2, column::2]
        return self._inside(padded)

    def outputs(self, m: Tensor, y: Tensor) -> None:
        """Write A^T m A of the tiles in m [36, tiles, K] to their places in y."""
        tiles = mapped("outputs", OUTPUTS, m).view(OUT, OUT, len(y), *self.shape, y.shape[3])
        whole = y if self.covers else self._whole(y)
        self._squares(whole).copy_(tiles)
        if not self.covers:
            y.copy_(whole[:, : self.height, : self.width])

    def outputs_back(self, y: Tensor) -> Tensor:
        """The transpose of `outputs`: [36, tiles, K]."""
        whole = y
        if not self.covers:
            whole = self._whole(y).zero_()
            whole[:, : self.height, : self.width] = y
        squares = self._squares(whole)
        tiles = scratch("outputs", y, *squares.shape).copy_(squares)
        return mapped("products", OUTPUTS.T, tiles.view(OUT**2, -1, y.shape[3]))

    def parts(self, *images: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """So many of the images [B, H, W, C] at a time as stay in the cache."""
        size = len(images[0]) * self.rows * self.columns * IN**2 * images[0].shape[3]
        count = max(1, round(size / WORKING))
        return zip(*(each.chunk(count) for each in images), strict=True)

    def _padded(self, like: Tensor, count: int, channels: int) -> Tensor:
        high, wide = OUT * self.rows + 2, OUT * self.columns + 2
        return scratch("padded", like, count, high, wide, channels).zero_()

    def _inside(self, padded: Tensor) -> Tensor:
        return padded[:, 1 : self.height + 1, 1 : self.width + 1]

    def _windows(self, padded: Tensor) -> Tensor:
        """[6, 6, B, rows, columns, C]: a view, in which tiles overlap."""
        image, high, wide, channel = padded.stride()
        steps = high, wide, image, OUT * high, OUT * wide, channel
        return padded.as_strided((IN, IN, len(padded), *self.shape, padded.shape[3]), steps)

    def _whole(self, y: Tensor) -> Tensor:
        return scratch("whole", y, len(y), OUT * self.rows, OUT * self.columns, y.shape[3])

    def _squares(self, whole: Tensor) -> Tensor:
        """[4, 4, B, rows, columns, K]: a view."""
        squares = whole.unflatten(2, (self.columns, OUT)).unflatten(1, (self.rows, OUT))
        return squares.permute(2, 4, 0, 1, 3, 5)
