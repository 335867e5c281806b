"""What is done to training images: crops and flips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nuat.errors import InputError


@dataclass(frozen=True)
class Augment:
    """Crop at random, and flip left and right by the toss of a coin.

    Attributes:
        pad: pad by so many zeros on each side and crop to the size before.
        flip: flip half of the images.
        scale: for images that are read from files: crop a window of such a share of the picture's
            area, (0.08, 1) in the ImageNet recipes, its sides 3:4 to 4:3, and resize it. None: the
            whole picture, resized and cropped in the middle as in evaluation.
    """

    pad: int = 0
    flip: bool = False
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise InputError(f"pad is {self.pad!r}, but must be a whole number from 0 up")
        if self.scale is not None and not _is_range(self.scale):
            raise InputError(
                f"scale is {self.scale!r}, but must be (low, high), 0 < low <= high <= 1, or None"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Pad, crop and flip images [B, C, H, W], each on its own."""
        size = len(x)
        if self.pad:
            across, down = (
                _sent(torch.randint(2 * self.pad + 1, (size,), generator=generator), x)
                for _ in range(2)
            )
            x = _crop(torch.nn.functional.pad(x, [self.pad] * 4), down, across, x.shape[2:])
        if self.flip:
            flipped = _sent((torch.rand(size, generator=generator) < 0.5).nonzero()[:, 0], x)
            x = x.index_copy(0, flipped, x.index_select(0, flipped).flip(3))
        return x


def _sent(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers from a CPU to where `x` is; a GPU's queue is not waited for."""
    return numbers.pin_memory().to(x.device, non_blocking=True) if x.is_cuda else numbers


def _is_range(scale: object) -> bool:
    if not isinstance(scale, tuple) or len(scale) != 2:
        return False
    low, high = scale
    return isinstance(low, int | float) and isinstance(high, int | float) and 0 < low <= high <= 1


def _crop(x: Tensor, down: Tensor, across: Tensor, size: torch.Size) -> Tensor:
    """x[b, :, down[b] : down[b] + h, across[b] : across[b] + w] for every b."""
    windows = x.unfold(2, size[0], 1).unfold(3, size[1], 1)  # a view: [B, C, places, places, h, w]
    return windows[torch.arange(len(x), device=x.device), :, down, across]
