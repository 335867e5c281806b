"""The augmentation of training images: random crops and flips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nuat.errors import InputError, unknown_name
from nuat.numbers import plain_fields

PadMode = Literal["constant", "reflect"]


MAX_PAD = 1000
"""Padding of more pixels would need more memory than any network does."""


@dataclass(frozen=True)
class Augment:
    """Random crops and horizontal flips.

    Attributes:
        pad: pixels of padding on each side before a random crop to the original size.
        pad_mode: "constant" pads with zeros, "reflect" with the image's own mirrored border.
        flip: flip each image horizontally with probability 1/2.
        scale: for images read from files: crop a random box whose area is a fraction of the image's
            area in [low, high] ((0.08, 1) in the ImageNet recipes), with an aspect ratio from 3:4
            to 4:3, and resize it. None: resize and center-crop, as in evaluation.
    """

    pad: int = 0
    flip: bool = False
    scale: tuple[float, float] | None = None
    pad_mode: PadMode = "constant"

    def __post_init__(self) -> None:
        plain_fields(self)
        if type(self.pad) is not int or not 0 <= self.pad <= MAX_PAD:
            raise InputError(f"pad is {self.pad!r}, but must be a whole number from 0 to {MAX_PAD}")
        if self.pad_mode not in get_args(PadMode):
            raise unknown_name("pad_mode", self.pad_mode, get_args(PadMode))
        if self.scale is not None and not _is_range(self.scale):
            raise InputError(
                f"scale is {self.scale!r}, but must be (low, high), 0 < low <= high <= 1, or None"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Pad, crop and flip each image of `x` [B, C, H, W] independently.

        `scale` is not applied here but where the files are read.
        """
        return self.apply(x, self.draw(len(x), generator).to(x.device))

    def draw(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw what `apply` needs for a batch: left, top and whether to flip, [3, B], int64."""
        left = top = is_flipped = torch.zeros(batch_size, dtype=torch.int64)
        if self.pad:
            left, top = (
                torch.randint(2 * self.pad + 1, (batch_size,), generator=generator)
                for _ in range(2)
            )
        if self.flip:
            is_flipped = (torch.rand(batch_size, generator=generator) < 0.5).long()
        return torch.stack([left, top, is_flipped])

    def apply(self, x: Tensor, draws: Tensor) -> Tensor:
        """Crop and flip images [B, C, H, W] as `draw` decided, [3, B] on the same device."""
        left, top, is_flipped = draws
        if self.pad:
            x = _crop(self._padded(x), top, left, x.shape[2:])
        if self.flip:
            x = torch.where(is_flipped.bool()[:, None, None, None], x.flip(3), x)
        return x

    def _padded(self, x: Tensor) -> Tensor:
        if self.pad_mode == "constant":
            return torch.nn.functional.pad(x, [self.pad] * 4)
        if self.pad >= min(x.shape[2:]):
            raise InputError(
                f"pad is {self.pad}, but pad_mode 'reflect' needs images of more than {self.pad} "
                f"pixels a side; these have {min(x.shape[2:])}"
            )
        # by indices, because torch's reflection does not take uint8
        rows, columns = (_reflected(size, self.pad, x.device) for size in x.shape[2:])
        return x.index_select(2, rows).index_select(3, columns)


def _reflected(size: int, pad: int, device: torch.device) -> Tensor:
    """The indices that mirror `pad` pixels at both ends: 2 1 0 1 2 3 2 1 for size 4 and pad 2."""
    index = torch.arange(-pad, size + pad, device=device).abs()
    return torch.minimum(index, 2 * (size - 1) - index)


def _is_range(scale: object) -> bool:
    if not isinstance(scale, tuple) or len(scale) != 2:
        return False
    low, high = scale
    return isinstance(low, int | float) and isinstance(high, int | float) and 0 < low <= high <= 1


def _crop(x: Tensor, top: Tensor, left: Tensor, size: torch.Size) -> Tensor:
    """Return x[b, :, top[b] : top[b] + H, left[b] : left[b] + W] for every image b."""
    # A view of all windows, [B, C, rows, columns, H, W]; indexing copies the chosen ones only.
    windows = x.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]
