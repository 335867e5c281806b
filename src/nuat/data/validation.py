"""Checks of images and labels."""

from __future__ import annotations

import torch
from torch import Tensor

from nuat.errors import InputError

NO_IMAGES = "there are no images: the data set, or the selected part of it, is empty"


def check_images(x: Tensor) -> None:
    """Raise InputError unless `x` are images [B, C, H, W], uint8 or floats in [0, 1]."""
    if x.ndim and len(x) == 0:
        raise InputError(NO_IMAGES)
    if x.ndim != 4 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise InputError(f"images are {x.dtype} of shape {list(x.shape)}, not floats [B, C, H, W]")
    if x.dtype == torch.uint8:
        return
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        fix = "divide by 255?" if low >= 0 and 1 < high <= 255 else "are they normalized?"
        raise InputError(f"images must lie in [0, 1], but run from {low:g} to {high:g}; {fix}")


def check_labels(y: Tensor, images: int, classes: int) -> None:
    """Raise InputError unless `y` holds an integer in 0..classes - 1 for each of the images."""
    if y.ndim != 1 or len(y) != images or y.is_floating_point() or y.dtype == torch.bool:
        raise InputError(f"labels are {y.dtype} of shape {list(y.shape)}, not integers [{images}]")
    if not images:
        raise InputError("there are no labels, as there are no images")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        fix = "; do they count from 1?" if low >= 1 and high == classes else ""
        raise InputError(
            f"labels run from {low} to {high}, but with {classes} classes must lie in "
            f"0 to {classes - 1}{fix}"
        )
