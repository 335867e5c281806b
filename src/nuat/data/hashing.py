"""Hashes of images and labels, which tell whether two data sets are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy
from torch import Tensor

LEVELS = 65535


def hash_images(x: Tensor, y: Tensor) -> list[bytes]:
    """Return a hash of each image of x, float in [0, 1], [B, C, H, W], with its label in y [B].

    A pixel counts with 16 bits, so that uint8 images and the floats made of them are equal.
    """
    rounded = (x * LEVELS).round().int().cpu().numpy().astype("<u2")
    return [
        _hash(f"{image.shape} {label} ".encode(), numpy.ascontiguousarray(image).tobytes())
        for image, label in zip(rounded, y.tolist(), strict=True)
    ]


def combine_hashes(hashes: Iterable[bytes]) -> str:
    """Return one hash, 16 hexadecimal digits, of several in this order."""
    return _hash(*hashes).hex()


def _hash(*parts: bytes) -> bytes:
    blake = hashlib.blake2b(digest_size=8)
    for part in parts:
        blake.update(part)
    return blake.digest()
