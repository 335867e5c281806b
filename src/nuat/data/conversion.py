"""Tensors from the images and labels that people have: arrays, PIL images, lists, numbers."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from nuat.data.image_io import to_gray_or_rgb
from nuat.errors import InputError

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""Data types that torch stores but does not compute with."""


def is_array(value: Any) -> bool:
    """Return whether the value is a tensor or a numpy array."""
    return isinstance(value, Tensor | numpy.ndarray)


def to_tensor(values: Any) -> Tensor:
    """Convert an array, of any byte order and strides, to a tensor. Raises InputError."""
    if isinstance(values, Tensor):
        return values.detach()
    array = numpy.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array of {array.dtype} holds no numbers that torch can use")
    array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def image_to_tensor(image: Any) -> Tensor:
    """Convert a tensor, an array or a PIL image to a tensor; PIL images to gray or RGB, [C, H, W].

    Raises:
        InputError: it is none of these, or a PIL image of more than 8 bits.
    """
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(numpy.array(to_gray_or_rgb(image)))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if not is_array(image):
        raise InputError(f"an image is a {type(image).__name__}, not a tensor [C, H, W] in [0, 1]")
    return to_tensor(image)


def to_labels(y: Any) -> Tensor:
    """Convert labels [N] or [N, 1] to int64 [N], if their numbers are whole and of any type.

    Other labels, such as one-hot vectors, become a tensor as they are: `check_labels` reports them.
    """
    labels = to_tensor(y)
    if labels.dtype in UNSIGNED:
        labels = labels.to(torch.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.is_floating_point() and labels.ndim == 1:
        is_whole = labels.isfinite() & (labels == labels.round())
        return labels.long() if bool(is_whole.all()) else labels
    is_integer = not (labels.is_floating_point() or labels.is_complex())
    return labels.long() if is_integer and labels.dtype != torch.bool else labels


def to_label(y: Any) -> int:
    """Convert the label of one image, such as 3, numpy's [3] or a tensor of 3.0, to an integer.

    Raises:
        InputError: it is no whole number.
    """
    try:
        label = to_labels(numpy.asarray(y).reshape(1, -1) if not is_array(y) else y.reshape(1, -1))
    except (InputError, TypeError, ValueError):
        raise InputError(f"a label is the {type(y).__name__} {y!r}, not a whole number") from None
    if label.shape != (1,) or label.dtype != torch.int64:
        fix = "; of a one-hot label, take argmax()" if label.numel() > 1 else ""
        raise InputError(f"a label is {y!r}, not a whole number{fix}")
    return int(label)
