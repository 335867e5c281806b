"""Checks of images and labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nuat.errors import InputError

NO_IMAGES = "there are no images: the data set, or the selected part of it, is empty"
MAX_CLASSES = 1_000_000
"""Where classes have no names, labels are below this: a larger one would take up the memory."""
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_images(x: Tensor) -> None:
    """Raise InputError unless `x` are images [B, C, H, W], uint8 or floats in [0, 1]."""
    if x.ndim and len(x) == 0:
        raise InputError(NO_IMAGES)
    if x.ndim != 4 or not (x.is_floating_point() or x.dtype == torch.uint8):
        fix = "; convert them with .float()" if x.dtype == torch.bool else ""
        raise InputError(
            f"images are {x.dtype} of shape {list(x.shape)}, not floats [B, C, H, W] or uint8{fix}"
        )
    if x.dtype == torch.uint8:
        return
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        fix = "divide by 255?" if low >= 0 and 1 < high <= 255 else "are they normalized?"
        raise InputError(f"images must lie in [0, 1], but run from {low:g} to {high:g}; {fix}")


def check_byte_range(x: Tensor) -> None:
    """Raise InputError if many images `x` are uint8 of 0 and 1, where 255 would be white."""
    if x.dtype == torch.uint8 and int(x.max()) == 1:
        raise InputError(
            "images are uint8 and no pixel is above 1, but uint8 runs from 0 (black) to 255 "
            "(white): convert images of 0 and 1 to floats, or multiply them by 255"
        )


def check_labels(y: Tensor, images: int, classes: int | None = None) -> None:
    """Raise InputError unless `y` holds an integer for each of the images.

    If `classes` is given, the labels must lie in 0..classes - 1.
    """
    if y.is_floating_point() and y.shape == (images,):
        raise InputError(
            f"labels are {y.dtype} and not all of them are whole numbers: "
            "a label is the number of a class, from 0"
        )
    if y.ndim != 1 or len(y) != images or y.dtype not in INTEGERS:
        fix = ""
        if y.ndim == 2 and len(y) == images and y.shape[1] > 1:
            fix = "; of one-hot labels, take y.argmax(1)"
        elif y.dtype == torch.bool:
            fix = "; convert them with .long()"
        raise InputError(
            f"labels are {y.dtype} of shape {list(y.shape)}, not integers [{images}]{fix}"
        )
    if not images:
        raise InputError("there are no labels, as there are no images")
    low, high = int(y.min()), int(y.max())
    if classes is None:
        classes = high + 1
    if low < 0 or high >= classes:
        fix = "; do they count from 1?" if low >= 1 and high == classes else ""
        raise InputError(
            f"labels run from {low} to {high}, but with {classes} classes must lie in "
            f"0 to {classes - 1}{fix}"
        )


def number_classes(train: Tensor, labels: Iterable[Tensor], name: str) -> tuple[str, ...]:
    """Return "0", "1", ... as the names of the classes of the labels `train`.

    `labels` are those of all splits.

    Raises:
        InputError: the labels of the data set `name` are 1, ..., K without a 0, or too large.
    """
    present = torch.cat([y.flatten().cpu().long() for y in labels]).unique().tolist()
    last = present[-1]
    if last >= MAX_CLASSES:
        raise InputError(f"{name} has a label {last}, but labels are below {MAX_CLASSES:,}")
    if last > 1 and present == list(range(1, last + 1)):
        raise InputError(
            f"the labels of {name} run from 1 to {last} and none is 0, but labels count from 0: "
            f"subtract 1. If there is a class 0 without images, give the names of all {last + 1} "
            "classes as `classes`"
        )
    return tuple(map(str, range(int(train.max()) + 1)))
